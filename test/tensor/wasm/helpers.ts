import type { Kernels } from "../../../src/tensor/kernels.ts";
import { f32ToBf16, f32ToF16 } from "../../../src/tensor/float16.ts";
import { type HalfDType, isHalf, Tensor, zeros } from "../../../src/tensor/tensor.ts";

/** Small deterministic generator (mulberry32): tests must fail the same way twice. */
export function random(seed: number): { next(): number; int(low: number, high: number): number; normal(): number } {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    int: (low, high) => low + Math.floor(next() * (high - low + 1)),
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  };
}

export type Random = ReturnType<typeof random>;

/** An f32 tensor of normal values in the kernels' memory. */
export function normals(kernels: Kernels, rng: Random, shape: readonly number[], size = 1): Tensor {
  const tensor = kernels.alloc("f32", shape);
  for (let i = 0; i < tensor.data.length; i++) tensor.data[i] = rng.normal() * size;
  return tensor;
}

/** The bits of the nearest float of 16 bits. */
export const narrow = (dtype: HalfDType, value: number): number => (dtype === "f16" ? f32ToF16(value) : f32ToBf16(value));

/** Random weights in the canonical layout; scales exact in half precision unless `odd`. */
export function weights(rng: Random, dtype: "f32" | HalfDType | "int8" | "int4", rows: number, cols: number, group = 32, odd = false): Tensor {
  const tensor = zeros(dtype, [rows, cols], group, "w");
  const { data, scales } = tensor;
  for (let i = 0; i < data.length; i++) {
    data[i] = dtype === "f32" ? rng.normal() : isHalf(dtype) ? narrow(dtype, rng.normal()) : dtype === "int8" ? (rng.next() < 0.05 ? -128 : rng.int(-128, 127)) : rng.int(0, 255);
  }
  if (scales) {
    for (let i = 0; i < scales.length; i++) {
      const mantissa = odd ? 1 + rng.next() : 1 + rng.int(0, 1023) / 1024;
      scales[i] = rng.next() < 0.05 ? 0 : mantissa * 2 ** rng.int(-20, 3) * (rng.next() < 0.2 ? -1 : 1);
    }
  }
  return tensor;
}

/** Packs a canonical weight in random chunks. */
export function pack(kernels: Kernels, rng: Random, weight: Tensor): Tensor {
  const { dtype, shape, group } = weight;
  if (dtype === "packed" || dtype === "int16") throw new Error(dtype);
  const packer = kernels.packer({ name: "w", dtype, shape, group });
  for (let row = 0; row < weight.rows; ) {
    const end = Math.min(weight.rows, row + rng.int(1, 20));
    packer.write(weight.slice(row, end));
    row = end;
  }
  return packer.finish();
}

/** The same values in ordinary memory. */
export function copy(tensor: Tensor): Tensor {
  return new Tensor({ dtype: "f32", shape: tensor.shape, data: Float32Array.from(tensor.data) });
}

/** Largest difference of a row, relative to the row's largest magnitude. */
export function worstRow(found: Tensor, wanted: Tensor): number {
  const n = wanted.cols;
  let worst = 0;
  for (let at = 0; at < wanted.data.length; at += n) {
    let size = 1e-30;
    let difference = 0;
    for (let i = at; i < at + n; i++) {
      size = Math.max(size, Math.abs(wanted.data[i]));
      const d = Math.abs(found.data[i] - wanted.data[i]);
      difference = Number.isNaN(d) ? Infinity : Math.max(difference, d);
    }
    worst = Math.max(worst, difference / size);
  }
  return worst;
}

/** Whether two tensors hold the same bits. */
export function sameBits(a: Tensor, b: Tensor): boolean {
  const [x, y] = [a, b].map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return x.length === y.length && x.every((byte, i) => byte === y[i]);
}

/** Frees tensors that a case made. */
export function release(kernels: Kernels, ...tensors: Tensor[]): void {
  for (const tensor of tensors) kernels.free(tensor);
}
