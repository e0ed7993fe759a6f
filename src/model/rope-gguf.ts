import type { RopeConfig, RopeScaling } from "./rope.ts";
import { yarnMagnitude } from "./rope.ts";
import { FormatError, quote } from "./formats/errors.ts";
import { getNumber, getString, type HasMetadata } from "./formats/gguf-values.ts";
import type { TensorInfo } from "./formats/source.ts";

type File = HasMetadata & { readonly tensors: ReadonlyMap<string, TensorInfo> };

/** Rotary positions as a file's metadata has them. @throws FormatError naming the key that is wrong. */
export function ropeFromGguf(file: File, architecture: string, style: RopeConfig["style"], headDim: number): RopeConfig {
  const number = (key: string, fallback: number) => getNumber(file, `${architecture}.rope.${key}`, fallback);
  const scaling = scalingOf(file, architecture);
  const magnitude = number("scaling.attn_factor", 1) * (scaling.type === "yarn" ? yarnFactor(scaling.factor, number("scaling.yarn_log_multiplier", 0)) : 1);
  return { style, base: number("freq_base", 10000), dims: number("dimension_count", headDim), scaling, ...(magnitude !== 1 && { magnitude }) };
}

/** With a multiplier, which stands for DeepSeek's mscale_all_dim, the factor is the ratio of two. */
function yarnFactor(factor: number, logMultiplier: number): number {
  return logMultiplier === 0 ? yarnMagnitude(factor) : yarnMagnitude(factor) / yarnMagnitude(factor, logMultiplier);
}

function scalingOf(file: File, architecture: string): RopeScaling {
  const key = `${architecture}.rope.scaling.type`;
  const number = (name: string, fallback: number) => getNumber(file, `${architecture}.rope.scaling.${name}`, fallback);
  const factor = number("factor", getNumber(file, `${architecture}.rope.scale_linear`, 1)) || 1;
  const originalContext = () => number("original_context_length", getNumber(file, `${architecture}.context_length`));
  // Files of Phi 3 bring LongRoPE's lists and no type.
  const type = getString(file, key, file.tensors.has("rope_factors_long.weight") ? "longrope" : "linear");
  switch (type) {
    // Llama 3's own rule comes as ready factors in the tensor rope_freqs.weight, under the type "none" or "linear" with factor 1.
    case "none":
      return { type };
    case "linear":
      return factor === 1 ? { type: "none" } : { type, factor };
    case "llama3":
      return { type, factor, lowFreqFactor: number("low_freq_factor", 1), highFreqFactor: number("high_freq_factor", 4), originalContext: number("original_context_length", 8192) };
    case "yarn": {
      const extrapolation = number("yarn_ext_factor", 1);
      return { type, factor, originalContext: originalContext(), betaFast: number("yarn_beta_fast", 32), betaSlow: number("yarn_beta_slow", 1), extrapolation: extrapolation < 0 ? 1 : extrapolation };
    }
    case "longrope":
      return { type, factor, originalContext: originalContext() };
  }
  throw new FormatError(file.name, `key "${key}": expected none, linear, yarn, longrope or llama3, found ${quote(type)}`);
}
