import { widenHalves } from "../float16.ts";
import { f32, isHalf, sparseRowBytes, type Tensor } from "../tensor.ts";

/**
 * out[m, n] = x[m, k] . w[n, k]^T (+ bias[n]), every dot product in the same order whatever m is.
 * Sums are float64 (JavaScript's own number), rounded to f32 once: these loops are the reference for the faster kernels.
 * Weights of 16 bits are widened a row at a time: their results are, bit for bit, those of the same weights in f32.
 * Quantised activations take the same road: integers and their products are exact in float64, so every group's sum is an integer sum, and
 * the row's scale is applied once, at the end.
 */
export function linear(out: Tensor, x: Tensor, w: Tensor, bias?: Tensor): void {
  const [n, k] = [w.rows, w.cols];
  const m = out.f32.length / n;
  const widened = isHalf(w.dtype) ? f32([1, k]) : undefined;
  const dot = w.dtype === "f32" || widened ? dotF32 : w.dtype === "int8" ? dotInt8 : w.dtype === "int4" ? dotInt4 : dotSparse;
  const wide = new Float64Array(x.data); // Widened once here, not n times in the loops below.
  const scales = x.scales;
  for (let row = 0; row < n; row++) {
    if (widened) dequantiseRow(widened.f32, 0, w, row);
    const b = bias ? bias.f32[row] : 0;
    for (let i = 0; i < m; i++) out.f32[i * n + row] = dot(wide, i * k, widened ?? w, widened ? 0 : row, k) * (scales ? scales[i] : 1) + b;
  }
}

/** Rounds every row of x to the integers of `out`, int8 or int16: at scale `fixed`, clipped, or at its largest magnitude over 127 or 32767. */
export function quantize(out: Tensor, x: Tensor, fixed?: number): void {
  const most = out.dtype === "int8" ? 127 : 32767;
  const [to, from, scales, n] = [out.data, x.f32, out.scales!, out.cols];
  for (let row = 0, at = 0; row < scales.length; row++, at += n) {
    let max = 0;
    for (let i = at; i < at + n; i++) max = Math.max(max, Math.abs(from[i])); // Math.max keeps a NaN.
    scales[row] = fixed === undefined || !Number.isFinite(max) ? max / most : fixed;
    const inverse = scales[row] > 0 ? 1 / scales[row] : 0;
    for (let i = at; i < at + n; i++) to[i] = Math.max(-most, Math.min(most, Math.round(from[i] * inverse)));
  }
}

function dotF32(x: Float64Array, at: number, w: Tensor, row: number, k: number): number {
  const data = w.data as Float32Array;
  const from = row * k;
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = 0;
  for (; i + 3 < k; i += 4) {
    a += x[at + i] * data[from + i];
    b += x[at + i + 1] * data[from + i + 1];
    c += x[at + i + 2] * data[from + i + 2];
    d += x[at + i + 3] * data[from + i + 3];
  }
  for (; i < k; i++) a += x[at + i] * data[from + i];
  return a + b + (c + d);
}

function dotInt8(x: Float64Array, at: number, w: Tensor, row: number, k: number): number {
  const data = w.data as Int8Array;
  const scales = w.scales!;
  const group = w.group;
  const from = row * k;
  let s = row * Math.ceil(k / group);
  let sum = 0;
  for (let start = 0; start < k; start += group) {
    const end = Math.min(start + group, k);
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    let i = start;
    for (; i + 3 < end; i += 4) {
      a += x[at + i] * data[from + i];
      b += x[at + i + 1] * data[from + i + 1];
      c += x[at + i + 2] * data[from + i + 2];
      d += x[at + i + 3] * data[from + i + 3];
    }
    for (; i < end; i++) a += x[at + i] * data[from + i];
    sum += (a + b + (c + d)) * scales[s++];
  }
  return sum;
}

function dotInt4(x: Float64Array, at: number, w: Tensor, row: number, k: number): number {
  const data = w.data as Uint8Array;
  const scales = w.scales!;
  let s = (row * k) / 32;
  let byte = (row * k) / 2;
  let sum = 0;
  for (let start = at; start < at + k; start += 32) {
    let a = 0;
    let b = 0;
    for (let i = start; i < start + 16; i++) {
      const pair = data[byte++];
      a += x[i] * ((pair & 15) - 8);
      b += x[i + 16] * ((pair >> 4) - 8);
    }
    sum += (a + b) * scales[s++];
  }
  return sum;
}

/** Two products for every four columns: the indices say which of x's values they meet. */
function dotSparse(x: Float64Array, at: number, w: Tensor, row: number, k: number): number {
  const data = w.data as Uint8Array;
  const scales = w.scales!;
  const group = w.group;
  const values = row * sparseRowBytes(k);
  const places = values + k / 2;
  let s = row * Math.ceil(k / group);
  let sum = 0;
  for (let start = 0; start < k; start += group) {
    const end = Math.min(start + group, k);
    let part = 0;
    for (let i = start; i < end; i += 4) {
      const nibble = data[places + (i >> 3)] >> (i & 4);
      const from = values + (i >> 1);
      part += x[at + i + (nibble & 3)] * ((data[from] << 24) >> 24) + x[at + i + ((nibble >> 2) & 3)] * ((data[from + 1] << 24) >> 24);
    }
    sum += part * scales[s++];
  }
  return sum;
}

/** Row `row` of a weight matrix, dequantised into out[at ..]. */
export function dequantiseRow(out: Float32Array, at: number, w: Tensor, row: number): void {
  const k = w.cols;
  if (w.dtype === "f32") {
    out.set((w.data as Float32Array).subarray(row * k, (row + 1) * k), at);
    return;
  }
  if (isHalf(w.dtype)) return widenHalves(w.dtype, (w.data as Uint16Array).subarray(row * k, (row + 1) * k), out.subarray(at, at + k));
  for (let i = 0; i < k; i++) out[at + i] = w.at(row * k + i);
}

/** out[i] = row ids[i] of x, as it is stored, with its scale. */
export function gather(out: Tensor, x: Tensor, ids: Int32Array): void {
  const [to, from, n] = [out.data as Int16Array, x.data as Int16Array, x.cols];
  ids.forEach((id, i) => {
    to.set(from.subarray(id * n, (id + 1) * n), i * n);
    if (out.scales) out.scales[i] = x.scales![id];
  });
}
