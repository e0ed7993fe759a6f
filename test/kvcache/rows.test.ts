import { describe, expect, it } from "vitest";
import { kvWrite } from "../../src/tensor/scalar/attention.ts";
import { ROW_DOT, ROW_MIX, writeRow } from "../../src/tensor/scalar/kv-rows.ts";
import type { KvPage, Segment } from "../../src/tensor/kernels.ts";
import { f32, storageBytes, type Tensor, zeros } from "../../src/tensor/tensor.ts";
import { type Dice, dice, range } from "../support/dice.ts";

const FORMATS = ["f32", "int8", "int4"] as const;
const STEPS = { int8: 127, int4: 7 };

/** A row as it reads back after one write. */
function roundTrip(dtype: (typeof FORMATS)[number], values: readonly number[]): { page: Tensor; read: number[] } {
  const page = zeros(dtype, [1, 1, 1, values.length], values.length);
  writeRow(page, 0, Float32Array.from(values), 0);
  return { page, read: values.map((_, i) => page.at(i)) };
}

const drawRow = (d: Dice, n: number) => range(n).map(() => Math.fround(d.normal() * 10 ** d.between(-20, 20)));

describe.each(["int8", "int4"] as const)("%s rows", (dtype) => {
  it("read back to half a step, in any size", () => {
    for (const seed of range(300)) {
      const d = dice(seed);
      const n = d.between(1, 70);
      const values = d.chance(0.5) ? drawRow(d, n) : range(n).map(() => Math.fround(d.normal()));
      const { page, read } = roundTrip(dtype, values);
      const step = page.scales![0];
      expect(step).toBe(Math.max(2 ** -126, Math.fround(Math.max(...values.map(Math.abs)) / STEPS[dtype])));
      values.forEach((value, i) => expect(Math.abs(value - read[i])).toBeLessThanOrEqual(step * (0.5 + 1e-5)));
    }
  });

  it("keep an outlier, and round what is small beside it to nothing", () => {
    const { read } = roundTrip(dtype, [1e-3, -2e-3, 1000, 5e-4]);
    expect(read.map((value) => value + 0)).toEqual([0, 0, expect.closeTo(1000, 3), 0]);
  });

  it("of zeros have scale 0 and read as zeros", () => {
    const { page, read } = roundTrip(dtype, [0, -0, 0, 0, 0]);
    expect(page.scales![0]).toBe(0);
    expect(read.every((value) => value === 0)).toBe(true);
  });

  it("of the smallest numbers stay within half of the smallest step, 2^-126", () => {
    for (const size of [2 ** -149, 190 * 2 ** -149, 2 ** -130, 2 ** -127]) {
      const values = [size, -size, size / 2].map(Math.fround);
      const { page, read } = roundTrip(dtype, values);
      expect(page.scales![0]).toBe(2 ** -126);
      values.forEach((value, i) => expect(Math.abs(value - read[i])).toBeLessThanOrEqual(2 ** -127));
    }
  });

  it.each([NaN, Infinity, -Infinity])("with a %d in them read as NaN, every value", (bad) => {
    for (const at of range(5)) expect(roundTrip(dtype, [1, 2, 3, 4, 5].with(at, bad)).read).toEqual(range(5).map(() => NaN));
  });

  it("round ties to even", () => {
    const values = dtype === "int8" ? [127, 0.5, 1.5, 2.5, -0.5, -1.5] : [7, 0.5, 1.5, 2.5, -0.5, -1.5];
    expect(roundTrip(dtype, values).read.map((value) => value + 0)).toEqual([values[0], 0, 2, 2, 0, -2]);
  });
});

describe("int4 rows", () => {
  it("hold column j in a low nibble, column j + ceil(n / 2) in the high one beside it", () => {
    expect([...roundTrip("int4", [1, 2, 3, 7]).page.data]).toEqual([0xb9, 0xfa]);
    expect([...roundTrip("int4", [1, 2, -7]).page.data]).toEqual([0x19, 0x8a]);
    expect([...roundTrip("int4", [-7]).page.data]).toEqual([0x81]);
  });

  it("of 32 columns lie as GGML's Q4_0", () => {
    const { page } = roundTrip("int4", range(32).map((i) => (i % 15) - 7));
    expect([...page.data]).toEqual(range(16).map((j) => (j % 15) + 1 + 16 * (((j + 16) % 15) + 1)));
  });
});

describe("reading rows", () => {
  it.each(FORMATS)("%s: dot and mix equal the dequantised row's", (dtype) => {
    for (const seed of range(60)) {
      const d = dice(seed);
      const [rows, n] = [d.between(1, 5), d.between(1, 40)];
      const page = zeros(dtype, [1, 1, rows, n], n);
      const source = Float32Array.from({ length: rows * n }, d.normal);
      for (const row of range(rows)) writeRow(page, row, source, row * n);
      const row = d.below(rows);
      const plain = range(n).map((i) => page.at(row * n + i));
      const q = Float32Array.from({ length: n + 3 }, d.normal);
      expect(ROW_DOT[dtype](q, 3, page, row)).toBeCloseTo(plain.reduce((sum, value, i) => sum + value * q[3 + i], 0), 10);
      const sum = Float64Array.from(range(n));
      ROW_MIX[dtype](sum, 0.7, page, row);
      sum.forEach((value, i) => expect(value).toBeCloseTo(i + 0.7 * plain[i], 10));
    }
  });
});

describe("kvWrite", () => {
  it.each(FORMATS)("%s: one row or many, in any pieces, gives the same bits", (dtype) => {
    const shape = { nHeads: 4, nKvHeads: 2, headDim: 7, scale: 1 };
    const d = dice(7);
    const length = 40;
    const [k, v] = range(2).map(() => f32([length, 14], Float32Array.from({ length: length * 14 }, d.normal)));
    const write = (cuts: readonly number[]): KvPage[] => {
      const pages = range(3).map((id) => ({ id, k: zeros(dtype, [2, 2, 16, 7], 7), v: zeros(dtype, [2, 2, 16, 7], 7) }));
      for (const [i, start] of cuts.entries()) {
        const segment: Segment = { pages, row: 0, start, length: (cuts[i + 1] ?? length) - start };
        const part = (x: Tensor) => f32([segment.length, 14], x.f32.subarray(start * 14, (start + segment.length) * 14));
        for (const layer of [0, 1]) kvWrite(part(k), part(v), [segment], layer, shape);
      }
      return pages;
    };
    const whole = write([0]);
    expect(write(range(length))).toEqual(whole);
    expect(write([0, 3, 16, 31, 39])).toEqual(whole);
  });
});

describe("bytes of a page", () => {
  it("int8 is a quarter of f32, plus four bytes of scale for every row; int4 an eighth, an odd last column padded", () => {
    for (const headDim of [1, 7, 8, 63, 64, 128]) {
      const shape = [3, 2, 16, headDim];
      const rows = 3 * 2 * 16;
      const plain = storageBytes("f32", shape, headDim);
      expect(plain).toBe(rows * headDim * 4);
      expect(storageBytes("int8", shape, headDim)).toBe(plain / 4 + 4 * rows);
      expect(storageBytes("int4", shape, headDim)).toBe(rows * Math.ceil(headDim / 2) + 4 * rows);
    }
  });
});
