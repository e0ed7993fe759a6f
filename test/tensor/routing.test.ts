import { describe, expect, it } from "vitest";
import type { Kernels } from "../../src/tensor/kernels.ts";
import { Ledger } from "../../src/tensor/ledger.ts";
import { Ops } from "../../src/tensor/ops.ts";
import { choices, expectedExperts, route, type Routing, spreadEvenly } from "../../src/tensor/routing.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { f32, type Tensor } from "../../src/tensor/tensor.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { dice, range } from "../support/dice.ts";

const PLAIN: Routing = { count: 4, used: 2, gating: "softmax", normaliseWeights: false, scale: 1 };

function routed(logits: readonly number[][], routing: Routing, bias?: readonly number[]): { ids: number[][]; weights: number[][] } {
  const ids = new Int32Array(logits.length * routing.used);
  const weights = f32([logits.length, routing.used]);
  route(ids, weights, f32([logits.length, routing.count], logits.flat()), routing, bias && f32([routing.count], bias));
  const rows = <T extends Int32Array | Float32Array>(table: T) => logits.map((_, i) => [...table.slice(i * routing.used, (i + 1) * routing.used)]);
  return { ids: rows(ids), weights: rows(weights.f32) };
}

const close = (found: readonly number[], expected: readonly number[]) => found.forEach((value, i) => expect(value).toBeCloseTo(expected[i], 6));

describe("route", () => {
  const logits = [Math.log(1), Math.log(4), Math.log(2), Math.log(3)];

  it("softmax over all, best first", () => {
    const { ids, weights } = routed([logits], PLAIN);
    expect(ids).toEqual([[1, 3]]);
    close(weights[0], [0.4, 0.3]);
  });

  it("weights divided by their sum, and scaled after that", () => {
    close(routed([logits], { ...PLAIN, normaliseWeights: true, scale: 7 }).weights[0], [4, 3]);
    close(routed([logits], { ...PLAIN, scale: 2 }).weights[0], [0.8, 0.6]);
  });

  it("softmax of the chosen alone is the same as softmax of all and division by the sum", () => {
    close(routed([logits], { ...PLAIN, gating: "softmax-after-top-k" }).weights[0], [4 / 7, 3 / 7]);
  });

  it("sigmoids, each for itself", () => {
    const { ids, weights } = routed([[0, 1, -1, 2]], { ...PLAIN, gating: "sigmoid", used: 3 });
    expect(ids).toEqual([[3, 1, 0]]);
    close(weights[0], [0.8807971, 0.7310586, 0.5]);
  });

  it("a bias helps to choose and does not weigh", () => {
    const { ids, weights } = routed([[0, 1, -1, 2]], { ...PLAIN, gating: "sigmoid" }, [0.9, 0, 0, 0]);
    expect(ids).toEqual([[0, 3]]);
    close(weights[0], [0.5, 0.8807971]);
  });

  it("only the groups whose two best score highest take part", () => {
    const routing: Routing = { count: 6, used: 2, gating: "sigmoid", normaliseWeights: false, scale: 1, groups: { count: 3, used: 1 } };
    // The best single expert stands in a group whose other one is poor.
    expect(routed([[5, -9, 1, 1.5, 0, 0]], routing).ids).toEqual([[3, 2]]);
  });

  it("equals go to the lower id, and every row is chosen by itself", () => {
    const d = dice(5);
    const rows = range(20).map(() => range(4).map(() => d.between(-2, 2)));
    const together = routed(rows, PLAIN);
    rows.forEach((row, i) => {
      const { ids, weights } = routed([row], PLAIN);
      expect(together.ids[i]).toEqual(ids[0]);
      expect(together.weights[i]).toEqual(weights[0]);
      const [first, second] = ids[0];
      expect(row.every((value, id) => id === first || value < row[first] || (value === row[first] && id > first))).toBe(true);
      expect(row.every((value, id) => id === first || id === second || value < row[second] || (value === row[second] && id > second))).toBe(true);
    });
  });

  it("rows that are not finite choose distinct experts, and their weights are not finite", () => {
    for (const bad of [NaN, Infinity]) {
      const { ids, weights } = routed([[0, bad, 1, 0]], { ...PLAIN, used: 3 });
      expect(new Set(ids[0]).size).toBe(3);
      expect(weights[0].some(Number.isNaN)).toBe(true);
    }
    const { ids } = routed([[-Infinity, -Infinity, -Infinity, 0]], { ...PLAIN, gating: "softmax-after-top-k", used: 4 });
    expect(ids).toEqual([[3, 0, 1, 2]]);
  });
});

describe("choices", () => {
  it("every expert once, by id, with the places that chose it in order", () => {
    const found = choices(Int32Array.of(2, 0, 2, 5, 0, 2), 6).map(({ expert, places }) => [expert, ...places]);
    expect(found).toEqual([[0, 1, 4], [2, 0, 2, 5], [5, 3]]);
  });
});

describe("the spread of cost-only kernels", () => {
  it.each([[8, 2], [128, 8], [60, 4], [4, 4], [3, 1]])("%i experts, %i used: as many as are expected, evenly", (count, used) => {
    for (const tokens of [1, 2, 3, 7, 64, 1000]) {
      const ids = new Int32Array(tokens * used);
      spreadEvenly(ids, { ...PLAIN, count, used }, tokens);
      for (let row = 0; row < tokens; row++) expect(new Set(ids.subarray(row * used, (row + 1) * used)).size).toBe(used);
      const found = choices(ids, count);
      expect(Math.abs(found.length - expectedExperts({ count, used }, tokens))).toBeLessThanOrEqual(0.5);
      const sizes = found.map(({ places }) => places.length);
      expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
    }
  });

  it("expects what independent choices meet", () => {
    const d = dice(11);
    const met = range(2000).map(() => new Set(range(5).flatMap(() => range(8).sort(() => d.real() - 0.5).slice(0, 2))).size);
    expect(met.reduce((a, b) => a + b, 0) / met.length).toBeCloseTo(expectedExperts({ count: 8, used: 2 }, 5), 0);
    expect(expectedExperts({ count: 8, used: 2 }, 1)).toBeCloseTo(2, 12);
  });
});

describe("scatterAdd", () => {
  const fill = (tensor: Tensor, draw: () => number) => {
    for (let i = 0; i < tensor.f32.length; i++) tensor.f32[i] = Math.fround(draw());
    return tensor;
  };

  it("is the same on scalar and wasm kernels, whatever the widths", () => {
    const wasm = wasmKernels();
    for (const seed of range(30)) {
      const d = dice(seed);
      const [tokens, used, cols] = [d.between(1, 6), d.between(1, 3), d.pick([1, 2, 3, 4, 5, 7, 8, 31, 64, 129])];
      const rows = range(tokens).filter(() => d.chance(0.7));
      const places = Int32Array.from(rows, (row) => row * used + d.below(used));
      const make = (kernels: Kernels) => {
        const own = dice(seed + 99);
        const tensor = (shape: number[]) => fill(kernels.alloc("f32", shape), own.normal);
        const out = tensor([tokens, cols]);
        kernels.scatterAdd(out, tensor([rows.length, cols]), tensor([tokens, used]), places);
        return [...out.f32];
      };
      const [found, expected] = [make(wasm), make(scalarKernels())];
      found.forEach((value, i) => expect(Math.abs(value - expected[i])).toBeLessThanOrEqual(1e-6 * (1 + Math.abs(expected[i]))));
    }
  });

  it("bills the rows that it touches", () => {
    for (const kernels of [scalarKernels(), shapeKernels()]) {
      const ledger = new Ledger(true, { timing: false, records: true });
      const ops = new Ops(kernels, ledger);
      const out = ops.zeros("sum", [5, 6]);
      expect([...out.f32].every((value) => value === 0)).toBe(true);
      ops.scatterAdd("mix", out, kernels.alloc("f32", [2, 6]), kernels.alloc("f32", [5, 2]), Int32Array.of(3, 8));
      const [zeros, mix] = ledger.records;
      expect(zeros.written.activations).toBe(5 * 6 * 4);
      expect(mix).toMatchObject({ m: 2, n: 6, flops: 24, read: { weights: 0, kv: 0, activations: 2 * 48 + 16 }, written: { activations: 48 } });
      expect(() => ops.scatterAdd("mix", out, kernels.alloc("f32", [2, 6]), kernels.alloc("f32", [5, 2]), Int32Array.of(3))).toThrow(/mix: shapes do not fit/);
      expect(() => ops.route("route", out, PLAIN)).toThrow(/route: shapes do not fit: logits \[5,6\] and 4 experts/);
    }
  });

  it("bills a choice by its logits, its ids and its weights", () => {
    const ledger = new Ledger(true, { timing: false, records: true });
    const ops = new Ops(shapeKernels(), ledger);
    const { choices: found } = ops.route("route", ops.kernels.alloc("f32", [3, 4]), PLAIN, ops.kernels.alloc("f32", [4]));
    expect(found.reduce((sum, { places }) => sum + places.length, 0)).toBe(6);
    expect(ledger.records[0]).toMatchObject({ m: 3, n: 4, flops: 72, read: { weights: 16, activations: 48 }, written: { activations: 6 * 8 } });
  });
});
