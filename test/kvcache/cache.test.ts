import { describe, expect, it } from "vitest";
import { KvCache, KvCacheFullError, type KvSequence, PAGE_SIZE } from "../../src/kvcache/cache.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { f32 } from "../../src/tensor/tensor.ts";
import { dice, range } from "../support/dice.ts";

const SHAPE = { nLayers: 2, nKvHeads: 3, headDim: 2 };
const kernels = scalarKernels();
const makeCache = (maxPages = 8) => new KvCache(kernels, SHAPE, maxPages);

/** Appends one position for each value, and stores the value in all layers and heads: k = value, v = -value. */
function append(cache: KvCache, sequence: KvSequence, values: readonly number[]): void {
  const start = sequence.length;
  cache.append(sequence, values.length);
  if (values.length === 0) return;
  const { nLayers, nKvHeads, headDim } = SHAPE;
  const width = nKvHeads * headDim;
  for (let layer = 0; layer < nLayers; layer++) {
    const k = f32([values.length, width], values.flatMap((value) => range(width).map((i) => value + (layer * width + i) / 64)));
    const v = f32([values.length, width], k.f32.map((x) => -x));
    kernels.kvWrite(k, v, [{ pages: sequence.pages, row: 0, start, length: values.length }], layer, { ...SHAPE, nHeads: nKvHeads, scale: 1 });
  }
}

/** The value at every position, read back from wherever the page table says; NaN where layers or heads disagree. */
function contents({ pages, length }: KvSequence): number[] {
  const { nLayers, nKvHeads, headDim } = SHAPE;
  return range(length).map((position) => {
    const { k, v } = pages[Math.floor(position / PAGE_SIZE)];
    const slot = position % PAGE_SIZE;
    const found = new Set<number>();
    for (let layer = 0; layer < nLayers; layer++) {
      for (let head = 0; head < nKvHeads; head++) {
        for (let i = 0; i < headDim; i++) {
          const at = ((layer * nKvHeads + head) * PAGE_SIZE + slot) * headDim + i;
          const mark = (layer * nKvHeads * headDim + head * headDim + i) / 64;
          found.add(k.f32[at] - mark).add(-v.f32[at] - mark);
        }
      }
    }
    return found.size === 1 ? [...found][0] : Number.NaN;
  });
}

const distinctPages = (sequences: readonly KvSequence[]) => new Set(sequences.flatMap(({ pages }) => pages)).size;

describe("random operations against plain arrays", () => {
  it.each(range(24))("seed %i", (seed) => {
    const d = dice(seed);
    const maxPages = d.between(2, 12);
    const cache = makeCache(maxPages);
    const live: { sequence: KvSequence; values: number[] }[] = [];
    let next = 1;
    let refusals = 0;

    const operations: Record<string, () => void> = {
      create: () => void live.push({ sequence: cache.create(), values: [] }),
      append: () => {
        const { sequence, values } = d.pick(live);
        const added = range(d.pick([0, 1, 1, 2, 7, PAGE_SIZE, 40])).map(() => next++);
        const last = sequence.pages.at(-1);
        const copies = added.length > 0 && values.length % PAGE_SIZE > 0 && live.some((other) => other.sequence !== sequence && other.sequence.pages.includes(last!));
        const wanted = Math.ceil((values.length + added.length) / PAGE_SIZE) - Math.ceil(values.length / PAGE_SIZE) + (copies ? 1 : 0);
        if (wanted <= maxPages - distinctPages(live.map((one) => one.sequence))) {
          append(cache, sequence, added);
          values.push(...added);
        } else {
          const before = live.map((one) => ({ pages: [...one.sequence.pages], length: one.sequence.length }));
          expect(() => cache.append(sequence, added.length)).toThrow(KvCacheFullError);
          live.forEach((one, i) => expect(one.sequence.pages.length === before[i].pages.length && one.sequence.pages.every((page, j) => page === before[i].pages[j])).toBe(true));
          expect(live.map((one) => one.sequence.length)).toEqual(before.map(({ length }) => length));
          refusals++;
        }
      },
      truncate: () => {
        const one = d.pick(live);
        const length = d.between(0, one.values.length);
        cache.truncate(one.sequence, length);
        one.values.length = length;
      },
      fork: () => {
        const { sequence, values } = d.pick(live);
        live.push({ sequence: cache.fork(sequence), values: [...values] });
      },
      release: () => {
        const [{ sequence }] = live.splice(d.below(live.length), 1);
        cache.release(sequence);
      },
      reset: () => {
        if (!d.chance(0.2)) return;
        cache.reset();
        for (const { values } of live) values.length = 0;
      },
    };

    for (let i = 0; i < 150; i++) {
      const name = live.length === 0 ? "create" : d.pick(["create", "append", "append", "append", "append", "truncate", "fork", "release", "reset"]);
      if (name === "create" && live.length > 6) continue;
      operations[name]();
      const sequences = live.map(({ sequence }) => sequence);
      for (const { sequence, values } of live) {
        expect(contents(sequence)).toEqual(values);
        expect(sequence.pages.length).toBe(Math.ceil(values.length / PAGE_SIZE));
      }
      expect(cache.usedPages).toBe(distinctPages(sequences));
      expect(cache.usedPages + cache.freePages).toBe(maxPages);
      expect(cache.bytesInUse).toBe(cache.usedPages * 2 * 2 * 3 * 2 * PAGE_SIZE * 4);
    }
    expect(refusals).toBeGreaterThan(0);
    for (const { sequence } of live) cache.release(sequence);
    expect([cache.usedPages, cache.freePages, cache.bytesInUse]).toEqual([0, maxPages, 0]);
  });
});

describe("forks", () => {
  it("share pages until one side writes, and then copy only the page written", () => {
    const cache = makeCache();
    const trunk = cache.create();
    append(cache, trunk, range(PAGE_SIZE + 4));
    const fork = cache.fork(trunk);
    expect(cache.usedPages).toBe(2);
    expect(fork.pages).toEqual(trunk.pages);
    append(cache, fork, [100]);
    expect(cache.usedPages).toBe(3);
    expect(fork.pages[0]).toBe(trunk.pages[0]);
    expect(fork.pages[1]).not.toBe(trunk.pages[1]);
    append(cache, trunk, [200]);
    expect(cache.usedPages).toBe(3);
    expect([contents(trunk), contents(fork)]).toEqual([[...range(PAGE_SIZE + 4), 200], [...range(PAGE_SIZE + 4), 100]]);
  });

  it("at a page's end need no copy", () => {
    const cache = makeCache();
    const trunk = cache.create();
    append(cache, trunk, range(PAGE_SIZE));
    const fork = cache.fork(trunk);
    append(cache, fork, [100]);
    append(cache, trunk, [200]);
    expect(cache.usedPages).toBe(3);
    expect(fork.pages[0]).toBe(trunk.pages[0]);
  });

  it("outlive what they were forked from", () => {
    const cache = makeCache();
    const trunk = cache.create();
    append(cache, trunk, range(20));
    const fork = cache.fork(trunk);
    cache.release(trunk);
    expect(contents(fork)).toEqual(range(20));
    expect(cache.usedPages).toBe(2);
    append(cache, fork, [7]);
    expect(cache.usedPages).toBe(2);
  });
});

describe("pages", () => {
  it("are only created when needed, then recycled", () => {
    let allocated = 0;
    const counting = { ...kernels, alloc: (...args: Parameters<typeof kernels.alloc>) => (allocated++, kernels.alloc(...args)) };
    const cache = new KvCache(counting, SHAPE, 1000);
    expect(allocated).toBe(0);
    for (let i = 0; i < 5; i++) {
      const sequence = cache.create();
      cache.append(sequence, 3 * PAGE_SIZE);
      cache.release(sequence);
    }
    expect(allocated).toBe(2 * 3);
  });

  it("tell their size before there is one, and what their tensors take afterwards", () => {
    const bytes = 2 * 2 * 3 * 2 * PAGE_SIZE * 4;
    for (const set of [kernels, shapeKernels()]) {
      const cache = new KvCache(set, SHAPE, 4);
      expect(cache.pageBytes).toBe(bytes);
      const sequence = cache.create();
      cache.append(sequence, 1);
      expect([cache.pageBytes, cache.bytesInUse]).toEqual([bytes, bytes]);
      cache.release(sequence);
      expect([cache.pageBytes, cache.bytesInUse]).toEqual([bytes, 0]);
    }
  });
});

describe("errors", () => {
  it("a full cache says what was needed and what there is", () => {
    const cache = makeCache(3);
    const sequence = cache.create();
    cache.append(sequence, 2 * PAGE_SIZE);
    expect(() => cache.append(sequence, 2 * PAGE_SIZE)).toThrow(new KvCacheFullError("KV cache: 2 more pages of 16 tokens needed, 1 of 3 free"));
    cache.append(sequence, PAGE_SIZE);
    expect(sequence.length).toBe(3 * PAGE_SIZE);
  });

  it("a fork that must copy its page needs a free one", () => {
    const cache = makeCache(1);
    const trunk = cache.create();
    append(cache, trunk, [1, 2]);
    const fork = cache.fork(trunk);
    expect(() => cache.append(fork, 1)).toThrow("1 more pages");
    cache.release(fork);
    append(cache, trunk, [3]);
    expect(contents(trunk)).toEqual([1, 2, 3]);
  });

  it("truncating beyond the end, or below nothing, is refused", () => {
    const cache = makeCache();
    const sequence = cache.create();
    cache.append(sequence, 5);
    for (const length of [6, -1]) expect(() => cache.truncate(sequence, length)).toThrow(`truncate: expected 0 to 5 positions, found ${length}`);
    expect(sequence.length).toBe(5);
  });

  it("a released sequence, or another cache's, is refused by every operation", () => {
    const cache = makeCache();
    const released = cache.create();
    cache.append(released, 3);
    cache.release(released);
    for (const stranger of [released, makeCache().create()]) {
      for (const use of [() => cache.append(stranger, 1), () => cache.truncate(stranger, 0), () => cache.fork(stranger), () => cache.release(stranger)]) {
        expect(use).toThrow("this sequence was released, or belongs to another cache");
      }
    }
    expect(cache.usedPages).toBe(0);
  });
});
