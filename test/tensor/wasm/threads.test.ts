import { readdirSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { spawnThread } from "../../../src/runtime/node-threads.ts";
import type { KvPage } from "../../../src/tensor/kernels.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import type { Spawn, WasmKernels, WasmOptions } from "../../../src/tensor/wasm/index.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { PARAMS, STARTED, STATE } from "../../../src/tensor/wasm/layout.ts";
import { normals, pack, random, sameBits, weights } from "./helpers.ts";

const LIMIT = 2 ** 28;
const open = (options: WasmOptions): WasmKernels => wasmKernels({ spawn: spawnThread, maxBytes: LIMIT, ...options });

/** A bit of everything, large enough to be handed to all threads. */
function work(kernels: WasmKernels): Tensor[] {
  const rng = random(11);
  const outs: Tensor[] = [];
  const take = (shape: number[]) => {
    const out = kernels.alloc("f32", shape);
    outs.push(out);
    return out;
  };
  for (const dtype of ["f32", "int8", "int4"] as const) {
    const packed = pack(kernels, rng, weights(rng, dtype, 770, 320));
    for (const m of [1, 7, 64]) kernels.linear(take([m, 770]), normals(kernels, rng, [m, 320]), packed);
  }
  const x = normals(kernels, rng, [200, 512]);
  kernels.rmsNorm(take([200, 512]), x, normals(kernels, rng, [512]), 1e-5);
  kernels.gated(take([200, 512]), x, normals(kernels, rng, [200, 512]), "silu");
  const soft = take([100, 700]);
  kernels.add(soft, normals(kernels, rng, [100, 700]));
  kernels.softmax(soft);

  const shape = { nHeads: 6, nKvHeads: 2, headDim: 32, scale: 0.2 };
  const pages: KvPage[] = Array.from({ length: 50 }, (_, id) => ({ id, k: kernels.alloc("f32", [1, 2, 16, 32]), v: kernels.alloc("f32", [1, 2, 16, 32]) }));
  const [k, v, q] = [normals(kernels, rng, [800, 64]), normals(kernels, rng, [800, 64]), normals(kernels, rng, [800, 192])];
  kernels.kvWrite(k, v, [{ pages, row: 0, start: 0, length: 800 }], 0, shape);
  kernels.attention(take([800, 192]), q, [{ pages, row: 0, start: 0, length: 800 }], 0, shape);
  kernels.attention(take([1, 192]), q.slice(799, 800), [{ pages, row: 0, start: 799, length: 1 }], 0, shape);
  return outs;
}

const sleep = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));
const threadCount = () => readdirSync("/proc/self/task").length;

describe("threads", () => {
  it("change no bit", () => {
    const alone = open({ threads: 1 });
    const wanted = work(alone);
    for (const threads of [2, 3]) {
      const kernels = open({ threads });
      expect(kernels.threads).toBe(threads);
      for (let round = 0; round < 3; round++) work(kernels).forEach((out, i) => expect(sameBits(out, wanted[i])).toBe(true));
      kernels.close();
    }
    alone.close();
  });

  it("take ten thousand steps without growing", () => {
    const kernels = open({ threads: 2 });
    const rng = random(1);
    const packed = pack(kernels, rng, weights(rng, "int8", 512, 288));
    const [x, out] = [normals(kernels, rng, [1, 288]), kernels.alloc("f32", [1, 512])];
    kernels.linear(out, x, packed);
    const bytes = kernels.device.heap.memory.buffer.byteLength;
    const used = kernels.device.heap.used();
    for (let step = 0; step < 10_000; step++) {
      kernels.linear(out, x, packed);
      const page = kernels.alloc("int8", [1, 2, 16, 32], 32);
      kernels.free(page);
    }
    expect(kernels.device.heap.memory.buffer.byteLength).toBe(bytes);
    expect(kernels.device.heap.used()).toBe(used);
    kernels.close();
  });

  it("end with close: a hundred pools leave no thread", async () => {
    const before = threadCount();
    for (let i = 0; i < 100; i++) {
      const kernels = open({ threads: 2 });
      const x = kernels.alloc("f32", [300, 300]);
      kernels.add(x, x);
      kernels.close();
      kernels.close();
      if (i % 10 === 9) await sleep(20);
    }
    for (let tries = 0; tries < 400 && threadCount() > before; tries++) await sleep(50);
    expect(threadCount()).toBeLessThanOrEqual(before);
  }, 300_000);

  it("do without threads that cannot start", () => {
    let calls = 0;
    const kernels = open({
      threads: 4,
      spawn: (data) => {
        if (++calls > 1) throw new Error("no more threads");
        return spawnThread(data);
      },
    });
    expect(kernels.threads).toBe(2);
    const alone = open({ threads: 1 });
    const [a, b] = [work(kernels), work(alone)];
    a.forEach((out, i) => expect(sameBits(out, b[i])).toBe(true));
    kernels.close();
    alone.close();
  });

  it("go on when a worker is gone", async () => {
    const handles: { terminate(): void }[] = [];
    const kernels = open({
      threads: 3,
      spawn: (data) => {
        const handle = spawnThread(data);
        handles.push(handle);
        return handle;
      },
    });
    const wanted = work(kernels);
    handles[0].terminate();
    await sleep(100);
    work(kernels).forEach((out, i) => expect(sameBits(out, wanted[i])).toBe(true));
    kernels.close();
  });

  it("say so when a worker stops inside a job, and do without them from then on", async () => {
    // It enters the first job that it sees, and neither works nor leaves.
    const stuck = `const state = new Int32Array(require("node:worker_threads").workerData.memory.buffer, 0, ${PARAMS / 4});
      Atomics.add(state, ${STARTED / 4}, 1);
      Atomics.notify(state, ${STARTED / 4});
      for (;;) {
        const seen = Atomics.load(state, ${STATE / 4});
        if (seen & 256 && Atomics.compareExchange(state, ${STATE / 4}, seen, seen + 1) === seen) break;
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);`;
    const spawn: Spawn = (workerData) => {
      const worker = new Worker(stuck, { eval: true, workerData });
      return { terminate: () => void worker.terminate() };
    };
    const kernels = wasmKernels({ threads: 2, spawn, maxBytes: LIMIT });
    expect(kernels.threads).toBe(2);
    const rng = random(12);
    const [weight, x, out] = [pack(kernels, rng, weights(rng, "int8", 770, 320)), normals(kernels, rng, [64, 320]), kernels.alloc("f32", [64, 770])];
    expect(() => {
      for (let round = 0; round < 1e5; round++) kernels.linear(out, x, weight);
    }).toThrow(/a worker thread stopped inside linear_int8_\w+; its results are lost/);
    expect(kernels.threads).toBe(1);
    const alone = open({ threads: 1 });
    const wanted = work(alone);
    work(kernels).forEach((out, i) => expect(sameBits(out, wanted[i])).toBe(true));
    for (const each of [kernels, alone]) each.close();
  });

  it("need a spawn function, and work alone without", () => {
    const kernels = wasmKernels({ threads: 4, maxBytes: LIMIT });
    expect(kernels.threads).toBe(1);
    kernels.close();
  });
});

describe("memory", () => {
  it("says what is missing when a model does not fit", () => {
    const kernels = wasmKernels({ maxBytes: 2 ** 24 });
    expect(() => kernels.packer({ name: "layers.0.w1", dtype: "int8", shape: [16384, 4096], group: 32 })).toThrow(/layers\.0\.w1 needs 68\.0 MiB, but of the 16\.0 MiB .* are left/);
    kernels.close();
  });

  it("keeps old views valid when it grows, and zeroes what it hands out again", () => {
    const kernels = wasmKernels({ maxBytes: LIMIT });
    const first = kernels.alloc("f32", [4]);
    first.f32.fill(7);
    const large = kernels.alloc("f32", [2 ** 22]);
    const second = kernels.alloc("f32", [4]);
    second.f32.fill(1);
    kernels.add(first, second);
    expect([...first.data]).toEqual([8, 8, 8, 8]);
    large.f32.fill(3);
    kernels.free(large);
    expect(kernels.alloc("f32", [2 ** 22]).f32.every((v) => v === 0)).toBe(true);
    kernels.close();
  });
});
