import type { RopeStyle } from "../tensor/kernels.ts";

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
    }
  /**
   * YaRN (Peng et al. 2023, section 3.2): pairs that turn less than `betaSlow` times within the original context are divided by `factor`, those
   * that turn more than `betaFast` times are kept, with a ramp between.
   */
  | {
      readonly type: "yarn";
      readonly factor: number;
      readonly originalContext: number;
      readonly betaFast: number;
      readonly betaSlow: number;
    }
  /** LongRoPE (Ding et al. 2024): a divisor of its own for each pair, one list for contexts up to the original one, another beyond; and linear by `factor`. */
  | { readonly type: "longrope"; readonly factor: number; readonly originalContext: number };

/** Rotary position embedding (Su et al. 2021): which values of a head turn, and by how much a position (see `ropeFrequencies`). */
export interface RopeConfig {
  readonly style: RopeStyle;
  /** `rope_theta`, mostly 10000 or more: the larger, the slower the last pairs turn. */
  readonly base: number;
  /** How many of headDim's values rotate. */
  readonly dims: number;
  readonly scaling: RopeScaling;
  /** Factor on cosines and sines: the attention factor of YaRN and LongRoPE. Default 1. */
  readonly magnitude?: number;
}

/** @throws RangeError naming what is wrong. */
export function validateRope({ base, dims, scaling, magnitude = 1 }: RopeConfig, headDim: number): void {
  const positive = (name: string, value: number) => {
    if (!(value > 0 && Number.isFinite(value))) throw new RangeError(`rope ${name}: expected a positive number, found ${value}`);
  };
  positive("base", base);
  positive("attention factor", magnitude);
  if (!Number.isSafeInteger(dims) || dims < 2 || dims % 2 !== 0 || dims > headDim) {
    throw new RangeError(`rope dims: expected an even number up to headDim (${headDim}), found ${dims}`);
  }
  if (scaling.type === "none") return;
  positive("scaling factor", scaling.factor);
  if (scaling.type === "linear") return;
  positive("scaling original context", scaling.originalContext);
  if (scaling.type !== "yarn") return;
  positive("scaling beta_fast", scaling.betaFast);
  positive("scaling beta_slow", scaling.betaSlow);
}

/**
 * Angle per position of each rotating pair, [dims / 2]: base^(-2i / dims) (Su et al. 2021), divided by the model's own `factors` (GGUF's
 * `rope_freqs.weight`, or one of LongRoPE's lists) where it brings them, and stretched as the config says.
 */
export function ropeFrequencies({ base, dims, scaling }: RopeConfig, factors?: Float32Array): Float64Array {
  return Float64Array.from({ length: dims / 2 }, (_, i) => {
    const frequency = base ** ((-2 * i) / dims) / (factors ? factors[i] : 1);
    switch (scaling.type) {
      case "none":
        return frequency;
      case "linear":
      case "longrope":
        return frequency / scaling.factor;
      case "llama3": {
        const turns = (scaling.originalContext * frequency) / (2 * Math.PI);
        const kept = clamp01((turns - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor));
        return (1 - kept) * (frequency / scaling.factor) + kept * frequency;
      }
      case "yarn": {
        // The pair that turns `turns` times within the original context; whole pairs bound the ramp, as in the paper's own code.
        const pairOf = (turns: number) => (dims * Math.log(scaling.originalContext / (turns * 2 * Math.PI))) / (2 * Math.log(base));
        const first = Math.max(0, Math.floor(pairOf(scaling.betaFast)));
        const last = Math.min(dims - 1, Math.ceil(pairOf(scaling.betaSlow)));
        const kept = 1 - clamp01((i - first) / Math.max(0.001, last - first));
        return (1 - kept) * (frequency / scaling.factor) + kept * frequency;
      }
    }
  });
}

/** YaRN's attention factor (Peng et al. 2023, section 3.4); `multiplier` is DeepSeek's and Mistral's `mscale`. */
export function yarnMagnitude(factor: number, multiplier = 1): number {
  return factor <= 1 ? 1 : 0.1 * multiplier * Math.log(factor) + 1;
}

function clamp01(x: number): number {
  return Math.min(1, Math.max(0, x));
}
