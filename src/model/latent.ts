import type { Linear, Norm } from "../tensor/fusion.ts";
import type { Ops } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { ModelConfig } from "./config.ts";

/**
 * Multi-head latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1). Keys and values of all heads are linear in one latent vector
 * a token, which is all that the cache keeps, beside the one part of the key that rotates. With the heads' own matrices moved to the
 * queries and to the results (the paper's "absorbed"), it is multi-query attention: a single KV head, whose key is [rotating part, latent]
 * and whose value is found in that key. So ModelConfig has nKvHeads 1 and headDim = rope dims + kvRank here.
 */
export interface LatentConfig {
  /** Width of the queries' own latent vector; undefined: queries are projected directly. */
  readonly qRank?: number;
  /** Width of the latent vector. */
  readonly kvRank: number;
  /** Of a head's query and key, the values that do not rotate. */
  readonly nopeDim: number;
  /** Of a head's value. */
  readonly valueDim: number;
}

/** What latent attention has beside q [nHeads * (nopeDim + rope dims), dim or qRank], k [rope dims, dim], v [kvRank, dim] and o [dim, nHeads * valueDim]. */
export interface LatentWeights {
  /** [qRank, dim], and the norm of what it makes. */
  readonly qDown?: { readonly linear: Linear; readonly norm: Norm };
  /** Of the latent vector, [kvRank]. */
  readonly norm: Norm;
  /** By head, [kvRank, nopeDim]: a query as the latent vectors see it. */
  readonly kUp: readonly Linear[];
  /** By head, [valueDim, kvRank]: a value out of a latent vector. */
  readonly vUp: readonly Linear[];
}

/** Queries [tokens, nHeads * headDim] and keys [tokens, headDim], which are the values too, for h [tokens, dim]: what rotates comes first in each. */
export function latentQueriesAndKeys(config: ModelConfig, ops: Ops, { q, k, v }: Readonly<Record<"q" | "k" | "v", Linear>>, weights: LatentWeights, h: Tensor): Record<"q" | "k" | "v", Tensor> {
  const { nHeads, headDim, normEps } = config;
  const { kvRank, nopeDim } = config.latent!;
  const { qDown } = weights;
  const [first, turning, latent] = ops.linears("attn_qkv", [qDown ? "attn_q_a" : "attn_q", "attn_k_rope", "attn_kv_a"], h, [qDown?.linear ?? q, k, v]);
  const full = qDown ? ops.linear("attn_q_b", ops.normalised("attn_q_a_norm", first, "rms", qDown.norm, normEps, [q]), q) : first;
  const absorbed = ops.headLinears("attn_k_b", ops.quantize("q_nope", ops.splitHeads("q_nope", full, nHeads, 0, nopeDim)), weights.kUp);
  const keys = ops.joinHeads("k_latent", [turning, ops.rmsNorm("attn_kv_a_norm", latent, weights.norm.weight, normEps)], 1);
  const queries = ops.joinHeads("q_latent", [ops.splitHeads("q_rope", full, nHeads, nopeDim, headDim - kvRank), absorbed], nHeads);
  return { q: queries, k: keys, v: keys };
}

/** The heads' values [tokens, nHeads * valueDim] out of what they took from the keys, [tokens, nHeads * headDim]. */
export function latentValues({ nHeads, headDim, latent }: ModelConfig, ops: Ops, { vUp }: LatentWeights, seen: Tensor): Tensor {
  const { kvRank } = latent!;
  const mixed = ops.splitHeads("attention_latent", seen, nHeads, headDim - kvRank, kvRank);
  return ops.joinHeads("attention_values", [ops.headLinears("attn_v_b", ops.quantize("attention_latent", mixed), vUp)], nHeads);
}

/** The linears of latent attention beside q, k and v. */
export function latentLinears({ qDown, kUp, vUp }: LatentWeights): Linear[] {
  return [...(qDown ? [qDown.linear] : []), ...kUp, ...vUp];
}

/** The weights of latent attention in one layer, its parts by GGUF's names. */
export function latentWeights(
  { dim, nHeads }: ModelConfig,
  { qRank, kvRank, nopeDim, valueDim }: LatentConfig,
  linear: (part: string, shape: readonly [number, number]) => Linear,
  norm: (part: string, size: number) => Norm,
): LatentWeights {
  const byHead = (part: string, shape: readonly [number, number]) => Array.from({ length: nHeads }, (_, head) => linear(`${part}.${head}`, shape));
  return {
    ...(qRank !== undefined && { qDown: { linear: linear("attn_q_a", [qRank, dim]), norm: norm("attn_q_a_norm", qRank) } }),
    norm: norm("attn_kv_a_norm", kvRank),
    kUp: byHead("attn_k_b", [kvRank, nopeDim]),
    vUp: byHead("attn_v_b", [valueDim, kvRank]),
  };
}

/** The names and shapes of a layer's q, k, v and o: latent attention has others. */
export function attentionParts({ dim, nHeads, nKvHeads, headDim, latent }: ModelConfig): Readonly<Record<"q" | "k" | "v" | "o", readonly [name: string, shape: readonly [number, number]]>> {
  if (!latent) {
    return { q: ["attn_q", [nHeads * headDim, dim]], k: ["attn_k", [nKvHeads * headDim, dim]], v: ["attn_v", [nKvHeads * headDim, dim]], o: ["attn_output", [dim, nHeads * headDim]] };
  }
  const { qRank, kvRank, nopeDim, valueDim } = latent;
  const ropeDims = headDim - kvRank;
  return {
    q: [qRank === undefined ? "attn_q" : "attn_q_b", [nHeads * (nopeDim + ropeDims), qRank ?? dim]],
    ...{ k: ["attn_k_rope", [ropeDims, dim]], v: ["attn_kv_a", [kvRank, dim]] },
    o: ["attn_output", [dim, nHeads * valueDim]],
  };
}

/** @throws RangeError naming the field and what is wrong with it. */
export function validateLatent({ latent, headDim, nKvHeads, rope }: ModelConfig): void {
  if (!latent) return;
  const { qRank = 1, kvRank, nopeDim, valueDim } = latent;
  for (const [field, value] of Object.entries({ "q rank": qRank, "kv rank": kvRank, "key values that do not rotate": nopeDim, "value length": valueDim })) {
    if (!Number.isSafeInteger(value) || value < 1 || value > 1 << 16) throw new RangeError(`latent attention, ${field}: expected a whole number from 1 to ${1 << 16}, found ${value}`);
  }
  if (nKvHeads !== 1 || !rope || headDim !== rope.dims + kvRank) {
    throw new RangeError(`latent attention: expected one KV head of rope dims + kv rank (${(rope?.dims ?? 0) + kvRank}) values, found ${nKvHeads} of ${headDim}`);
  }
}
