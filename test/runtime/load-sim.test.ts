import { describe, expect, it } from "vitest";
import { benchAttention } from "../../src/runtime/bench-attention.ts";
import { benchBatch } from "../../src/runtime/bench-batch.ts";
import { Engine } from "../../src/runtime/engine.ts";
import { drawArrivals, parseDistribution, percentiles, simulateLoad } from "../../src/runtime/load-sim.ts";
import { linears } from "../../src/model/weights.ts";
import type { Tokenizer } from "../../src/model/tokenizer/tokenizer.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { random } from "../../src/tensor/random.ts";
import { drawModel, packModel, SMALL } from "../support/models.ts";
import { range } from "../support/dice.ts";

const draws = (text: string) => {
  const uniform = random(7);
  const distribution = parseDistribution(text)!;
  return range(4000).map(() => distribution(uniform));
};
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

describe("distributions", () => {
  it.each<[string, number, number, number]>([
    ["64", 64, 64, 64],
    ["16-128", 72, 16, 128],
    ["exp:50", 50, 1, 1000],
    ["normal:64,8", 64, 20, 110],
  ])("%s", (text, expected, least, most) => {
    const values = draws(text);
    expect(Math.abs(mean(values) / expected - 1)).toBeLessThan(0.05);
    expect(Math.min(...values)).toBeGreaterThanOrEqual(least);
    expect(Math.max(...values)).toBeLessThanOrEqual(most);
    expect(values.every((value) => Number.isSafeInteger(value))).toBe(true);
  });

  it.each(["", "0", "-4", "9-3", "0-5", "exp:", "normal:5", "five"])("%j is none", (text) => expect(parseDistribution(text)).toBeUndefined());
});

describe("arrivals", () => {
  const options = { rate: 20, requests: 2000, promptTokens: parseDistribution("1-300")!, tokens: parseDistribution("exp:90")!, seed: 5 };

  it("come at the rate, fit the context, and are the same for the same seed", () => {
    const arrivals = drawArrivals(options, 128, 40);
    expect(arrivals).toEqual(drawArrivals(options, 128, 40));
    expect(arrivals).not.toEqual(drawArrivals({ ...options, seed: 6 }, 128, 40));
    expect(arrivals.at(-1)!.at).toBeGreaterThan(90);
    expect(arrivals.at(-1)!.at).toBeLessThan(110);
    for (const { prompt, tokens } of arrivals) {
      expect(prompt.length + tokens).toBeLessThanOrEqual(128);
      expect(Math.min(prompt.length, tokens)).toBeGreaterThanOrEqual(1);
    }
  });
});

it("percentiles are by nearest rank", () => {
  expect(percentiles(range(100).map((i) => i + 1).reverse())).toEqual({ p50: 50, p90: 90, p99: 99 });
  expect(percentiles([3])).toEqual({ p50: 3, p90: 3, p99: 3 });
  expect(percentiles([])).toEqual({ p50: 0, p90: 0, p99: 0 });
});

describe("simulated load", () => {
  it.each(["chunked", "continuous", "static"] as const)("%s: every request is answered in full", { timeout: 60_000 }, async (policy) => {
    const kernels = scalarKernels();
    const tokenizer: Tokenizer = { vocabSize: 40, bos: undefined, eos: [], addBos: false, encode: () => [], decode: () => "", piece: () => "", stream: () => ({ push: () => "", flush: () => "" }) };
    const engine = Engine.from(packModel(drawModel(3, SMALL), kernels), kernels, tokenizer, { policy, tokenBudget: 24, ledger: { timing: false } });
    const arrivals = drawArrivals({ rate: 500, requests: 20, promptTokens: parseDistribution("5-60")!, tokens: parseDistribution("3-12")!, seed: 2 }, engine.context, 40);
    const result = await simulateLoad(engine, arrivals);
    expect(result).toMatchObject({ requests: 20, generatedTokens: arrivals.reduce((sum, { tokens }) => sum + tokens, 0), tokenBudget: 24 });
    expect(result.gemvFlopShare + result.gemmFlopShare).toBeGreaterThan(0.5);
    expect(result.ttftMs.p99).toBeGreaterThanOrEqual(result.ttftMs.p50);
    expect(result.meanBatch).toBeGreaterThan(1);
    expect(result.bytesPerToken).toBeGreaterThan(0);
    engine.close();
  });
});

describe("bench batch", () => {
  const kernels = shapeKernels();
  const model = packModel(drawModel(3, SMALL), kernels);

  it("reads the same weights for any batch, so that each token's share of them falls", () => {
    const points = benchBatch(model, kernels, { batches: [1, 2, 8], promptTokens: 16, tokens: 3, attention: "tiled" });
    const weights = linears(model.weights).reduce((sum, { weight }) => sum + weight.bytes, 0);
    for (const { batch, weightBytesPerToken, shares, tokensPerSecond } of points) {
      expect(weightBytesPerToken * batch).toBeGreaterThan(weights);
      expect(weightBytesPerToken * batch).toBeLessThan(weights * 1.2); // Norms, and one row of the embedding.
      expect(Object.keys(shares)).toContain(batch === 1 ? "gemv" : "gemm");
      expect(Object.values(shares).reduce((sum, share) => sum + share.bytes, 0)).toBeCloseTo(1, 9);
      expect(tokensPerSecond).toBeNull();
    }
    expect(points[2].intensity).toBeGreaterThan(points[1].intensity);
    expect(points[1].intensity).toBeGreaterThan(points[0].intensity);
  });
});

describe("bench attention", () => {
  it("naive writes grow with the square of the context, tiled ones with the context", () => {
    const kernels = shapeKernels();
    const { nLayers = 0, nHeads = 0, headDim = 0 } = SMALL;
    for (const { context, naive, tiled } of benchAttention(packModel(drawModel(3, SMALL), kernels), kernels, { contexts: [64, 128, 512, 2048], repeat: 1 })) {
      const output = nLayers * context * nHeads * headDim * 4;
      expect(tiled.materialised).toBe(output);
      expect(naive.materialised).toBe(output + 2 * nLayers * nHeads * context * context * 4); // Scores, and their softmax.
      expect(naive.moved).toBeGreaterThan(tiled.moved);
      expect(naive.ms).toBeNull();
    }
  });
});
