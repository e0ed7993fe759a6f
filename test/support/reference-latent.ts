import type { ModelConfig } from "../../src/model/config.ts";

type Vector = Float64Array;

/**
 * Multi-head latent attention in float64 as DeepSeek-V2's paper defines it (section 2.1, equations 9 to 19): every head has keys and values of its own, made out
 * of the latent vectors, and nothing is absorbed.
 * @param need A tensor of the file, row-major.
 * @param turned A vector as its position rotates it.
 * @returns what the heads see, [tokens][nHeads * valueDim].
 */
export function referenceLatent(
  config: ModelConfig,
  at: (part: string) => string,
  need: (name: string) => ArrayLike<number>,
  h: readonly Vector[],
  turned: (x: Vector, position: number) => Vector,
): Vector[] {
  const { nHeads, headDim, normEps, attentionScale } = config;
  const { qRank, kvRank, nopeDim, valueDim } = config.latent!;
  const ropeDim = headDim - kvRank;
  const times = (name: string, x: Vector, from: number, rows: number): Vector => {
    const matrix = need(at(`${name}.weight`));
    return Float64Array.from({ length: rows }, (_, r) => x.reduce((sum, value, c) => sum + matrix[(from + r) * x.length + c] * value, 0));
  };
  const normed = (name: string, x: Vector): Vector => {
    const [gain, rms] = [need(at(`${name}.weight`)), Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + normEps)];
    return x.map((value, i) => (gain[i] * value) / rms);
  };
  const has = (name: string): boolean => {
    try {
      return need(at(`${name}.weight`)) !== undefined;
    } catch {
      return false;
    }
  };
  const older = has("attn_kv_b");
  const keyOf = (head: number, latent: Vector): Vector => {
    if (older) return times("attn_kv_b", latent, head * (nopeDim + valueDim), nopeDim);
    // [heads, kvRank, nopeDim]: the matrix of a head stands the other way round.
    const matrix = need(at("attn_k_b.weight"));
    return Float64Array.from({ length: nopeDim }, (_, i) => latent.reduce((sum, value, c) => sum + value * matrix[(head * kvRank + c) * nopeDim + i], 0));
  };
  const valueOf = (head: number, latent: Vector): Vector =>
    older ? times("attn_kv_b", latent, head * (nopeDim + valueDim) + nopeDim, valueDim) : times("attn_v_b", latent, head * valueDim, valueDim);

  const queries = h.map((x) => {
    const rows = nHeads * (nopeDim + ropeDim);
    return qRank === undefined ? times("attn_q", x, 0, rows) : times("attn_q_b", normed("attn_q_a_norm", times("attn_q_a", x, 0, qRank)), 0, rows);
  });
  const latents = h.map((x) => normed("attn_kv_a_norm", times("attn_kv_a_mqa", x, 0, kvRank)));
  const sharedKeys = h.map((x, i) => turned(times("attn_kv_a_mqa", x, kvRank, ropeDim), i));
  const seen = h.map(() => new Float64Array(nHeads * valueDim));
  for (let head = 0; head < nHeads; head++) {
    const keys = latents.map((latent, j) => [...keyOf(head, latent), ...sharedKeys[j]]);
    const values = latents.map((latent) => valueOf(head, latent));
    queries.forEach((full, i) => {
      const own = full.subarray(head * (nopeDim + ropeDim), (head + 1) * (nopeDim + ropeDim));
      const query = [...own.subarray(0, nopeDim), ...turned(own.slice(nopeDim), i)];
      const scores = keys.slice(0, i + 1).map((key) => key.reduce((sum, value, c) => sum + value * query[c], 0) * attentionScale!);
      const most = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - most));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let c = 0; c < valueDim; c++) seen[i][head * valueDim + c] = weights.reduce((sum, weight, j) => sum + (weight / total) * values[j][c], 0);
    });
  }
  return seen;
}
