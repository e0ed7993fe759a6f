import { describe, expect, it } from "vitest";
import { spawnThread } from "../../../src/runtime/node-threads.ts";
import { AHEAD, AHEAD_PIECE, AHEAD_SPANS, SCRATCH, SCRATCH_BYTES } from "../../../src/tensor/wasm/layout.ts";
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

  it("is done by the threads: each reads a word of every line that it is told", async () => {
    const kernels = wasmKernels({ threads: 2, spawn: spawnThread, maxBytes: 2 ** 26 });
    expect(kernels.threads).toBe(2);
    const rng = random(5);
    const [first, second] = [0, 1].map(() => pack(kernels, rng, weights(rng, "int8", 1600, 512)));
    const [x, out] = [normals(kernels, rng, [1, 512]), kernels.alloc("f32", [1, 1600])];
    const ints = new Int32Array(kernels.device.heap.buffer());
    const seen = (SCRATCH + SCRATCH_BYTES) / 4;
    for (let round = 0; round < 3; round++) for (const weight of [first, second]) kernels.linear(out, x, weight);
    ints[seen] = 0;
    kernels.linear(out, x, first);
    const line = ints.subarray((AHEAD + 64) / 4, (AHEAD + 64) / 4 + 2 * AHEAD_SPANS);
    expect(line[1]).toBeGreaterThan(0);
    let wanted = 0;
    for (let at = line[0]; at < line[0] + line[1] * AHEAD_PIECE; at += 64) wanted |= ints[at / 4];
    // A worker that came too late for the job has fetched already.
    for (let tries = 0; tries < 200 && ints[seen] !== wanted; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      kernels.linear(out, x, second);
      kernels.linear(out, x, first);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(ints[seen]).toBe(wanted);
    kernels.close();
  });

  it("never tells of what lies beyond memory, nor more than a cache holds", () => {
    const full = open();
    const rng = random(4);
    const x = normals(full, rng, [1, 512]);
    const most = 2 ** 18;
    const out = full.alloc("f32", [1, 2400]);
    const matrices = Array.from({ length: 6 }, () => pack(full, rng, weights(rng, "int8", 2400, 512)));
    // Memory to its last 64 KiB: the matrices that come last lie at its end.
    const filler: Tensor[] = [];
    for (let size = 2 ** 22; size >= 2 ** 14; size >>= 1) {
      try {
        for (;;) filler.push(full.alloc("f32", [size]));
      } catch {
        // As much as fits.
      }
    }
    filler.sort((a, b) => a.byteOffset - b.byteOffset);
    for (const last of filler.slice(-24)) full.free(last);
    for (;;) {
      try {
        matrices.push(pack(full, rng, weights(rng, "int8", 256, 512)));
      } catch {
        break;
      }
    }
    const end = full.device.heap.buffer().byteLength;
    expect(Math.max(...matrices.map(({ data }) => data.byteOffset + data.byteLength))).toBeGreaterThan(end - most);
    let large = 0;
    const check = () => {
      for (const spans of told(full)) {
        const bytes = spans.reduce((sum, [, bytes]) => sum + bytes, 0);
        expect(bytes).toBeLessThanOrEqual(most + AHEAD_SPANS * AHEAD_PIECE);
        large = Math.max(large, bytes);
        for (const [address] of spans) expect(address + most + AHEAD_PIECE).toBeLessThanOrEqual(end);
      }
    };
    const [gate, up, ...others] = matrices;
    for (let round = 0; round < 3; round++) {
      for (const matrix of others) {
        full.linear(out, x, matrix);
        check();
      }
      full.fused!.gatedLinear(out, x, { weight: gate }, { weight: up }, "silu");
      check();
    }
    expect(large).toBeGreaterThanOrEqual(most - AHEAD_PIECE);
    full.close();
  });
});
