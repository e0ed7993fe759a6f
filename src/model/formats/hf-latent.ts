import type { GgufValue } from "./gguf-values.ts";
import { asCount, at, type JsonNode, optional } from "./json.ts";

/** What config.json says of multi-head latent attention, under GGUF's keys. */
export interface HfLatent {
  readonly keys: ReadonlyMap<string, GgufValue>;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
}

/** Reads the dimensions of latent attention: one KV head of [latent, rotating part] for all heads (DeepSeek-V2, section 2.1). @throws FormatError */
export function readLatent(config: JsonNode): HfLatent {
  const count = (key: string) => asCount(at(config, key));
  const [kvRank, nopeDim, ropeDim, valueDim] = ["kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"].map(count);
  const qRank = optional(at(config, "q_lora_rank"), asCount, 0);
  const keys = {
    ...(qRank > 0 && { "attention.q_lora_rank": qRank }),
    ...{ "attention.kv_lora_rank": kvRank, "attention.head_count_kv": 1, "attention.key_length": kvRank + ropeDim, "attention.value_length": kvRank },
    ...{ "attention.key_length_mla": nopeDim + ropeDim, "attention.value_length_mla": valueDim },
  };
  return { keys: new Map(Object.entries(keys).map(([key, value]) => [key, { type: "uint32", value }])), nopeDim, ropeDim, valueDim };
}
