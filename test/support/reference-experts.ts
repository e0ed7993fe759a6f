import type { ExpertsConfig } from "../../src/model/experts.ts";
import type { ReadTensor } from "./reference.ts";

/**
 * A mixture of experts in float64 for one token, expert after expert in the order of their rank, as the papers write it: sort the scores,
 * keep the first, weigh what each expert says.
 */
export function referenceMixture(config: ExpertsConfig, gated: (gate: number, up: number) => number, at: (part: string) => string, read: ReadTensor, x: Float64Array): Float64Array {
  const matrix = (part: string): ArrayLike<number> => {
    const found = read(at(`${part}.weight`));
    if (!found) throw new Error(`reference: no tensor ${at(part)}`);
    return found;
  };
  /** Rows of a matrix that begins at value `from` of a tensor. */
  const times = (part: string, rows: number, input: Float64Array, id = 0): Float64Array => {
    const [values, bias] = [matrix(part), read(at(`${part}.bias`))];
    const from = id * rows * input.length;
    const out = new Float64Array(rows);
    for (let r = 0; r < rows; r++) {
      out[r] = bias ? bias[id * rows + r] : 0;
      for (let c = 0; c < input.length; c++) out[r] += input[c] * values[from + r * input.length + c];
    }
    return out;
  };
  const block = (part: string, width: number, id?: number): Float64Array => {
    const [gate, up] = [times(`ffn_gate_${part}`, width, x, id), times(`ffn_up_${part}`, width, x, id)];
    return times(`ffn_down_${part}`, x.length, gate.map((g, i) => gated(g, up[i])), id);
  };

  const logits = [...times("ffn_gate_inp", config.count, x)];
  const softmax = (values: readonly number[]) => {
    const total = values.reduce((sum, value) => sum + Math.exp(value), 0);
    return values.map((value) => Math.exp(value) / total);
  };
  const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));
  const scores = config.gating === "softmax" ? softmax(logits) : config.gating === "sigmoid" ? logits.map(sigmoid) : logits;
  const bias = read(at("exp_probs_b.bias"));
  const ranked = scores.map((score, id) => ({ id, score, by: score + (bias ? bias[id] : 0) }));
  const allowed = new Set(ranked.map(({ id }) => id));
  if (config.groups) {
    const size = config.count / config.groups.count;
    const groups = Array.from({ length: config.groups.count }, (_, group) => {
      const members = ranked.slice(group * size, (group + 1) * size);
      const best = members.map(({ by }) => by).sort((a, b) => b - a);
      return { members, score: best[0] + (best[1] ?? 0) };
    });
    groups.sort((a, b) => b.score - a.score);
    for (const { members } of groups.slice(config.groups.used)) for (const { id } of members) allowed.delete(id);
  }
  const chosen = ranked.filter(({ id }) => allowed.has(id)).sort((a, b) => b.by - a.by).slice(0, config.used);
  let weights = chosen.map(({ score }) => score);
  if (config.gating === "softmax-after-top-k") weights = softmax(weights);
  const sum = weights.reduce((a, b) => a + b, 0);
  weights = weights.map((weight) => (config.scale * weight) / (config.normaliseWeights ? sum : 1));

  const out = new Float64Array(x.length);
  const add = (values: Float64Array, weight: number) => values.forEach((value, i) => (out[i] += weight * value));
  chosen.forEach(({ id }, rank) => add(block("exps", config.ffnDim, id), weights[rank]));
  if (config.sharedFfnDim > 0) add(block("shexp", config.sharedFfnDim), config.sharedGate ? sigmoid(times("ffn_gate_inp_shexp", 1, x)[0]) : 1);
  return out;
}
