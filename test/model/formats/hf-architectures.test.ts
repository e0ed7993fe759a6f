import { describe, expect, it } from "vitest";
import { configFromGguf } from "../../../src/model/architectures.ts";
import { convertFolder } from "../../../src/model/convert.ts";
import { createModel } from "../../../src/model/decoder.ts";
import { memoryFolder } from "../../../src/model/formats/folder.ts";
import { readGguf } from "../../../src/model/formats/gguf.ts";
import { ggufBytes } from "../../../src/model/formats/gguf-write.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { loadWeights, rowReader, type WeightFile } from "../../../src/model/load.ts";
import { openModel } from "../../../src/model/open.ts";
import type { ModelConfig } from "../../../src/model/config.ts";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import { zeros } from "../../../src/tensor/tensor.ts";
import { type ArchitectureModel, architectureModel, f32, u32 } from "../../support/architecture-model.ts";
import { folderFiles, type SafeTensorOut, VOCAB } from "../../support/hf-folder.ts";
import { allLogits, bench, relativeError } from "../../support/run.ts";

type Names = Readonly<Record<string, string>>;

const NAMES: Names = {
  ...{ token_embd: "model.embed_tokens", output_norm: "model.norm", output: "lm_head", attn_norm: "input_layernorm", ffn_norm: "post_attention_layernorm" },
  ...{ attn_q: "self_attn.q_proj", attn_k: "self_attn.k_proj", attn_v: "self_attn.v_proj", attn_output: "self_attn.o_proj" },
  ...{ attn_q_norm: "self_attn.q_norm", attn_k_norm: "self_attn.k_norm", ffn_gate: "mlp.gate_proj", ffn_up: "mlp.up_proj", ffn_down: "mlp.down_proj" },
};
const POST: Names = { ...NAMES, post_attention_norm: "post_attention_layernorm", post_ffw_norm: "post_feedforward_layernorm" };
const SANDWICH: Names = { ...POST, ffn_norm: "pre_feedforward_layernorm" };
const GPT2: Names = {
  ...{ token_embd: "transformer.wte", position_embd: "transformer.wpe", output_norm: "transformer.ln_f", attn_norm: "ln_1", ffn_norm: "ln_2" },
  ...{ attn_qkv: "attn.c_attn", attn_output: "attn.c_proj", ffn_up: "mlp.c_fc", ffn_down: "mlp.c_proj" },
};

interface Case {
  readonly model: Omit<ArchitectureModel, "seed" | "vocabSize">;
  readonly config: Readonly<Record<string, unknown>>;
  readonly names?: Names;
  /** Prefix of a layer's tensors. */
  readonly layers?: string;
  /** How the checkpoint keeps them. */
  readonly kept?: "halves" | "norms less one" | "transposed";
}

const GEMMA3 = { ...{ architecture: "gemma3", nLayers: 7, dim: 32, nHeads: 2, nKvHeads: 1, headDim: 20, ffnDim: 40 }, keys: { "attention.sliding_window": u32(5), "rope.freq_base": f32(1e6), "rope.scaling.factor": f32(8) } };
const LAYER_NORM = { norm_epsilon: 1e-5, layer_norm_eps: 1e-5, layer_norm_epsilon: 1e-5, norm_eps: 1e-5 };
const LONG = Math.sqrt(1 + Math.log(4) / Math.log(128));

/** By model_type: a model that llama.cpp's answers are known of, and the config.json that says the same. */
const CASES: Readonly<Record<string, Case>> = {
  gemma: { model: { architecture: "gemma", headDim: 20 }, config: { hidden_act: "gelu" }, kept: "norms less one" },
  gemma2: {
    model: { architecture: "gemma2", nLayers: 3, keys: { "attention.sliding_window": u32(4), attn_logit_softcapping: f32(3), final_logit_softcapping: f32(8) } },
    config: { sliding_window: 4, attn_logit_softcapping: 3, final_logit_softcapping: 8, query_pre_attn_scalar: 12, hidden_activation: "gelu_pytorch_tanh" },
    ...{ names: SANDWICH, kept: "norms less one" },
  },
  gemma3_text: {
    model: GEMMA3,
    config: { sliding_window: 5, query_pre_attn_scalar: 20, rope_scaling: { rope_type: "linear", factor: 8 }, rope_theta: undefined },
    ...{ names: SANDWICH, kept: "norms less one" },
  },
  gemma3: {
    model: GEMMA3,
    config: { sliding_window: 5, query_pre_attn_scalar: 20, rope_parameters: { full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 }, sliding_attention: { rope_type: "default", rope_theta: 10000 } } },
    names: { ...SANDWICH, token_embd: "model.language_model.embed_tokens", output_norm: "model.language_model.norm" },
    ...{ layers: "model.language_model.layers", kept: "norms less one" },
  },
  phi3: {
    model: { architecture: "phi3", ropeFactors: "long and short", keys: { "rope.scaling.original_context_length": u32(128), "rope.scaling.attn_factor": f32(LONG) } },
    config: { original_max_position_embeddings: 128 },
    names: { ...NAMES, attn_qkv: "self_attn.qkv_proj", ffn_up: "mlp.gate_up_proj" },
  },
  gpt2: {
    model: { architecture: "gpt2", nKvHeads: 4, layout: { tied: true } },
    config: { n_embd: 48, n_layer: 2, n_head: 4, n_inner: 72, n_positions: 512, activation_function: "gelu_new" },
    ...{ names: GPT2, layers: "transformer.h", kept: "transposed" },
  },
  granite: {
    model: { architecture: "granite", keys: { embedding_scale: f32(3), residual_scale: f32(0.5), "attention.scale": f32(0.25), logit_scale: f32(2) } },
    config: { embedding_multiplier: 3, residual_multiplier: 0.5, attention_multiplier: 0.25, logits_scaling: 2 },
    kept: "halves",
  },
  smollm3: { model: { architecture: "smollm3", nLayers: 4, layout: { tied: true } }, config: { no_rope_layers: [1, 1, 1, 0] }, kept: "halves" },
  olmo: { model: { architecture: "olmo", nKvHeads: 4, keys: { "attention.clamp_kqv": f32(1.25) } }, config: { clip_qkv: 1.25 }, kept: "halves" },
  olmo2: { model: { architecture: "olmo2" }, config: {}, names: POST },
  starcoder2: { model: { architecture: "starcoder2", layout: { tied: true } }, config: { hidden_act: "gelu_pytorch_tanh" }, names: { ...NAMES, ffn_up: "mlp.c_fc", ffn_down: "mlp.c_proj" } },
  stablelm: { model: { architecture: "stablelm", ropeDims: 6 }, config: { partial_rotary_factor: 0.5 } },
  phi: {
    model: { architecture: "phi2", nKvHeads: 4, ropeDims: 6 },
    config: { partial_rotary_factor: 0.5, hidden_act: "gelu_new" },
    names: { ...NAMES, attn_output: "self_attn.dense", ffn_up: "mlp.fc1", ffn_down: "mlp.fc2", output_norm: "model.final_layernorm" },
  },
  nemotron: { model: { architecture: "nemotron", ropeDims: 6 }, config: { hidden_act: "relu2" }, kept: "norms less one" },
  cohere: { model: { architecture: "command-r", layout: { qkNorm: "by head" }, keys: { logit_scale: f32(0.5) } }, config: { logit_scale: 0.5 } },
  cohere2: { model: { architecture: "cohere2", nLayers: 5, dim: 32, ffnDim: 40 }, config: { logit_scale: 1.5, sliding_window: 7 } },
  mistral3: {
    model: { architecture: "llama", headDim: 20, nKvHeads: 1 },
    config: { model_type: "mistral" },
    names: { ...NAMES, token_embd: "language_model.model.embed_tokens", output_norm: "language_model.model.norm", output: "language_model.lm_head" },
    ...{ layers: "language_model.model.layers", kept: "halves" },
  },
  arcee: { model: { architecture: "arcee", nKvHeads: 1 }, config: { hidden_act: "relu2" }, kept: "halves" },
  ernie4_5: { model: { architecture: "ernie4_5", headDim: 20, layout: { tied: true } }, config: {} },
  seed_oss: { model: { architecture: "seed_oss", headDim: 20, nKvHeads: 1 }, config: {}, names: POST },
  exaone: {
    model: { architecture: "exaone", nKvHeads: 1 },
    config: { num_layers: 2, activation_function: "silu" },
    names: {
      ...{ token_embd: "transformer.wte", output_norm: "transformer.ln_f", output: "lm_head", attn_norm: "ln_1", ffn_norm: "ln_2" },
      ...{ attn_q: "attn.attention.q_proj", attn_k: "attn.attention.k_proj", attn_v: "attn.attention.v_proj", attn_output: "attn.attention.out_proj" },
      ...{ ffn_gate: "mlp.c_fc_0", ffn_up: "mlp.c_fc_1", ffn_down: "mlp.c_proj" },
    },
    layers: "transformer.h",
  },
  exaone4: { model: { architecture: "exaone4" }, config: { sliding_window: null }, names: POST },
  glm4: {
    model: { architecture: "glm4", ropeDims: 6 },
    config: { partial_rotary_factor: 0.5 },
    names: { ...NAMES, post_attention_norm: "post_self_attn_layernorm", post_ffw_norm: "post_mlp_layernorm", ffn_up: "mlp.gate_up_proj" },
  },
};

const PROMPT = [1, 50, 99, 120, 7, 201, 33, 64, 180, 5, 90, 17];

function logitsOf(file: WeightFile, config: ModelConfig): Float32Array[] {
  return allLogits(bench(createModel(config, loadWeights(file, config, scalarKernels()))), PROMPT);
}

/** The model as a GGUF file, and as a checkpoint: its tensors under other names, and as the checkpoint keeps them. */
function both(type: string) {
  const { model, config: said, names = NAMES, layers = "model.layers", kept } = CASES[type];
  const source = memorySource("gguf", architectureModel({ ...model, seed: 11, vocabSize: VOCAB }));
  const file = { source, ...readGguf(source) };
  const config = configFromGguf(file);
  const tensors: Record<string, SafeTensorOut> = {};
  for (const info of file.tensors.values()) {
    const [, layer, part, kind] = /^(?:blk\.(\d+)\.)?(.*)\.(weight|bias)$/.exec(info.name)!;
    if (part.startsWith("rope_")) continue;
    const values = zeros("f32", info.shape);
    rowReader(file, info).read(0, values);
    const { data, shape } = keep(kept, part, kind, info.shape, values.f32, config.headDim);
    tensors[`${layer === undefined ? "" : `${layers}.${layer}.`}${names[part]}.${kind}`] = { dtype: "F32", shape, data: new Uint8Array(data.slice().buffer) };
  }
  const factors = (name: string): number[] | undefined => {
    const info = file.tensors.get(`${name}.weight`);
    if (!info) return undefined;
    const values = zeros("f32", info.shape);
    rowReader(file, info).read(0, values);
    return [...values.f32];
  };
  const long = factors("rope_factors_long");
  const text = {
    ...{ vocab_size: VOCAB, hidden_size: config.dim, num_hidden_layers: config.nLayers, num_attention_heads: config.nHeads, num_key_value_heads: config.nKvHeads },
    ...{ head_dim: config.headDim, intermediate_size: config.ffnDim, max_position_embeddings: 512, rms_norm_eps: 1e-5, ...LAYER_NORM, rope_theta: 10000 },
    ...{ tie_word_embeddings: !file.tensors.has("output.weight") },
    ...(long && { rope_scaling: { type: "longrope", long_factor: long, short_factor: factors("rope_factors_short") } }),
    ...said,
  };
  const folder = { config: type === "gemma3" || type === "mistral3" ? { model_type: type, text_config: text } : { model_type: type, ...text }, tensors };
  return { file, config, folder };
}

function keep(how: Case["kept"], part: string, kind: string, shape: readonly number[], values: Float32Array, headDim: number): { data: Float32Array; shape: readonly number[] } {
  if (how === "norms less one" && part.endsWith("norm") && kind === "weight") return { data: values.map((value) => value - 1), shape };
  if (how === "transposed" && shape.length === 2 && /^(attn|ffn)_/.test(part)) {
    const [rows, cols] = shape;
    return { shape: [cols, rows], data: Float32Array.from(values, (_, i) => values[(i % rows) * cols + Math.floor(i / rows)]) };
  }
  if (how === "halves" && /^attn_[qk]$/.test(part)) {
    // Neighbouring rows 2i and 2i + 1 of a head become its rows i and i + headDim / 2.
    const width = shape[1] ?? 1;
    const data = new Float32Array(values.length);
    values.forEach((value, i) => {
      const [head, row] = [Math.floor(i / (headDim * width)), Math.floor(i / width) % headDim];
      data[(head * headDim + Math.floor(row / 2) + (row % 2) * (headDim / 2)) * width + (i % width)] = value;
    });
    return { data, shape };
  }
  return { data: values, shape };
}

describe.each(Object.keys(CASES))("a folder of %s", (type) => {
  it("computes what the model's GGUF file computes, and so does its conversion", () => {
    const { file, config, folder } = both(type);
    const opened = memoryFolder("model", folderFiles(folder));
    const direct = openModel(opened);
    const found = logitsOf(direct, direct.config);
    logitsOf(file, config).forEach((row, i) => expect(relativeError(found[i], row)).toBeLessThan(1e-5));
    const converted = openModel(memorySource("model.gguf", ggufBytes(convertFolder(opened).plan)));
    expect(converted.config).toEqual(direct.config);
    expect(logitsOf(converted, converted.config)).toEqual(found);
  });
});

describe("what GGUF has no key for is refused", () => {
  const refused = (type: string, change: object) => () => {
    const { folder } = both(type);
    return openModel(memoryFolder("model", folderFiles({ ...folder, config: { ...folder.config, ...change } })));
  };

  it.each<[string, object, string]>([
    ["gemma2", { query_pre_attn_scalar: 100 }, 'key "query_pre_attn_scalar": expected 12, which is what GGUF\'s readers take, found 100'],
    ["smollm3", { no_rope_layers: [1, 0, 1, 0] }, 'key "no_rope_layers": expected every fourth of 4 layers without, found another value for layer 1'],
    ["phi3", { rope_scaling: { type: "longrope", long_factor: [1], short_factor: [1] } }, 'key "rope_scaling": expected 6 positive numbers under long_factor, found 1'],
    ["mistral3", { text_config: { model_type: "ministral3" } }, 'key "model_type": expected mistral, found "ministral3"'],
    ["starcoder2", { hidden_act: "silu" }, 'key "hidden_act": expected gelu_pytorch_tanh, found "silu"'],
  ])("%s: %s", (type, change, message) => {
    expect(refused(type, change)).toThrow(message);
  });

  it("a list of layers that slide, other than usual, becomes one in the metadata", () => {
    const { folder } = both("gemma3_text");
    const layers = ["full_attention", "sliding_attention", "full_attention", "full_attention", "full_attention", "full_attention", "full_attention"];
    const { config } = openModel(memoryFolder("model", folderFiles({ ...folder, config: { ...folder.config, layer_types: layers } })));
    expect(config.alternate!.layers).toEqual(layers.map((type) => type === "sliding_attention"));
  });
});
