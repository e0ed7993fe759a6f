import type { AttentionShape, KvPage, Segment } from "../kernels.ts";
import { keyColumns, keyPosition, pageOf, pageSizeOf, sees, windowStart } from "../segments.ts";
import type { Tensor } from "../tensor.ts";
import { formatOf, ROW_DOT, ROW_MIX, type RowDot, type RowMix, writeRow } from "./kv-rows.ts";

/** Row of a page's tensors that holds (layer, head, slot); also the index of its scale. */
function rowOf(page: KvPage, layer: number, head: number, slot: number): number {
  return (layer * page.k.shape[1] + head) * page.k.shape[2] + slot;
}

/** Stores rows of k and v at their segments' positions, quantised as the pages are: once, here, each row by itself. */
export function kvWrite(k: Tensor, v: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape): void {
  const { nKvHeads, headDim } = shape;
  for (const segment of segments) {
    const pageSize = pageSizeOf(segment.pages[0]);
    for (let i = 0; i < segment.length; i++) {
      const position = segment.start + i;
      const page = pageOf(segment, position);
      for (let head = 0; head < nKvHeads; head++) {
        const from = ((segment.row + i) * nKvHeads + head) * headDim;
        const row = rowOf(page, layer, head, position % pageSize);
        writeRow(page.k, row, k.f32, from);
        if (page.v !== page.k) writeRow(page.v, row, v.f32, from);
      }
    }
  }
}

/** What becomes of a score, given how far its key lies before the query; undefined where nothing does. */
function bending({ softCap, slopes }: AttentionShape, head: number): ((score: number, distance: number) => number) | undefined {
  if (softCap === undefined && !slopes) return undefined;
  const slope = slopes ? slopes[head] : 0;
  return (score, distance) => (softCap === undefined ? score : softCap * Math.tanh(score / softCap)) - slope * distance;
}

/** The running maximum, sum and weighted values of one query and head over the tiles seen so far. */
interface Running {
  max: number;
  sum: number;
  readonly mix: Float64Array;
  readonly scores: Float64Array;
}

/**
 * Causal attention with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1): one page of keys and values at a
 * time, a running maximum and a running sum per query and head, no matrix of scores. Tiles are the pages, cut where the window of the
 * query cuts them, whatever the batch looks like, so the result for a row does not depend on its neighbours.
 */
export function attention(out: Tensor, q: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape, sinkQ = q): void {
  const { nHeads, nKvHeads, headDim } = shape;
  const perKv = nHeads / nKvHeads;
  const mix = new Float64Array(headDim);
  for (const segment of segments) {
    const [page] = segment.pages;
    const pageSize = pageSizeOf(page);
    const running: Running = { max: 0, sum: 0, mix, scores: new Float64Array(pageSize) };
    const [dot, mixRow] = [ROW_DOT[formatOf(page.k)], ROW_MIX[formatOf(page.v)]];
    const walk = (query: Float32Array, at: number, head: number, position: number, from: number, to: number) => {
      const kvHead = Math.floor(head / perKv);
      const bend = bending(shape, head);
      for (let first = from; first < to; ) {
        const slot = first % pageSize;
        const count = Math.min(pageSize - slot, to - first);
        const tilePage = pageOf(segment, first);
        const distances = bend && { bend, first: position - first };
        tile(running, query, at, tilePage, rowOf(tilePage, layer, kvHead, slot), count, shape.scale, dot, mixRow, distances);
        first += count;
      }
    };
    for (let i = 0; i < segment.length; i++) {
      const position = segment.start + i;
      const from = windowStart(segment, position);
      for (let head = 0; head < nHeads; head++) {
        const at = ((segment.row + i) * nHeads + head) * headDim;
        running.max = -Infinity;
        running.sum = 0;
        mix.fill(0);
        if (from > 0) walk(sinkQ.f32, at, head, segment.window!.sinks + segment.window!.size - 1, 0, segment.window!.sinks);
        walk(q.f32, at, head, position, from, position + 1);
        const sum = running.sum + (shape.sinkLogits ? Math.exp(shape.sinkLogits.f32[head] - running.max) : 0);
        for (let d = 0; d < headDim; d++) out.f32[at + d] = mix[d] / sum;
      }
    }
  }
}

/** How a tile's scores bend, and how far its first key lies before the query. */
interface Distances {
  readonly bend: (score: number, distance: number) => number;
  readonly first: number;
}

/** One tile of the online softmax: `count` rows of a page from `row` on. */
function tile(running: Running, q: Float32Array, at: number, page: KvPage, row: number, count: number, scale: number, dot: RowDot, mixRow: RowMix, distances?: Distances): void {
  const { mix, scores, max } = running;
  let tileMax = max;
  for (let j = 0; j < count; j++) {
    scores[j] = dot(q, at, page.k, row + j) * scale;
    if (distances) scores[j] = distances.bend(scores[j], distances.first - j);
    if (scores[j] > tileMax) tileMax = scores[j];
  }
  const rescale = Math.exp(max - tileMax);
  running.sum *= rescale;
  for (let d = 0; d < mix.length; d++) mix[d] *= rescale;
  for (let j = 0; j < count; j++) {
    const weight = Math.exp(scores[j] - tileMax);
    running.sum += weight;
    mixRow(mix, weight, page.v, row + j);
  }
  running.max = tileMax;
}

/** A column of the score matrix: the position it stands for, and where its key and value lie. */
interface KeyColumn {
  readonly position: number;
  readonly page: KvPage;
  readonly slot: number;
}

function columnsOf(segment: Segment): KeyColumn[] {
  const pageSize = pageSizeOf(segment.pages[0]);
  return Array.from({ length: keyColumns(segment) }, (_, column) => {
    const position = keyPosition(segment, column);
    return { position, page: pageOf(segment, position), slot: position % pageSize };
  });
}

/** The textbook's first step: scores [nHeads, queries, key columns] of one segment, -Infinity where a query does not see a key. */
export function attentionScores(scores: Tensor, q: Tensor, segment: Segment, layer: number, shape: AttentionShape, sinkQ = q): void {
  const { nHeads, nKvHeads, headDim, scale } = shape;
  const columns = columnsOf(segment);
  const dot = ROW_DOT[formatOf(segment.pages[0].k)];
  let to = 0;
  for (let head = 0; head < nHeads; head++) {
    const kvHead = Math.floor((head * nKvHeads) / nHeads);
    const bend = bending(shape, head);
    for (let i = 0; i < segment.length; i++) {
      const at = ((segment.row + i) * nHeads + head) * headDim;
      const own = segment.start + i;
      const from = windowStart(segment, own);
      for (const { position, page, slot } of columns) {
        let score = -Infinity;
        if (sees(segment, own, position)) {
          const sink = position < from;
          score = dot((sink ? sinkQ : q).f32, at, page.k, rowOf(page, layer, kvHead, slot)) * scale;
          if (bend) score = bend(score, (sink ? segment.window!.sinks + segment.window!.size - 1 : own) - position);
        }
        scores.f32[to++] = score;
      }
    }
  }
}

/** The textbook's last step: the values of one segment, mixed by softmaxed scores [nHeads, queries, key columns]. */
export function attentionMix(out: Tensor, weights: Tensor, segment: Segment, layer: number, shape: AttentionShape): void {
  const { nHeads, nKvHeads, headDim } = shape;
  const columns = columnsOf(segment);
  const mixRow = ROW_MIX[formatOf(segment.pages[0].v)];
  const mix = new Float64Array(headDim);
  let from = 0;
  for (let head = 0; head < nHeads; head++) {
    const kvHead = Math.floor((head * nKvHeads) / nHeads);
    for (let i = 0; i < segment.length; i++) {
      mix.fill(0);
      for (const { position, page, slot } of columns) {
        const weight = weights.f32[from++];
        if (sees(segment, segment.start + i, position)) mixRow(mix, weight, page.v, rowOf(page, layer, kvHead, slot));
      }
      out.f32.set(mix, ((segment.row + i) * nHeads + head) * headDim);
    }
  }
}
