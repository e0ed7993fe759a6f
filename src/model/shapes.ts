import { configFromGguf } from "./architectures.ts";
import type { ModelConfig } from "./config.ts";
import type { GgufValue } from "./formats/gguf-values.ts";

/** A published model's dimensions, without its weights. */
export interface NamedShape {
  readonly config: ModelConfig;
  readonly tied: boolean;
}

type Dims = Pick<ModelConfig, "dim" | "nLayers" | "nHeads" | "ffnDim" | "vocabSize" | "contextLength"> & {
  readonly nKvHeads?: number;
  readonly headDim?: number;
  readonly normEps?: number;
  readonly ropeBase?: number;
  readonly window?: number;
  readonly tied: boolean;
};

/** What a file of the model says, by key. */
type Keys = Readonly<Record<string, number | string | boolean>>;

/** By the rules that files of the architecture are read by; `keys` is what else such a file says. */
function shape(name: string, architecture: string, dims: Dims, keys: Keys = {}): NamedShape {
  const { dim, nHeads, headDim, normEps = 1e-5, vocabSize } = dims;
  const values: Record<string, Keys[string] | undefined> = {
    ...{ embedding_length: dim, block_count: dims.nLayers, feed_forward_length: dims.ffnDim, context_length: dims.contextLength },
    ...{ "attention.head_count": nHeads, "attention.head_count_kv": dims.nKvHeads, "attention.key_length": headDim },
    ...{ "attention.layer_norm_rms_epsilon": normEps, "attention.layer_norm_epsilon": normEps, "rope.freq_base": dims.ropeBase, "attention.sliding_window": dims.window },
    ...keys,
  };
  const metadata = new Map<string, GgufValue>([["general.architecture", { type: "string", value: architecture }], ["general.name", { type: "string", value: name }]]);
  for (const [key, value] of Object.entries(values)) {
    if (value !== undefined) metadata.set(`${architecture}.${key}`, typeof value === "number" ? { type: "float64", value } : typeof value === "boolean" ? { type: "bool", value } : { type: "string", value });
  }
  const embedding = { name: "token_embd.weight", shape: [vocabSize, dim], type: "F32", offset: 0, bytes: 0 };
  return { config: configFromGguf({ name, metadata, tensors: new Map([[embedding.name, embedding]]) }), tied: dims.tied };
}

const llama = (name: string, dims: Dims, keys?: Keys) => shape(name, "llama", dims, keys);

/** Radford et al. 2019, Brown et al. 2020: one vocabulary, feed-forward blocks of four times the width. */
function gpt(name: string, dims: Pick<ModelConfig, "dim" | "nLayers" | "nHeads" | "contextLength">): NamedShape {
  return shape(name, "gpt2", { ...dims, ffnDim: 4 * dims.dim, vocabSize: 50257, tied: true });
}

/** A mixture of experts; `sharedFfnDim`: with a shared one. */
const experts = (count: number, used: number, ffnDim: number, sharedFfnDim?: number): Record<string, number> => ({
  ...{ expert_count: count, expert_used_count: used, expert_feed_forward_length: ffnDim },
  ...(sharedFfnDim !== undefined && { expert_shared_feed_forward_length: sharedFfnDim }),
});

/** DeepSeek's latent attention and YaRN, the same in all its sizes but for the queries' rank and `mscale_all_dim`. */
const deepseek = (logMultiplier: number, qRank?: number): Keys => ({
  ...{ "attention.kv_lora_rank": 512, "attention.key_length": 192, "attention.value_length": 128, "rope.dimension_count": 64 },
  ...(qRank !== undefined && { "attention.q_lora_rank": qRank }),
  ...{ "rope.scaling.type": "yarn", "rope.scaling.factor": 40, "rope.scaling.original_context_length": 4096, "rope.scaling.yarn_log_multiplier": logMultiplier },
});

/** Llama 3.1's rope scaling. */
const llama3 = (factor: number) => ({
  ...{ "rope.scaling.type": "llama3", "rope.scaling.factor": factor, "rope.scaling.low_freq_factor": 1, "rope.scaling.high_freq_factor": 4 },
  "rope.scaling.original_context_length": 8192,
});

/** Dimensions as in each model's published config. */
export const SHAPES: Readonly<Record<string, NamedShape>> = {
  "stories260k": llama("stories260k", { dim: 64, nLayers: 5, nHeads: 8, nKvHeads: 4, ffnDim: 172, vocabSize: 512, contextLength: 512, tied: true }),
  "stories15m": llama("stories15m", { dim: 288, nLayers: 6, nHeads: 6, nKvHeads: 6, ffnDim: 768, vocabSize: 32000, contextLength: 256, tied: true }),
  "smollm-135m": llama("smollm-135m", { dim: 576, nLayers: 30, nHeads: 9, nKvHeads: 3, ffnDim: 1536, vocabSize: 49152, contextLength: 2048, tied: true }),
  "qwen2.5-0.5b": shape("qwen2.5-0.5b", "qwen2", {
    ...{ ropeBase: 1e6, normEps: 1e-6 },
    ...{ dim: 896, nLayers: 24, nHeads: 14, nKvHeads: 2, ffnDim: 4864, vocabSize: 151936, contextLength: 32768, tied: true },
  }),
  "tinyllama-1.1b": llama("tinyllama-1.1b", { dim: 2048, nLayers: 22, nHeads: 32, nKvHeads: 4, ffnDim: 5632, vocabSize: 32000, contextLength: 2048, tied: false }),
  "llama-2-7b": llama("llama-2-7b", { dim: 4096, nLayers: 32, nHeads: 32, nKvHeads: 32, ffnDim: 11008, vocabSize: 32000, contextLength: 4096, tied: false }),
  "llama-2-13b": llama("llama-2-13b", { dim: 5120, nLayers: 40, nHeads: 40, nKvHeads: 40, ffnDim: 13824, vocabSize: 32000, contextLength: 4096, tied: false }),
  "llama-2-70b": llama("llama-2-70b", { dim: 8192, nLayers: 80, nHeads: 64, nKvHeads: 8, ffnDim: 28672, vocabSize: 32000, contextLength: 4096, tied: false }),
  "mistral-7b": llama("mistral-7b", {
    ...{ ropeBase: 1e6, dim: 4096, nLayers: 32, nHeads: 32, nKvHeads: 8, ffnDim: 14336, vocabSize: 32000, contextLength: 32768, tied: false },
  }),
  "llama-3-8b": llama("llama-3-8b", {
    ...{ ropeBase: 500000, dim: 4096, nLayers: 32, nHeads: 32, nKvHeads: 8, ffnDim: 14336, vocabSize: 128256, contextLength: 8192, tied: false },
  }),
  "llama-3.1-70b": llama(
    "llama-3.1-70b",
    { ropeBase: 500000, dim: 8192, nLayers: 80, nHeads: 64, nKvHeads: 8, ffnDim: 28672, vocabSize: 128256, contextLength: 131072, tied: false },
    llama3(8),
  ),
  "llama-3.1-405b": llama(
    "llama-3.1-405b",
    { ropeBase: 500000, dim: 16384, nLayers: 126, nHeads: 128, nKvHeads: 8, ffnDim: 53248, vocabSize: 128256, contextLength: 131072, tied: false },
    llama3(8),
  ),
  "llama-3.2-1b": llama(
    "llama-3.2-1b",
    { ropeBase: 500000, dim: 2048, nLayers: 16, nHeads: 32, nKvHeads: 8, ffnDim: 8192, vocabSize: 128256, contextLength: 131072, tied: true },
    llama3(32),
  ),
  "qwen3-0.6b": shape("qwen3-0.6b", "qwen3", {
    ...{ ropeBase: 1e6, normEps: 1e-6, headDim: 128 },
    ...{ dim: 1024, nLayers: 28, nHeads: 16, nKvHeads: 8, ffnDim: 3072, vocabSize: 151936, contextLength: 40960, tied: true },
  }),
  "qwen3-8b": shape("qwen3-8b", "qwen3", {
    ...{ ropeBase: 1e6, normEps: 1e-6, headDim: 128 },
    ...{ dim: 4096, nLayers: 36, nHeads: 32, nKvHeads: 8, ffnDim: 12288, vocabSize: 151936, contextLength: 40960, tied: false },
  }),
  "smollm3-3b": shape("smollm3-3b", "smollm3", {
    ...{ ropeBase: 5e6, normEps: 1e-6 },
    ...{ dim: 2048, nLayers: 36, nHeads: 16, nKvHeads: 4, ffnDim: 11008, vocabSize: 128256, contextLength: 65536, tied: true },
  }),
  "gemma-2-2b": shape("gemma-2-2b", "gemma2", {
    ...{ normEps: 1e-6, headDim: 256, window: 4096 },
    ...{ dim: 2304, nLayers: 26, nHeads: 8, nKvHeads: 4, ffnDim: 9216, vocabSize: 256000, contextLength: 8192, tied: true },
  }),
  "gemma-2-9b": shape("gemma-2-9b", "gemma2", {
    ...{ normEps: 1e-6, headDim: 256, window: 4096 },
    ...{ dim: 3584, nLayers: 42, nHeads: 16, nKvHeads: 8, ffnDim: 14336, vocabSize: 256000, contextLength: 8192, tied: true },
  }),
  "gemma-3-1b": shape("gemma-3-1b", "gemma3", {
    ...{ normEps: 1e-6, headDim: 256, window: 512, ropeBase: 1e6 },
    ...{ dim: 1152, nLayers: 26, nHeads: 4, nKvHeads: 1, ffnDim: 6912, vocabSize: 262144, contextLength: 32768, tied: true },
  }),
  "gemma-3-4b": shape(
    "gemma-3-4b",
    "gemma3",
    {
      ...{ normEps: 1e-6, headDim: 256, window: 1024, ropeBase: 1e6 },
      ...{ dim: 2560, nLayers: 34, nHeads: 8, nKvHeads: 4, ffnDim: 10240, vocabSize: 262208, contextLength: 131072, tied: true },
    },
    { "rope.scaling.type": "linear", "rope.scaling.factor": 8 },
  ),
  "phi-3-mini": shape("phi-3-mini", "phi3", { dim: 3072, nLayers: 32, nHeads: 32, nKvHeads: 32, ffnDim: 8192, vocabSize: 32064, contextLength: 4096, tied: false }),
  "olmo-2-7b": shape("olmo-2-7b", "olmo2", {
    ...{ normEps: 1e-6, ropeBase: 500000 },
    ...{ dim: 4096, nLayers: 32, nHeads: 32, nKvHeads: 32, ffnDim: 11008, vocabSize: 100352, contextLength: 4096, tied: false },
  }),
  "mixtral-8x7b": llama(
    "mixtral-8x7b",
    { ropeBase: 1e6, dim: 4096, nLayers: 32, nHeads: 32, nKvHeads: 8, ffnDim: 14336, vocabSize: 32000, contextLength: 32768, tied: false },
    experts(8, 2, 14336),
  ),
  "mixtral-8x22b": llama(
    "mixtral-8x22b",
    { ropeBase: 1e6, dim: 6144, nLayers: 56, nHeads: 48, nKvHeads: 8, ffnDim: 16384, vocabSize: 32768, contextLength: 65536, tied: false },
    experts(8, 2, 16384),
  ),
  "qwen1.5-moe-a2.7b": shape(
    ...(["qwen1.5-moe-a2.7b", "qwen2moe"] as const),
    { ropeBase: 1e6, normEps: 1e-6, dim: 2048, nLayers: 24, nHeads: 16, nKvHeads: 16, ffnDim: 5632, vocabSize: 151936, contextLength: 8192, tied: false },
    experts(60, 4, 1408, 5632),
  ),
  "qwen2-57b-a14b": shape(
    ...(["qwen2-57b-a14b", "qwen2moe"] as const),
    { ropeBase: 1e6, normEps: 1e-6, dim: 3584, nLayers: 28, nHeads: 28, nKvHeads: 4, ffnDim: 18944, vocabSize: 151936, contextLength: 131072, tied: false },
    experts(64, 8, 2560, 20480),
  ),
  "qwen3-30b-a3b": shape(
    ...(["qwen3-30b-a3b", "qwen3moe"] as const),
    { ropeBase: 1e6, normEps: 1e-6, headDim: 128, dim: 2048, nLayers: 48, nHeads: 32, nKvHeads: 4, ffnDim: 6144, vocabSize: 151936, contextLength: 40960, tied: false },
    experts(128, 8, 768),
  ),
  "qwen3-235b-a22b": shape(
    ...(["qwen3-235b-a22b", "qwen3moe"] as const),
    { ropeBase: 1e6, normEps: 1e-6, headDim: 128, dim: 4096, nLayers: 94, nHeads: 64, nKvHeads: 4, ffnDim: 12288, vocabSize: 151936, contextLength: 40960, tied: false },
    experts(128, 8, 1536),
  ),
  "olmoe-1b-7b": shape(
    ...(["olmoe-1b-7b", "olmoe"] as const),
    { dim: 2048, nLayers: 16, nHeads: 16, nKvHeads: 16, ffnDim: 1024, vocabSize: 50304, contextLength: 4096, tied: false },
    experts(64, 8, 1024),
  ),
  "gpt-oss-20b": shape(
    ...(["gpt-oss-20b", "gpt-oss"] as const),
    { ropeBase: 150000, headDim: 64, window: 128, dim: 2880, nLayers: 24, nHeads: 64, nKvHeads: 8, ffnDim: 2880, vocabSize: 201088, contextLength: 131072, tied: false },
    { ...experts(32, 4, 2880), "rope.scaling.type": "yarn", "rope.scaling.factor": 32, "rope.scaling.original_context_length": 4096 },
  ),
  "gpt-oss-120b": shape(
    ...(["gpt-oss-120b", "gpt-oss"] as const),
    { ropeBase: 150000, headDim: 64, window: 128, dim: 2880, nLayers: 36, nHeads: 64, nKvHeads: 8, ffnDim: 2880, vocabSize: 201088, contextLength: 131072, tied: false },
    { ...experts(128, 4, 2880), "rope.scaling.type": "yarn", "rope.scaling.factor": 32, "rope.scaling.original_context_length": 4096 },
  ),
  "deepseek-v2-lite": shape(
    ...(["deepseek-v2-lite", "deepseek2"] as const),
    { normEps: 1e-6, dim: 2048, nLayers: 27, nHeads: 16, ffnDim: 10944, vocabSize: 102400, contextLength: 163840, tied: false },
    { ...experts(64, 6, 1408, 2816), leading_dense_block_count: 1, ...deepseek(0.0707) },
  ),
  "deepseek-v3": shape(
    ...(["deepseek-v3", "deepseek2"] as const),
    { normEps: 1e-6, dim: 7168, nLayers: 61, nHeads: 128, ffnDim: 18432, vocabSize: 129280, contextLength: 163840, tied: false },
    {
      ...{ ...experts(256, 8, 2048, 2048), leading_dense_block_count: 3, ...deepseek(0.1, 1536) },
      ...{ expert_gating_func: 2, expert_weights_norm: true, expert_weights_scale: 2.5, expert_group_count: 8, expert_group_used_count: 4 },
    },
  ),
  "gpt2": gpt("gpt2", { dim: 768, nLayers: 12, nHeads: 12, contextLength: 1024 }),
  "gpt2-medium": gpt("gpt2-medium", { dim: 1024, nLayers: 24, nHeads: 16, contextLength: 1024 }),
  "gpt2-large": gpt("gpt2-large", { dim: 1280, nLayers: 36, nHeads: 20, contextLength: 1024 }),
  "gpt2-xl": gpt("gpt2-xl", { dim: 1600, nLayers: 48, nHeads: 25, contextLength: 1024 }),
  "gpt-3-6.7b": gpt("gpt-3-6.7b", { dim: 4096, nLayers: 32, nHeads: 32, contextLength: 2048 }),
  "gpt-3-13b": gpt("gpt-3-13b", { dim: 5120, nLayers: 40, nHeads: 40, contextLength: 2048 }),
  "gpt-3-175b": gpt("gpt-3-175b", { dim: 12288, nLayers: 96, nHeads: 96, contextLength: 2048 }),
};

