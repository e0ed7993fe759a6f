import { ggufBytes, type GgufOutTensor } from "../../src/model/formats/gguf-write.ts";
import type { GgufValue } from "../../src/model/formats/gguf-values.ts";
import { GGML_TYPES } from "../../src/quant/ggml.ts";
import { type EncodableType, encodeRows } from "../../src/quant/ggml-encode.ts";
import { zeros } from "../../src/tensor/tensor.ts";
import { drawnBlocks, type DrawnType, isDrawn } from "./blocks.ts";
import { dice } from "./dice.ts";
import { drawnMetadata } from "./drawn-metadata.ts";

/** How an architecture's files are laid out: which tensors, under which names, as llama.cpp's loader of it asks for them. */
interface Blueprint {
  /** Norms of a layer, by their names. */
  readonly norms: readonly string[];
  /** Which epsilon key, and whether norms have a bias. */
  readonly norm: "rms" | "layer" | "layer without bias" | "layer without weight";
  readonly fusedQkv?: boolean;
  /** Gate and up apart, stacked in `ffn_up`, or no gate. */
  readonly ffn: "gated" | "stacked" | "plain";
  /** Linears with a bias. */
  readonly biases?: readonly string[];
  /** Shape of the norms of q and k: one for all heads, one for each head, one over the whole row. */
  readonly qkNorm?: "shared" | "by head" | "row";
  readonly tied?: boolean;
  readonly positions?: "learned";
  readonly embeddingNorm?: boolean;
  /** Keys that every file of the architecture has, without the prefix. */
  readonly keys?: Readonly<Record<string, GgufValue>>;
}

export const u32 = (value: number): GgufValue => ({ type: "uint32", value });
export const f32 = (value: number): GgufValue => ({ type: "float32", value });
export const bool = (value: boolean): GgufValue => ({ type: "bool", value });
export const text = (value: string): GgufValue => ({ type: "string", value });
export const bools = (value: readonly boolean[]): GgufValue => ({ type: "array", itemType: "bool", value });

const i32s = (value: readonly number[]): GgufValue => ({ type: "array", itemType: "int32", value: Int32Array.from(value) });

/** Which pairs of a head rotate by a picture's row and column; those of text all by one position. */
const SECTIONS = { "rope.dimension_sections": i32s([2, 2, 2, 0]) };
const PRE = ["attn_norm", "ffn_norm"];
const SANDWICH = ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"];
const QKV = ["attn_q", "attn_k", "attn_v"];
const LLAMA: Blueprint = { norms: PRE, norm: "rms", ffn: "gated" };
const PLAIN_BIASES = ["attn_qkv", "attn_output", "ffn_up", "ffn_down"];

export const BLUEPRINTS: Readonly<Record<string, Blueprint>> = {
  llama: LLAMA,
  qwen2: { ...LLAMA, biases: QKV },
  qwen3: { ...LLAMA, qkNorm: "shared" },
  gemma: { ...LLAMA, tied: true },
  gemma2: { ...LLAMA, norms: SANDWICH, tied: true },
  gemma3: { ...LLAMA, norms: SANDWICH, qkNorm: "shared", tied: true },
  phi3: { ...LLAMA, fusedQkv: true, ffn: "stacked" },
  gpt2: { norms: PRE, norm: "layer", fusedQkv: true, ffn: "plain", biases: PLAIN_BIASES, positions: "learned" },
  granite: { ...LLAMA, keys: { logit_scale: f32(0.5) } },
  olmo2: { ...LLAMA, norms: ["post_attention_norm", "post_ffw_norm"], qkNorm: "row" },
  olmo: { ...LLAMA, norms: [], norm: "layer without weight" },
  smollm3: LLAMA,
  stablelm: { ...LLAMA, norm: "layer" },
  starcoder2: { norms: PRE, norm: "layer", ffn: "plain", biases: [...QKV, "attn_output", "ffn_up", "ffn_down"] },
  phi2: { norms: ["attn_norm"], norm: "layer", ffn: "plain", biases: [...QKV, "attn_output", "ffn_up", "ffn_down", "output"] },
  falcon: { norms: ["attn_norm"], norm: "layer", fusedQkv: true, ffn: "plain" },
  gptneox: { norms: PRE, norm: "layer", fusedQkv: true, ffn: "plain", biases: PLAIN_BIASES, keys: { use_parallel_residual: bool(true) } },
  "command-r": { norms: ["attn_norm"], norm: "layer without bias", ffn: "gated", tied: true, keys: { logit_scale: f32(1.5) } },
  cohere2: { norms: ["attn_norm"], norm: "layer without bias", ffn: "gated", tied: true, keys: { logit_scale: f32(1.5), "attention.sliding_window": u32(7) } },
  glm4: { ...LLAMA, norms: SANDWICH, ffn: "stacked", biases: QKV },
  exaone4: { ...LLAMA, norms: ["post_attention_norm", "post_ffw_norm"], qkNorm: "shared" },
  bloom: { norms: PRE, norm: "layer", fusedQkv: true, ffn: "plain", biases: PLAIN_BIASES, embeddingNorm: true },
  mpt: { norms: PRE, norm: "layer without bias", fusedQkv: true, ffn: "plain", keys: { "attention.max_alibi_bias": f32(8) } },
  nemotron: { norms: PRE, norm: "layer", ffn: "plain" },
  mistral3: LLAMA,
  internlm2: LLAMA,
  xverse: LLAMA,
  ernie4_5: LLAMA,
  minicpm: LLAMA,
  baichuan: LLAMA,
  refact: LLAMA,
  exaone: LLAMA,
  chatglm: { ...LLAMA, fusedQkv: true, ffn: "stacked", biases: ["attn_qkv"] },
  arcee: { ...LLAMA, ffn: "plain" },
  qwen: { ...LLAMA, fusedQkv: true, biases: ["attn_qkv"] },
  qwen2vl: { ...LLAMA, biases: QKV, keys: SECTIONS },
  qwen3vl: { ...LLAMA, qkNorm: "shared", keys: SECTIONS },
  seed_oss: { ...LLAMA, norms: ["attn_norm", "post_attention_norm"], biases: QKV },
  "hunyuan-dense": { ...LLAMA, qkNorm: "shared" },
  "pangu-embedded": { ...LLAMA, biases: [...QKV, "attn_output"] },
  plamo: { ...LLAMA, norms: ["attn_norm"] },
  orion: { ...LLAMA, norm: "layer" },
  codeshell: { norms: PRE, norm: "layer", fusedQkv: true, ffn: "plain", biases: PLAIN_BIASES },
  starcoder: { norms: PRE, norm: "layer", fusedQkv: true, ffn: "plain", biases: PLAIN_BIASES, positions: "learned" },
  jais: { norms: PRE, norm: "layer", fusedQkv: true, ffn: "gated", biases: [...PLAIN_BIASES, "ffn_gate"], keys: { "attention.max_alibi_bias": f32(8) } },
  jais2: { norms: PRE, norm: "layer", ffn: "plain", biases: [...QKV, "attn_output", "ffn_up", "ffn_down"] },
};

/** A small model of an architecture with weights drawn from a seed. */
export interface ArchitectureModel {
  readonly architecture: string;
  /** What the file calls it; default the same. */
  readonly name?: string;
  readonly seed: number;
  readonly dim?: number;
  readonly nLayers?: number;
  readonly nHeads?: number;
  readonly nKvHeads?: number;
  readonly headDim?: number;
  readonly ffnDim?: number;
  readonly vocabSize?: number;
  readonly contextLength?: number;
  /** How many of headDim's values rotate; default all. */
  readonly ropeDims?: number;
  /** Of the matrices whose columns are whole blocks; the others are F32. */
  readonly type?: EncodableType | DrawnType;
  /** Further metadata, without the architecture's prefix. */
  readonly keys?: Readonly<Record<string, GgufValue>>;
  /** Where this file differs from its architecture's usual layout. */
  readonly layout?: Partial<Blueprint>;
  /** `rope_freqs`, or `rope_factors_long` and `rope_factors_short`. */
  readonly ropeFactors?: "freqs" | "long and short";
  /** Whether each linear has a factor in a tensor of its own, and one for activations that nothing reads. */
  readonly scales?: boolean;
  /** Weights of q and k grow by this, so that scores reach what caps them. */
  readonly queryGain?: number;
}

/** The model as a GGUF file that llama.cpp loads, and memwall. Drawn from the seed alone: the same bytes every time. */
export function architectureModel(model: ArchitectureModel): Uint8Array {
  const { architecture, seed, type = "F32", queryGain = 1 } = model;
  const { dim = 48, nLayers = 2, nHeads = 4, nKvHeads = 2, ffnDim = 72, vocabSize = 264, contextLength = 512 } = model;
  const headDim = model.headDim ?? dim / nHeads;
  const blueprint: Blueprint = { ...BLUEPRINTS[architecture], ...model.layout };
  const biases = blueprint.biases ?? [];
  const d = dice(seed);
  const tensors: GgufOutTensor[] = [];

  const draw = (name: string, shape: readonly number[], mean: number, spread: number, as: EncodableType | DrawnType): void => {
    const fitting = shape[shape.length - 1] % GGML_TYPES[as].blockSize === 0 ? as : "F32";
    const tensor = zeros("f32", shape, 0, name);
    if (isDrawn(fitting)) return void tensors.push({ name, shape, type: fitting, data: drawnBlocks(fitting, tensor.f32.length, spread, d) });
    for (let i = 0; i < tensor.f32.length; i++) tensor.f32[i] = mean + spread * d.normal();
    tensors.push({ name, shape, type: fitting, data: encodeRows(fitting, tensor) });
  };
  const vector = (name: string, shape: readonly number[], mean: number, spread: number) => draw(name, shape, mean, spread, "F32");
  const linear = (name: string, rows: number, cols: number, gain = 1): void => {
    draw(`${name}.weight`, [rows, cols], 0, (1.2 * gain) / Math.sqrt(cols), type);
    if (model.scales) for (const kind of ["scale", "input_scale"]) vector(`${name}.${kind}`, [1], 0.7, 0.1);
    if (biases.some((part) => name.endsWith(part))) vector(`${name}.bias`, [rows], 0, 0.3);
  };
  const norm = (name: string, shape: readonly number[], bias = blueprint.norm === "layer"): void => {
    if (blueprint.norm === "layer without weight") return;
    vector(`${name}.weight`, shape, 1, 0.3);
    if (bias) vector(`${name}.bias`, shape, 0, 0.2);
  };

  draw("token_embd.weight", [vocabSize, dim], 0, blueprint.tied ? 1.6 / Math.sqrt(dim) : 1, type);
  if (blueprint.embeddingNorm) norm("token_embd_norm", [dim]);
  if (blueprint.positions === "learned") draw("position_embd.weight", [contextLength, dim], 0, 0.7, "F32");
  const pairs = (model.ropeDims ?? headDim) / 2;
  if (model.ropeFactors === "freqs") vector("rope_freqs.weight", [pairs], 3, 0.6);
  if (model.ropeFactors === "long and short") {
    vector("rope_factors_long.weight", [pairs], 4, 0.8);
    vector("rope_factors_short.weight", [pairs], 1.5, 0.2);
  }
  for (let i = 0; i < nLayers; i++) {
    const at = (part: string) => `blk.${i}.${part}`;
    for (const name of blueprint.norms) norm(at(name), [dim]);
    if (blueprint.fusedQkv) linear(at("attn_qkv"), (nHeads + 2 * nKvHeads) * headDim, dim, queryGain);
    else {
      linear(at("attn_q"), nHeads * headDim, dim, queryGain);
      linear(at("attn_k"), nKvHeads * headDim, dim, queryGain);
      linear(at("attn_v"), nKvHeads * headDim, dim);
    }
    const headNorm = (heads: number) => (blueprint.qkNorm === "shared" ? [headDim] : blueprint.qkNorm === "row" ? [heads * headDim] : [heads, headDim]);
    if (blueprint.qkNorm) {
      norm(at("attn_q_norm"), headNorm(nHeads), false);
      norm(at("attn_k_norm"), headNorm(nKvHeads), false);
    }
    linear(at("attn_output"), dim, nHeads * headDim);
    if (blueprint.ffn === "gated") linear(at("ffn_gate"), ffnDim, dim);
    linear(at("ffn_up"), blueprint.ffn === "stacked" ? 2 * ffnDim : ffnDim, dim);
    linear(at("ffn_down"), dim, ffnDim);
  }
  norm("output_norm", [dim]);
  if (!blueprint.tied) linear("output", vocabSize, dim, 2);

  const eps = blueprint.norm === "rms" ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
  const keys: Record<string, GgufValue> = {
    ...{ context_length: u32(contextLength), embedding_length: u32(dim), block_count: u32(nLayers), feed_forward_length: u32(ffnDim) },
    ...{ "attention.head_count": u32(nHeads), "attention.head_count_kv": u32(nKvHeads), [eps]: f32(1e-5) },
    ...(headDim !== dim / nHeads && { "attention.key_length": u32(headDim), "attention.value_length": u32(headDim) }),
    ...(blueprint.positions !== "learned" && { "rope.dimension_count": u32(model.ropeDims ?? headDim) }),
    ...blueprint.keys,
    ...model.keys,
  };
  const metadata = drawnMetadata(architecture, keys, vocabSize, model.name);
  return ggufBytes({ metadata, tensors });
}

/** Token ids for a case, drawn from its seed. */
export function drawTokens({ seed, vocabSize = 264 }: ArchitectureModel, count: number): number[] {
  const d = dice(seed + 7919);
  return [1, ...Array.from({ length: count - 1 }, () => d.between(3, vocabSize - 1))];
}
