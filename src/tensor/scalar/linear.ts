import type { Tensor } from "../tensor.ts";

/**
 * out[m, n] = x[m, k] . w[n, k]^T (+ bias[n]), every dot product in the same order whatever m is.
 * Sums are float64 (JavaScript's own number), rounded to f32 once: these loops are the reference for the faster kernels.
 */
export function linear(out: Tensor, x: Tensor, w: Tensor, bias?: Tensor): void {
  const [n, k] = [w.rows, w.cols];
  const m = out.f32.length / n;
  const dot = w.dtype === "f32" ? dotF32 : w.dtype === "int8" ? dotInt8 : dotInt4;
  const wide = new Float64Array(x.f32); // Widened once here, not n times in the loops below.
  for (let row = 0; row < n; row++) {
    const b = bias ? bias.f32[row] : 0;
    for (let i = 0; i < m; i++) out.f32[i * n + row] = dot(wide, i * k, w, row, k) + b;
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

/** Row `row` of a weight matrix, dequantised into out[at ..]. */
export function dequantiseRow(out: Float32Array, at: number, w: Tensor, row: number): void {
  const k = w.cols;
  if (w.dtype === "f32") {
    out.set((w.data as Float32Array).subarray(row * k, (row + 1) * k), at);
    return;
  }
  for (let i = 0; i < k; i++) out[at + i] = w.at(row * k + i);
}
