import type { AttentionShape, KvPage, Segment } from "../kernels.ts";
import type { Tensor } from "../tensor.ts";

/** Positions in a page. */
const pageSizeOf = (page: KvPage) => page.k.shape[2];

/** Where (layer, head, slot) begins in a page's values; also, without the factor headDim, the index of its scale. */
function slotIndex(page: KvPage, layer: number, head: number, slot: number): number {
  return (layer * page.k.shape[1] + head) * page.k.shape[2] + slot;
}

/** Stores rows of k and v at their segments' positions. Scalar pages are f32. */
export function kvWrite(k: Tensor, v: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape): void {
  const { nKvHeads, headDim } = shape;
  for (const segment of segments) {
    for (let i = 0; i < segment.length; i++) {
      const position = segment.start + i;
      const pageSize = pageSizeOf(segment.pages[0]);
      const page = segment.pages[Math.floor(position / pageSize)];
      for (let head = 0; head < nKvHeads; head++) {
        const from = ((segment.row + i) * nKvHeads + head) * headDim;
        const to = slotIndex(page, layer, head, position % pageSize) * headDim;
        page.k.f32.set(k.f32.subarray(from, from + headDim), to);
        page.v.f32.set(v.f32.subarray(from, from + headDim), to);
      }
    }
  }
}

/** q[at ..] . values[from ..] over n elements. */
function dot(q: Float32Array, at: number, values: Float32Array, from: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += q[at + i] * values[from + i];
  return sum;
}

/**
 * Causal attention with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1): one page of keys and values at a
 * time, a running maximum and a running sum per query and head, no matrix of scores. Tiles are the pages, whatever the batch looks
 * like, so the result for a row does not depend on its neighbours.
 */
export function attention(out: Tensor, q: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape): void {
  const { nHeads, nKvHeads, headDim, scale } = shape;
  const perKv = nHeads / nKvHeads;
  const mix = new Float64Array(headDim);
  for (const segment of segments) {
    const pageSize = pageSizeOf(segment.pages[0]);
    const scores = new Float64Array(pageSize);
    for (let i = 0; i < segment.length; i++) {
      const visible = segment.start + i + 1;
      for (let head = 0; head < nHeads; head++) {
        const at = ((segment.row + i) * nHeads + head) * headDim;
        let max = -Infinity;
        let sum = 0;
        mix.fill(0);
        for (let first = 0; first < visible; first += pageSize) {
          const page = segment.pages[first / pageSize];
          const count = Math.min(pageSize, visible - first);
          const base = slotIndex(page, layer, Math.floor(head / perKv), 0) * headDim;
          const [keys, values] = [page.k.f32, page.v.f32];
          let tileMax = max;
          for (let j = 0; j < count; j++) {
            scores[j] = dot(q.f32, at, keys, base + j * headDim, headDim) * scale;
            if (scores[j] > tileMax) tileMax = scores[j];
          }
          const rescale = Math.exp(max - tileMax);
          sum *= rescale;
          for (let d = 0; d < headDim; d++) mix[d] *= rescale;
          for (let j = 0; j < count; j++) {
            const weight = Math.exp(scores[j] - tileMax);
            sum += weight;
            const from = base + j * headDim;
            for (let d = 0; d < headDim; d++) mix[d] += weight * values[from + d];
          }
          max = tileMax;
        }
        for (let d = 0; d < headDim; d++) out.f32[at + d] = mix[d] / sum;
      }
    }
  }
}

/** The textbook's first step: scores [nHeads, queries, keys] of one segment, -Infinity where a key lies after its query. */
export function attentionScores(scores: Tensor, q: Tensor, segment: Segment, layer: number, shape: AttentionShape): void {
  const { nHeads, nKvHeads, headDim, scale } = shape;
  const keys = segment.start + segment.length;
  const pageSize = pageSizeOf(segment.pages[0]);
  let to = 0;
  for (let head = 0; head < nHeads; head++) {
    const kvHead = Math.floor((head * nKvHeads) / nHeads);
    for (let i = 0; i < segment.length; i++) {
      const at = ((segment.row + i) * nHeads + head) * headDim;
      for (let j = 0; j < keys; j++, to++) {
        const page = segment.pages[Math.floor(j / pageSize)];
        const from = slotIndex(page, layer, kvHead, j % pageSize) * headDim;
        scores.f32[to] = j > segment.start + i ? -Infinity : dot(q.f32, at, page.k.f32, from, headDim) * scale;
      }
    }
  }
}

/** The textbook's last step: the values of one segment, mixed by softmaxed scores [nHeads, queries, keys]. */
export function attentionMix(out: Tensor, weights: Tensor, segment: Segment, layer: number, shape: AttentionShape): void {
  const { nHeads, nKvHeads, headDim } = shape;
  const keys = segment.start + segment.length;
  const pageSize = pageSizeOf(segment.pages[0]);
  const mix = new Float64Array(headDim);
  for (let head = 0; head < nHeads; head++) {
    const kvHead = Math.floor((head * nKvHeads) / nHeads);
    for (let i = 0; i < segment.length; i++) {
      mix.fill(0);
      for (let j = 0; j <= segment.start + i; j++) {
        const page = segment.pages[Math.floor(j / pageSize)];
        const from = slotIndex(page, layer, kvHead, j % pageSize) * headDim;
        const weight = weights.f32[(head * segment.length + i) * keys + j];
        for (let d = 0; d < headDim; d++) mix[d] += weight * page.v.f32[from + d];
      }
      out.f32.set(mix, ((segment.row + i) * nHeads + head) * headDim);
    }
  }
}
