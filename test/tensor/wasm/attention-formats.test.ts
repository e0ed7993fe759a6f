import { describe, expect, it, vi } from "vitest";
import { spawnThread } from "../../../src/runtime/node-threads.ts";
import type { AttentionShape, AttentionWindow, Kernels, KvFormat, KvPage, PageHole, Segment } from "../../../src/tensor/kernels.ts";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import { keyColumns } from "../../../src/tensor/segments.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { f32, zeros } from "../../../src/tensor/tensor.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";
import type { Random } from "./helpers.ts";
import { copy, normals, random, sameBits, worstRow } from "./helpers.ts";

const scalar = scalarKernels();
const kernels = wasmKernels();
const FORMATS: readonly KvFormat[] = ["f32", "int8", "int4"];

interface Layout {
  readonly shape: AttentionShape;
  readonly pageSize: number;
  readonly nLayers: number;
  readonly k: KvFormat;
  readonly v: KvFormat;
}

function pages(on: Kernels, count: number, { shape, pageSize, nLayers, k, v }: Layout): KvPage[] {
  const dims = [nLayers, shape.nKvHeads, pageSize, shape.headDim];
  return Array.from({ length: count }, (_, id) => ({ id, k: on.alloc(k, dims, shape.headDim), v: on.alloc(v, dims, shape.headDim) }));
}

function free(on: Kernels, list: readonly KvPage[]): void {
  for (const page of list) for (const tensor of [page.k, page.v]) on.free(tensor);
}

const samePages = (a: readonly KvPage[], b: readonly KvPage[]) =>
  a.every((page, i) => [[page.k, b[i].k], [page.v, b[i].v]].every(([x, y]) => sameBits(x, y) && (!x.scales || x.scales.every((scale, r) => Object.is(scale, y.scales![r])))));

const randomLayout = (rng: Random, round: number): Layout => {
  const nKvHeads = rng.int(1, 3);
  const shape = { nKvHeads, nHeads: nKvHeads * rng.int(1, 4), headDim: rng.int(1, round % 4 === 0 ? 130 : 40), scale: 0.3 };
  return { shape, pageSize: rng.int(1, 32), nLayers: 2, k: FORMATS[rng.int(0, 2)], v: FORMATS[rng.int(0, 2)] };
};

/** Runs kvWrite of `tokens` rows on both backends. */
function written(rng: Random, layout: Layout, tokens: number, layer: number, size = 1): { mine: KvPage[]; reference: KvPage[] } {
  const count = Math.ceil(tokens / layout.pageSize);
  const [mine, reference] = [pages(kernels, count, layout), pages(scalar, count, layout)];
  const width = layout.shape.nKvHeads * layout.shape.headDim;
  const [k, v] = [normals(kernels, rng, [tokens, width], size), normals(kernels, rng, [tokens, width], size)];
  const run = { start: 0, length: tokens, row: 0 };
  kernels.kvWrite(k, v, [{ ...run, pages: mine }], layer, layout.shape);
  scalar.kvWrite(copy(k), copy(v), [{ ...run, pages: reference }], layer, layout.shape);
  kernels.free(k);
  kernels.free(v);
  return { mine, reference };
}

/** A hole where no query of the segment and none later looks, or undefined. */
function holeOf(pageSize: number, start: number, window: AttentionWindow): PageHole | undefined {
  const [at, end] = [Math.ceil(window.sinks / pageSize), Math.floor(Math.max(0, start - window.size + 1) / pageSize)];
  return start >= window.sinks + window.size && end > at ? { at, count: end - at } : undefined;
}

/** Scores in one row (a query that sees one key may have a score of nearly nothing), 0 in place of those that no query sees. */
const finite = (scores: Tensor): Tensor => f32([1, scores.f32.length], scores.f32.map((score) => (score === -Infinity ? 0 : score)));

/** The first layer's attention by the textbook's three steps; a copy. */
function naively(on: Kernels, q: Tensor, segment: Segment, shape: AttentionShape, sinkQ?: Tensor): Tensor {
  const [out, scores] = [on.alloc("f32", q.shape), on.alloc("f32", [shape.nHeads, segment.length, keyColumns(segment)])];
  on.attentionScores(scores, q, segment, 0, shape, sinkQ);
  on.softmax(scores);
  on.attentionMix(out, scores, segment, 0, shape);
  const made = copy(out);
  on.free(out);
  on.free(scores);
  return made;
}

describe("kvWrite", () => {
  it("writes the scalar kernels' bits in every format", () => {
    const rng = random(11);
    for (let round = 0; round < 120; round++) {
      const layout = randomLayout(rng, round);
      const { mine, reference } = written(rng, layout, rng.int(1, 40), rng.int(0, 1), 10 ** rng.int(-42, 30));
      expect(samePages(mine, reference)).toBe(true);
      free(kernels, mine);
    }
  });

  it("marks rows that are not finite, and keeps zero rows zero", () => {
    for (const format of ["int8", "int4"] as const) {
      for (const headDim of [1, 5, 8, 13]) {
        const layout: Layout = { shape: { nHeads: 1, nKvHeads: 1, headDim, scale: 1 }, pageSize: 4, nLayers: 1, k: format, v: format };
        const [mine, reference] = [pages(kernels, 1, layout), pages(scalar, 1, layout)];
        const x = kernels.alloc("f32", [4, headDim]);
        x.data.fill(1, headDim);
        x.data[2 * headDim - 1] = NaN;
        x.data[2 * headDim] = -Infinity;
        x.data[4 * headDim - 1] = 2 ** -149;
        const run = { start: 0, length: 4, row: 0 };
        kernels.kvWrite(x, x, [{ ...run, pages: mine }], 0, layout.shape);
        scalar.kvWrite(copy(x), copy(x), [{ ...run, pages: reference }], 0, layout.shape);
        expect(samePages(mine, reference)).toBe(true);
        expect([...mine[0].k.scales!].slice(0, 3)).toEqual([0, NaN, NaN]);
      }
    }
  });
});

describe("attention, tiled and naive, over quantised pages and windows", () => {
  it("equals the scalar kernels on random shapes, formats, windows, holes and sink queries", () => {
    const rng = random(12);
    for (let round = 0; round < 250; round++) {
      const layout = randomLayout(rng, round);
      const { shape, pageSize } = layout;
      const layer = rng.int(0, 1);
      const made = Array.from({ length: rng.int(1, 3) }, () => {
        const start = round % 8 === 0 ? rng.int(200, 700) : rng.int(0, 60);
        const length = rng.next() < 0.4 ? 1 : rng.int(1, 30);
        const window = rng.next() < 0.6 ? { size: rng.int(1, round % 16 === 0 ? 400 : 40), sinks: rng.int(0, round % 16 === 0 ? 300 : 6) } : undefined;
        const hole = window && holeOf(pageSize, start, window);
        const { mine, reference } = written(rng, layout, start + length, layer);
        const keep = (list: KvPage[]) => (hole ? [...list.slice(0, hole.at), ...list.slice(hole.at + hole.count)] : list);
        return { start, length, window, hole, all: mine, mine: keep(mine), reference: keep(reference) };
      });
      let row = 0;
      const segments = made.map(({ start, length, window, hole, mine, reference }) => {
        const common = { start, length, window, hole, row };
        row += length;
        return [{ ...common, pages: mine }, { ...common, pages: reference }] as const;
      });
      const [q, sinkQ] = [normals(kernels, rng, [row, shape.nHeads * shape.headDim], 2), normals(kernels, rng, [row, shape.nHeads * shape.headDim], 2)];
      const out = kernels.alloc("f32", q.shape);
      const wanted = zeros("f32", q.shape);
      const sinks = rng.next() < 0.7;
      kernels.attention(out, q, segments.map(([mine]) => mine), layer, shape, sinks ? sinkQ : undefined);
      scalar.attention(wanted, copy(q), segments.map(([, reference]) => reference), layer, shape, sinks ? copy(sinkQ) : undefined);
      expect(worstRow(out, wanted)).toBeLessThan(1e-5);

      // Step by step, by the textbook: [the kernels, the reference].
      const bent: AttentionShape = { ...shape, ...(rng.next() < 0.3 && { softCap: 3 }), ...(rng.next() < 0.3 && { slopes: Float32Array.from({ length: shape.nHeads }, () => rng.next() / 4) }) };
      const sinkLogits = rng.next() < 0.5 ? normals(kernels, rng, [shape.nHeads]) : undefined;
      out.data.fill(NaN);
      for (const [mine, reference] of segments) {
        const scores = kernels.alloc("f32", [shape.nHeads, mine.length, keyColumns(mine)]);
        const wantedScores = zeros("f32", scores.shape);
        kernels.attentionScores(scores, q, mine, layer, bent, sinks ? sinkQ : undefined);
        scalar.attentionScores(wantedScores, copy(q), reference, layer, bent, sinks ? copy(sinkQ) : undefined);
        expect(scores.f32.every((value, i) => (value === -Infinity) === (wantedScores.f32[i] === -Infinity))).toBe(true);
        expect(worstRow(finite(scores), finite(wantedScores))).toBeLessThan(1e-5);
        kernels.softmax(scores, sinkLogits);
        scalar.softmax(wantedScores, sinkLogits && copy(sinkLogits));
        expect(worstRow(scores, wantedScores)).toBeLessThan(1e-5);
        kernels.attentionMix(out, scores, mine, layer, bent);
        scalar.attentionMix(wanted, wantedScores, reference, layer, bent);
        kernels.free(scores);
      }
      expect(worstRow(out, wanted)).toBeLessThan(1e-5);
      if (sinkLogits) kernels.free(sinkLogits);
      for (const { all } of made) free(kernels, all);
      for (const tensor of [q, sinkQ, out]) kernels.free(tensor);
    }
  }, 60_000);

  it("gives a query the same bits alone, in a chunk, with any page size and on several threads", () => {
    const rng = random(13);
    const threaded = wasmKernels({ threads: 3, spawn: spawnThread });
    try {
      for (const [k, v, nHeads, nKvHeads, headDim] of [["int8", "int8", 6, 2, 24], ["int4", "int8", 3, 3, 17], ["f32", "int4", 8, 1, 64]] as const) {
        const shape = { nHeads, nKvHeads, headDim, scale: 0.2 };
        const tokens = 600;
        const data = [nKvHeads, nKvHeads, nHeads, nHeads].map((heads) => normals(kernels, rng, [tokens, heads * headDim]));
        for (const window of [undefined, { size: 70, sinks: 3 }, { size: 300, sinks: 260 }]) {
          let [first, firstNaive]: Tensor[] = [];
          for (const on of [kernels, threaded]) {
            const [keys, values, q, sinkQ] = data.map((tensor) => {
              const moved = on.alloc("f32", tensor.shape);
              (moved.data as Float32Array).set(tensor.f32);
              return moved;
            });
            for (const pageSize of [16, 5]) {
              const list = pages(on, Math.ceil(tokens / pageSize), { shape, pageSize, nLayers: 1, k, v });
              const segment = (start: number, length: number): Segment => ({ pages: list, start, length, row: 0, window });
              on.kvWrite(keys, values, [segment(0, tokens)], 0, shape);
              const out = on.alloc("f32", q.shape);
              on.attention(out, q, [segment(0, tokens)], 0, shape, sinkQ);
              first ??= copy(out);
              expect(sameBits(out, first)).toBe(true);
              const shared = vi.spyOn(on.device, "runAll");
              const naive = naively(on, q, segment(0, tokens), shape, sinkQ);
              expect(shared).toHaveBeenCalledTimes(3); // Scores, softmax and mix are for all threads.
              shared.mockRestore();
              firstNaive ??= naive;
              expect(sameBits(naive, firstNaive)).toBe(true);
              for (const [start, length] of [[0, 1], [17, 2], [255, 1], [256, 7], [400, 1], [511, 64], [599, 1]]) {
                const part = on.alloc("f32", [length, nHeads * headDim]);
                on.attention(part, q.slice(start, start + length), [segment(start, length)], 0, shape, sinkQ.slice(start, start + length));
                expect(sameBits(part, first.slice(start, start + length))).toBe(true);
                on.free(part);
              }
              on.free(out);
              free(on, list);
            }
            for (const tensor of [keys, values, q, sinkQ]) on.free(tensor);
          }
        }
      }
    } finally {
      threaded.close();
    }
  }, 60_000);

  it("keeps a poisoned row away from the queries that do not see it", () => {
    for (const format of FORMATS) {
      const layout: Layout = { shape: { nHeads: 1, nKvHeads: 1, headDim: 8, scale: 1 }, pageSize: 8, nLayers: 1, k: format, v: format };
      const [list] = [pages(kernels, 1, layout)];
      const x = kernels.alloc("f32", [6, 8]);
      x.data.fill(0.5);
      x.data[3 * 8] = NaN;
      const out = kernels.alloc("f32", x.shape);
      const segment = { pages: list, start: 0, length: 6, row: 0, window: { size: 2, sinks: 0 } };
      kernels.kvWrite(x, x, [segment], 0, layout.shape);
      const q = kernels.alloc("f32", x.shape);
      q.data.fill(1);
      kernels.attention(out, q, [segment], 0, layout.shape);
      const seen = (out: Tensor) => [0, 1, 2, 3, 4, 5].map((row) => Number.isFinite(out.data[8 * row]));
      expect(seen(out)).toEqual([true, true, true, false, false, true]);
      expect(seen(naively(kernels, q, segment, layout.shape))).toEqual(seen(out));
    }
  });
});
