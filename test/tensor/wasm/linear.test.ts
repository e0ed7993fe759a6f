import { afterAll, describe, expect, it } from "vitest";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import { Tensor, zeros } from "../../../src/tensor/tensor.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { copy, normals, pack, random, release, sameBits, weights, worstRow } from "./helpers.ts";

const scalar = scalarKernels();
const backends = [
  { name: "best", kernels: wasmKernels() },
  { name: "baseline SIMD", kernels: wasmKernels({ relaxed: false }) },
  { name: "laid out for wide vectors", kernels: wasmKernels({ wide: true }) },
];
const eight = wasmKernels({ activations: "int8" });
afterAll(() => backends.forEach(({ kernels }) => kernels.close()));

const round = Math.fround;

/** x as the kernels see it: integers and one scale for every row and group of 32. */
function quantised(x: Tensor, most: number): Tensor {
  const [m, k] = [x.rows, x.cols];
  const out = new Float32Array(m * k);
  for (let row = 0; row < m; row++) {
    for (let start = row * k; start < (row + 1) * k; start += 32) {
      const end = Math.min(start + 32, (row + 1) * k);
      let max = 0;
      for (let i = start; i < end; i++) max = Math.max(max, Math.abs(x.data[i]));
      const inverse = max > 1e-30 ? round(most / max) : 0;
      for (let i = start; i < end; i++) {
        const v = round(x.data[i] * inverse);
        const low = Math.floor(v);
        const integer = v - low > 0.5 || (v - low === 0.5 && low % 2 !== 0) ? low + 1 : low;
        out[i] = integer * (max / most);
      }
    }
  }
  return new Tensor({ dtype: "f32", shape: x.shape, data: out });
}

describe.each(backends)("linear, $name", ({ kernels }) => {
  it.each(["f32", "int8", "int4"] as const)("equals the scalar kernel on random shapes: %s", (dtype) => {
    const rng = random(7);
    for (let round = 0; round < 250; round++) {
      const [m, n] = [round % 3 === 0 ? 1 : rng.int(1, round % 10 === 1 ? 300 : 20), rng.int(1, round % 10 === 2 ? 300 : 40)];
      const k = dtype === "int4" ? 32 * rng.int(1, 9) : rng.int(1, 300);
      const group = dtype === "int8" && rng.next() < 0.3 ? k : 32;
      const canonical = weights(rng, dtype, n, k, group, rng.next() < 0.3);
      const packed = pack(kernels, rng, canonical);
      const x = normals(kernels, rng, [m, k], 10 ** rng.int(-6, 6));
      const bias = rng.next() < 0.5 ? normals(kernels, rng, [n]) : undefined;
      const out = kernels.alloc("f32", [m, n]);
      const wanted = zeros("f32", [m, n]);
      kernels.linear(out, x, packed, bias);
      scalar.linear(wanted, dtype === "f32" ? copy(x) : quantised(x, 32639), canonical, bias && copy(bias));
      // Cancellation can leave a row small: measured against the size of what was summed.
      const size = zeros("f32", [m, n]);
      const absolute = zeros("f32", [n, k]);
      for (let i = 0; i < absolute.data.length; i++) absolute.data[i] = Math.abs(canonical.at(i));
      scalar.linear(size, new Tensor({ dtype: "f32", shape: [m, k], data: Float32Array.from(x.data, Math.abs) }), absolute, bias && new Tensor({ dtype: "f32", shape: [n], data: Float32Array.from(bias.data, Math.abs) }));
      let worst = 0;
      for (let i = 0; i < m; i++) {
        const most = size.f32.subarray(i * n, (i + 1) * n).reduce((a, b) => Math.max(a, b), 0);
        for (let j = i * n; j < (i + 1) * n; j++) worst = Math.max(worst, Math.abs(out.data[j] - wanted.data[j]) / (most + 1e-24));
      }
      expect(worst).toBeLessThan(1e-6);
      release(kernels, packed, x, out, ...(bias ? [bias] : []));
    }
  });

  it.each(["f32", "int8", "int4"] as const)("gives a row the same bits for every m: %s", (dtype) => {
    const rng = random(8);
    for (const [n, k] of [[20, 96], [64, 64], [33, 256], [8, 32]]) {
      const packed = pack(kernels, rng, weights(rng, dtype, n, k));
      const x = normals(kernels, rng, [64, k]);
      const all = kernels.alloc("f32", [64, n]);
      kernels.linear(all, x, packed);
      for (const m of [1, 2, 3, 5, 7, 9, 15, 64]) {
        for (let row = 0; row + m <= 64; row += m) {
          const out = kernels.alloc("f32", [m, n]);
          kernels.linear(out, x.slice(row, row + m), packed);
          expect(sameBits(out, all.slice(row, row + m))).toBe(true);
          release(kernels, out);
        }
      }
    }
  });

  it.each(["f32", "int8", "int4"] as const)("gives a row the same bits where activations are too many for one stripe: %s", (dtype) => {
    const rng = random(9);
    const [m, n, k] = [61, 11, 12000];
    const packed = pack(kernels, rng, weights(rng, dtype, n, k));
    const x = normals(kernels, rng, [m, k]);
    const [all, one] = [kernels.alloc("f32", [m, n]), kernels.alloc("f32", [1, n])];
    kernels.linear(all, x, packed);
    for (let row = 0; row < m; row++) {
      kernels.linear(one, x.slice(row, row + 1), packed);
      expect(sameBits(one, all.slice(row, row + 1))).toBe(true);
    }
    release(kernels, packed, x, all, one);
  });

  it("reads rows out of the packed layouts exactly", () => {
    const rng = random(9);
    for (let round = 0; round < 100; round++) {
      for (const dtype of ["f32", "int8", "int4"] as const) {
        const [rows, cols] = [rng.int(1, 60), dtype === "int4" ? 32 * rng.int(1, 5) : rng.int(1, 150)];
        const canonical = weights(rng, dtype, rows, cols, 32, round % 2 === 0);
        const packed = pack(kernels, rng, canonical);
        const ids = Int32Array.from({ length: rng.int(1, 9) }, () => rng.int(0, rows - 1));
        const out = kernels.alloc("f32", [ids.length, cols]);
        const wanted = zeros("f32", [ids.length, cols]);
        kernels.embed(out, packed, ids);
        scalar.embed(wanted, canonical, ids);
        expect([...out.data]).toEqual([...wanted.data]);
        expect(packed.bytes).toBe(packed.data.byteLength);
        release(kernels, packed, out);
      }
    }
  });
});

describe("quantised linear", () => {
  it("gives the same integers on all paths", () => {
    for (const dtype of ["int8", "int4"] as const) {
      for (let round = 0; round < 100; round++) {
        const outs = backends.map(({ kernels }) => {
          const rng = random(round);
          const m = [1, 2, 3, 4, 8, 15][round % 6];
          // One group and scales of 1: the result is the integer, as far as a float goes.
          const canonical = weights(rng, dtype, 24, 32);
          canonical.scales!.fill(1);
          const packed = pack(kernels, rng, canonical);
          const x = kernels.alloc("f32", [m, 32]);
          for (let i = 0; i < 32 * m; i++) x.data[i] = rng.next() < 0.2 ? 32639 : rng.next() < 0.2 ? -32639 : rng.int(-32639, 32639);
          for (let row = 0; row < m; row++) x.data[32 * row] = 32639;
          const out = kernels.alloc("f32", [m, 24]);
          kernels.linear(out, x, packed);
          for (let i = 0; i < m; i++) {
            for (let j = 0; j < 24; j++) {
              let sum = 0;
              for (let c = 0; c < 32; c++) sum += x.data[i * 32 + c] * canonical.at(j * 32 + c);
              expect(out.data[i * 24 + j]).toBe(Math.fround(sum));
            }
          }
          return out;
        });
        for (const out of outs) expect([...out.data]).toEqual([...outs[0].data]);
      }
    }
  });

  it("computes with 8-bit activations when asked to and able to", () => {
    const rng = random(3);
    const most = eight.method.activations === "int8" ? 127 : 32639;
    for (const dtype of ["int8", "int4"] as const) {
      for (let round = 0; round < 50; round++) {
        const [m, n, k] = [rng.int(1, 9), rng.int(1, 40), 32 * rng.int(1, 9)];
        const canonical = weights(rng, dtype, n, k);
        const packed = pack(eight, rng, canonical);
        const x = normals(eight, rng, [m, k]);
        const out = eight.alloc("f32", [m, n]);
        const wanted = zeros("f32", [m, n]);
        eight.linear(out, x, packed);
        scalar.linear(wanted, quantised(x, most), canonical);
        expect(worstRow(out, wanted)).toBeLessThan(1e-5);
        release(eight, packed, x, out);
      }
    }
  });

  it("takes the extremes: -128, zero scales, one row, zeros, huge and tiny activations", () => {
    for (const { kernels } of backends) {
      const rng = random(1);
      for (const size of [0, 1e-38, 1e-20, 1e10, 1e11]) {
        const canonical = zeros("int8", [1, 64]);
        canonical.data.fill(-128);
        canonical.scales!.set([0, 0.5]);
        const packed = pack(kernels, rng, canonical);
        const x = kernels.alloc("f32", [1, 64]);
        x.data.fill(size);
        const out = kernels.alloc("f32", [1, 1]);
        kernels.linear(out, x, packed);
        const wanted = -64 * 32 * size;
        expect(Math.abs(out.data[0] - wanted)).toBeLessThanOrEqual(1e-6 * Math.abs(wanted) + 1e-28);
      }
      const packed = pack(kernels, rng, weights(rng, "int8", 8, 64));
      const x = normals(kernels, rng, [2, 64]);
      x.data[3] = NaN;
      const out = kernels.alloc("f32", [2, 8]);
      kernels.linear(out, x, packed);
      expect([...out.f32.subarray(0, 8)].every(Number.isNaN)).toBe(true);
      expect([...out.f32.subarray(8)].some(Number.isNaN)).toBe(false);
    }
  });
});
