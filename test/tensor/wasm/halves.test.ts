import { afterAll, describe, expect, it } from "vitest";
import { decodeRows } from "../../../src/quant/ggml.ts";
import type { Kernels } from "../../../src/tensor/kernels.ts";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import { f32, type HalfDType, type Tensor, zeros } from "../../../src/tensor/tensor.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { normals, pack, random, type Random, release, sameBits, weights } from "./helpers.ts";

const backends = [
  { name: "scalar", kernels: scalarKernels() },
  { name: "wasm", kernels: wasmKernels() },
  { name: "wasm, baseline SIMD", kernels: wasmKernels({ relaxed: false }) },
];
afterAll(() => backends.forEach(({ kernels }) => kernels.close()));

const FORMATS = ["f16", "bf16"] as const;

/** Numbers that are easily lost: zeros of both signs, the least and greatest subnormals and normals, and what is next to a power of two. */
const ODD: Readonly<Record<HalfDType, readonly number[]>> = {
  f16: [0, 0x8000, 1, 0x8001, 2, 0x3ff, 0x83ff, 0x400, 0x8400, 0x3bff, 0x3c01, 0x57ff, 0xd7ff],
  bf16: [0, 0x8000, 1, 0x8001, 0x7f, 0x807f, 0x80, 0x3f7f, 0x3f81, 0x7f7f, 0xff7f],
};
/** f16 from 128 on, which wasm keeps as f32. */
const LARGE = [0x5800, 0xd800, 0x5801, 0x7bff, 0xfbff];

function drawn(rng: Random, dtype: HalfDType, rows: number, cols: number, odd: readonly number[] = ODD[dtype]): Tensor {
  const tensor = weights(rng, dtype, rows, cols);
  for (let i = 0; i < tensor.data.length; i++) if (rng.next() < 0.1) tensor.data[i] = odd[rng.int(0, odd.length - 1)];
  return tensor;
}

/** The same values, as the numbers that they stand for say it and no code of the formats does. */
const widened = (half: Tensor) => f32(half.shape, Float32Array.from({ length: half.data.length }, (_, i) => half.at(i)), "w");

/** Inputs of every size, from where products underflow to where they overflow. */
function inputs(kernels: Kernels, rng: Random, m: number, k: number): Tensor {
  const x = normals(kernels, rng, [m, k], 10 ** rng.int(-6, 6));
  const far = [1e-30, -1e-30, 1e30, -1e30, 2 ** -149, 2 ** -126, 2 ** 127, 0, -0];
  if (rng.next() < 0.5) for (let i = 0; i < x.data.length; i++) if (rng.next() < 0.2) x.data[i] = far[rng.int(0, far.length - 1)];
  return x;
}

/** Which NaN, WebAssembly leaves open. */
const same = (a: Tensor, b: Tensor) => expect(a.f32.findIndex((value, i) => !Object.is(value, b.f32[i]))).toBe(-1);

describe.each(backends)("weights of 16 bits give the bits of the same weights in f32, $name", ({ name, kernels }) => {
  it.each(FORMATS)("linear: %s", (dtype) => {
    const rng = random(31);
    for (let round = 0; round < 150; round++) {
      const [m, n, k] = [round % 3 === 0 ? 1 : rng.int(1, 20), rng.int(1, 40), rng.int(1, 150)];
      const half = drawn(rng, dtype, n, k);
      const [own, wide] = [pack(kernels, rng, half), pack(kernels, rng, widened(half))];
      expect([own.format, wide.format]).toEqual([dtype, "f32"]);
      const x = inputs(kernels, rng, m, k);
      const bias = rng.next() < 0.5 ? normals(kernels, rng, [n]) : undefined;
      const [out, wanted] = [0, 1].map(() => kernels.alloc("f32", [m, n]));
      kernels.linear(out, x, own, bias);
      kernels.linear(wanted, x, wide, bias);
      same(out, wanted);
      release(kernels, own, wide, x, out, wanted, ...(bias ? [bias] : []));
    }
  });

  it.each(FORMATS)("rows of an embedding: %s", (dtype) => {
    const rng = random(32);
    for (let round = 0; round < 60; round++) {
      const half = drawn(rng, dtype, rng.int(1, 60), rng.int(1, 90));
      const own = pack(kernels, rng, half);
      const ids = Int32Array.from({ length: rng.int(1, 9) }, () => rng.int(0, half.rows - 1));
      const out = kernels.alloc("f32", [ids.length, half.cols]);
      kernels.embed(out, own, ids);
      const values = widened(half);
      ids.forEach((id, i) => expect(sameBits(out.slice(i, i + 1), values.slice(id, id + 1))).toBe(true));
      release(kernels, own, out);
    }
  });

  it.each(FORMATS)("in half the bytes: %s", (dtype) => {
    const rng = random(33);
    for (const [n, k] of [[8, 64], [64, 1], [16, 37]]) expect(pack(kernels, rng, drawn(rng, dtype, n, k)).bytes).toBe(2 * n * k);
  });

  it("f16 from 128 on, wherever it turns up", () => {
    const rng = random(34);
    for (let round = 0; round < 60; round++) {
      const [n, k] = [rng.int(1, 60), rng.int(1, 60)];
      const half = drawn(rng, "f16", n, k);
      half.data[rng.int(0, n * k - 1)] = LARGE[rng.int(0, LARGE.length - 1)];
      const own = pack(kernels, rng, half);
      expect(own.format).toBe(name === "scalar" ? "f16" : "f32");
      const [out, values] = [kernels.alloc("f32", [n, k]), widened(half)];
      kernels.embed(out, own, Int32Array.from({ length: n }, (_, i) => i));
      expect(sameBits(out, values)).toBe(true);
      release(kernels, own, out);
    }
  });
});

describe.each(backends.slice(1))("parts of a fused linear, $name", ({ kernels }) => {
  it("some of 16 bits, others kept as f32, are not computed together", () => {
    const rng = random(35);
    const [a, b] = [drawn(rng, "f16", 8, 32), drawn(rng, "f16", 8, 32, LARGE)].map((half) => ({ weight: pack(kernels, rng, half) }));
    expect([kernels.fused!.together([a, a]), kernels.fused!.together([a, b])]).toEqual([true, false]);
  });

  it.each(FORMATS)("gate and sum give the bits of f32: %s", (dtype) => {
    const rng = random(36);
    for (let round = 0; round < 60; round++) {
      const [m, n, k] = [round % 3 ? rng.int(1, 14) : 1, rng.int(1, 40), rng.int(1, 100)];
      const halves = [drawn(rng, dtype, n, k), drawn(rng, dtype, n, k)];
      const [[a, b], [c, d]] = [halves, halves.map(widened)].map((both) => both.map((half) => ({ weight: pack(kernels, rng, half) })));
      const x = normals(kernels, rng, [m, k]);
      const outs = [0, 1].map(() => kernels.alloc("f32", [m, n]));
      kernels.fused!.gatedLinear(outs[0], x, a, b, "silu");
      kernels.fused!.gatedLinear(outs[1], x, c, d, "silu");
      same(outs[0], outs[1]);
      kernels.fused!.addLinear(outs[0], x, a);
      kernels.fused!.addLinear(outs[1], x, c);
      same(outs[0], outs[1]);
      release(kernels, x, ...outs, ...[a, b, c, d].map(({ weight }) => weight));
    }
  });
});

describe.each(FORMATS)("rows of a file, %s", (dtype) => {
  const [type, { kernels }] = [dtype.toUpperCase(), backends[1]];
  const packer = (rows: number, cols: number) => kernels.packer({ name: "w", dtype, shape: [rows, cols], group: cols });
  const bytesOf = (half: Tensor) => new Uint8Array(half.data.slice().buffer);

  it("packed in pieces of whole tiles give the bytes that canonical rows give", () => {
    const rng = random(37);
    for (let round = 0; round < 60; round++) {
      const [rows, cols] = [rng.int(1, 70), 4 * rng.int(1, 20)];
      const half = drawn(rng, dtype, rows, cols);
      const direct = packer(rows, cols);
      const step = 8 * rng.int(1, 5);
      for (let row = 0; row < rows; row += step) {
        const piece = half.slice(row, Math.min(rows, row + step));
        expect(direct.writeBlocks!(type, piece.rows, (target) => target.set(bytesOf(piece)))).toBe(true);
      }
      const [a, b] = [direct.finish(), pack(kernels, rng, half)];
      expect(sameBits(a, b)).toBe(true);
      release(kernels, a, b);
    }
  });

  it("are the caller's where something is not finite, or has no form of 16 bits", () => {
    const infinity = dtype === "f16" ? 0x7c00 : 0x7f80;
    const refused = [infinity, infinity | 0x8000, infinity | 1, ...(dtype === "f16" ? LARGE : [])];
    for (const bits of refused) {
      const half = drawn(random(38), dtype, 16, 12);
      half.data[100] = bits;
      const direct = packer(16, 12);
      expect(direct.writeBlocks!(type, 8, (target) => target.set(bytesOf(half.slice(0, 8))))).toBe(true);
      expect(direct.writeBlocks!(type, 8, (target) => target.set(bytesOf(half.slice(8, 16))))).toBe(false);
      if ((bits & infinity) === infinity) {
        expect(decodeRows(type, bytesOf(half), zeros(dtype, [16, 12]))).toBe(100);
        continue;
      }
      direct.write(half.slice(8, 16));
      const out = kernels.alloc("f32", [16, 12]);
      kernels.embed(out, direct.finish(), Int32Array.from({ length: 16 }, (_, i) => i));
      expect(sameBits(out, widened(half))).toBe(true);
    }
  });

  it("are not for other types, odd columns, nor for rows that begin inside a tile", () => {
    const never = () => expect.unreachable();
    const half = drawn(random(39), dtype, 20, 8);
    const direct = packer(20, 8);
    expect(direct.writeBlocks!("F32", 8, never)).toBe(false);
    expect(packer(20, 6).writeBlocks!(type, 8, never)).toBe(false);
    direct.write(half.slice(0, 3));
    expect(direct.writeBlocks!(type, 8, never)).toBe(false);
    expect(() => packer(4, 8).writeBlocks!(type, 8, never)).toThrow(/at most 4 more rows, found 8/);
  });
});

