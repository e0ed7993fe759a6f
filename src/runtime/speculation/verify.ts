import { type Distribution, draw } from "../sampler.ts";

/** A token that may come next, and what it was drawn from; without that, no chance was involved: all of the distribution is on the token. */
export interface Guess {
  readonly token: number;
  readonly from?: Distribution;
}

/**
 * The next token by the target's distribution `p` and one uniform number in [0, 1), given a guess: Algorithm 1 of Leviathan et al. 2023 for
 * one position. A guess x from q stands with probability min(1, p(x) / q(x)); else the token comes from norm(max(0, p - q)), so that in
 * all it is distributed as p. What `u` has left after deciding the one is uniform again, and decides the other.
 *
 * Where q is a single token, drawing from p and looking whether it is the guess does the same: min(1, p / 1) = p, and what remains of p
 * without x is its distribution given that it is not x. So prompt lookup and greedy drafts leave every text as it is without them.
 */
export function verify(p: Distribution, { token, from: q }: Guess, u: number): number {
  if (q === undefined || q.ids.length === 1) return draw(p, u);
  const stands = Math.min(1, probability(p, token) / probability(q, token));
  if (u < stands) return token;
  const rest = residual(p, q);
  return draw(rest.total > 0 ? rest : p, (u - stands) / (1 - stands));
}

function probability({ ids, weights, total }: Distribution, id: number): number {
  const at = ids.indexOf(id);
  return at < 0 ? 0 : weights[at] / total;
}

/** max(0, p - q). */
function residual(p: Distribution, q: Distribution): Distribution {
  const known = new Map(q.ids.map((id, i) => [id, q.weights[i] / q.total]));
  const weights = p.ids.map((id, i) => Math.max(0, p.weights[i] / p.total - (known.get(id) ?? 0)));
  return { ids: p.ids, weights, total: weights.reduce((sum, weight) => sum + weight, 0) };
}
