import { bool, type ExpertModel, f32, i32s, text, u32 } from "./expert-model.ts";

export interface ExpertCase {
  readonly name: string;
  readonly model: ExpertModel;
  /** Default 14. */
  readonly tokens?: number;
}

const QWEN2: Partial<ExpertModel> = { biases: ["attn_q", "attn_k", "attn_v"], sharedFfnDim: 56, sharedGate: true };
const qwen2Keys = (expert: number, shared: number) => ({ expert_feed_forward_length: u32(expert), expert_shared_feed_forward_length: u32(shared) });
const QUANTISED: Partial<ExpertModel> = { dim: 64, ffnDim: 96 };

const GPT_OSS: ExpertModel = {
  ...{ architecture: "gpt-oss", seed: 160, nLayers: 4, headDim: 16, experts: 6, used: 3, sinks: true, ffnNorm: "post_attention_norm" },
  biases: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"],
  keys: { expert_feed_forward_length: u32(40), "attention.sliding_window": u32(6), "rope.freq_base": f32(150000) },
};

/** Mixtures of experts; what llama.cpp makes of them stands in fixtures/experts.golden.json under the same names. */
export const CASES: readonly ExpertCase[] = [
  { name: "mixtral", model: { architecture: "llama", seed: 101, experts: 8 }, tokens: 20 },
  { name: "mixtral: odd sizes, three of seven", model: { architecture: "llama", seed: 102, dim: 42, nHeads: 3, nKvHeads: 1, experts: 7, used: 3, ffnDim: 37, vocabSize: 267 } },
  { name: "mixtral: one expert used", model: { architecture: "llama", seed: 103, experts: 4, used: 1 } },
  { name: "mixtral: all experts used", model: { architecture: "llama", seed: 104, experts: 3, used: 3 } },
  { name: "mixtral: a single expert", model: { architecture: "llama", seed: 105, experts: 1, used: 1 } },
  { name: "mixtral: a scale that is not its own", model: { architecture: "llama", seed: 106, keys: { expert_weights_scale: f32(1.7) } } },
  { name: "mixtral: Q8_0", model: { architecture: "llama", seed: 107, ...QUANTISED, type: "Q8_0" } },
  { name: "mixtral: Q4_0", model: { architecture: "llama", seed: 108, ...QUANTISED, type: "Q4_0" } },
  { name: "mixtral: F16", model: { architecture: "llama", seed: 109, ffnDim: 33, type: "F16" } },
  { name: "mixtral: scales", model: { architecture: "llama", seed: 110, scales: true } },
  { name: "qwen2moe", model: { architecture: "qwen2moe", seed: 120, ...QWEN2, keys: { ...qwen2Keys(40, 56), "rope.freq_base": f32(1e6) } }, tokens: 20 },
  { name: "qwen2moe: Q8_0, four of nine", model: { architecture: "qwen2moe", seed: 121, ...QWEN2, ...QUANTISED, sharedFfnDim: 64, experts: 9, used: 4, type: "Q8_0", keys: qwen2Keys(96, 64) } },
  { name: "qwen3moe", model: { architecture: "qwen3moe", seed: 130, headDim: 20, nKvHeads: 1, experts: 16, used: 4, qkNorm: "shared", keys: { expert_feed_forward_length: u32(40) } }, tokens: 20 },
  { name: "qwen3moe: Q4_0", model: { architecture: "qwen3moe", seed: 131, ...QUANTISED, headDim: 32, experts: 6, used: 5, qkNorm: "shared", type: "Q4_0", keys: { expert_feed_forward_length: u32(96) } } },
  { name: "qwen3moe: scales", model: { architecture: "qwen3moe", seed: 132, experts: 6, used: 3, qkNorm: "shared", scales: true, keys: { expert_feed_forward_length: u32(40) } } },
  { name: "olmoe", model: { architecture: "olmoe", seed: 140, nKvHeads: 4, experts: 12, used: 5, qkNorm: "row" }, tokens: 20 },
  { name: "olmoe: Q8_0, one head", model: { architecture: "olmoe", seed: 141, ...QUANTISED, nHeads: 1, nKvHeads: 1, qkNorm: "row", type: "Q8_0" } },
  {
    name: "granitemoe: its scales, tied",
    model: {
      ...{ architecture: "granitemoe", seed: 150, experts: 6, used: 3, tied: true },
      keys: { embedding_scale: f32(3), residual_scale: f32(0.4), "attention.scale": f32(0.1), logit_scale: f32(3) },
    },
  },
  {
    name: "granitemoe: a shared expert",
    model: { architecture: "granitemoe", seed: 151, sharedFfnDim: 24, keys: { expert_shared_feed_forward_length: u32(24), logit_scale: f32(2) } },
  },
  { name: "gpt-oss", model: GPT_OSS, tokens: 24 },
  {
    name: "gpt-oss: MXFP4 experts, yarn",
    model: {
      ...{ ...GPT_OSS, seed: 161, nLayers: 2, dim: 64, ffnDim: 96, headDim: 32, nHeads: 3, nKvHeads: 1, mxfp4: true },
      keys: {
        ...{ expert_feed_forward_length: u32(96), "attention.sliding_window": u32(9), "rope.freq_base": f32(150000) },
        ...{ "rope.scaling.type": text("yarn"), "rope.scaling.factor": f32(32), "rope.scaling.original_context_length": u32(128) },
      },
    },
    tokens: 24,
  },
  { name: "gpt-oss: loud gates", model: { ...GPT_OSS, seed: 162, gateGain: 12 }, tokens: 16 },
  {
    name: "deepseek: a leading dense layer, two shared experts, a scale",
    model: {
      ...{ architecture: "deepseek", seed: 170, nLayers: 3, denseLayers: 1, experts: 6, used: 3, sharedFfnDim: 80 },
      keys: { expert_feed_forward_length: u32(40), expert_shared_count: u32(2), expert_weights_scale: f32(1.5) },
    },
  },
  {
    name: "dots1: sigmoids, a bias that chooses, weights that sum to the scale",
    model: {
      ...{ architecture: "dots1", seed: 171, nLayers: 3, nKvHeads: 4, denseLayers: 1, experts: 8, used: 3, sharedFfnDim: 40, qkNorm: "shared", choiceBias: true },
      keys: { expert_feed_forward_length: u32(40), expert_shared_count: u32(1), expert_weights_scale: f32(2.5), expert_weights_norm: bool(true), expert_gating_func: u32(2) },
    },
  },
  {
    name: "ernie4_5-moe: a leading dense layer, a bias that chooses, two shared experts",
    model: {
      ...{ architecture: "ernie4_5-moe", seed: 180, nLayers: 3, nKvHeads: 1, denseLayers: 1, experts: 6, used: 3, sharedFfnDim: 80, choiceBias: true },
      keys: { expert_feed_forward_length: u32(40), expert_shared_feed_forward_length: u32(80), expert_shared_count: u32(2), interleave_moe_layer_step: u32(1) },
    },
  },
  {
    name: "bailingmoe: two shared experts, weights that sum to the scale",
    model: {
      ...{ architecture: "bailingmoe", seed: 181, dim: 42, nHeads: 3, nKvHeads: 1, experts: 7, used: 3, ffnDim: 36, sharedFfnDim: 72 },
      keys: { expert_feed_forward_length: u32(36), expert_shared_count: u32(2), expert_weights_scale: f32(1.5), expert_weights_norm: bool(true) },
    },
  },
  { name: "bailingmoe: weights as they are", model: { architecture: "bailingmoe", seed: 182, sharedFfnDim: 40, keys: { expert_feed_forward_length: u32(40), expert_shared_count: u32(1) } } },
  {
    name: "bailingmoe2: groups, a dense layer, layers that guess",
    model: {
      ...{ architecture: "bailingmoe2", seed: 183, nLayers: 3, nKvHeads: 1, denseLayers: 1, experts: 8, used: 3, sharedFfnDim: 40, qkNorm: "shared", fusedQkv: true, choiceBias: true, guessingLayers: 1, ropeDims: 6 },
      keys: {
        ...{ expert_feed_forward_length: u32(40), expert_shared_count: u32(1), expert_weights_scale: f32(2.5), expert_weights_norm: bool(true), expert_gating_func: u32(2) },
        ...{ expert_group_count: u32(4), expert_group_used_count: u32(2) },
      },
    },
  },
  {
    name: "glm4moe: sigmoids, a dense layer, layers that guess",
    model: {
      ...{ architecture: "glm4moe", seed: 184, nLayers: 3, headDim: 20, nKvHeads: 1, ropeDims: 10, denseLayers: 1, experts: 6, used: 3, sharedFfnDim: 40, choiceBias: true, guessingLayers: 1 },
      ...{ ffnNorm: "post_attention_norm", biases: ["attn_q", "attn_k", "attn_v"] },
      keys: { expert_feed_forward_length: u32(40), expert_shared_count: u32(1), expert_weights_scale: f32(2.5), expert_weights_norm: bool(true) },
    },
  },
  {
    name: "glm4moe: norms of heads, softmax",
    model: {
      ...{ architecture: "glm4moe", seed: 185, dim: 42, nHeads: 3, nKvHeads: 3, ffnDim: 36, sharedFfnDim: 36, choiceBias: true, qkNorm: "shared", ropeDims: 8, ffnNorm: "post_attention_norm", tied: true },
      keys: { expert_feed_forward_length: u32(36), expert_shared_count: u32(1), expert_gating_func: u32(1) },
    },
  },
  {
    name: "hunyuan-moe",
    model: { architecture: "hunyuan-moe", seed: 186, nHeads: 3, nKvHeads: 1, experts: 6, used: 2, sharedFfnDim: 56, qkNorm: "shared", keys: { expert_feed_forward_length: u32(40), expert_shared_feed_forward_length: u32(56) } },
    tokens: 20,
  },
  {
    name: "hunyuan-moe: Q8_0",
    model: { architecture: "hunyuan-moe", seed: 190, ...QUANTISED, sharedFfnDim: 64, qkNorm: "shared", type: "Q8_0", keys: { expert_feed_forward_length: u32(96), expert_shared_feed_forward_length: u32(64) } },
  },
  { name: "qwen3vlmoe", model: { architecture: "qwen3vlmoe", seed: 187, headDim: 20, nKvHeads: 1, experts: 8, used: 3, qkNorm: "shared", keys: { expert_feed_forward_length: u32(40), "rope.dimension_sections": i32s([4, 3, 3, 0]) } }, tokens: 20 },
  {
    name: "minimax-m2: norms of rows, sigmoids, a bias that chooses",
    model: {
      ...{ architecture: "minimax-m2", seed: 188, headDim: 20, nKvHeads: 1, ropeDims: 10, experts: 8, used: 3, qkNorm: "row", choiceBias: true },
      keys: { expert_feed_forward_length: u32(40), expert_gating_func: u32(2) },
    },
  },
  { name: "dbrx: clamped", model: { architecture: "dbrx", seed: 189, nHeads: 6, nKvHeads: 2, experts: 6, used: 3, norm: "layer", fusedQkv: true, ffnNorm: "attn_output_norm", keys: { "attention.clamp_kqv": f32(1.1) } } },
];
