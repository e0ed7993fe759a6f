import type { TensorInfo } from "./formats/source.ts";
import { FormatError, quote } from "./formats/errors.ts";
import { getNumber, getString, type HasMetadata } from "./formats/gguf-values.ts";
import { type RopeConfig, type RopeScaling, yarnMagnitude } from "./rope.ts";

/**
 * What an architecture makes of YaRN's further keys; others read none of them. `whole keys`: `yarn_log_multiplier` says that the factor is for whole
 * keys: then it is part of the scale of scores (see `latentFromGguf`), and cosines and sines keep theirs. `all`: it says by what the factor is divided, and
 * `yarn_beta_fast` and `yarn_beta_slow` where the ramp lies.
 */
export type YarnKeys = "whole keys" | "all";

type File = HasMetadata & { readonly tensors: ReadonlyMap<string, TensorInfo> };

/**
 * Rotary positions as a file's metadata has them.
 * @throws FormatError naming the key that is wrong.
 */
export function ropeFromGguf(file: File, architecture: string, style: RopeConfig["style"], headDim: number, yarnKeys?: YarnKeys): RopeConfig {
  const number = (key: string, fallback: number) => getNumber(file, `${architecture}.rope.${key}`, fallback);
  const scaling = scalingOf(file, architecture, yarnKeys);
  const multiplier = yarnKeys ? number("scaling.yarn_log_multiplier", 0) : 0;
  const yarn = (factor: number) => (multiplier === 0 ? yarnMagnitude(factor) : yarnKeys === "whole keys" ? 1 : yarnMagnitude(factor) / yarnMagnitude(factor, multiplier));
  const magnitude = number("scaling.attn_factor", 1) * (scaling.type === "yarn" ? yarn(scaling.factor) : 1);
  return { style, base: number("freq_base", 10000), dims: number("dimension_count", headDim), scaling, ...(magnitude !== 1 && { magnitude }) };
}

function scalingOf(file: File, architecture: string, yarnKeys?: YarnKeys): RopeScaling {
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
      const beta = (key: string, usual: number) => (yarnKeys === "all" ? number(key, usual) : usual);
      return { type, factor, originalContext: originalContext(), betaFast: beta("yarn_beta_fast", 32), betaSlow: beta("yarn_beta_slow", 1) };
    }
    case "longrope":
      return { type, factor, originalContext: originalContext() };
  }
  throw new FormatError(file.name, `key "${key}": expected none, linear, yarn, longrope or llama3, found ${quote(type)}`);
}
