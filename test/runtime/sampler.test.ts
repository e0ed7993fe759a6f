import { describe, expect, it } from "vitest";
import { createShaper, draw, randomFrom, resolveSampling, type Sampling, type SamplingParams, softmax } from "../../src/runtime/sampler.ts";
import { argmax, topIds } from "../../src/tensor/ranking.ts";
import { dice, range } from "../support/dice.ts";
import { probabilities } from "../support/reference.ts";

const PLAIN: Sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, seed: 1 };

/** A token for each row of logits, with the seed's random numbers. */
function createSampler(params: Sampling): (logits: Float32Array, history: readonly number[]) => number {
  const [shape, uniform] = [createShaper(params), randomFrom(params.seed, 0)];
  return (logits, history) => draw(shape(logits, () => history), uniform());
}

const drawLogits = (seed: number, size: number, spread = 2) => {
  const d = dice(seed);
  return Float32Array.from({ length: size }, () => spread * d.normal());
};

/** What a sampler should draw from, said as plainly as possible: probability by id, 0 where a token is cut off. */
function wanted(logits: Float32Array, history: readonly number[], params: Sampling): Float64Array {
  const { topK, topP, minP, temperature, repeatPenalty } = params;
  const seen = history.slice(-64);
  const penalised = logits.map((x, id) => (!seen.includes(id) ? x : x > 0 ? x / repeatPenalty : x * repeatPenalty));
  let kept = range(logits.length).sort((a, b) => penalised[b] - penalised[a] || a - b);
  if (topK > 0) kept = kept.slice(0, topK);
  if (topP < 1) {
    const p = probabilities(kept.map((id) => penalised[id]));
    const reached = p.findIndex((_, i) => p.slice(0, i + 1).reduce((a, b) => a + b, 0) >= topP);
    if (reached >= 0) kept = kept.slice(0, reached + 1);
  }
  const most = Math.exp(penalised[kept[0]]);
  kept = kept.filter((id) => Math.exp(penalised[id]) >= minP * most);
  const result = new Float64Array(logits.length);
  probabilities(kept.map((id) => penalised[id] / temperature)).forEach((p, i) => (result[kept[i]] = p));
  return result;
}

/** Pearson's chi-squared over ids of some weight; for n ids about n - 1, and rarely more than n + 5 sqrt(2n). */
function expectDistribution(pick: () => number, expected: Float64Array, draws: number): void {
  const counts = new Float64Array(expected.length);
  for (let i = 0; i < draws; i++) counts[pick()]++;
  counts.forEach((count, id) => expected[id] === 0 && expect(count, `token ${id} was cut off`).toBe(0));
  const common = range(expected.length).filter((id) => expected[id] * draws >= 5);
  const chi = common.reduce((sum, id) => sum + (counts[id] - expected[id] * draws) ** 2 / (expected[id] * draws), 0);
  expect(chi).toBeLessThan(common.length + 5 * Math.sqrt(2 * common.length) + 5);
}

describe("the distribution", () => {
  it.each<[string, Partial<SamplingParams>]>([
    ["the model's own", {}],
    ["temperature 0.5", { temperature: 0.5 }],
    ["temperature 2", { temperature: 2 }],
    ["topK 1", { topK: 1 }],
    ["topK 5", { topK: 5 }],
    ["topK beyond the vocabulary", { topK: 100 }],
    ["topP 0.5", { topP: 0.5 }],
    ["topP 0.9", { topP: 0.9 }],
    ["topP so small that one token stays", { topP: 1e-9 }],
    ["topP 0.999999", { topP: 0.999999 }],
    ["minP 0.3", { minP: 0.3 }],
    ["minP 0.01", { minP: 0.01 }],
    ["a penalty", { repeatPenalty: 1.5 }],
    ["a reward", { repeatPenalty: 0.7 }],
    ["topK before topP", { topK: 6, topP: 0.6 }],
    ["topP and minP", { topP: 0.8, minP: 0.2 }],
    ["minP cutting more than topP", { topP: 0.99, minP: 0.5 }],
    ["everything", { temperature: 0.7, topK: 12, topP: 0.8, minP: 0.05, repeatPenalty: 1.2 }],
  ])("%s", (_, params) => {
    for (const seed of range(4)) {
      const logits = drawLogits(seed, 30);
      const before = logits.slice();
      const history = range(80).map((i) => (i * 7) % 23);
      const full = { ...PLAIN, ...params, seed };
      const sampler = createSampler(full);
      expectDistribution(() => sampler(logits, history), wanted(logits, history, full), 4000);
      expect(logits).toEqual(before);
    }
  });

  it("keeps exactly the tokens that the cuts leave, for any parameters", () => {
    for (const seed of range(300)) {
      const d = dice(seed);
      const logits = drawLogits(seed, d.between(1, 60), d.pick([0.1, 1, 5]));
      const params = { ...PLAIN, topK: d.pick([0, d.between(1, 20)]), topP: d.pick([1, d.real() || 1]), minP: d.pick([0, d.real() / 2]), temperature: 50, seed };
      const expected = wanted(logits, [], params);
      const sampler = createSampler(params);
      const drawn = new Set(range(600).map(() => sampler(logits, [])));
      for (const id of drawn) expect(expected[id]).toBeGreaterThan(0);
      // At this temperature all kept tokens are about as likely: each should come up.
      expected.forEach((p, id) => p > 0.012 && expect(drawn.has(id), `seed ${seed}, token ${id}`).toBe(true));
    }
  });

  it("only looks 64 tokens back for repetitions", () => {
    const logits = Float32Array.of(1, 1.1);
    const greedy = createSampler({ ...PLAIN, temperature: 0, repeatPenalty: 2 });
    expect(greedy(logits, [1, ...range(63).map(() => 5)])).toBe(0);
    expect(greedy(logits, [1, ...range(64).map(() => 5)])).toBe(1);
  });

  it("penalises a token once, however often it was seen, and pushes negative logits down", () => {
    const greedy = createSampler({ ...PLAIN, temperature: 0, repeatPenalty: 2 });
    expect(greedy(Float32Array.of(4, 1.5), [0, 0, 0])).toBe(0);
    expect(greedy(Float32Array.of(-1, -1.5), [0])).toBe(1);
  });

  it("survives logits of any size", () => {
    const sampler = createSampler({ ...PLAIN, topP: 0.9, minP: 0.01 });
    expect(sampler(Float32Array.of(-1e30, 3e38, 0), [])).toBe(1);
    expect(sampler(Float32Array.of(-Infinity, 2, -Infinity), [])).toBe(1);
    expect(sampler(Float32Array.of(-1e30), [])).toBe(0);
  });

  it("says so when the largest logit is not finite, whatever cuts there are", () => {
    const cuts = [{}, { temperature: 0 }, { topP: 0.9 }, { topK: 2 }, { topK: 2, topP: 0.9, minP: 0.1 }];
    for (const params of cuts) {
      const sampler = createSampler({ ...PLAIN, ...params });
      for (const [odd, rest] of [[NaN, NaN], [Infinity, 1], [-Infinity, -Infinity]]) {
        expect(() => sampler(Float32Array.of(odd, rest, rest), []), JSON.stringify(params)).toThrow(`logits: expected finite numbers, found ${odd} as the largest of 3`);
      }
    }
  });
});

describe("greedy", () => {
  it("takes the largest, the first of equals", () => {
    const greedy = createSampler({ ...PLAIN, temperature: 0, topK: 40, topP: 0.5, minP: 0.5 });
    for (const seed of range(50)) {
      const logits = drawLogits(seed, 40).map(Math.round);
      expect(greedy(logits, [])).toBe(logits.indexOf(Math.max(...logits)));
    }
  });
});

describe("seeds", () => {
  const draws = (seed: number) => {
    const sampler = createSampler({ ...PLAIN, seed });
    return range(50).map((i) => sampler(drawLogits(i, 50), []));
  };
  it("the same one gives the same tokens, another one others", () => {
    expect(draws(7)).toEqual(draws(7));
    expect(new Set(range(20).map((seed) => draws(seed).join())).size).toBe(20);
  });

  it("a random one is drawn where none is given", () => {
    const seeds = range(20).map(() => resolveSampling({}).seed);
    expect(new Set(seeds).size).toBeGreaterThan(15);
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
  });
});

describe("resolveSampling", () => {
  it("fills in defaults, also for what is undefined", () => {
    expect(resolveSampling({ seed: 3, topK: undefined })).toEqual({ temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05, repeatPenalty: 1, seed: 3 });
    expect(resolveSampling({ seed: 0, temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 2 })).toEqual({ temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 2, seed: 0 });
  });

  it.each<[SamplingParams, string]>([
    [{ temperature: -1 }, "temperature: expected 0 or more, found -1"],
    [{ temperature: Number.NaN }, "temperature: expected 0 or more, found NaN"],
    [{ temperature: Infinity }, "temperature: expected 0 or more, found Infinity"],
    [{ topK: 1.5 }, "topK: expected a whole number, 0 or more, found 1.5"],
    [{ topK: -1 }, "topK: expected a whole number, 0 or more, found -1"],
    [{ topP: 0 }, "topP: expected more than 0, at most 1, found 0"],
    [{ topP: 1.1 }, "topP: expected more than 0, at most 1, found 1.1"],
    [{ minP: 1 }, "minP: expected 0 or more, less than 1, found 1"],
    [{ minP: -0.1 }, "minP: expected 0 or more, less than 1, found -0.1"],
    [{ repeatPenalty: 0 }, "repeatPenalty: expected more than 0, found 0"],
    [{ repeatPenalty: Number.NaN }, "repeatPenalty: expected more than 0, found NaN"],
    [{ seed: -1 }, "seed: expected a whole number, 0 or more, found -1"],
    [{ seed: 0.5 }, "seed: expected a whole number, 0 or more, found 0.5"],
  ])("refuses %o", (params, message) => {
    expect(() => resolveSampling(params)).toThrow(new RangeError(message));
  });
});

describe("helpers", () => {
  it("topIds gives the k largest, largest first, the first of equals first", () => {
    for (const seed of range(200)) {
      const d = dice(seed);
      const values = Float32Array.from({ length: d.between(0, 50) }, () => d.below(12));
      const k = d.below(60);
      expect(topIds(values, k)).toEqual(range(values.length).sort((a, b) => values[b] - values[a] || a - b).slice(0, k));
    }
  });

  it("argmax and softmax", () => {
    for (const seed of range(20)) {
      const logits = drawLogits(seed, 30, 50);
      expect(argmax(logits)).toBe(logits.indexOf(Math.max(...logits)));
      softmax(logits).forEach((p, i) => expect(p).toBeCloseTo(probabilities(logits)[i], 12));
    }
  });
});
