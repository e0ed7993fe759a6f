import { random } from "../tensor/random.ts";
import { argmax, plainRanking, type Ranking } from "../tensor/ranking.ts";

/**
 * How the next token is drawn. The parameters apply in this order: repeatPenalty, topK, topP, minP, temperature. So topP and minP see
 * probabilities that the temperature has not changed yet.
 */
export interface SamplingParams {
  /** 0 takes the most probable token (greedy); 1 samples the model's own distribution. Default 0.8. */
  temperature?: number;
  /** Keep the k most probable tokens; 0 keeps all. Default 40. */
  topK?: number;
  /** Keep the smallest set whose probabilities sum to at least topP (Holtzman et al. 2020); 1 keeps all. Default 0.95. */
  topP?: number;
  /** Drop tokens less probable than minP times the most probable one (Nguyen et al. 2024); 0 drops none. Default 0.05. */
  minP?: number;
  /** Divides positive and multiplies negative logits of tokens seen in the last 64 (Keskar et al. 2019); 1 does nothing. Default 1. */
  repeatPenalty?: number;
  /** Same seed, same text. Default: a random one, reported in the result. */
  seed?: number;
}

/** Nothing left open. */
export type Sampling = Required<SamplingParams>;

const DEFAULTS = { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, repeatPenalty: 1 };

/** How far back the repetition penalty looks, in tokens. */
const PENALTY_WINDOW = 64;

/** Fills in defaults. @throws RangeError naming the parameter that is out of range. */
export function resolveSampling(params: SamplingParams): Sampling {
  const given = Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined));
  const full = { ...DEFAULTS, seed: Math.floor(Math.random() * 4294967296), ...given } as Sampling;
  const check = (name: keyof SamplingParams, ok: boolean, expected: string) => {
    if (!ok) throw new RangeError(`${name}: expected ${expected}, found ${full[name]}`);
  };
  check("temperature", full.temperature >= 0 && Number.isFinite(full.temperature), "0 or more");
  check("topK", Number.isSafeInteger(full.topK) && full.topK >= 0, "a whole number, 0 or more");
  check("topP", full.topP > 0 && full.topP <= 1, "more than 0, at most 1");
  check("minP", full.minP >= 0 && full.minP < 1, "0 or more, less than 1");
  check("repeatPenalty", full.repeatPenalty > 0 && Number.isFinite(full.repeatPenalty), "more than 0");
  check("seed", Number.isSafeInteger(full.seed) && full.seed >= 0, "a whole number, 0 or more");
  return full;
}

/** A distribution over next tokens: ids, and weights whose sum is `total`. */
export interface Distribution {
  readonly ids: readonly number[];
  readonly weights: readonly number[];
  readonly total: number;
}

/** What to draw from after logits [vocabSize], given the tokens so far. Logits are left as they are; `ranking` finds the largest of them. */
export type Shaper = (logits: Float32Array, history: () => readonly number[], ranking?: Ranking) => Distribution;

/** The most probable token, as `Ops.sample` asks for one. */
export const greedy = (_: Float32Array, ranking: Ranking): number => ranking.argmax();

/**
 * Order: repetition penalty, topK, topP, minP, temperature; temperature 0 leaves the most probable token alone. What is made throws a RangeError
 * where the largest logit is not finite: some sum in the model went beyond f32, and there is nothing to choose by.
 */
export function createShaper({ temperature, topK, topP, minP, repeatPenalty }: Sampling): Shaper {
  return (given, history, kernels) => {
    const logits = repeatPenalty === 1 ? given : penalise(given, history(), repeatPenalty);
    const ranking = (logits === given && kernels) || plainRanking(logits);
    const best = ranking.argmax();
    const max = logits[best];
    // Kernels that only count costs have no logits.
    if (logits.length > 0) expectFinite(max, logits.length);
    if (temperature === 0) return { ids: [best], weights: [1], total: 1 };
    const ids = candidates(logits, max, ranking, topK, topP, minP);
    const weights = ids.map((id) => Math.exp((logits[id] - max) / temperature));
    return { ids, weights, total: weights.reduce((sum, weight) => sum + weight, 0) };
  };
}

/** @throws RangeError when the largest of `count` logits is not finite: some sum in the model went beyond f32. */
export function expectFinite(largest: number, count: number): void {
  if (!Number.isFinite(largest)) throw new RangeError(`logits: expected finite numbers, found ${largest} as the largest of ${count}: the model's weights are too large, or damaged`);
}

/** The token at `u`, a uniform number in [0, 1). */
export function draw({ ids, weights, total }: Distribution, u: number): number {
  let left = u * total;
  for (let i = 0; i < ids.length; i++) {
    left -= weights[i];
    if (left < 0) return ids[i];
  }
  return ids[ids.length - 1];
}

/** The seed's stream of uniform numbers after the first `drawn`. */
export function randomFrom(seed: number, drawn: number): () => number {
  const uniform = random(seed);
  for (let i = 0; i < drawn; i++) uniform();
  return uniform;
}

/** Softmax of logits, in float64. */
export function softmax(logits: Float32Array): Float64Array {
  const result = new Float64Array(logits.length);
  const max = logits[argmax(logits)];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += result[i] = Math.exp(logits[i] - max);
  for (let i = 0; i < logits.length; i++) result[i] /= sum;
  return result;
}

/** Ids that topK, topP and minP leave: most probable first where topK or topP had to sort them, else in order. */
function candidates(logits: Float32Array, max: number, ranking: Ranking, topK: number, topP: number, minP: number): number[] {
  const floor = minP > 0 ? max + Math.log(minP) : -Infinity;
  let ids: number[] = [];
  let total = 0;
  if (topK > 0) {
    ids = ranking.top(topK);
    for (const id of ids) total += Math.exp(logits[id] - max);
  } else {
    if (topP < 1) total = sumExp(logits, max);
    // Tokens below this probability are outside of the nucleus: all of them together weigh less than 1 - topP.
    const nucleus = topP < 1 ? max + Math.log((total * (1 - topP)) / logits.length) : -Infinity;
    const least = Math.max(floor, nucleus);
    for (let i = 0; i < logits.length; i++) if (logits[i] >= least) ids.push(i);
    if (topP < 1) ids.sort((a, b) => logits[b] - logits[a] || a - b);
  }
  if (topP < 1) {
    let sum = 0;
    const end = ids.findIndex((id) => (sum += Math.exp(logits[id] - max)) >= topP * total);
    if (end >= 0) ids.length = end + 1;
  }
  return ids.filter((id) => logits[id] >= floor);
}

function sumExp(logits: Float32Array, max: number): number {
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  return sum;
}

function penalise(logits: Float32Array, history: readonly number[], penalty: number): Float32Array {
  const result = logits.slice();
  for (const id of new Set(history.slice(-PENALTY_WINDOW))) result[id] = result[id] > 0 ? result[id] / penalty : result[id] * penalty;
  return result;
}
