import type { Tensor } from "../tensor/tensor.ts";
import { f16ToF32, f32ToBf16, f32ToF16 } from "../tensor/float16.ts";
import { firstNonFinite, GGML_TYPES, ggmlBytes } from "./ggml.ts";
import { encodeQ6K } from "./ggml-encode-k.ts";
import { furthestOf, INT4_SEARCH, searchScale } from "./groups.ts";

const { abs, fround } = Math;

/** The types that `encodeRows` writes. */
export type EncodableType = "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0" | "Q6_K";

/**
 * Encodes an f32 tensor as GGML blocks, bit for bit as GGML's reference quantisers do (`quantize_row_q8_0_ref` and so on):
 * all arithmetic is in f32, hence the `fround`s. With `importance` [cols], the mean square of each column's input, the scales of Q4_0
 * are searched as `quantiseRows` does; such blocks are as valid, but not the reference's.
 * @throws RangeError when the columns are not whole blocks, and for block types with values that are not finite or whose scale is
 * beyond f16.
 */
export function encodeRows(type: EncodableType, source: Tensor, importance?: Float32Array): Uint8Array {
  const values = source.f32;
  const bytes = new Uint8Array(ggmlBytes(type, values.length === 0 ? 0 : values.length / source.cols, source.cols));
  if (type === "F32") {
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  } else if (type === "F16" || type === "BF16") {
    const narrow = type === "F16" ? f32ToF16 : f32ToBf16;
    const halves = new Uint16Array(bytes.buffer);
    for (let i = 0; i < halves.length; i++) halves[i] = narrow(values[i]);
  } else {
    const bad = firstNonFinite(values);
    if (bad >= 0) throw new RangeError(`tensor ${source.name || "?"}: cannot encode ${values[bad]} (value ${bad}) as ${type}`);
    const encode = type === "Q8_0" ? encodeQ8 : type === "Q4_0" ? encodeQ4 : encodeQ6K;
    const { blockSize, blockBytes } = GGML_TYPES[type];
    for (let i = 0, at = 0; i < values.length; i += blockSize, at += blockBytes) {
      if (encode(values, i, bytes, at, importance, i % source.cols)) continue;
      throw new RangeError(`tensor ${source.name || "?"}: values ${i} to ${i + blockSize - 1} are too large for the f16 scale of ${type}`);
    }
  }
  return bytes;
}

/** 1 / d, or 0 where there is nothing to scale: d is 0, or so small that 1 / d overflows (its f16 is 0 then, too). */
function inverse(d: number): number {
  const id = fround(1 / d);
  return Number.isFinite(id) ? id : 0;
}

/** Writes a block's scale. @returns whether it is finite. */
function putScale(scale: number, bytes: Uint8Array, at: number): boolean {
  const bits = f32ToF16(scale);
  bytes[at] = bits & 0xff;
  bytes[at + 1] = bits >> 8;
  return (bits & 0x7c00) !== 0x7c00;
}

/** A block of 32 at bytes[at]: scale, then integers, round half away from zero. @returns whether the scale is finite. */
function encodeQ8(x: Float32Array, from: number, bytes: Uint8Array, at: number): boolean {
  let most = 0;
  for (let j = 0; j < 32; j++) most = Math.max(most, abs(x[from + j]));
  const d = fround(most / 127);
  const id = inverse(d);
  for (let j = 0; j < 32; j++) {
    const q = fround(x[from + j] * id);
    bytes[at + 2 + j] = q < 0 ? -Math.floor(0.5 - q) : Math.floor(q + 0.5);
  }
  return putScale(d, bytes, at);
}

/** As `encodeQ8`, the scale's sign such that the value of largest magnitude is -8 steps, or as the search found it; nibbles. */
function encodeQ4(x: Float32Array, from: number, bytes: Uint8Array, at: number, importance?: Float32Array, column = 0): boolean {
  const d = importance ? f16ToF32(f32ToF16(searchScale(x, from, 32, INT4_SEARCH, importance, column))) : fround(furthestOf(x, from, 32) / -8);
  const id = inverse(d);
  const nibble = (v: number) => Math.max(0, Math.min(15, Math.trunc(fround(fround(v * id) + 8.5))));
  for (let j = 0; j < 16; j++) bytes[at + 2 + j] = nibble(x[from + j]) | (nibble(x[from + j + 16]) << 4);
  return putScale(d, bytes, at);
}
