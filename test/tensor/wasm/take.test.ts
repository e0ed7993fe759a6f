import { describe, expect, it } from "vitest";
import { i32, local } from "../../../src/tensor/wasm/assembler.ts";
import { emitPool } from "../../../src/tensor/wasm/kernels/pool.ts";
import { SCRATCH, STARTED } from "../../../src/tensor/wasm/layout.ts";
import { ModuleBuilder } from "../../../src/tensor/wasm/module.ts";
import { random } from "./helpers.ts";

/** A pool whose other threads sleep: a function that says which chunks [first, last) thread `index` of `threads` takes of a job. */
function pool() {
  const limits = { initial: 2, maximum: 2, shared: true };
  const module = new ModuleBuilder(limits);
  const [scratch, threadIndex] = [module.global("i32"), module.global("i32")];
  // A list of chunks at SCRATCH, behind their number.
  module.kernel("note", (first, last) => {
    const count = local("i32", i32.load(0, SCRATCH));
    const at = local("i32", i32.shl(count, 3));
    i32.store(at, first, SCRATCH + 8);
    i32.store(at, last, SCRATCH + 12);
    i32.store(0, i32.add(count, 1), SCRATCH);
  });
  emitPool({ module, scratch, threadIndex, dot: "pairs", activations: "int16", madd: false, wide: false }, true);
  const memory = new WebAssembly.Memory(limits);
  const { enter, run } = new WebAssembly.Instance(new WebAssembly.Module(module.encode()), { env: { memory } }).exports as Record<string, (...values: number[]) => number>;
  const ints = new Int32Array(memory.buffer);
  return (threads: number, index: number, units: number, chunk: number): [number, number][] => {
    ints[STARTED / 4] = threads - 1;
    ints[SCRATCH / 4] = 0;
    enter(index);
    expect(run(0, units, chunk)).toBe(0);
    return Array.from({ length: ints[SCRATCH / 4] }, (_, i) => [ints[SCRATCH / 4 + 2 + 2 * i], ints[SCRATCH / 4 + 3 + 2 * i]]);
  };
}

describe("a job's units", () => {
  const chunksOf = pool();

  it("are all taken, each once, the thread's own range first", () => {
    const rng = random(1);
    for (let round = 0; round < 2000; round++) {
      const [threads, units, chunk] = [rng.int(1, 9), rng.int(1, 700), rng.int(1, 200)];
      const index = rng.int(0, threads - 1);
      const chunks = chunksOf(threads, index, units, chunk);
      const start = (range: number) => Math.floor((range * units) / threads);
      const ranges = Array.from({ length: threads }, (_, i) => (index + i) % threads).filter((range) => start(range) < start(range + 1));
      expect(chunks[0][0]).toBe(start(ranges[0]));
      let next = 0;
      for (const range of ranges) {
        for (let at = start(range); at < start(range + 1); next++) {
          expect(chunks[next][0]).toBe(at);
          expect(chunks[next][1]).toBeGreaterThan(at);
          expect(chunks[next][1]).toBeLessThanOrEqual(start(range + 1));
          at = chunks[next][1];
        }
      }
      expect(next).toBe(chunks.length);
    }
  });

  it("come in chunks of half of what is left, down to an eighth of the largest", () => {
    const sizes = (units: number, chunk: number) => chunksOf(1, 0, units, chunk).map(([first, last]) => last - first);
    expect(sizes(100, 40)).toEqual([40, 30, 15, 7, 5, 3]);
    expect(sizes(1000, 256)).toEqual([256, 256, 244, 122, 61, 32, 29]);
    expect(sizes(5, 1)).toEqual([1, 1, 1, 1, 1]);
  });
});
