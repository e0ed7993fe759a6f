import type { TensorInfo } from "./formats/source.ts";
import { FormatError, quote } from "./formats/errors.ts";
import { getNumber, getString, type HasMetadata } from "./formats/gguf-values.ts";
import { type RopeConfig, type RopeScaling, yarnMagnitude } from "./rope.ts";
type File = HasMetadata & { readonly tensors: ReadonlyMap<string, TensorInfo> };

/**
 * Rotary positions as a file's metadata has them.
 * @param latent Whether `yarn_log_multiplier` says that YaRN's factor is for whole keys: then it is part of the scale of scores (see `latentFromGguf`), and cosines and sines keep theirs.
 * @throws FormatError naming the key that is wrong.
 */
export function ropeFromGguf(file: File, architecture: string, style: RopeConfig["style"], headDim: number, latent = false): RopeConfig {
  const number = (key: string, fallback: number) => getNumber(file, `${architecture}.rope.${key}`, fallback);
  const scaling = scalingOf(file, architecture);
  const moved = latent && number("scaling.yarn_log_multiplier", 0) !== 0;
  const magnitude = number("scaling.attn_factor", 1) * (scaling.type === "yarn" && !moved ? yarnMagnitude(scaling.factor) : 1);
  return { style, base: number("freq_base", 10000), dims: number("dimension_count", headDim), scaling, ...(magnitude !== 1 && { magnitude }) };
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
    // llama.cpp reads the keys yarn_beta_fast, yarn_beta_slow, yarn_ext_factor for none of these architectures.
    case "yarn":
      return { type, factor, originalContext: originalContext(), betaFast: 32, betaSlow: 1 };
    case "longrope":
      return { type, factor, originalContext: originalContext() };
  }
  throw new FormatError(file.name, `key "${key}": expected none, linear, yarn, longrope or llama3, found ${quote(type)}`);
}
