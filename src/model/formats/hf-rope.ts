import { yarnMagnitude } from "../rope.ts";
import { FormatError, quote } from "./errors.ts";
import type { GgufValue } from "./gguf-values.ts";
import { asCount, asItems, asNumber, asString, at, given, optional, type JsonNode } from "./json.ts";

/** What a folder says of rotary positions, under GGUF's keys and tensor names. */
export interface HfRope {
  readonly keys: ReadonlyMap<string, GgufValue>;
  /** Divisors of the frequencies, by the name of their tensor. */
  readonly tensors: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
}

/**
 * Reads config.json's rope scaling.
 * @param dims How many values of a head rotate.
 * @param latent Whether YaRN's factor is for whole keys (DeepSeek).
 * @throws FormatError naming the key: an unknown rule, or a number that is missing or out of range.
 */
export function readRope(config: JsonNode, dims: number, fallbackBase: number, contextKey: string, latent: boolean): HfRope {
  // transformers 5 keeps everything about positions together, by kind of layer where they differ; before, the base stood beside the scaling.
  const whole = [at(config, "rope_parameters"), at(config, "rope_scaling")].find(given);
  const [global, local] = whole ? [at(whole, "full_attention"), at(whole, "sliding_attention")] : [];
  const rope = global && given(global) ? global : whole;
  const base = optional([...(rope ? [at(rope, "rope_theta")] : []), at(config, "rope_theta")].find(given) ?? at(config, "rotary_emb_base"), asNumber, fallbackBase);
  const keys = new Map<string, GgufValue>([
    ["rope.dimension_count", { type: "uint32", value: dims }],
    ["rope.freq_base", float(base)],
  ]);
  if (local && given(local)) keys.set("rope.freq_base_swa", float(asNumber(at(local, "rope_theta"))));
  const tensors = new Map<string, Float32Array<ArrayBuffer>>();
  const rule = rope === undefined ? "default" : ruleOf(rope);
  if (rope === undefined || rule === "default") return { keys, tensors };
  const original = () => {
    const found = [at(rope, "original_max_position_embeddings"), at(config, "original_max_position_embeddings"), at(config, contextKey)].find(given);
    return found ? asCount(found) : asCount(at(config, contextKey));
  };
  switch (rule) {
    case "linear":
    case "yarn": {
      const factor = asNumber(at(rope, "factor"));
      keys.set("rope.scaling.type", { type: "string", value: rule });
      keys.set("rope.scaling.factor", float(factor));
      if (rule === "linear") break;
      keys.set("rope.scaling.original_context_length", { type: "uint32", value: original() });
      // GGUF's factor multiplies the usual one.
      const attention = at(rope, "attention_factor");
      if (latent) keys.set("rope.scaling.yarn_log_multiplier", float(0.1 * wholeKeyFactor(rope)));
      if (given(attention)) keys.set("rope.scaling.attn_factor", float(asNumber(attention) / yarnMagnitude(factor)));
      break;
    }
    case "llama3":
      tensors.set("rope_freqs.weight", llama3Factors(rope, base, dims));
      break;
    case "longrope":
    case "su": {
      for (const [key, name] of [["long_factor", "rope_factors_long"], ["short_factor", "rope_factors_short"]] as const) {
        const factors = asItems(at(rope, key)).map(asNumber);
        if (factors.length !== dims / 2 || factors.some((factor) => !(factor > 0))) {
          throw new FormatError(config.file, `key "${rope.path}": expected ${dims / 2} positive numbers under ${key}, found ${factors.length}`);
        }
        tensors.set(`${name}.weight`, Float32Array.from(factors));
      }
      const [trained, context] = [original(), asCount(at(config, contextKey))];
      const longer = optional(at(rope, "factor"), asNumber, context / trained);
      // Ding et al. 2024, as the configuration class of Phi 3 computes it.
      const attention = optional(at(rope, "attention_factor"), asNumber, longer <= 1 ? 1 : Math.sqrt(1 + Math.log(longer) / Math.log(trained)));
      keys.set("rope.scaling.original_context_length", { type: "uint32", value: trained });
      keys.set("rope.scaling.attn_factor", float(attention));
      break;
    }
    default:
      throw new FormatError(config.file, `key "${rope.path}": expected a rope_type of default, linear, llama3, yarn or longrope, found ${quote(rule)}`);
  }
  return { keys, tensors };
}

// A GGUF file holds these as 32-bit floats: rounded here too, so that a folder computes what its conversion computes.
const float = (value: number): GgufValue => ({ type: "float32", value: Math.fround(value) });

function ruleOf(rope: JsonNode): string {
  const type = at(rope, "rope_type");
  return optional(given(type) ? type : at(rope, "type"), asString, "default");
}

/** DeepSeek's two numbers: how YaRN's factor grows for what rotates, relative to whole keys, and for whole keys. GGUF has only the latter. */
function wholeKeyFactor(rope: JsonNode): number {
  const [turning, whole] = ["mscale", "mscale_all_dim"].map((key) => optional(at(rope, key), asNumber, 0));
  if (whole > 0 && turning === whole) return whole;
  throw new FormatError(rope.file, `key "${rope.path}": expected the same mscale and mscale_all_dim, above 0, found ${turning} and ${whole}`);
}

/** Llama 3.1's rule as one divisor per rotating pair, the form in which GGUF files carry it (`rope_freqs.weight`). */
function llama3Factors(rope: JsonNode, base: number, dims: number): Float32Array<ArrayBuffer> {
  const [factor, low, high] = ["factor", "low_freq_factor", "high_freq_factor"].map((key) => asNumber(at(rope, key)));
  const original = asCount(at(rope, "original_max_position_embeddings"));
  if (!(factor >= 1) || !(high > low) || dims > 1 << 16) throw new FormatError(rope.file, `key "${rope.path}": expected factor from 1 and high_freq_factor above low_freq_factor, found ${factor}, ${high} and ${low}`);
  return Float32Array.from({ length: Math.floor(dims / 2) }, (_, i) => {
    const wavelength = 2 * Math.PI * base ** ((2 * i) / dims);
    const kept = Math.min(1, Math.max(0, (original / wavelength - low) / (high - low)));
    return 1 / ((1 - kept) / factor + kept);
  });
}
