import { describe, expect, it } from "vitest";
import { quantiseRows } from "../../src/quant/groups.ts";
import { pruneRows } from "../../src/quant/sparse.ts";
import { describeFormat, parseWeights, WEIGHT_SCHEMES } from "../../src/quant/scheme.ts";
import { linear, quantize } from "../../src/tensor/scalar/linear.ts";
import { f32, storageBytes, type Tensor, zeros } from "../../src/tensor/tensor.ts";
import { dice } from "../support/dice.ts";

/** Rows of every temper: plain, with an outlier, tiny, denormal, zero, constant, large. */
function samples(seed: number, rows: number, cols: number): Tensor {
  const d = dice(seed);
  const result = zeros("f32", [rows, cols]);
  for (let row = 0; row < rows; row++) {
    const size = [1, 1, 1e-20, 2 ** -140, 0, 1e30][row % 6];
    for (let i = 0; i < cols; i++) result.f32[row * cols + i] = size * (row % 12 === 6 ? 0.3 : d.normal());
    if (row % 6 === 1) result.f32[row * cols + d.below(cols)] = 1000;
  }
  return result;
}

const scaleOf = (tensor: Tensor, row: number, col: number) => tensor.scales![row * Math.ceil(tensor.cols / tensor.group) + Math.floor(col / tensor.group)];

describe("quantiseRows", () => {
  it.each([
    ["int8", 32, 64],
    ["int8", 32, 172],
    ["int8", 64, 1],
    ["int8", 128, 200],
    ["int8", 0, 77],
    ["int8", 7, 33],
    ["int4", 32, 96],
  ] as const)("%s in groups of %i, %i columns: off by at most half a step", (dtype, group, cols) => {
    const source = samples(cols, 24, cols);
    const result = quantiseRows(source, dtype, group);
    expect(result.bytes).toBe(storageBytes(dtype, [24, cols], group || cols));
    for (let i = 0; i < source.f32.length; i++) {
      const step = scaleOf(result, Math.floor(i / cols), i % cols);
      const value = source.f32[i];
      // One part in 10^6 more, for the rounding of the scale itself to f32.
      expect(Math.abs(result.at(i) - value)).toBeLessThanOrEqual(step / 2 + Math.abs(value) * 1e-6);
    }
  });

  it("keeps zeros, the largest value's sign, and what is already on the grid", () => {
    const source = f32([1, 32], Float32Array.from({ length: 32 }, (_, i) => (i === 5 ? -254 : i < 20 ? 2 * i : 0)));
    const result = quantiseRows(source, "int8");
    expect([...result.scales!]).toEqual([2]);
    for (let i = 0; i < 32; i++) expect(result.at(i)).toBe(source.f32[i]);
    const zero = quantiseRows(zeros("f32", [2, 32]), "int4");
    expect([...zero.scales!]).toEqual([0, 0]);
    expect(zero.at(7)).toBe(0);
  });

  it("an outlier costs its own group only", () => {
    const source = f32([1, 64], new Float32Array(64).fill(0.01));
    source.f32[3] = 1e6;
    const result = quantiseRows(source, "int8");
    expect(result.at(4)).toBe(0);
    expect(result.at(40)).toBeCloseTo(0.01, 8);
  });

  it("with importance errs less where it matters", () => {
    const source = samples(3, 2, 64);
    const importance = new Float32Array(64).fill(1);
    const error = (tensor: Tensor) => source.f32.reduce((sum, value, i) => sum + (tensor.at(i) - value) ** 2, 0);
    expect(error(quantiseRows(source, "int4", 32, importance))).toBeLessThanOrEqual(error(quantiseRows(source, "int4")));
  });

  it("refuses int4 columns that are no multiple of 32", () => {
    expect(() => quantiseRows(zeros("f32", [1, 33]), "int4")).toThrow("int4 needs groups of 32 and columns that are a multiple of 32");
  });
});

describe("pruneRows", () => {
  it("keeps the two strongest of every four, at 5 bits a weight and the scales", () => {
    const source = f32([1, 8], [1, -4, 3, 2, 0, 0, 0, -127]);
    const result = pruneRows(source);
    expect(result.bytes).toBe(4 + 1 + 4);
    expect(Array.from({ length: 8 }, (_, i) => result.at(i))).toEqual([0, -4, 3, 0, 0, 0, 0, -127]);
    const byInput = pruneRows(source, 32, Float32Array.from([100, 0, 1, 1, 1, 1, 1, 1]));
    expect(Array.from({ length: 4 }, (_, i) => byInput.at(i))).toEqual([1, 0, 3, 0]);
  });

  it("any multiple of 4 columns; others are refused", () => {
    const source = samples(8, 6, 172);
    const result = pruneRows(source);
    expect(result.bytes).toBe(6 * (86 + 22) + 6 * 6 * 4);
    for (let i = 0; i < source.f32.length; i += 4) {
      const kept = [0, 1, 2, 3].filter((j) => result.at(i + j) !== 0);
      expect(kept.length).toBeLessThanOrEqual(2);
      for (const j of kept) expect(Math.abs(result.at(i + j) - source.f32[i + j])).toBeLessThanOrEqual(scaleOf(result, Math.floor(i / 172), i % 172) * 0.501);
    }
    expect(() => pruneRows(zeros("f32", [1, 6]))).toThrow("multiple of 4");
  });
});

describe("scalar linear", () => {
  const formats = {
    f32: (w: Tensor) => w,
    int8: (w: Tensor) => quantiseRows(w, "int8"),
    row: (w: Tensor) => quantiseRows(w, "int8", 0),
    int4: (w: Tensor) => quantiseRows(w, "int4"),
    sparse: (w: Tensor) => pruneRows(w),
  };

  it.each(Object.entries(formats))("%s weights with f32, int16 and int8 activations: as the values say", (_, format) => {
    const d = dice(11);
    const [m, n, k] = [3, 5, 96];
    const draw = (rows: number) => f32([rows, k], Float32Array.from({ length: rows * k }, () => d.normal()));
    const [x, w] = [draw(m), format(draw(n))];
    for (const dtype of ["f32", "int16", "int8"] as const) {
      const input = dtype === "f32" ? x : zeros(dtype, [m, k], k);
      if (dtype !== "f32") quantize(input, x);
      const out = zeros("f32", [m, n]);
      linear(out, input, w);
      for (let i = 0; i < m; i++) {
        for (let row = 0; row < n; row++) {
          let sum = 0;
          for (let j = 0; j < k; j++) sum += input.at(i * k + j) * w.at(row * k + j);
          expect(out.at(i * n + row)).toBeCloseTo(sum, 4);
        }
      }
    }
  });
});

describe("quantize", () => {
  it("has a scale a row, keeps NaN and infinity not finite, and clips at a fixed scale", () => {
    const x = f32([4, 3], [1, -2, 0.5, 0, 0, 0, NaN, 1, 2, 1, Infinity, 2]);
    const out = zeros("int8", [4, 3], 3);
    quantize(out, x);
    expect([...out.data.subarray(0, 6)]).toEqual([64, -127, 32, 0, 0, 0]);
    expect(out.scales![0]).toBeCloseTo(2 / 127, 8);
    expect(out.scales![1]).toBe(0);
    expect(Number.isFinite(out.at(6))).toBe(false);
    expect(Number.isFinite(out.at(9))).toBe(false);
    quantize(out, x, 0.01);
    expect([...out.data.subarray(0, 3)]).toEqual([100, -127, 50]);
    expect(Number.isFinite(out.at(6))).toBe(false);
  });
});

describe("schemes", () => {
  it("are read and described", () => {
    expect(WEIGHT_SCHEMES.map((name) => parseWeights(name).name)).toEqual(WEIGHT_SCHEMES);
    expect(parseWeights("int8:row")).toMatchObject({ dtype: "int8", group: 0 });
    expect(() => parseWeights("int3")).toThrow('weights: expected one of keep, f32, int8');
    expect(describeFormat({ dtype: "int8", group: 0 })).toBe("int8, a scale a row");
  });
});
