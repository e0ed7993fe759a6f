import { DRAWN_TYPES } from "./blocks.ts";
import { type ArchitectureModel, bool, bools, f32, text, u32 } from "./architecture-model.ts";

/** A model, and how many tokens it is asked about. */
export interface ArchitectureCase {
  readonly name: string;
  readonly model: ArchitectureModel;
  /** Default 14. */
  readonly tokens?: number;
}

const yarn = (more: Readonly<Record<string, ReturnType<typeof f32>>> = {}) => ({
  ...{ "rope.scaling.type": text("yarn"), "rope.scaling.factor": f32(4), "rope.scaling.original_context_length": u32(128) },
  ...more,
});

/** Architectures with their options; what llama.cpp makes of them stands in fixtures/architectures.golden.json under the same names. */
export const CASES: readonly ArchitectureCase[] = [
  { name: "llama", model: { architecture: "llama", seed: 1 } },
  { name: "llama: odd sizes, one KV head", model: { architecture: "llama", seed: 2, dim: 42, nHeads: 3, nKvHeads: 1, ffnDim: 50, vocabSize: 267 } },
  { name: "llama: five heads apart from dim", model: { architecture: "llama", seed: 3, dim: 36, nHeads: 5, nKvHeads: 5, headDim: 14, keys: { "rope.freq_base": f32(500000) } } },
  {
    name: "llama: biases everywhere, tied",
    model: { architecture: "llama", seed: 4, layout: { tied: true, biases: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] } },
  },
  { name: "llama: fused qkv", model: { architecture: "llama", seed: 5, layout: { fusedQkv: true } } },
  { name: "llama: linear scaling", model: { architecture: "llama", seed: 6, keys: { "rope.scaling.type": text("linear"), "rope.scaling.factor": f32(4) } } },
  { name: "llama: old key of linear scaling", model: { architecture: "llama", seed: 7, keys: { "rope.scale_linear": f32(3) } } },
  { name: "llama: factor without a type", model: { architecture: "llama", seed: 8, keys: { "rope.scaling.factor": f32(3) } } },
  { name: "llama: factor with type none", model: { architecture: "llama", seed: 9, keys: { "rope.scaling.type": text("none"), "rope.scaling.factor": f32(3) } } },
  { name: "llama: yarn", model: { architecture: "llama", seed: 10, headDim: 32, keys: yarn() }, tokens: 24 },
  {
    name: "llama: yarn, keys that llama.cpp reads and does not read",
    model: {
      ...{ architecture: "llama", seed: 11, headDim: 48, nHeads: 3, nKvHeads: 3 },
      keys: yarn({ "rope.scaling.attn_factor": f32(0.8), "rope.scaling.yarn_beta_fast": f32(16), "rope.scaling.yarn_beta_slow": f32(2), "rope.scaling.yarn_ext_factor": f32(0.7), "rope.scaling.yarn_log_multiplier": f32(0.5) }),
    },
    tokens: 24,
  },
  { name: "llama: yarn over rope_freqs", model: { architecture: "llama", seed: 13, headDim: 32, keys: yarn(), ropeFactors: "freqs" }, tokens: 24 },
  { name: "llama: rope_freqs", model: { architecture: "llama", seed: 14, ropeFactors: "freqs", keys: { "rope.freq_base": f32(1000) } } },
  {
    name: "llama: longrope, long",
    model: {
      ...{ architecture: "llama", seed: 15, ropeFactors: "long and short" },
      keys: { "rope.scaling.type": text("longrope"), "rope.scaling.original_context_length": u32(256), "rope.scaling.attn_factor": f32(1.2) },
    },
  },
  {
    name: "llama: longrope, short",
    model: {
      ...{ architecture: "llama", seed: 16, ropeFactors: "long and short" },
      keys: { "rope.scaling.type": text("longrope"), "rope.scaling.original_context_length": u32(512), "rope.scaling.attn_factor": f32(1.2) },
    },
  },
  { name: "llama: Q8_0", model: { architecture: "llama", seed: 17, dim: 64, ffnDim: 96, type: "Q8_0" } },
  { name: "llama: Q4_0", model: { architecture: "llama", seed: 18, dim: 64, ffnDim: 96, type: "Q4_0" } },
  { name: "llama: Q6_K", model: { architecture: "llama", seed: 19, dim: 256, nLayers: 1, ffnDim: 256, type: "Q6_K" } },
  { name: "llama: F16", model: { architecture: "llama", seed: 24, type: "F16", ropeFactors: "freqs", layout: { tied: true } } },
  { name: "qwen2", model: { architecture: "qwen2", seed: 20, keys: { "rope.freq_base": f32(1e6) } } },
  { name: "qwen2: yarn, tied", model: { architecture: "qwen2", seed: 21, dim: 64, nHeads: 2, nKvHeads: 1, keys: yarn(), layout: { tied: true } }, tokens: 24 },
  { name: "qwen3", model: { architecture: "qwen3", seed: 22, headDim: 20, nKvHeads: 1 } },
  { name: "qwen3: Q8_0, yarn", model: { architecture: "qwen3", seed: 23, dim: 64, headDim: 32, ffnDim: 64, type: "Q8_0", keys: yarn() } },
  { name: "gemma", model: { architecture: "gemma", seed: 30, headDim: 20, nKvHeads: 1 } },
  { name: "gemma: odd heads", model: { architecture: "gemma", seed: 31, dim: 42, nHeads: 3, nKvHeads: 3, ffnDim: 77, vocabSize: 271 } },
  {
    name: "gemma2",
    model: {
      ...{ architecture: "gemma2", seed: 32, nLayers: 4, headDim: 16, queryGain: 2 },
      keys: { "attention.sliding_window": u32(6), attn_logit_softcapping: f32(4), final_logit_softcapping: f32(8) },
    },
    tokens: 40,
  },
  {
    name: "gemma2: Q8_0, other caps",
    model: {
      ...{ architecture: "gemma2", seed: 33, nLayers: 3, dim: 64, headDim: 32, ffnDim: 96, nKvHeads: 1, type: "Q8_0" },
      keys: { "attention.sliding_window": u32(9), attn_logit_softcapping: f32(50), final_logit_softcapping: f32(30) },
    },
    tokens: 24,
  },
  {
    name: "gemma2: the size of 27B",
    model: { architecture: "gemma2", seed: 34, nLayers: 46, dim: 16, nHeads: 2, nKvHeads: 1, headDim: 12, ffnDim: 16, vocabSize: 260, keys: { "attention.sliding_window": u32(4096) } },
    tokens: 6,
  },
  {
    name: "gemma3",
    model: {
      ...{ architecture: "gemma3", seed: 35, nLayers: 7, dim: 32, nHeads: 2, nKvHeads: 1, headDim: 20, ffnDim: 40 },
      keys: { "attention.sliding_window": u32(8), "rope.freq_base": f32(1e6), "rope.scaling.type": text("linear"), "rope.scaling.factor": f32(8) },
    },
    tokens: 36,
  },
  {
    name: "gemma3: its own pattern and local base",
    model: {
      ...{ architecture: "gemma3", seed: 36, nLayers: 4, dim: 32, nHeads: 2, nKvHeads: 2, headDim: 16, ffnDim: 40 },
      keys: { "attention.sliding_window": u32(5), "rope.freq_base": f32(1e6), "rope.freq_base_swa": f32(500), "attention.sliding_window_pattern": u32(3), final_logit_softcapping: f32(8) },
    },
    tokens: 30,
  },
  {
    name: "gemma3: a list of layers that slide",
    model: {
      ...{ architecture: "gemma3", seed: 37, nLayers: 4, dim: 32, nHeads: 2, nKvHeads: 2, headDim: 16, ffnDim: 40 },
      keys: { "attention.sliding_window": u32(5), "attention.sliding_window_pattern": bools([false, true, true, false]) },
    },
    tokens: 30,
  },
  {
    name: "gemma3: the size of 27B",
    model: { architecture: "gemma3", seed: 39, nLayers: 62, dim: 8, nHeads: 2, nKvHeads: 1, headDim: 12, ffnDim: 8, keys: { "attention.sliding_window": u32(4) } },
    tokens: 8,
  },
  { name: "gemma3: no window", model: { architecture: "gemma3", seed: 38, keys: { "rope.freq_base": f32(1e6) } } },
  { name: "phi3", model: { architecture: "phi3", seed: 40 } },
  { name: "phi3: its window", model: { architecture: "phi3", seed: 41, keys: { "attention.sliding_window": u32(6) } }, tokens: 30 },
  {
    name: "phi3: longrope, long",
    model: { architecture: "phi3", seed: 42, ropeFactors: "long and short", ropeDims: 8, keys: { "rope.scaling.original_context_length": u32(128), "rope.scaling.attn_factor": f32(1.19) } },
  },
  {
    name: "phi3: longrope, short",
    model: { architecture: "phi3", seed: 43, ropeFactors: "long and short", layout: { tied: true }, keys: { "rope.scaling.original_context_length": u32(512), "rope.scaling.attn_factor": f32(1.19) } },
  },
  { name: "phi3: Q8_0", model: { architecture: "phi3", seed: 44, dim: 64, ffnDim: 96, nKvHeads: 4, type: "Q8_0" } },
  { name: "gpt2", model: { architecture: "gpt2", seed: 50, nKvHeads: 4, contextLength: 512 } },
  { name: "gpt2: tied, odd heads", model: { architecture: "gpt2", seed: 51, dim: 45, nHeads: 5, nKvHeads: 5, ffnDim: 81, layout: { tied: true } } },
  { name: "granite", model: { architecture: "granite", seed: 60, keys: { embedding_scale: f32(3), residual_scale: f32(0.4), "attention.scale": f32(0.1), logit_scale: f32(0.4) } } },
  { name: "granite: only what it must have", model: { architecture: "granite", seed: 61, layout: { biases: ["attn_output", "ffn_gate", "ffn_up", "ffn_down"] } } },
  { name: "granite: without positions", model: { architecture: "granite", seed: 59, keys: { "rope.scaling.finetuned": bool(false) } } },
  { name: "olmo2", model: { architecture: "olmo2", seed: 62 } },
  {
    name: "olmo2: window, yarn",
    model: { architecture: "olmo2", seed: 63, nLayers: 5, dim: 64, nHeads: 2, nKvHeads: 2, keys: { ...yarn(), "attention.sliding_window": u32(7) } },
    tokens: 30,
  },
  { name: "smollm3", model: { architecture: "smollm3", seed: 64, nLayers: 5, dim: 32, nKvHeads: 1, ffnDim: 40, layout: { tied: true } } },
  { name: "stablelm", model: { architecture: "stablelm", seed: 65, ropeDims: 4 } },
  { name: "stablelm: parallel, norms of heads", model: { architecture: "stablelm", seed: 66, ropeDims: 6, layout: { norms: ["attn_norm"], qkNorm: "by head", biases: ["attn_q", "attn_k", "attn_v"] } } },
  { name: "starcoder2", model: { architecture: "starcoder2", seed: 67, layout: { tied: true } } },
  { name: "phi2", model: { architecture: "phi2", seed: 68, nKvHeads: 4, ropeDims: 6 } },
  { name: "falcon", model: { architecture: "falcon", seed: 69, nKvHeads: 1, layout: { tied: true } } },
  { name: "falcon: two norms", model: { architecture: "falcon", seed: 70, nKvHeads: 2, layout: { norms: ["attn_norm", "attn_norm_2"] } } },
  { name: "gptneox", model: { architecture: "gptneox", seed: 71, nKvHeads: 4, ropeDims: 4 } },
  { name: "gptneox: one after the other", model: { architecture: "gptneox", seed: 72, nKvHeads: 4, keys: { use_parallel_residual: bool(false) } } },
  { name: "command-r", model: { architecture: "command-r", seed: 73 } },
  { name: "command-r: norms of heads", model: { architecture: "command-r", seed: 74, nLayers: 64, dim: 8, nHeads: 2, nKvHeads: 1, ffnDim: 8, layout: { qkNorm: "by head" } }, tokens: 6 },
  { name: "cohere2", model: { architecture: "cohere2", seed: 75, nLayers: 5, dim: 32, ffnDim: 40 }, tokens: 30 },
  { name: "glm4", model: { architecture: "glm4", seed: 76, ropeDims: 6 } },
  { name: "exaone4", model: { architecture: "exaone4", seed: 77 } },
  {
    name: "exaone4: the size of 32B",
    model: { architecture: "exaone4", seed: 78, nLayers: 64, dim: 8, nHeads: 2, nKvHeads: 1, ffnDim: 8, vocabSize: 260, keys: { "attention.sliding_window": u32(5) } },
    tokens: 20,
  },
  { name: "bloom", model: { architecture: "bloom", seed: 79, nKvHeads: 4 }, tokens: 24 },
  { name: "bloom: heads no power of two", model: { architecture: "bloom", seed: 80, dim: 60, nHeads: 6, nKvHeads: 6, layout: { tied: true } }, tokens: 24 },
  { name: "mpt", model: { architecture: "mpt", seed: 81, nKvHeads: 4, keys: { "attention.clamp_kqv": f32(1.1) }, layout: { tied: true } }, tokens: 24 },
  { name: "mpt: learned positions", model: { architecture: "mpt", seed: 82, nKvHeads: 4, layout: { positions: "learned", keys: {} }, keys: { "attention.max_alibi_bias": f32(0) } } },
  { name: "nemotron", model: { architecture: "nemotron", seed: 83, ropeDims: 6 } },
  { name: "olmo", model: { architecture: "olmo", seed: 84, nKvHeads: 4, keys: { "attention.clamp_kqv": f32(1.3) } } },
  { name: "olmo: tied, no clamp", model: { architecture: "olmo", seed: 85, layout: { tied: true } } },
  ...DRAWN_TYPES.map((type, i): ArchitectureCase => ({ name: `llama: ${type}`, model: { architecture: "llama", seed: 300 + i, dim: 256, nLayers: 1, ffnDim: 256, layout: { tied: true }, type } })),
  { name: "llama: scales, not of biases", model: { architecture: "llama", seed: 330, scales: true, layout: { tied: true, fusedQkv: true, biases: ["attn_qkv"] } } },
  { name: "llama: NVFP4, scales", model: { architecture: "llama", seed: 331, dim: 64, ffnDim: 128, type: "NVFP4", scales: true } },
  { name: "qwen3: scales", model: { architecture: "qwen3", seed: 332, scales: true, layout: { tied: true } } },
  { name: "mistral3", model: { architecture: "mistral3", seed: 400, headDim: 20, nKvHeads: 1 } },
  { name: "mistral3: yarn", model: { architecture: "mistral3", seed: 401, nHeads: 3, nKvHeads: 3, headDim: 32, keys: yarn() }, tokens: 24 },
  {
    name: "mistral3: yarn without its factor, a temperature",
    model: { architecture: "mistral3", seed: 402, headDim: 32, layout: { tied: true }, keys: yarn({ "rope.scaling.yarn_log_multiplier": f32(1), "attention.temperature_scale": f32(0.1) }) },
    tokens: 24,
  },
  {
    name: "mistral3: yarn, a multiplier other than 1, its own ramp",
    model: { architecture: "mistral3", seed: 403, headDim: 32, keys: yarn({ "rope.scaling.yarn_log_multiplier": f32(0.5), "rope.scaling.yarn_beta_fast": f32(16), "rope.scaling.yarn_beta_slow": f32(2), "rope.scaling.attn_factor": f32(0.8) }) },
    tokens: 24,
  },
  { name: "mistral3: yarn, a factor", model: { architecture: "mistral3", seed: 404, headDim: 32, keys: yarn({ "rope.scaling.attn_factor": f32(0.8) }) }, tokens: 24 },
  { name: "internlm2", model: { architecture: "internlm2", seed: 410, dim: 42, nHeads: 3, nKvHeads: 1, ffnDim: 50 } },
  { name: "internlm2: fused qkv, linear scaling", model: { architecture: "internlm2", seed: 411, layout: { fusedQkv: true }, keys: { "rope.scaling.type": text("linear"), "rope.scaling.factor": f32(2) } } },
  { name: "xverse", model: { architecture: "xverse", seed: 412, nHeads: 3, nKvHeads: 3 } },
  { name: "ernie4_5", model: { architecture: "ernie4_5", seed: 413, headDim: 20, nKvHeads: 1, layout: { tied: true } } },
  { name: "ernie4_5: Q8_0, biases", model: { architecture: "ernie4_5", seed: 440, dim: 64, ffnDim: 96, type: "Q8_0", layout: { biases: ["attn_q", "attn_k", "attn_v"] } } },
  { name: "minicpm", model: { architecture: "minicpm", seed: 415, keys: { embedding_scale: f32(3), residual_scale: f32(0.4), logit_scale: f32(0.4) } } },
  { name: "minicpm: the scales of old files, tied", model: { architecture: "minicpm", seed: 416, dim: 42, nHeads: 3, nKvHeads: 1, ffnDim: 50, layout: { tied: true } } },
  {
    name: "minicpm: longrope, long",
    model: {
      ...{ architecture: "minicpm", seed: 417, ropeFactors: "long and short" },
      keys: { "rope.scaling.type": text("longrope"), "rope.scaling.original_context_length": u32(256), "rope.scaling.attn_factor": f32(1.2) },
    },
  },
  { name: "baichuan: the layers of 7B", model: { architecture: "baichuan", seed: 418, nLayers: 32, dim: 24, nHeads: 2, nKvHeads: 2, ffnDim: 20, vocabSize: 260 }, tokens: 8 },
  { name: "baichuan: the layers of 13B", model: { architecture: "baichuan", seed: 419, nLayers: 40, dim: 24, nHeads: 3, nKvHeads: 3, ffnDim: 20, vocabSize: 260 }, tokens: 8 },
  { name: "refact", model: { architecture: "refact", seed: 420, nKvHeads: 1 }, tokens: 24 },
  { name: "chatglm", model: { architecture: "chatglm", seed: 421, ropeDims: 6 } },
  { name: "arcee", model: { architecture: "arcee", seed: 422, dim: 42, nHeads: 3, nKvHeads: 1, ffnDim: 50 } },
  { name: "arcee: Q8_0, yarn", model: { architecture: "arcee", seed: 423, dim: 64, headDim: 32, ffnDim: 64, type: "Q8_0", keys: yarn() } },
  { name: "qwen", model: { architecture: "qwen", seed: 424, nHeads: 3, nKvHeads: 3, ffnDim: 50, keys: { feed_forward_length: u32(100) } } },
  // llama.cpp v0.5.0 takes the epsilon for 0, whatever the file says: with the published 1e-6 that shows less than rounding.
  { name: "qwen2vl", model: { architecture: "qwen2vl", seed: 425, keys: { "rope.freq_base": f32(1e6), "attention.layer_norm_rms_epsilon": f32(1e-6) } }, tokens: 24 },
  { name: "qwen3vl", model: { architecture: "qwen3vl", seed: 426, headDim: 20, nKvHeads: 1, layout: { tied: true } }, tokens: 24 },
  { name: "exaone", model: { architecture: "exaone", seed: 427, dim: 42, nHeads: 3, nKvHeads: 1, ropeFactors: "freqs", layout: { tied: true } } },
  { name: "seed_oss", model: { architecture: "seed_oss", seed: 428, headDim: 20, nKvHeads: 1 } },
  { name: "seed_oss: Q4_0, tied", model: { architecture: "seed_oss", seed: 429, dim: 64, ffnDim: 96, type: "Q4_0", layout: { tied: true } } },
  { name: "hunyuan-dense", model: { architecture: "hunyuan-dense", seed: 430, headDim: 20, nKvHeads: 1 } },
  { name: "hunyuan-dense: Q8_0, tied, yarn", model: { architecture: "hunyuan-dense", seed: 431, dim: 64, headDim: 32, ffnDim: 96, type: "Q8_0", layout: { tied: true }, keys: yarn() }, tokens: 24 },
  { name: "pangu-embedded", model: { architecture: "pangu-embedded", seed: 432, nHeads: 3, nKvHeads: 1 } },
  { name: "plamo", model: { architecture: "plamo", seed: 433, nHeads: 6, nKvHeads: 2 } },
  { name: "orion", model: { architecture: "orion", seed: 434, dim: 42, nHeads: 3, nKvHeads: 3, ffnDim: 50 } },
  { name: "codeshell", model: { architecture: "codeshell", seed: 435, nHeads: 6, nKvHeads: 2 } },
  { name: "starcoder", model: { architecture: "starcoder", seed: 436, nKvHeads: 1, layout: { tied: true } } },
  { name: "jais", model: { architecture: "jais", seed: 437, nHeads: 3, nKvHeads: 3, queryGain: 2 }, tokens: 24 },
  { name: "jais2", model: { architecture: "jais2", seed: 438, nKvHeads: 4 } },
];
