import { f16ToF32 } from "../tensor/float16.ts";
import { half, type IntegerDecoder, word } from "./ggml-blocks.ts";
import { type Grid, iq1sGrid, iq2sGrid, iq2xsGrid, iq2xxsGrid, iq3sGrid, iq3xxsGrid } from "./ggml-grids.ts";

/**
 * Super-blocks of 256 values that are points of a grid, 8 or 4 values to a point (block_iq2_xxs and so on of ggml-common.h). Scales have few bits
 * and are odd multiples of a part of the f16 scale d; values of the types of 2 and 3 bits have signs apart from the grid.
 */
export const GRID_DECODERS: Readonly<Record<string, IntegerDecoder>> = {
  /** d, then for each group of 32: four points, and a word of four sign codes and a scale. */
  IQ2_XXS: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      const eighth = half(bytes, at) / 8;
      for (let group = 0; group < 8; group++, to += 32) {
        const from = at + 2 + 8 * group;
        const codes = word(bytes, from + 4);
        scales[s + group] = eighth * odd(codes >>> 28);
        for (let i = 0; i < 4; i++) signed(iq2xxsGrid(), bytes[from + i], signs(codes >>> (7 * i)), out, to + 8 * i);
      }
    },
  },

  /** d, words of 16 bits (9 bits of point, then a sign code), scales of 4 bits. */
  IQ2_XS: {
    group: 16,
    split(bytes, at, out, to, scales, s) {
      const eighth = half(bytes, at) / 8;
      for (let i = 0; i < 16; i++) scales[s + i] = eighth * odd(nibble(bytes, at + 66, i));
      for (let i = 0; i < 32; i++) {
        const code = bytes[at + 2 + 2 * i] | (bytes[at + 3 + 2 * i] << 8);
        signed(iq2xsGrid(), code & 511, signs(code >> 9), out, to + 8 * i);
      }
    },
  },

  /** d, qs[32] (points), signs[32], qh[8] (two more bits of each point), scales of 4 bits. */
  IQ2_S: {
    group: 16,
    split(bytes, at, out, to, scales, s) {
      const eighth = half(bytes, at) / 8;
      for (let i = 0; i < 16; i++) scales[s + i] = eighth * odd(nibble(bytes, at + 74, i));
      for (let i = 0; i < 32; i++) {
        const high = (bytes[at + 66 + (i >> 2)] >> (2 * (i & 3))) & 3;
        signed(iq2sGrid(), bytes[at + 2 + i] | (high << 8), bytes[at + 34 + i], out, to + 8 * i);
      }
    },
  },

  /** d, qs[64] (points of 4 values), then for each group of 32 a word of four sign codes and a scale. */
  IQ3_XXS: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      const quarter = half(bytes, at) / 4;
      for (let group = 0; group < 8; group++, to += 32) {
        const codes = word(bytes, at + 66 + 4 * group);
        scales[s + group] = quarter * odd(codes >>> 28);
        for (let i = 0; i < 8; i++) signed(iq3xxsGrid(), bytes[at + 2 + 8 * group + i], signs(codes >>> (7 * (i >> 1))) >> (4 * (i & 1)), out, to + 4 * i);
      }
    },
  },

  /** d, qs[64] (points of 4 values), qh[8] (a ninth bit of each), signs[32], scales of 4 bits. */
  IQ3_S: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      const d = half(bytes, at);
      for (let group = 0; group < 8; group++) scales[s + group] = d * odd(nibble(bytes, at + 106, group));
      for (let i = 0; i < 64; i++) {
        const ninth = (bytes[at + 66 + (i >> 3)] >> (i & 7)) & 1;
        signed(iq3sGrid(), bytes[at + 2 + i] | (ninth << 8), bytes[at + 74 + (i >> 1)] >> (4 * (i & 1)), out, to + 4 * i);
      }
    },
  },

  /** d, qs[32], then for each group of 32 a word of 16 bits: three more bits of each of four points, a scale of 3 bits, which way the values shift. */
  IQ1_S: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      const eighth = half(bytes, at) / 8;
      for (let group = 0; group < 8; group++, to += 32) {
        const codes = bytes[at + 34 + 2 * group] | (bytes[at + 35 + 2 * group] << 8);
        scales[s + group] = eighth * odd((codes >> 12) & 7);
        for (let i = 0; i < 4; i++) shifted(bytes[at + 2 + 4 * group + i] | (((codes >> (3 * i)) & 7) << 8), codes >> 15, out, to + 8 * i);
      }
    },
  },

  /** qs[32], qh[16] (four bits a point: three more of its number, and which way it shifts), scales[8]: of 3 bits, four to 16 bits, above which are 4 bits of d. */
  IQ1_M: {
    group: 16,
    split(bytes, at, out, to, scales, s) {
      const d = [3, 7, 11, 15].reduce((bits, place, i) => bits | (nibble(bytes, at + 48, place) << (4 * i)), 0);
      const eighth = f16ToF32(d) / 8;
      for (let i = 0; i < 16; i++) {
        const four = bytes[at + 48 + 2 * (i >> 2)] | (bytes[at + 49 + 2 * (i >> 2)] << 8);
        scales[s + i] = eighth * odd((four >> (3 * (i & 3))) & 7);
      }
      for (let i = 0; i < 32; i++) {
        const code = nibble(bytes, at + 32, i);
        shifted(bytes[at + i] | ((code & 7) << 8), code >> 3, out, to + 8 * i);
      }
    },
  },
};

const odd = (code: number) => 2 * code + 1;

/** The nibble number `i` of the bytes from `at`, low ones first. */
function nibble(bytes: Uint8Array, at: number, i: number): number {
  return (bytes[at + (i >> 1)] >> (4 * (i & 1))) & 15;
}

/** Of eight signs a code has seven; the eighth makes the number of minus signs even (`ksigns_iq2xs`). */
function signs(code: number): number {
  const seven = code & 127;
  const pairs = seven ^ (seven >> 4);
  return seven | (((0x6996 >> (pairs & 15)) & 1) << 7);
}

/** Writes a point; a set bit of `minus` negates a value, the lowest the first. */
function signed({ width, values }: Grid, point: number, minus: number, out: Int8Array, to: number): void {
  for (let j = 0, from = point * width; j < width; j++) out[to + j] = (minus >> j) & 1 ? -values[from + j] : values[from + j];
}

/** Writes a point of -1, 0 and 1, shifted by an eighth, in eighths (IQ1S_DELTA). */
function shifted(point: number, down: number, out: Int8Array, to: number): void {
  const { values } = iq1sGrid();
  for (let j = 0; j < 8; j++) out[to + j] = 8 * values[8 * point + j] + (down === 1 ? -1 : 1);
}
