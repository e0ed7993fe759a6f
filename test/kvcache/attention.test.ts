import { describe, expect, it } from "vitest";
import { KvCache, type KvCacheOptions, PAGE_SIZE } from "../../src/kvcache/cache.ts";
import { resolveFormats } from "../../src/kvcache/format.ts";
import { makeBatch } from "../../src/model/decoder.ts";
import type { AttentionWindow, Segment } from "../../src/tensor/kernels.ts";
import { Ledger, type OpRecord } from "../../src/tensor/ledger.ts";
import { Ops } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { keyColumns, keyPosition, sees, visiblePairs, visiblePositions } from "../../src/tensor/segments.ts";
import { f32, type Tensor } from "../../src/tensor/tensor.ts";
import { type Dice, dice, range } from "../support/dice.ts";
import { drawModel, packModel, SMALL } from "../support/models.ts";
import { probabilities } from "../support/reference.ts";
import { type Bench, prompt, relativeError, step, token } from "../support/run.ts";

const TOLERANCE = 1e-5;
const FORMATS = ["f32", "int8", "int4", { k: "int8", v: "int4" }, { k: "f32", v: "int8" }] as const;
const WINDOWS: (AttentionWindow | undefined)[] = [undefined, { size: 1, sinks: 0 }, { size: 5, sinks: 3 }, { size: 16, sinks: 16 }, { size: 20, sinks: 0 }, { size: 33, sinks: 4 }, { size: 64, sinks: 1 }];

/** With several layers the last bit of a sum may round a key of the next layer to another step. */
const ONE_LAYER = { ...SMALL, nLayers: 1 };

/** A drawn model on a cache of its own. */
function benchOf(seed: number, options: KvCacheOptions, attention: "tiled" | "naive" = "tiled", ledger = new Ledger(false), kernels = scalarKernels(), given = SMALL): Bench {
  const model = packModel(drawModel(seed, { contextLength: 1024, ...given }), kernels);
  return { model, ledger, ops: new Ops(kernels, ledger, { attention }), cache: new KvCache(kernels, model.config, 64, options) };
}

/** Logits after every token of a text, fed in the given pieces. */
function logitsOf(on: Bench, tokens: readonly number[], cuts: readonly number[] = []): Float32Array[] {
  const sequence = on.cache.create();
  const ends = [...cuts, tokens.length];
  const found = ends.flatMap((end, i) => step(on, [prompt(sequence, tokens.slice(ends[i - 1] ?? 0, end))]));
  on.cache.release(sequence);
  expect(on.cache.usedPages).toBe(0);
  return found;
}

const drawTokens = (d: Dice, length: number) => range(length).map(() => d.below(SMALL.vocabSize!));
const drawCuts = (d: Dice, length: number) => [...new Set(range(d.between(0, 6)).map(() => d.between(1, length - 1)))].sort((a, b) => a - b);

describe.each(FORMATS)("pages in %o", (kv) => {
  it.each(WINDOWS)("window %o: whatever the pieces and the neighbours, they give the same bits, naive attention nearly", (window) => {
    for (const seed of range(2)) {
      const d = dice(seed);
      const tokens = drawTokens(d, d.between(50, 100));
      const found = logitsOf(benchOf(seed, { kv, window }), tokens);
      expect(logitsOf(benchOf(seed, { kv, window }), tokens, drawCuts(d, tokens.length))).toEqual(found);
      const [tiled, naive] = (["tiled", "naive"] as const).map((method) => logitsOf(benchOf(seed, { kv, window }, method, undefined, undefined, ONE_LAYER), tokens, drawCuts(d, tokens.length)));
      naive.forEach((row, i) => expect(relativeError(row, tiled[i])).toBeLessThanOrEqual(TOLERANCE));

      const shared = benchOf(seed, { kv, window });
      const [a, b] = [shared.cache.create(), shared.cache.create()];
      step(shared, [prompt(a, tokens.slice(0, -9))]);
      const rows = tokens.slice(-9).map((id, i) => step(shared, [prompt(b, drawTokens(d, i + 1), "none"), token(a, id)]));
      expect(rows.flat()).toEqual(found.slice(-9));
    }
  });
});

describe("drawn models", () => {
  it("tiled and naive attention agree in any shape, format and window", () => {
    for (const seed of range(80)) {
      const d = dice(seed);
      const options = { kv: d.pick(FORMATS), window: d.chance(0.7) ? { size: d.between(1, 40), sinks: d.between(0, 20) } : undefined };
      const given = { nHeads: 4, nKvHeads: d.pick([1, 2, 4]), headDim: d.pick([2, 3, 5, 8, 16]), vocabSize: SMALL.vocabSize, contextLength: 128, nLayers: 1 };
      const rope = d.chance(0.8) ? { style: d.pick(["interleaved", "halves"] as const), base: 10000, dims: 2, scaling: { type: "none" as const } } : undefined;
      const [tiled, naive] = (["tiled", "naive"] as const).map((method) => benchOf(seed, options, method, undefined, undefined, { ...given, rope, alternate: undefined }));
      const tokens = drawTokens(d, d.between(1, 70));
      const found = logitsOf(tiled, tokens);
      logitsOf(naive, tokens).forEach((row, i) => expect(relativeError(row, found[i])).toBeLessThanOrEqual(TOLERANCE));
    }
  });
});

describe("windows", () => {
  it("that nothing leaves change no bit", () => {
    const tokens = drawTokens(dice(1), 60);
    const plain = logitsOf(benchOf(1, {}), tokens);
    for (const window of [{ size: 60, sinks: 0 }, { size: 40, sinks: 20 }]) expect(logitsOf(benchOf(1, { window }), tokens)).toEqual(plain);
    expect(logitsOf(benchOf(1, { window: { size: 39, sinks: 20 } }), tokens).slice(0, 59)).toEqual(plain.slice(0, 59));
  });

  it("forget what has left, one layer's window at a time, but not the sinks", () => {
    const tokens = drawTokens(dice(2), 100);
    const other = (at: number) => tokens.with(at, (tokens[at] + 1) % SMALL.vocabSize!);
    const last = (ids: readonly number[], sinks: number) => logitsOf(benchOf(2, { window: { size: 10, sinks } }), ids).at(-1);
    for (const sinks of [0, 4]) {
      const found = last(tokens, sinks);
      expect(last(other(99 - 2 * 9 - 1), sinks)).toEqual(found);
      expect(last(other(99 - 2 * 9), sinks)).not.toEqual(found);
    }
    expect(last(other(3), 4)).not.toEqual(last(tokens, 4));
    expect(last(other(4), 4)).toEqual(last(tokens, 4));
  });

  it("stay in fixed memory, and work far beyond the context", () => {
    const on = benchOf(3, { window: { size: 32, sinks: 4 }, prefixIndex: false });
    const sequence = on.cache.create();
    step(on, [prompt(sequence, drawTokens(dice(3), 100))]);
    for (let i = 0; i < 3000; i++) {
      const [logits] = step(on, [token(sequence, i % SMALL.vocabSize!)]);
      if (i % 500 === 0) expect(logits.every(Number.isFinite)).toBe(true);
    }
    expect([sequence.length, on.cache.usedPages]).toEqual([3100, 4]);
    expect(on.cache.pagesFor(Infinity, 100)).toBe(11);
    expect(on.cache.stats().allocated).toBeLessThanOrEqual(11);
  });

  it("refuse to be cut back to where their pages are gone", () => {
    const on = benchOf(4, { window: { size: 8, sinks: 0 } });
    const sequence = on.cache.create();
    for (let i = 0; i < 10; i++) step(on, [prompt(sequence, drawTokens(dice(i), 10))]);
    const before = { ...sequence, pages: [...sequence.pages] };
    expect(() => on.cache.truncate(sequence, 70)).toThrow("truncate: at 70 positions some before 80 are needed, and the window of 8 has given them back");
    expect({ ...sequence, pages: [...sequence.pages] }).toEqual(before);
    on.cache.truncate(sequence, 90);
    on.cache.truncate(sequence, 0);
    expect(sequence.hole).toBeUndefined();
  });
});

/** StreamingLLM as the paper has it: what is kept of the cache is numbered 0, 1, 2 ..., and keys are turned by those numbers. */
function streaming(q: Float64Array[], k: Float64Array[], v: Float64Array[], { size, sinks }: AttentionWindow, position: number): Float64Array {
  const kept = range(position + 1).filter((j) => j < sinks || j > position - size);
  const turn = (x: Float64Array, at: number) => x.map((value, i) => value * Math.cos(at * angle(i)) + (i % 2 === 0 ? -x[i + 1] : x[i - 1]) * Math.sin(at * angle(i)));
  const query = turn(q[position], kept.length - 1);
  const weights = probabilities(kept.map((j, number) => turn(k[j], number).reduce((sum, value, i) => sum + value * query[i], 0)));
  return Float64Array.from(query, (_, i) => kept.reduce((sum, j, number) => sum + weights[number] * v[j][i], 0));
}

const HEAD = 6;
const FREQUENCIES = Float64Array.from({ length: HEAD / 2 }, (_, i) => 10000 ** ((-2 * i) / HEAD));
const angle = (i: number) => FREQUENCIES[i >> 1];

describe("attention sinks", () => {
  it("stand where StreamingLLM's positions within the cache put them", () => {
    for (const seed of range(20)) {
      const d = dice(seed);
      const window = { size: d.between(1, 40), sinks: d.between(0, 20) };
      const length = d.between(1, 120);
      const [q, k, v] = range(3).map(() => range(length).map(() => Float64Array.from({ length: HEAD }, d.normal)));
      const kernels = scalarKernels();
      const cache = new KvCache(kernels, { nLayers: 1, nKvHeads: 1, headDim: HEAD }, 10, { window });
      const ops = new Ops(kernels, new Ledger(false));
      const batch = makeBatch(cache, [{ sequence: cache.create(), tokens: range(length), logits: "none", prompt: true }]);
      const shape = { nHeads: 1, nKvHeads: 1, headDim: HEAD, scale: 1 };
      const tensor = (rows: Float64Array[]) => f32([length, HEAD], Float32Array.from(rows.flatMap((row) => [...row])));
      const turned = (x: Tensor, positions: Int32Array) => ops.rope("x", x, ops.ropeAngles(positions, FREQUENCIES, 1), HEAD, "interleaved");
      ops.kvWrite(turned(tensor(k), batch.positions), tensor(v), batch.segments, 0, shape);
      expect(batch.sinkPositions !== undefined).toBe(window.sinks > 0 && length > window.size + window.sinks);
      const sinkQ = batch.sinkPositions && turned(tensor(q), batch.sinkPositions);
      const found = ops.attention(turned(tensor(q), batch.positions), batch.segments, 0, shape, sinkQ);
      const rows = range(length).map((i) => found.f32.slice(i * HEAD, (i + 1) * HEAD));
      rows.forEach((row, i) => expect(relativeError(row, streaming(q, k, v, window, i))).toBeLessThanOrEqual(1e-4));
    }
  });
});

describe("what a segment sees", () => {
  it("counts pairs, columns and positions as a list of them would", () => {
    for (const seed of range(200)) {
      const d = dice(seed);
      const window = d.chance(0.8) ? { size: d.between(1, 30), sinks: d.between(0, 20) } : undefined;
      const cache = new KvCache(shapeKernels(), { nLayers: 1, nKvHeads: 1, headDim: 1 }, 60, { window });
      const trunk = cache.create();
      cache.append(trunk, d.between(1, 60));
      const sequences = [trunk, cache.fork(trunk), cache.fork(trunk), cache.create()].slice(0, d.between(1, 4));
      const segments: Segment[] = makeBatch(cache, sequences.map((sequence) => ({ sequence, tokens: range(d.between(1, 20)), logits: "none", prompt: true }))).segments as Segment[];
      const seen = new Set<string>();
      let pairs = 0;
      for (const segment of segments) {
        const own = new Set<number>();
        for (let p = segment.start; p < segment.start + segment.length; p++) for (let j = 0; j <= p; j++) if (sees(segment, p, j)) own.add(j) && pairs++;
        const { hole } = segment;
        for (const j of own) {
          const index = Math.floor(j / PAGE_SIZE);
          seen.add(`${segment.pages[hole && index >= hole.at ? index - hole.count : index].id} ${j % PAGE_SIZE}`);
        }
        const expected = [...own].sort((a, b) => a - b);
        expect(range(keyColumns(segment)).map((c) => keyPosition(segment, c))).toEqual(expected);
      }
      expect(visiblePairs(segments)).toBe(pairs);
      expect(visiblePositions(segments)).toBe(seen.size);
    }
  });
});

describe("the ledger", () => {
  /** KV bytes that the last of `context` decoded tokens reads and writes, all layers. */
  function decodeBytes(options: KvCacheOptions, context: number, method: "tiled" | "naive" = "tiled"): { read: number; written: number; dtypes: string[] } {
    const on = benchOf(1, options, method, new Ledger(true, { records: true }));
    const sequence = on.cache.create();
    step(on, [prompt(sequence, range(context - 1).map((i) => i % 7), "none")]);
    on.ledger.clear();
    step(on, [token(sequence, 1)]);
    const sum = (of: (record: OpRecord) => number) => on.ledger.records.reduce((total, record) => total + of(record), 0);
    const dtypes = [...new Set(on.ledger.records.filter(({ read, written }) => read.kv + written.kv > 0).map(({ dtype }) => dtype))];
    return { read: sum(({ read }) => read.kv), written: sum(({ written }) => written.kv), dtypes };
  }
  const { nLayers, nKvHeads, headDim } = SMALL as Required<typeof SMALL>;
  const rows = 2 * nLayers * nKvHeads;

  it.each(["tiled", "naive"] as const)("%s: int8 reads and writes a quarter of f32, and scales; int4 an eighth, and scales", (method) => {
    for (const context of [2, 16, 17, 100]) {
      const f = rows * headDim * 4;
      for (const [kv, bytes] of [["f32", f], ["int8", f / 4 + 4 * rows], ["int4", f / 8 + 4 * rows]] as const) {
        expect(decodeBytes({ kv }, context, method)).toEqual({ read: context * bytes, written: bytes, dtypes: [kv] });
      }
      expect(decodeBytes({ kv: { k: "int8", v: "int4" } }, context, method).dtypes).toEqual(["int8/int4"]);
    }
  });

  it("reads what is visible only", () => {
    const bytes = rows * headDim * 4;
    for (const method of ["tiled", "naive"] as const) {
      for (const context of [5, 24, 25, 100]) {
        expect(decodeBytes({ window: { size: 20, sinks: 4 } }, context, method).read).toBe(Math.min(context, 24) * bytes);
      }
    }
  });

  it("costs the same without storage", () => {
    for (const kv of ["f32", "int8", "int4"] as const) {
      const records = [scalarKernels(), shapeKernels()].map((kernels) => {
        const on = benchOf(1, { kv, window: { size: 20, sinks: 4 } }, "tiled", new Ledger(true, { records: true, timing: false }), kernels);
        const sequence = on.cache.create();
        step(on, [prompt(sequence, range(50).map(() => 0))]);
        return on.ledger.records;
      });
      expect(records[1]).toEqual(records[0]);
    }
  });
});

describe("a backend without a format", () => {
  it("is refused with its name", () => {
    const kernels = { ...scalarKernels(), name: "little", kv: { formats: ["f32"] as const, windows: false } };
    const shape = { nLayers: 1, nKvHeads: 1, headDim: 4 };
    expect(() => new KvCache(kernels, shape, 1, { kv: { v: "int4" } })).toThrow("KV cache: the little kernels keep f32, found int4 (the scalar backend has it)");
    expect(() => new KvCache(kernels, shape, 1, { window: { size: 8, sinks: 0 } })).toThrow("the little kernels have no attention window");
    expect(() => new KvCache(scalarKernels(), shape, 1, { window: { size: 0, sinks: 0 } })).toThrow("window: expected a whole number, 1 or more, found 0");
    expect(() => new KvCache(scalarKernels(), shape, 1, { window: { size: 1, sinks: 0.5 } })).toThrow("sinks: expected a whole number, 0 or more, found 0.5");
    expect(resolveFormats({ k: "int8" })).toEqual({ k: "int8", v: "f32" });
  });
});
