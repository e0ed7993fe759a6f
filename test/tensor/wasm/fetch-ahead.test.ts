import { describe, expect, it } from "vitest";
import { AHEAD, AHEAD_PIECE, AHEAD_SPANS } from "../../../src/tensor/wasm/layout.ts";
import { type WasmKernels, wasmKernels } from "../../../src/tensor/wasm/index.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { normals, pack, random, weights } from "./helpers.ts";

const THREADS = 3;
/** Kernels that believe in threads which never come: the main one does all the work. */
const open = (): WasmKernels => wasmKernels({ threads: THREADS, spawn: () => ({ terminate() {} }), maxBytes: 2 ** 26 });

/** What each thread but the first is told: [address, bytes] of its spans. */
function told({ device }: WasmKernels): [number, number][][] {
  return Array.from({ length: THREADS - 1 }, (_, i) => {
    const line = new Int32Array(device.heap.buffer(), AHEAD + 64 * (i + 1), 2 * AHEAD_SPANS);
    return Array.from({ length: AHEAD_SPANS }, (_, span): [number, number] => [line[2 * span], line[2 * span + 1] * AHEAD_PIECE]).filter(([, bytes]) => bytes > 0);
  });
}

const inside = (weight: Tensor, [address]: [number, number]) => address >= weight.data.byteOffset && address < weight.data.byteOffset + weight.data.byteLength;

describe("fetching ahead", () => {
  const kernels = open();
  const rng = random(3);
  const [cols, rows] = [512, 520];
  const list = Array.from({ length: 4 }, () => pack(kernels, rng, weights(rng, "int8", rows, cols)));
  const x = normals(kernels, rng, [1, cols]);
  const many = normals(kernels, rng, [40, cols]);
  const [out, manyOut] = [kernels.alloc("f32", [1, rows]), kernels.alloc("f32", [40, rows])];
  const step = (order: readonly number[]) => order.forEach((at) => kernels.linear(out, x, list[at]));

  it("tells nothing before an order has shown twice, then where each thread begins", () => {
    step([0, 1, 2]);
    expect(told(kernels)).toEqual([[], []]);
    step([0, 1, 2]);
    kernels.linear(out, x, list[0]);
    const tileBytes = list[1].data.byteLength / 65;
    const starts = told(kernels).map(([[address]]) => (address - list[1].data.byteOffset) / tileBytes);
    expect(starts).toEqual([Math.floor(65 / 3), Math.floor((2 * 65) / 3)]);
    for (const spans of told(kernels)) expect(spans.every((span) => inside(list[1], span))).toBe(true);
  });

  it("keeps to what is known: after a change of order and for prompts it tells nothing", () => {
    step([1, 2, 0, 1, 2]);
    kernels.linear(manyOut, many, list[0]);
    expect(told(kernels)).toEqual([[], []]);
    step([0, 3, 0, 2, 0]);
    expect(told(kernels)).toEqual([[], []]);
  });

  it("tells of a gate and what it gates together, and of parts one after the other", () => {
    const [a, b, c] = list.map((weight) => ({ weight }));
    const gated = kernels.alloc("f32", [1, rows]);
    const outs = [out, kernels.alloc("f32", [1, rows]), kernels.alloc("f32", [1, rows])];
    for (let round = 0; round < 4; round++) {
      kernels.linear(out, x, list[3]);
      kernels.fused!.gatedLinear(gated, x, a, b, "silu");
      if (round < 3) kernels.fused!.linears(outs, x, [b, a, c]);
    }
    // After the gate come the three, thread 1 begins where the first ends.
    const [first, second] = told(kernels);
    expect(first.length).toBe(1);
    expect(inside(a.weight, first[0])).toBe(true);
    expect(first[0][0]).toBe(a.weight.data.byteOffset);
    expect(inside(c.weight, second[0])).toBe(true);
    kernels.linear(out, x, list[3]);
    const [one] = told(kernels);
    expect(one.map((span) => [inside(a.weight, span), inside(b.weight, span)])).toEqual([
      [true, false],
      [false, true],
    ]);
  });

  it("never tells of what lies beyond memory, nor more than a cache holds", () => {
    const large = open();
    const rng = random(4);
    const end = () => large.device.heap.buffer().byteLength;
    const matrices = Array.from({ length: 12 }, () => pack(large, rng, weights(rng, rng.next() < 0.5 ? "int8" : "int4", 8 * rng.int(20, 400), 32 * rng.int(8, 40))));
    for (let round = 0; round < 4; round++) {
      for (const matrix of matrices) {
        large.linear(large.alloc("f32", [1, matrix.shape[0]]), normals(large, rng, [1, matrix.shape[1]]), matrix);
        for (const spans of told(large)) {
          expect(spans.reduce((sum, [, bytes]) => sum + bytes, 0)).toBeLessThanOrEqual(2 ** 18 + AHEAD_PIECE);
          for (const [address] of spans) expect(address + 2 ** 18 + AHEAD_PIECE).toBeLessThanOrEqual(end());
        }
      }
    }
    large.close();
  });
});
