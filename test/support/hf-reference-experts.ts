import { plus, type Vector } from "./hf-reference-parts.ts";

/** How a router of a published model chooses. */
export interface Experts {
  /** What makes scores of logits: over all experts, each by itself, or over the chosen ones alone. */
  readonly scoring: "softmax" | "sigmoid" | "chosen";
  readonly used: number;
  readonly normalise: boolean;
  readonly scale: number;
  /** `n_group` and `topk_group`. */
  readonly groups?: readonly [count: number, used: number];
}

const softmax = (x: readonly number[]): number[] => {
  const powers = x.map((value) => Math.exp(value - Math.max(...x)));
  return powers.map((power) => power / powers.reduce((a, b) => a + b));
};

const best = (scores: readonly number[], count: number): number[] => scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]).slice(0, count);

/** DeepseekV3TopkRouter, DeepseekV2Moe's greedy choice, GptOssTopKRouter: the weighted sum of what the chosen experts give. */
export function mixture({ scoring, used, normalise, scale, groups }: Experts, logits: Vector, bias: Vector | undefined, expert: (id: number) => Vector): Vector {
  const raw = [...logits];
  const scores = scoring === "softmax" ? softmax(raw) : scoring === "sigmoid" ? raw.map((x) => 1 / (1 + Math.exp(-x))) : raw;
  let forChoice = scores.map((score, i) => score + (bias ? bias[i] : 0));
  if (groups) {
    const size = scores.length / groups[0];
    const sums = Array.from({ length: groups[0] }, (_, group) => forChoice.slice(group * size, (group + 1) * size).sort((a, b) => b - a).slice(0, 2).reduce((a, b) => a + b));
    const taken = best(sums, groups[1]);
    forChoice = forChoice.map((score, i) => (taken.includes(Math.floor(i / size)) ? score : -Infinity));
  }
  const ids = best(forChoice, used);
  const own = ids.map((id) => scores[id]);
  const weights = scoring === "chosen" ? softmax(own) : own;
  const sum = normalise ? weights.reduce((a, b) => a + b) : 1;
  return ids.map((id, i): Vector => expert(id).map((value) => (value * weights[i] * scale) / sum)).reduce((a, b) => plus(a, b));
}
