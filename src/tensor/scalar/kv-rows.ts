import type { KvFormat } from "../kernels.ts";
import type { Tensor } from "../tensor.ts";

/** Adding and subtracting this rounds a float64 of small magnitude to the nearest integer, ties to even. */
const ROUND = 1.5 * 2 ** 52;
const LEAST_SCALE = 2 ** -126;

/** Stores source[from ..] as row `row` of a page tensor, in the tensor's own format (see KvPage). */
export function writeRow(page: Tensor, row: number, source: Float32Array, from: number): void {
  const n = page.cols;
  if (page.dtype === "f32") {
    page.f32.set(source.subarray(from, from + n), row * n);
    return;
  }
  const most = page.dtype === "int8" ? 127 : 7;
  let amax = 0;
  let poison = 0;
  for (let i = from; i < from + n; i++) {
    amax = Math.max(amax, Math.abs(source[i]));
    poison += source[i] * 0;
  }
  const scale = amax === 0 ? 0 : Math.max(LEAST_SCALE, Math.fround(amax / most)) + poison;
  page.scales![row] = scale;
  const quantise = (value: number) => (scale > 0 ? Math.fround(value / scale) + ROUND - ROUND : 0);
  if (page.dtype === "int8") {
    for (let i = 0; i < n; i++) page.data[row * n + i] = quantise(source[from + i]);
    return;
  }
  const half = Math.ceil(n / 2);
  for (let i = 0; i < half; i++) {
    const high = half + i < n ? quantise(source[from + half + i]) : 0;
    page.data[row * half + i] = (quantise(source[from + i]) + 8) | ((high + 8) << 4);
  }
}

/** q[at ..] . row `row` of a page tensor. */
export type RowDot = (q: Float32Array, at: number, page: Tensor, row: number) => number;

/** sum += weight * row `row` of a page tensor. */
export type RowMix = (sum: Float64Array, weight: number, page: Tensor, row: number) => void;

export const ROW_DOT: Record<KvFormat, RowDot> = {
  f32(q, at, page, row) {
    const n = page.cols;
    const values = page.f32;
    const from = row * n;
    let sum = 0;
    for (let i = 0; i < n; i++) sum += q[at + i] * values[from + i];
    return sum;
  },
  int8(q, at, page, row) {
    const n = page.cols;
    const values = page.data as Int8Array;
    const from = row * n;
    let sum = 0;
    for (let i = 0; i < n; i++) sum += q[at + i] * values[from + i];
    return sum * page.scales![row];
  },
  int4(q, at, page, row) {
    const n = page.cols;
    const half = Math.ceil(n / 2);
    const values = page.data as Uint8Array;
    const from = row * half;
    let low = 0;
    let high = 0;
    for (let i = 0; i < n - half; i++) {
      const pair = values[from + i];
      low += q[at + i] * ((pair & 15) - 8);
      high += q[at + half + i] * ((pair >> 4) - 8);
    }
    if (n < 2 * half) low += q[at + half - 1] * ((values[from + half - 1] & 15) - 8);
    return (low + high) * page.scales![row];
  },
};

export const ROW_MIX: Record<KvFormat, RowMix> = {
  f32(sum, weight, page, row) {
    const values = page.f32;
    const from = row * sum.length;
    for (let i = 0; i < sum.length; i++) sum[i] += weight * values[from + i];
  },
  int8(sum, weight, page, row) {
    const values = page.data as Int8Array;
    const from = row * sum.length;
    const scaled = weight * page.scales![row];
    for (let i = 0; i < sum.length; i++) sum[i] += scaled * values[from + i];
  },
  int4(sum, weight, page, row) {
    const n = sum.length;
    const half = Math.ceil(n / 2);
    const values = page.data as Uint8Array;
    const from = row * half;
    const scaled = weight * page.scales![row];
    for (let i = 0; i < n - half; i++) {
      const pair = values[from + i];
      sum[i] += scaled * ((pair & 15) - 8);
      sum[half + i] += scaled * ((pair >> 4) - 8);
    }
    if (n < 2 * half) sum[half - 1] += scaled * ((values[from + half - 1] & 15) - 8);
  },
};

/** The format of a page tensor. */
export function formatOf({ dtype }: Tensor): KvFormat {
  if (dtype === "f32" || dtype === "int8" || dtype === "int4") return dtype;
  throw new TypeError(`scalar kernels: expected f32, int8 or int4 KV pages, found ${dtype}`);
}
