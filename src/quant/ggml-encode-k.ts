import { f16ToF32, f32ToF16 } from "../tensor/float16.ts";

const { abs, fround } = Math;

/** Below this, a group counts as zero (GROUP_MAX_EPS). */
const NOTHING = fround(1e-15);

/** Nearest integer, ties to even, by the same float addition as GGML's `nearest_int`. */
const nearest = (value: number) => fround(value + 12582912) - 12582912;
const clamp = (value: number) => Math.min(31, Math.max(-32, value));

/**
 * Encodes 256 values as one block of Q6_K, bit for bit as GGML's `quantize_row_q6_K_ref`: 16 groups of 16 values of 6 bits, an int8
 * scale for each group, and one f16 scale d for these. All arithmetic is in f32, hence the `fround`s.
 * @returns whether d is finite.
 */
export function encodeQ6K(x: Float32Array, from: number, bytes: Uint8Array, at: number): boolean {
  const levels = new Uint8Array(256);
  const scales = new Float32Array(16);
  let furthest = 0;
  for (let group = 0; group < 16; group++) {
    scales[group] = groupScale(x, from + 16 * group, levels, 16 * group);
    if (abs(scales[group]) > abs(furthest)) furthest = scales[group];
  }
  if (abs(furthest) < NOTHING) return true; // The bytes are zero already.

  const inverse = fround(-128 / furthest);
  const bits = f32ToF16(fround(1 / inverse));
  bytes[at + 208] = bits & 0xff;
  bytes[at + 209] = bits >> 8;
  for (let group = 0; group < 16; group++) {
    const scale = Math.min(127, nearest(fround(inverse * scales[group])));
    bytes[at + 192 + group] = scale;
    const d = fround(f16ToF32(bits) * scale);
    if (d === 0) continue;
    for (let i = 16 * group; i < 16 * group + 16; i++) levels[i] = clamp(nearest(fround(x[from + i] / d))) + 32;
  }
  // Of every 128 values, low nibbles of columns c and c + 64 share a byte, and the upper two bits of c, c + 32, c + 64 and c + 96.
  for (let half = 0; half < 2; half++) {
    for (let c = 0; c < 32; c++) {
      const [a, b, e, f] = [0, 32, 64, 96].map((shift) => levels[128 * half + c + shift]);
      bytes[at + 64 * half + c] = (a & 15) | ((e & 15) << 4);
      bytes[at + 64 * half + c + 32] = (b & 15) | ((f & 15) << 4);
      bytes[at + 128 + 32 * half + c] = (a >> 4) | ((b >> 4) << 2) | ((e >> 4) << 4) | ((f >> 4) << 6);
    }
  }
  return (bits & 0x7c00) !== 0x7c00;
}

/**
 * The scale of a group of 16 and its levels (0 to 63, in `levels`): of 19 scales about largest / 32, the one whose least squares fit, weighted
 * by the squared values, is best (`make_qx_quants`).
 */
function groupScale(x: Float32Array, from: number, levels: Uint8Array, to: number): number {
  let furthest = 0;
  for (let i = from; i < from + 16; i++) if (abs(x[i]) > abs(furthest)) furthest = x[i];
  if (abs(furthest) < NOTHING) return 0;
  let scale = 0;
  let best = 0;
  for (const step of STEPS) {
    const inverse = fround(-fround(32 + fround(fround(0.1) * step)) / furthest);
    let product = 0;
    let square = 0;
    for (let i = from; i < from + 16; i++) {
      const level = clamp(nearest(fround(inverse * x[i])));
      const weight = fround(x[i] * x[i]);
      product = fround(product + fround(fround(weight * x[i]) * level));
      square = fround(square + fround(fround(weight * level) * level));
    }
    const first = step === 0;
    if (!first && !(square > 0 && fround(product * product) > fround(best * square))) continue;
    scale = square !== 0 ? fround(product / square) : 0;
    best = fround(scale * product);
    for (let i = 0; i < 16; i++) levels[to + i] = clamp(nearest(fround(inverse * x[from + i]))) + 32;
  }
  return scale;
}

/** Zero first: the others must be better. */
const STEPS: readonly number[] = [0, ...Array.from({ length: 19 }, (_, i) => i - 9).filter((step) => step !== 0)];
