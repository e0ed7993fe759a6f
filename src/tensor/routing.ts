import type { Tensor } from "./tensor.ts";

/** How the logits of a router become a choice of experts and their weights. */
export interface Routing {
  /** Experts to choose from. */
  readonly count: number;
  /** Experts that each token meets. */
  readonly used: number;
  /**
   * `softmax` over all experts before the choice (Shazeer et al. 2017), `softmax-after-top-k` over the chosen ones alone, or each expert's own
   * `sigmoid` (DeepSeek-AI 2024, "DeepSeek-V3", section 2.1.2).
   */
  readonly gating: "softmax" | "sigmoid" | "softmax-after-top-k";
  /** Whether the chosen experts' weights are divided by their sum. */
  readonly normaliseWeights: boolean;
  /** Factor on the weights, after that. */
  readonly scale: number;
  /** Experts stand in `count` groups; only the `used` groups whose two best experts score highest take part. */
  readonly groups?: { readonly count: number; readonly used: number };
}

/** The least sum that weights are divided by: f16's smallest normal number, which keeps vanishing sigmoids finite. */
const LEAST_SUM = 2 ** -14;

/**
 * Chooses `used` experts for every row of logits [tokens, count]: ids [tokens * used] and weights [tokens, used], best first, the lower id
 * of equals first. `bias` [count] is added to the scores for the choice, not to the weights (Wang et al. 2024, "Auxiliary-Loss-Free Load
 * Balancing"). A row that is not finite still chooses, and its weights are not finite. Each row by itself, in float64.
 */
export function route(ids: Int32Array, weights: Tensor, logits: Tensor, routing: Routing, bias?: Tensor): void {
  const { count, used, gating } = routing;
  const scores = new Float64Array(count);
  const ranked = new Float64Array(count);
  for (let row = 0; row < logits.rows; row++) {
    for (let i = 0; i < count; i++) scores[i] = logits.f32[row * count + i];
    if (gating === "softmax") softmax(scores, count);
    if (gating === "sigmoid") for (let i = 0; i < count; i++) scores[i] = 1 / (1 + Math.exp(-scores[i]));
    for (let i = 0; i < count; i++) ranked[i] = Number.isNaN(scores[i]) ? -Infinity : scores[i] + (bias ? bias.f32[i] : 0);
    if (routing.groups) excludeGroups(ranked, routing.groups);
    const at = row * used;
    for (let rank = 0; rank < used; rank++) {
      const best = largest(ranked, at, rank, ids);
      ids[at + rank] = best;
      ranked[best] = -Infinity;
    }
    weigh(weights.f32, at, ids, scores, routing);
  }
}

/** The best expert that ids[at .. at + rank) do not hold yet: also among those that are all -Infinity. */
function largest(ranked: Float64Array, at: number, rank: number, ids: Int32Array): number {
  let best = -1;
  for (let i = 0; i < ranked.length; i++) if (ranked[i] > (best < 0 ? -Infinity : ranked[best])) best = i;
  if (best >= 0) return best;
  const taken = ids.subarray(at, at + rank);
  for (best = 0; taken.includes(best); ) best++;
  return best;
}

function weigh(weights: Float32Array, at: number, ids: Int32Array, scores: Float64Array, { used, gating, normaliseWeights, scale }: Routing): void {
  const chosen = Float64Array.from({ length: used }, (_, rank) => scores[ids[at + rank]]);
  if (gating === "softmax-after-top-k") softmax(chosen, used);
  let sum = 0;
  for (let rank = 0; rank < used; rank++) sum += chosen[rank];
  const factor = normaliseWeights ? scale / Math.max(sum, LEAST_SUM) : scale;
  for (let rank = 0; rank < used; rank++) weights[at + rank] = chosen[rank] * factor;
}

function softmax(x: Float64Array, n: number): void {
  let max = -Infinity;
  for (let i = 0; i < n; i++) max = Math.max(max, x[i]);
  let sum = 0;
  for (let i = 0; i < n; i++) sum += x[i] = Math.exp(x[i] - max);
  for (let i = 0; i < n; i++) x[i] /= sum;
}

/** Sets the scores of all but the best groups to -Infinity (DeepSeek-V3's node-limited routing: a group's score is the sum of its best two). */
function excludeGroups(ranked: Float64Array, { count, used }: { readonly count: number; readonly used: number }): void {
  const size = ranked.length / count;
  const score = (group: number): number => {
    let [first, second] = [-Infinity, -Infinity];
    for (let i = group * size; i < (group + 1) * size; i++) {
      if (ranked[i] > first) [first, second] = [ranked[i], first];
      else if (ranked[i] > second) second = ranked[i];
    }
    return size > 1 ? first + second : first;
  };
  const groups = Array.from({ length: count }, (_, group) => ({ group, score: score(group) }));
  groups.sort((a, b) => b.score - a.score || a.group - b.group);
  for (const { group } of groups.slice(used)) ranked.fill(-Infinity, group * size, (group + 1) * size);
}

/** One expert and who chose it: places in the [tokens, used] tables, ascending, so that place / used, rounded down, is the token. */
export interface Choice {
  readonly expert: number;
  readonly places: Int32Array;
}

/** The experts that a batch met, each once, by ascending id. */
export function choices(ids: Int32Array, count: number): Choice[] {
  const ends = new Int32Array(count + 1);
  for (const id of ids) ends[id + 1]++;
  for (let i = 0; i < count; i++) ends[i + 1] += ends[i];
  const next = ends.slice();
  const places = new Int32Array(ids.length);
  for (let i = 0; i < ids.length; i++) places[next[ids[i]]++] = i;
  const found: Choice[] = [];
  for (let expert = 0; expert < count; expert++) {
    if (ends[expert + 1] > ends[expert]) found.push({ expert, places: places.subarray(ends[expert], ends[expert + 1]) });
  }
  return found;
}

/** How many experts `tokens` tokens meet together, when each chooses by itself and no expert is more popular: count (1 - (1 - used / count)^tokens). */
export function expectedExperts({ count, used }: Pick<Routing, "count" | "used">, tokens: number): number {
  return count * (1 - (1 - used / count) ** tokens);
}

/**
 * A choice where there are no logits: the batch meets as many experts as `expectedExperts` says, rounded, and they share its tokens as evenly
 * as can be: the c-th choice of the batch takes expert c modulo that number.
 */
export function spreadEvenly(ids: Int32Array, routing: Routing, tokens: number): void {
  const met = Math.max(routing.used, Math.round(expectedExperts(routing, tokens)));
  for (let i = 0; i < ids.length; i++) ids[i] = i % met;
}
