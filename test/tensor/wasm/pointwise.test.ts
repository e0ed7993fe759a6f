import { describe, expect, it } from "vitest";
import type { Kernels } from "../../../src/tensor/kernels.ts";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { copy, normals, random, release, worstRow } from "./helpers.ts";

const scalar = scalarKernels();
const kernels = wasmKernels();

/** Runs the same op with both kernels on equal inputs; gives the worst difference relative to a row's largest value. */
function compare(inputs: readonly Tensor[], outShape: readonly number[], run: (k: Kernels, out: Tensor, inputs: readonly Tensor[]) => void): number {
  const out = kernels.alloc("f32", outShape);
  const copies = inputs.map(copy);
  const wanted = copy(out);
  run(scalar, wanted, copies);
  run(kernels, out, inputs);
  const worst = Math.max(worstRow(out, wanted), ...inputs.map((input, i) => worstRow(input, copies[i])));
  release(kernels, out, ...inputs);
  return worst;
}

describe("pointwise kernels", () => {
  it("normalise like the scalar kernels", () => {
    const rng = random(1);
    for (let round = 0; round < 400; round++) {
      const [rows, n, runs] = [rng.int(1, 12), rng.int(1, 300), rng.int(1, 3)];
      const x = normals(kernels, rng, [rows, n * runs], 10 ** rng.int(-3, 3));
      // Norms of single heads: the rows of the weight take turns.
      const shape = runs > 1 && round % 2 ? [runs, n] : [n];
      const [weight, bias] = [normals(kernels, rng, shape), normals(kernels, rng, shape)];
      const kind = round % 3;
      const worst = compare([x, weight, bias], [rows, n * runs], (k, out, [x, weight, bias]) => {
        if (kind === 0) k.rmsNorm(out, x, weight, 1e-5);
        else k.layerNorm(out, x, weight, kind === 1 ? bias : undefined, 1e-5);
      });
      expect(worst).toBeLessThan(1e-5);
    }
  });

  it("normalise in place", () => {
    const rng = random(2);
    const [x, weight] = [normals(kernels, rng, [5, 77]), normals(kernels, rng, [77])];
    const wanted = copy(x);
    scalar.rmsNorm(wanted, copy(x), copy(weight), 1e-6);
    kernels.rmsNorm(x, x, weight, 1e-6);
    expect(worstRow(x, wanted)).toBeLessThan(1e-5);
  });

  it("norms of values whose squares are too large are no plausible zeros", () => {
    for (const n of [4, 5, 32]) {
      const [x, weight, out] = [kernels.alloc("f32", [1, n]), kernels.alloc("f32", [n]), kernels.alloc("f32", [1, n])];
      for (let i = 0; i < n; i++) [x.data[i], weight.data[i]] = [i % 2 ? 3e19 : -3e19, 1];
      kernels.rmsNorm(out, x, weight, 1e-5);
      expect(out.f32.every(Number.isNaN)).toBe(true);
      kernels.layerNorm(out, x, weight, undefined, 1e-5);
      expect(out.f32.every(Number.isNaN)).toBe(true);
    }
  });

  it("activate, gate, add and take softmax like the scalar kernels", () => {
    const rng = random(3);
    for (let round = 0; round < 600; round++) {
      const shape = [rng.int(1, round % 20 === 0 ? 300 : 9), rng.int(1, 300)];
      const [x, y] = [normals(kernels, rng, shape, 10 ** rng.int(-2, 2)), normals(kernels, rng, shape)];
      const kind = (["silu", "gelu", "relu2"] as const)[rng.int(0, 2)];
      const [how, by] = [(["scale", "cap", "clamp"] as const)[rng.int(0, 2)], 10 ** rng.int(-1, 2)];
      const worst = compare([x, y], shape, (k, out, [x, y]) => {
        if (round % 5 === 0) k.gated(out, x, y, kind);
        else if (round % 5 === 1) k.activate(x, kind);
        else if (round % 5 === 2) k.add(x, y);
        else if (round % 5 === 3) k.adjust(x, how, by);
        else k.softmax(x);
      });
      expect(worst).toBeLessThan(1e-5);
    }
  });

  it("computes exp to a relative error below 1e-6 from end to end", () => {
    // softmax of [0, x] is e^x / (1 + e^x); for very negative x that is e^x itself.
    const n = 4000;
    const x = kernels.alloc("f32", [n, 2]);
    for (let i = 0; i < n; i++) x.data[2 * i] = -18 - (i * 69) / n;
    const before = Float32Array.from(x.data);
    kernels.softmax(x);
    for (let i = 0; i < n; i++) {
      const wanted = Math.exp(before[2 * i]) / (1 + Math.exp(before[2 * i]));
      expect(Math.abs(x.data[2 * i] - wanted) / wanted).toBeLessThan(1e-6);
    }
    const row = kernels.alloc("f32", [1, 5]);
    row.f32.set([-Infinity, 3, -Infinity, 3, -Infinity]);
    kernels.softmax(row);
    expect([...row.data]).toEqual([0, 0.5, 0, 0.5, 0]);
  });

  it("keeps large and odd values of silu and gelu finite, and NaN visible", () => {
    for (const kind of ["silu", "gelu"] as const) {
      const x = kernels.alloc("f32", [1, 6]);
      x.f32.set([-1e4, 1e4, -0, 100, -100, NaN]);
      kernels.activate(x, kind);
      expect(x.data[1]).toBe(1e4);
      expect(Math.abs(x.data[0])).toBeLessThan(1e-30);
      expect(x.data[3]).toBe(100);
      expect(Math.abs(x.data[4])).toBeLessThan(1e-30);
      expect(x.data[5]).toBeNaN();
    }
  });

  it("rotates like the scalar kernel, both styles, partial dimensions, odd tails", () => {
    const rng = random(4);
    for (let round = 0; round < 400; round++) {
      const [rows, heads, pairs] = [rng.int(1, 7), rng.int(1, 5), rng.int(1, 40)];
      const headDim = 2 * pairs + 2 * rng.int(0, 5);
      const positions = Int32Array.from({ length: rows }, () => rng.int(0, 5000));
      const frequencies = Float64Array.from({ length: pairs }, (_, i) => 10000 ** (-i / pairs));
      const x = normals(kernels, rng, [rows, heads * headDim]);
      const angles = kernels.alloc("f32", [rows, 2 * pairs]);
      kernels.ropeAngles(angles, positions, frequencies, 1.25);
      const worst = compare([x, angles], [1], (k, _, [x, angles]) => k.rope(x, angles, headDim, round % 2 ? "halves" : "interleaved"));
      expect(worst).toBeLessThan(1e-5);
    }
  });

  it("gathers rows", () => {
    const x = normals(kernels, random(5), [9, 13]);
    const out = kernels.alloc("f32", [4, 13]);
    const ids = Int32Array.of(8, 0, 3, 3);
    kernels.gather(out, x, ids);
    ids.forEach((id, i) => expect([...out.f32.subarray(i * 13, (i + 1) * 13)]).toEqual([...x.f32.subarray(id * 13, (id + 1) * 13)]));
  });

  it("finds the largest logits, ties by id", () => {
    const rng = random(6);
    for (let round = 0; round < 100; round++) {
      const [rows, n] = [rng.int(1, 3), rng.int(1, 2000)];
      const x = normals(kernels, rng, [rows, n]);
      if (round % 3 === 0) for (let i = 0; i < x.data.length; i++) x.data[i] = Math.round(x.data[i]);
      for (let row = 0; row < rows; row++) {
        const values = x.f32.subarray(row * n, (row + 1) * n);
        const order = Array.from(values, (_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
        const ranking = kernels.ranking!(x.slice(row, row + 1));
        expect(ranking.argmax()).toBe(order[0]);
        const k = rng.int(0, 60);
        expect([...ranking.top(k)]).toEqual(order.slice(0, k));
      }
      release(kernels, x);
    }
  });

  it("finds some token where logits are no numbers", () => {
    for (const n of [1, 7, 90]) {
      const x = kernels.alloc("f32", [1, n]);
      x.f32.fill(NaN);
      const ranking = kernels.ranking!(x);
      for (const id of [ranking.argmax(), ...ranking.top(3)]) expect(id >= 0 && id < n).toBe(true);
      expect(ranking.top(3)).toHaveLength(Math.min(3, n));
      release(kernels, x);
    }
  });

  it("counts each value in one run of maxima, so that a bound from them leaves enough: the last of a vocabulary too", () => {
    for (const n of [5, 6, 7, 70, 1001]) {
      const x = kernels.alloc("f32", [1, n]);
      x.f32.forEach((_, i) => (x.f32[i] = i));
      const { device } = kernels;
      const out = kernels.alloc("f32", [1, 64]);
      device.params.set([x.byteOffset, n, out.byteOffset, 64]);
      device.run(device.kernel("maxima"), 1);
      expect(out.f32.filter((value) => value === n - 1)).toHaveLength(1);
      release(kernels, x, out);
    }
  });

  it("refuses tensors of other memories by name", () => {
    const foreign = copy(kernels.alloc("f32", [1, 4]));
    foreign.name = "outsider";
    expect(() => kernels.add(foreign, foreign)).toThrow(/outsider/);
  });
});
