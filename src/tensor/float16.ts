/**
 * 16-bit floating point, as bits in the low half of a number.
 *
 * - f16: IEEE 754-2008 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits.
 * - bf16: the upper half of a binary32: 1 sign, 8 exponent, 7 fraction bits.
 *
 * Widening is exact. Narrowing rounds to nearest, ties to even; a NaN becomes a quiet NaN of the same sign.
 */

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

let table: Float32Array | undefined;

/** All 65536 f16 values by their bits: one load widens a value. Built at first use (256 KB); do not write to it. */
export function f16Table(): Float32Array {
  if (table) return table;
  const values = new Float32Array(65536);
  const bits = new Uint32Array(values.buffer);
  for (let half = 0; half < 32768; half++) {
    const exponent = half >> 10;
    const fraction = half & 0x3ff;
    if (exponent === 0) values[half] = fraction * 2 ** -24;
    else bits[half] = ((exponent === 31 ? 255 : exponent + 112) << 23) | (fraction << 13);
    bits[half | 0x8000] = bits[half] | 0x80000000;
  }
  table = values;
  return values;
}

/** The value of f16 bits. */
export function f16ToF32(bits: number): number {
  return f16Table()[bits & 0xffff];
}

/** The values of the bits of many numbers, into `out`. */
export function widenHalves(dtype: "f16" | "bf16", bits: Uint16Array, out: Float32Array): void {
  if (dtype === "f16") {
    const values = f16Table();
    for (let i = 0; i < bits.length; i++) out[i] = values[bits[i]];
  } else {
    const words = new Uint32Array(out.buffer, out.byteOffset, out.length);
    for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
  }
}

/** The f16 bits of an f32 value. Beyond 65504 by half a step or more: infinity. */
export function f32ToF16(value: number): number {
  float[0] = value;
  const bits = word[0];
  const sign = (bits >>> 16) & 0x8000;
  const exponent = (bits >>> 23) & 0xff;
  const fraction = bits & 0x7fffff;
  if (exponent === 255) return sign | (fraction ? 0x7e00 : 0x7c00);
  const e = exponent - 112;
  if (e >= 31) return sign | 0x7c00;
  if (e >= 1) return sign | roundShift((e << 23) | fraction, 13);
  // A subnormal f16 counts in units of 2^-24; below half a unit everything is zero.
  return e < -10 ? sign : sign | roundShift(fraction | 0x800000, 14 - e);
}

/** n >> shift, rounded to nearest, ties to even. A carry out of the fraction walks into the exponent, as it should. */
function roundShift(n: number, shift: number): number {
  const kept = n >>> shift;
  const lost = n & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return kept + (lost > half || (lost === half && (kept & 1) === 1) ? 1 : 0);
}

/** The value of bf16 bits. */
export function bf16ToF32(bits: number): number {
  word[0] = bits << 16;
  return float[0];
}

/** The bf16 bits of an f32 value. */
export function f32ToBf16(value: number): number {
  float[0] = value;
  const bits = word[0];
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}
