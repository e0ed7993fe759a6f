import type { Activation, RopeStyle } from "../tensor/kernels.ts";

/** How rotary positions are stretched beyond the trained context. */
export type RopeScaling =
  | { readonly type: "none" }
  /** Positions divided by `factor` (Chen et al. 2023). */
  | { readonly type: "linear"; readonly factor: number }
  /** Llama 3.1's rule: low frequencies divided by `factor`, high ones kept, a ramp between. */
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalContext: number;
    };

export interface RopeConfig {
  readonly style: RopeStyle;
  readonly base: number;
  /** How many of headDim's values rotate. */
  readonly dims: number;
  readonly scaling: RopeScaling;
}

/** Everything about a decoder but its weights. Differences between architectures are data here, not code in the decoder. */
export interface ModelConfig {
  /** As in GGUF's `general.architecture`. */
  readonly architecture: string;
  readonly name: string;
  readonly dim: number;
  readonly nLayers: number;
  readonly nHeads: number;
  readonly nKvHeads: number;
  readonly headDim: number;
  readonly ffnDim: number;
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly norm: "rms" | "layer";
  readonly normEps: number;
  /** Rotary positions; undefined where positions are learned and added to the embedding. */
  readonly rope: RopeConfig | undefined;
  /** `gated`: act(gate(x)) * up(x), three matrices. `plain`: act(up(x)), two. */
  readonly ffn: "gated" | "plain";
  readonly activation: Activation;
}

/** @throws RangeError naming the field and what is wrong with it. */
export function validateConfig(config: ModelConfig): ModelConfig {
  for (const field of ["dim", "nLayers", "nHeads", "nKvHeads", "headDim", "ffnDim", "vocabSize", "contextLength"] as const) {
    const value = config[field];
    if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${field}: expected a positive integer, found ${value}`);
    if (value > MOST[field]) throw new RangeError(`${field}: expected at most ${MOST[field]}, found ${value}`);
  }
  if (config.nHeads % config.nKvHeads !== 0) {
    throw new RangeError(`nHeads: expected a multiple of nKvHeads (${config.nKvHeads}), found ${config.nHeads}`);
  }
  if (!(config.normEps >= 0 && config.normEps < 1)) throw new RangeError(`normEps: expected 0 to 1, found ${config.normEps}`);
  const { rope } = config;
  if (rope) {
    if (!(rope.base > 0 && Number.isFinite(rope.base))) throw new RangeError(`rope base: expected a positive number, found ${rope.base}`);
    if (!Number.isSafeInteger(rope.dims) || rope.dims < 2 || rope.dims % 2 !== 0 || rope.dims > config.headDim) {
      throw new RangeError(`rope dims: expected an even number up to headDim (${config.headDim}), found ${rope.dims}`);
    }
    const { scaling } = rope;
    if (scaling.type !== "none" && !(scaling.factor > 0 && Number.isFinite(scaling.factor))) {
      throw new RangeError(`rope scaling factor: expected a positive number, found ${scaling.factor}`);
    }
  }
  return config;
}

/** Far above any published model, low enough that products of two stay exact. */
const MOST = {
  ...{ dim: 1 << 20, nLayers: 1 << 14, nHeads: 1 << 14, nKvHeads: 1 << 14, headDim: 1 << 16 },
  ...{ ffnDim: 1 << 24, vocabSize: 1 << 26, contextLength: 2 ** 31 - 1 },
};

/**
 * Angle per position of each rotating pair, [dims / 2]: base^(-2i / dims) (Su et al. 2021), stretched as the config says, and divided
 * by the model's own `factors` (GGUF's `rope_freqs.weight`) where it brings them.
 */
export function ropeFrequencies({ base, dims, scaling }: RopeConfig, factors?: Float32Array): Float64Array {
  const frequencies = new Float64Array(dims / 2);
  for (let i = 0; i < frequencies.length; i++) {
    let frequency = base ** ((-2 * i) / dims) / (factors ? factors[i] : 1);
    if (scaling.type === "linear") frequency /= scaling.factor;
    if (scaling.type === "llama3") {
      const turns = (scaling.originalContext * frequency) / (2 * Math.PI);
      const kept = (turns - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
      const ramp = Math.min(1, Math.max(0, kept));
      frequency = (1 - ramp) * (frequency / scaling.factor) + ramp * frequency;
    }
    frequencies[i] = frequency;
  }
  return frequencies;
}

/** Weights of the decoder: matrices, biases and norms. */
export function parameterCount(config: ModelConfig, tied: boolean): number {
  const { dim, nLayers, nHeads, nKvHeads, headDim, ffnDim, vocabSize } = config;
  const attention = dim * headDim * (2 * nHeads + 2 * nKvHeads);
  const ffn = dim * ffnDim * (config.ffn === "gated" ? 3 : 2);
  const norms = dim * (config.norm === "layer" ? 2 : 1);
  const biases = config.architecture === "gpt2" ? headDim * (nHeads + 2 * nKvHeads) + dim + ffnDim + dim : 0;
  const positions = config.rope ? 0 : config.contextLength * dim;
  return nLayers * (attention + ffn + 2 * norms + biases) + norms + vocabSize * dim * (tied ? 1 : 2) + positions;
}
