import { describe, expect, it } from "vitest";
import { convertFolder } from "../../../src/model/convert.ts";
import { createModel } from "../../../src/model/decoder.ts";
import { memoryFolder } from "../../../src/model/formats/folder.ts";
import { ggufBytes } from "../../../src/model/formats/gguf-write.ts";
import { readGguf } from "../../../src/model/formats/gguf.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { loadWeights } from "../../../src/model/load.ts";
import { type ModelFile, openModel } from "../../../src/model/open.ts";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import { CASES } from "../../support/expert-cases.ts";
import { type ExpertModel, expertModel, expertTokens } from "../../support/expert-model.ts";
import { type FolderModel, folderFiles, type SafeTensorOut, sharded } from "../../support/hf-folder.ts";
import { allLogits, bench } from "../../support/run.ts";

const VOCAB = 270;

/** GGUF's names of a layer's parts and the checkpoints'. */
const PARTS: Readonly<Record<string, string>> = {
  ...{ attn_norm: "input_layernorm", ffn_norm: "post_attention_layernorm", attn_output: "self_attn.o_proj" },
  ...{ attn_q: "self_attn.q_proj", attn_k: "self_attn.k_proj", attn_v: "self_attn.v_proj", attn_q_norm: "self_attn.q_norm", attn_k_norm: "self_attn.k_norm" },
  ...{ ffn_gate_inp: "mlp.gate", ffn_gate_inp_shexp: "mlp.shared_expert_gate" },
  ...{ ffn_gate_shexp: "mlp.shared_expert.gate_proj", ffn_up_shexp: "mlp.shared_expert.up_proj", ffn_down_shexp: "mlp.shared_expert.down_proj" },
};
const OTHERS: Readonly<Record<string, string>> = { token_embd: "model.embed_tokens", output_norm: "model.norm", output: "lm_head" };
const MIXTRAL: Readonly<Record<string, string>> = { gate: "w1", down: "w2", up: "w3" };

/** Rows of each head from neighbours that turn together, as GGUF's llama has them, back to halves. */
function halves(data: Uint8Array, rows: number, headDim: number): Uint8Array {
  const size = data.length / rows;
  const out = new Uint8Array(data.length);
  for (let row = 0; row < rows; row++) {
    const [head, within] = [Math.floor(row / headDim), row % headDim];
    out.set(data.subarray(row * size, (row + 1) * size), (head * headDim + (within >> 1) + (within & 1) * (headDim / 2)) * size);
  }
  return out;
}

/** The checkpoint from which a drawn GGUF file would have been converted. */
function checkpoint(model: ExpertModel, type: string): FolderModel {
  const file = openModel(memorySource("model.gguf", expertModel(model)));
  const { config, source } = file;
  const tensors: Record<string, SafeTensorOut> = {};
  for (const { name, shape, offset, bytes } of file.tensors.values()) {
    const data = new Uint8Array(bytes);
    source.read(offset, data);
    const [, stem, kind] = /^(.*)\.(weight|bias)$/.exec(name)!;
    const [, layer, part] = /^blk\.(\d+)\.(.*)$/.exec(stem) ?? [];
    const put = (hf: string, own: readonly number[], values: Uint8Array) => (tensors[`${hf}.${kind}`] = { dtype: "F32", shape: own, data: values });
    const mixtral = type === "mixtral";
    const stack = /^ffn_(gate|up|down)_exps$/.exec(part ?? "");
    if (stack) {
      for (let id = 0; id < shape[0]; id++) {
        const expert = mixtral ? `block_sparse_moe.experts.${id}.${MIXTRAL[stack[1]]}` : `mlp.experts.${id}.${stack[1]}_proj`;
        put(`model.layers.${layer}.${expert}`, shape.slice(1), data.slice((id * bytes) / shape[0], ((id + 1) * bytes) / shape[0]));
      }
    } else if (part === "ffn_gate_inp" && mixtral) put(`model.layers.${layer}.block_sparse_moe.gate`, shape, data);
    else if (part === "ffn_gate_inp_shexp") put(`model.layers.${layer}.${PARTS[part]}`, [1, ...shape], data);
    else if (mixtral && /^attn_[qk]$/.test(part ?? "")) put(`model.layers.${layer}.${PARTS[part]}`, shape, halves(data, shape[0], config.headDim));
    else put(part ? `model.layers.${layer}.${PARTS[part]}` : OTHERS[stem], shape, data);
  }
  const experts = config.experts!;
  return {
    tensors,
    config: {
      ...{ model_type: type, hidden_size: config.dim, num_hidden_layers: config.nLayers, num_attention_heads: config.nHeads, num_key_value_heads: config.nKvHeads },
      ...{ head_dim: config.headDim, intermediate_size: config.ffnDim, moe_intermediate_size: experts.ffnDim, vocab_size: config.vocabSize, max_position_embeddings: 512 },
      ...{ rms_norm_eps: config.normEps, rope_theta: config.rope!.base, num_local_experts: experts.count, num_experts: experts.count, num_experts_per_tok: experts.used },
      ...{ shared_expert_intermediate_size: experts.sharedFfnDim, norm_topk_prob: experts.normaliseWeights, tie_word_embeddings: false, hidden_act: "silu" },
    },
  };
}

function logitsOf(file: ModelFile, ids: readonly number[]): Float32Array[] {
  const kernels = scalarKernels();
  return allLogits(bench(createModel(file.config, loadWeights(file, file.config, kernels)), { kernels }), ids);
}

const open = (model: FolderModel) => openModel(memoryFolder("model", folderFiles(model)));
const TYPES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"] as const;
const named = (type: (typeof TYPES)[number]): ExpertModel => ({ ...CASES.find(({ name }) => name === type.replace("_", ""))!.model, vocabSize: VOCAB });

describe.each(TYPES)("a folder of %s", (type) => {
  const model = named(type);
  const folder = checkpoint(model, type);

  it("is the model that its GGUF file is, bit for bit", () => {
    const ids = expertTokens(model, 8);
    const file = openModel(memorySource("model.gguf", expertModel(model)));
    expect(logitsOf(open(folder), ids)).toEqual(logitsOf(file, ids));
  });

  it("becomes a GGUF file with its experts stacked, which computes the same", () => {
    const files = memoryFolder("model", folderFiles(folder));
    const converted = memorySource("model.gguf", ggufBytes(convertFolder(files).plan));
    const { tensors } = readGguf(converted);
    const original = readGguf(memorySource("model.gguf", expertModel(model))).tensors;
    expect(new Set(tensors.keys())).toEqual(new Set(original.keys()));
    for (const { name, shape } of original.values()) expect(tensors.get(name)!.shape).toEqual(shape);
    expect(logitsOf(openModel(converted), expertTokens(model, 5))).toEqual(logitsOf(openModel(files), expertTokens(model, 5)));
  });
});

describe("a folder of experts", () => {
  const folder = checkpoint(named("qwen2_moe"), "qwen2_moe");
  const changed = (config: Record<string, unknown>, tensors: Record<string, SafeTensorOut> = folder.tensors) => open({ tensors, config: { ...folder.config, ...config } });

  it("may lie in shards", () => {
    const { "model.safetensors": _, ...rest } = folderFiles(folder);
    const file = openModel(memoryFolder("model", { ...rest, ...sharded(folder.tensors, 4) }));
    expect(logitsOf(file, [1, 7, 9])).toEqual(logitsOf(open(folder), [1, 7, 9]));
  });

  it("is refused in one line where something is missing, odd or not known", () => {
    const without = Object.fromEntries(Object.entries(folder.tensors).filter(([name]) => !name.includes("layers.1.mlp.experts.3.up")));
    expect(() => changed({}, without)).toThrow('model: tensor "blk.1.ffn_up_exps.weight": expected 5 experts, found none with number 3');
    expect(() => changed({ num_experts: 4, num_experts_per_tok: 2 })).toThrow(/"blk\.0\.ffn_gate_exps\.weight": expected 4 experts, found 5/);
    const odd = { ...folder.tensors, "model.layers.0.mlp.experts.2.down_proj.weight": { dtype: "F32", shape: [2, 2], data: new Uint8Array(16) } };
    expect(() => changed({}, odd)).toThrow(/expected experts of \[48, 40\] F32, found expert 2 of \[2, 2\] F32/);
    expect(() => changed({ decoder_sparse_step: 2 })).toThrow(/key "decoder_sparse_step": expected 1, experts in every layer, found 2/);
    expect(() => changed({ mlp_only_layers: [0] })).toThrow(/key "mlp_only_layers": expected none, experts in every layer, found 1 layers/);
    expect(() => changed({ norm_topk_prob: true })).toThrow(/key "norm_topk_prob": expected false, as models of this type have it, found true/);
    expect(() => changed({ num_experts: undefined })).toThrow(/num_experts/);
  });
});
