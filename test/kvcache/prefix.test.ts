import { describe, expect, it } from "vitest";
import { KvCache, KvCacheFullError, type KvSequence, PAGE_SIZE } from "../../src/kvcache/cache.ts";
import type { KvFormat } from "../../src/kvcache/format.ts";
import { PrefixIndex } from "../../src/kvcache/prefix.ts";
import type { AttentionWindow, Segment } from "../../src/tensor/kernels.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { pageOf } from "../../src/tensor/segments.ts";
import { f32 } from "../../src/tensor/tensor.ts";
import { type Dice, dice, range } from "../support/dice.ts";

const SHAPE = { nLayers: 2, nKvHeads: 2, headDim: 3 };
const WIDTH = SHAPE.nKvHeads * SHAPE.headDim;
const kernels = scalarKernels();

/** What a model would compute at every position: a number that depends on all tokens up to there. */
function computed(tokens: readonly number[]): number[] {
  let state = 1;
  return tokens.map((token) => (state = (state * 31 + token + 1) % 97));
}

const segmentOf = (cache: KvCache, { pages, hole }: KvSequence, start: number, length: number): Segment => ({ pages, hole, window: cache.window, row: 0, start, length });

/** What the engine does with new tokens: room, computation, record. */
function feed(cache: KvCache, sequence: KvSequence, all: readonly number[]): void {
  const start = sequence.length;
  cache.trim(sequence);
  cache.append(sequence, all.length - start);
  const values = computed(all).slice(start);
  if (values.length === 0) return;
  for (const layer of range(SHAPE.nLayers)) {
    const k = f32([values.length, WIDTH], values.flatMap((value) => range(WIDTH).map(() => value + layer)));
    const v = f32([values.length, WIDTH], k.f32.map((x) => -x));
    kernels.kvWrite(k, v, [segmentOf(cache, sequence, start, values.length)], layer, { ...SHAPE, nHeads: SHAPE.nKvHeads, scale: 1 });
  }
  cache.record(sequence, all.slice(start));
}

/** Whether every position that is still there holds what was computed for it. */
function expectContents(cache: KvCache, sequence: KvSequence, tokens: readonly number[]): void {
  const values = computed(tokens);
  const { hole, length } = sequence;
  expect(length).toBe(tokens.length);
  const segment = segmentOf(cache, sequence, 0, length);
  for (let position = 0; position < length; position++) {
    const index = Math.floor(position / PAGE_SIZE);
    if (hole && index >= hole.at && index < hole.at + hole.count) continue;
    const { k, v } = pageOf(segment, position);
    for (const layer of range(SHAPE.nLayers)) {
      for (const head of range(SHAPE.nKvHeads)) {
        const at = ((layer * SHAPE.nKvHeads + head) * PAGE_SIZE + (position % PAGE_SIZE)) * SHAPE.headDim;
        const [key, value] = [k.at(at), v.at(at)];
        if (Math.abs(key - values[position] - layer) > 1e-4 || Math.abs(value + values[position] + layer) > 1e-4) expect({ position, layer, key, value }).toEqual(values[position]);
      }
    }
  }
}

/** Texts that often begin alike. */
const drawTokens = (d: Dice, least: number, most: number) => range(d.between(least, most)).map((i) => (d.chance(i < 40 ? 0.01 : 0.05) ? 1 : 0));

interface Live {
  sequence: KvSequence;
  tokens: number[];
}

/** Random operations on one cache; everything that must hold is looked at after each. */
function simulate(seed: number, window: AttentionWindow | undefined, kv: KvFormat): { hits: number; refusals: number; evictions: number } {
  const d = dice(seed);
  const maxPages = d.between(4, 16);
  const cache = new KvCache(kernels, SHAPE, maxPages, { kv, window });
  const live: Live[] = [];
  const counts = { hits: 0, refusals: 0, evictions: 0 };
  const distinct = () => new Set(live.flatMap(({ sequence }) => sequence.pages));

  const grow = (one: Live, more: readonly number[]) => {
    cache.trim(one.sequence);
    const last = one.sequence.pages.at(-1);
    const copies = more.length > 0 && one.tokens.length % PAGE_SIZE > 0 && live.some((other) => other !== one && other.sequence.pages.includes(last!));
    const length = one.tokens.length + more.length;
    const wanted = Math.ceil(length / PAGE_SIZE) - Math.ceil(one.tokens.length / PAGE_SIZE) + (copies ? 1 : 0);
    if (wanted > maxPages - distinct().size) {
      const before = cache.stats();
      expect(() => cache.append(one.sequence, more.length)).toThrow(KvCacheFullError);
      expect(cache.stats()).toEqual(before);
      counts.refusals++;
      return;
    }
    const { cached, free } = cache.stats();
    one.tokens.push(...more);
    feed(cache, one.sequence, one.tokens);
    if (wanted > free && cached > 0) counts.evictions++;
  };
  const operations: Record<string, () => void> = {
    create: () => void live.push({ sequence: cache.create(), tokens: [] }),
    begin: () => {
      const tokens = drawTokens(d, 1, 70);
      const sequence = cache.createFrom(tokens);
      expect(sequence.length % PAGE_SIZE).toBe(0);
      expect(sequence.length).toBeLessThan(tokens.length);
      if (sequence.length > 0) counts.hits++;
      const one = { sequence, tokens: tokens.slice(0, sequence.length) };
      live.push(one);
      grow(one, tokens.slice(sequence.length));
    },
    append: () => grow(d.pick(live), drawTokens(d, 0, d.pick([1, 3, 20]))),
    abort: () => {
      const { sequence, tokens } = d.pick(live);
      if (cache.freePages < 2) return;
      cache.trim(sequence);
      cache.append(sequence, d.between(1, PAGE_SIZE));
      cache.truncate(sequence, tokens.length);
    },
    truncate: () => {
      const one = d.pick(live);
      const length = d.between(0, one.tokens.length);
      try {
        cache.truncate(one.sequence, length);
        one.tokens.length = length;
      } catch (error) {
        expect(window && (error as Error).message).toMatch(/window of \d+ has given them back/);
      }
    },
    fork: () => {
      const { sequence, tokens } = d.pick(live);
      live.push({ sequence: cache.fork(sequence), tokens: [...tokens] });
    },
    release: () => cache.release(live.splice(d.below(live.length), 1)[0].sequence),
    reset: () => {
      if (!d.chance(0.1)) return;
      cache.reset();
      for (const { tokens } of live) tokens.length = 0;
    },
  };

  for (let i = 0; i < 150; i++) {
    const name = live.length === 0 ? "begin" : d.pick(["create", "begin", "begin", "append", "append", "append", "append", "abort", "truncate", "fork", "release", "release", "reset"]);
    if (live.length > 6 && ["create", "begin", "fork"].includes(name)) continue;
    operations[name]();
    for (const { sequence, tokens } of live) {
      expectContents(cache, sequence, tokens);
      expect(sequence.tokens).toEqual(tokens);
      expect(sequence.pages.length).toBe(Math.ceil(tokens.length / PAGE_SIZE) - (sequence.hole?.count ?? 0));
    }
    const users = new Map<object, number>();
    for (const { sequence } of live) for (const page of sequence.pages) users.set(page, (users.get(page) ?? 0) + 1);
    const { pageBytes, ...stats } = cache.stats();
    expect([stats.used, stats.shared]).toEqual([users.size, [...users.values()].filter((n) => n > 1).length]);
    expect(stats.used + stats.cached + stats.free).toBe(maxPages);
    expect(Math.min(stats.cached, stats.free)).toBeGreaterThanOrEqual(0);
    expect(stats.allocated).toBeLessThanOrEqual(maxPages);
    expect([stats.bytesInUse, stats.bytesShared, stats.bytesCached, stats.bytesFree]).toEqual([stats.used, stats.shared, stats.cached, stats.free].map((n) => n * pageBytes));
  }
  for (const { sequence } of live) cache.release(sequence);
  expect([cache.usedPages, cache.freePages]).toEqual([0, maxPages]);
  return counts;
}

describe("random operations with the prefix index against plain arrays", () => {
  const total = { hits: 0, refusals: 0, evictions: 0 };
  it.each(range(20))("seed %i", (seed) => {
    const d = dice(seed + 500);
    const window = d.chance(0.5) ? { size: d.between(1, 40), sinks: d.between(0, 20) } : undefined;
    const { hits, refusals, evictions } = simulate(seed, window, d.pick(["f32", "int8", "int4"] as const));
    total.hits += hits;
    total.refusals += refusals;
    total.evictions += evictions;
  });

  it("met hits, evictions and a full pool", () => {
    for (const count of Object.values(total)) expect(count).toBeGreaterThan(10);
  });
});

describe("the prefix index", () => {
  const cacheOf = (maxPages: number, prefixIndex = true) => new KvCache(kernels, SHAPE, maxPages, { prefixIndex });
  const begin = (cache: KvCache, tokens: readonly number[]) => {
    const sequence = cache.createFrom(tokens);
    const found = sequence.length;
    feed(cache, sequence, tokens);
    return { sequence, found };
  };
  const text = (length: number, first = 0) => range(length).map((i) => (i === 0 ? first : i));

  it("gives full pages, and always leaves the last token to compute", () => {
    const cache = cacheOf(20);
    begin(cache, text(3 * PAGE_SIZE));
    for (const [length, found] of [[PAGE_SIZE, 0], [PAGE_SIZE + 1, 1], [2 * PAGE_SIZE, 1], [3 * PAGE_SIZE, 2], [3 * PAGE_SIZE + 1, 3], [100, 3]]) {
      expect(cache.createFrom(text(length)).length).toBe(found * PAGE_SIZE);
    }
    expect(cache.createFrom(text(100, 7)).length).toBe(0);
    expect(cache.createFrom([...text(PAGE_SIZE), 99, ...text(50)]).length).toBe(PAGE_SIZE);
  });

  it("shares pages with who computes still, and with who is gone", () => {
    const cache = cacheOf(8);
    const first = begin(cache, text(40));
    const second = begin(cache, text(40));
    expect(second.sequence.pages.slice(0, 2)).toEqual(first.sequence.pages.slice(0, 2));
    expect(cache.stats()).toMatchObject({ used: 4, shared: 2, cached: 0, free: 4 });
    cache.release(first.sequence);
    cache.release(second.sequence);
    expect(cache.stats()).toMatchObject({ used: 0, shared: 0, cached: 2, free: 6, bytesInUse: 0, bytesCached: 2 * cache.pageBytes });
    expect(begin(cache, text(40)).found).toBe(32);
  });

  it("loses the least recently used pages first, never one in use, and none before its successors", () => {
    const cache = cacheOf(6);
    const runs = [1, 2].map((first) => begin(cache, text(2 * PAGE_SIZE, first)).sequence);
    for (const sequence of runs) cache.release(sequence);
    const kept = cache.createFrom(text(2 * PAGE_SIZE + 1, 1));
    expect(kept.length).toBe(2 * PAGE_SIZE);
    const big = cache.create();
    cache.append(big, 3 * PAGE_SIZE);
    expect(cache.stats()).toMatchObject({ used: 5, cached: 1, free: 0 });
    expect(cache.createFrom(text(40, 2)).length).toBe(PAGE_SIZE);
    expectContents(cache, kept, text(2 * PAGE_SIZE, 1));
  });

  it("forgets a page that is written again", () => {
    const cache = cacheOf(2);
    const { sequence } = begin(cache, text(2 * PAGE_SIZE));
    cache.truncate(sequence, 20);
    feed(cache, sequence, [...text(20), 7, 7]);
    expectContents(cache, sequence, [...text(20), 7, 7]);
    cache.release(sequence);
    expect(cache.createFrom(text(100)).length).toBe(PAGE_SIZE);
  });

  it("can be left out", () => {
    const cache = cacheOf(8, false);
    begin(cache, text(40));
    expect(cache.createFrom(text(40)).length).toBe(0);
  });

  it("believes tokens, not hashes", () => {
    const cache = cacheOf(8);
    const { pool } = cache as unknown as { pool: { index: PrefixIndex } };
    const clumsy = new PrefixIndex(() => 42);
    Object.assign(pool, { index: clumsy });
    begin(cache, text(40, 1));
    expect(cache.createFrom(text(40, 2)).length).toBe(0);
    expect(begin(cache, text(40, 2)).found).toBe(0);
    expect(cache.createFrom(text(40, 1)).length).toBe(PAGE_SIZE);
  });

  it("spreads its hashes", () => {
    const index = new PrefixIndex() as unknown as { hash: (before: number, tokens: readonly number[], from: number, count: number) => number };
    const seen = new Set<number>();
    for (let a = 0; a < 200; a++) for (let b = 0; b < 200; b++) seen.add(index.hash(0, [a, b, ...text(14)], 0, 16));
    expect(seen.size).toBe(40_000);
    expect([...seen].every((hash) => Number.isSafeInteger(hash) && hash >= 0)).toBe(true);
  });

  it("records only what there is room for", () => {
    const cache = cacheOf(2);
    const sequence = cache.create();
    cache.append(sequence, 3);
    expect(() => cache.record(sequence, [1, 2, 3, 4])).toThrow("expected at most 3 tokens to record, found 4");
  });
});
