import type { Tensor } from "../tensor/tensor.ts";
import { f32ToBf16, f32ToF16 } from "./float16.ts";
import { firstNonFinite, ggmlBytes } from "./ggml.ts";

const { abs, fround } = Math;

/** The types that `encodeRows` writes. */
export type EncodableType = "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0";

/**
 * Encodes an f32 tensor as GGML blocks, bit for bit as GGML's reference quantisers do (`quantize_row_q8_0_ref` and so on):
 * all arithmetic is in f32, hence the `fround`s.
 * @throws RangeError when the columns are not whole blocks, and for blocks (Q8_0, Q4_0) with values that are not finite or whose
 * scale is beyond f16.
 */
export function encodeRows(type: EncodableType, source: Tensor): Uint8Array {
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
    const encode = type === "Q8_0" ? encodeQ8 : encodeQ4;
    const blockBytes = type === "Q8_0" ? 34 : 18;
    for (let i = 0, at = 0; i < values.length; i += 32, at += blockBytes) {
      const scale = f32ToF16(encode(values, i, bytes, at + 2));
      if ((scale & 0x7c00) === 0x7c00) {
        throw new RangeError(`tensor ${source.name || "?"}: values ${i} to ${i + 31} are too large for the f16 scale of ${type}`);
      }
      bytes[at] = scale & 0xff;
      bytes[at + 1] = scale >> 8;
    }
  }
  return bytes;
}

/** 1 / d, or 0 where there is nothing to scale: d is 0, or so small that 1 / d overflows (its f16 is 0 then, too). */
function inverse(d: number): number {
  const id = fround(1 / d);
  return Number.isFinite(id) ? id : 0;
}

/** @returns the scale. Integers go to bytes[at], ...: round half away from zero. */
function encodeQ8(x: Float32Array, from: number, bytes: Uint8Array, at: number): number {
  let most = 0;
  for (let j = 0; j < 32; j++) most = Math.max(most, abs(x[from + j]));
  const d = fround(most / 127);
  const id = inverse(d);
  for (let j = 0; j < 32; j++) {
    const q = fround(x[from + j] * id);
    bytes[at + j] = q < 0 ? -Math.floor(0.5 - q) : Math.floor(q + 0.5);
  }
  return d;
}

/** @returns the scale, whose sign makes the value of largest magnitude -8 steps. Nibbles go to bytes[at], ... */
function encodeQ4(x: Float32Array, from: number, bytes: Uint8Array, at: number): number {
  let furthest = 0;
  for (let j = 0; j < 32; j++) if (abs(x[from + j]) > abs(furthest)) furthest = x[from + j];
  const d = fround(furthest / -8);
  const id = inverse(d);
  const nibble = (v: number) => Math.min(15, Math.trunc(fround(fround(v * id) + 8.5)));
  for (let j = 0; j < 16; j++) bytes[at + j] = nibble(x[from + j]) | (nibble(x[from + j + 16]) << 4);
  return d;
}
