import { f32ToF16 } from "../../src/tensor/float16.ts";
import { GGML_TYPES } from "../../src/quant/ggml.ts";
import type { Dice } from "./dice.ts";

/** FNV-1a, to compare many values with one number. */
export function fnv(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const b of bytes) hash = Math.imul(hash ^ b, 0x01000193);
  return hash >>> 0;
}

/** The same bytes in any language: the upper 8 bits of a linear congruential generator. */
export function lcgBytes(seed: number, count: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length: count }, () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 24);
}

/** Blocks of bytes drawn from the type's number, all of whose f16 numbers, which stand at `scales`, are made finite. */
export function lcgBlocks(type: string, scales: readonly number[], count: number): Uint8Array {
  const { id, blockBytes } = GGML_TYPES[type];
  const bytes = lcgBytes(id, count * blockBytes);
  for (let at = 0; at < bytes.length; at += blockBytes) for (const s of scales) bytes[at + s + 1] &= 0xbf;
  return bytes;
}

interface Drawing {
  /** Writes a block's scale. */
  readonly put: (block: Uint8Array, scale: number) => void;
  /** The root mean square of a block of random bits with scale 1. */
  readonly spread: number;
}

const put16 = (block: Uint8Array, at: number, bits: number) => void ((block[at] = bits & 255), (block[at + 1] = bits >> 8));
/** f16 numbers: where they stand, and how many times the scale they are. */
const halves = (...numbers: [at: number, times: number][]) => (block: Uint8Array, scale: number) => numbers.forEach(([at, times]) => put16(block, at, f32ToF16(times * scale)));
const first = halves([0, 1]);

/** Types that can be drawn, though nothing here encodes them: all bits random but for the scales. Minima are such that the mean is 0. */
const DRAWINGS = {
  Q4_1: { put: halves([0, 1], [2, -7.5]), spread: 4.6 },
  Q5_0: { put: first, spread: 9.2 },
  Q5_1: { put: halves([0, 1], [2, -15.5]), spread: 9.2 },
  Q2_K: { put: halves([80, 1], [82, 1.5]), spread: 14 },
  Q3_K: { put: halves([108, 1]), spread: 43 },
  Q4_K: { put: halves([0, 1], [2, 7.5]), spread: 260 },
  Q5_K: { put: halves([0, 1], [2, 15.5]), spread: 530 },
  IQ1_S: { put: first, spread: 7.2 },
  IQ1_M: { put: (block, scale) => [49, 51, 53, 55].forEach((at, i) => (block[at] = (block[at] & 15) | (((f32ToF16(scale) >> (4 * i)) & 15) << 4))), spread: 7.2 },
  IQ2_XXS: { put: first, spread: 56 },
  IQ2_XS: { put: first, spread: 56 },
  IQ2_S: { put: first, spread: 56 },
  IQ3_XXS: { put: first, spread: 140 },
  IQ3_S: { put: first, spread: 140 },
  IQ4_NL: { put: first, spread: 68 },
  IQ4_XS: { put: first, spread: 1260 },
  TQ1_0: { put: halves([52, 1]), spread: 0.82 },
  TQ2_0: { put: halves([64, 1]), spread: 1.23 },
  MXFP4: { put: (block, scale) => (block[0] = 127 + Math.round(Math.log2(scale))), spread: 2.9 },
  NVFP4: { put: (block, scale) => block.fill(56 + Math.round(8 * Math.log2(scale)), 0, 4), spread: 2.9 },
  Q1_0: { put: first, spread: 1 },
  Q2_0: { put: first, spread: 1.23 },
} satisfies Record<string, Drawing>;

export type DrawnType = keyof typeof DRAWINGS;
export const DRAWN_TYPES = Object.keys(DRAWINGS) as DrawnType[];
export const isDrawn = (type: string): type is DrawnType => Object.hasOwn(DRAWINGS, type);

/** Bytes of `count` values that spread about 0 as asked. */
export function drawnBlocks(type: DrawnType, count: number, spread: number, d: Dice): Uint8Array {
  const { blockSize, blockBytes } = GGML_TYPES[type];
  const drawing = DRAWINGS[type];
  const bytes = Uint8Array.from({ length: (count / blockSize) * blockBytes }, () => d.below(256));
  for (let at = 0; at < bytes.length; at += blockBytes) drawing.put(bytes.subarray(at, at + blockBytes), ((0.8 + 0.4 * d.real()) * spread) / drawing.spread);
  return bytes;
}
