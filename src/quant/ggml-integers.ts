import { half, type IntegerDecoder, word } from "./ggml-blocks.ts";

/** What the 4-bit codes of the IQ4 types stand for (kvalues_iq4nl of ggml-common.h). */
const IQ4 = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

/** The 16 values of a 4-bit float with 2 bits of exponent and 1 of mantissa, doubled: whole numbers. */
const E2M1_TWICE = Int8Array.of(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);

const POWERS_OF_THREE = [1, 3, 9, 27, 81];

/**
 * Types of whole numbers with a scale for each group: plain ones of 1, 2, 5 and 8 bits, 4-bit codes for a table of uneven steps (block_iq4_nl) or
 * for floats (block_mxfp4, block_nvfp4), and ternary codes for -1, 0 and 1 (block_tq1_0, block_tq2_0).
 */
export const INTEGER_DECODERS: Readonly<Record<string, IntegerDecoder>> = {
  /** d, qs[16]: a bit for each of 128 columns, the lowest first, 1 for d and 0 for -d. */
  Q1_0: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales.fill(half(bytes, at), s, s + 4);
      for (let j = 0; j < 128; j++) out[to + j] = 2 * ((bytes[at + 2 + (j >> 3)] >> (j & 7)) & 1) - 1;
    },
  },
  /** d, qs[16]: two bits for each of 64 columns, the lowest first, less 1. */
  Q2_0: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales.fill(half(bytes, at), s, s + 2);
      for (let j = 0; j < 64; j++) out[to + j] = ((bytes[at + 2 + (j >> 2)] >> (2 * (j & 3))) & 3) - 1;
    },
  },
  /** d, qh[4] (fifth bits), qs[16] (low nibbles are columns 0-15, high nibbles 16-31), less 16. */
  Q5_0: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales[s] = half(bytes, at);
      const fifth = word(bytes, at + 2);
      for (let j = 0; j < 16; j++) {
        const q = bytes[at + 6 + j];
        out[to + j] = ((q & 15) | (((fifth >>> j) & 1) << 4)) - 16;
        out[to + j + 16] = ((q >> 4) | (((fifth >>> (j + 16)) & 1) << 4)) - 16;
      }
    },
  },
  /** d, d times the sum of the values, qs[32]. Made for activations. */
  Q8_1: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales[s] = half(bytes, at);
      for (let j = 0; j < 32; j++) out[to + j] = bytes[at + 4 + j];
    },
  },
  /** d as f32, qs[256], sums of 16. Made for activations. */
  Q8_K: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales.fill(float(word(bytes, at)), s, s + 8);
      for (let j = 0; j < 256; j++) out[to + j] = bytes[at + 4 + j];
    },
  },
  IQ4_NL: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales[s] = half(bytes, at);
      nibbles(IQ4, bytes, at + 2, 16, out, to);
    },
  },
  /** 8 groups of 32: 6-bit scales, their low 4 bits in scales_l and their high 2 in scales_h, less 32. */
  IQ4_XS: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      const d = half(bytes, at);
      const high = bytes[at + 2] | (bytes[at + 3] << 8);
      for (let group = 0; group < 8; group++) {
        const low = (bytes[at + 4 + (group >> 1)] >> (4 * (group & 1))) & 15;
        scales[s + group] = d * ((low | (((high >> (2 * group)) & 3) << 4)) - 32);
        nibbles(IQ4, bytes, at + 8 + 16 * group, 16, out, to + 32 * group);
      }
    },
  },
  MXFP4: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales[s] = halfPower(bytes[at]);
      nibbles(E2M1_TWICE, bytes, at + 1, 16, out, to);
    },
  },
  /** Scales of four groups of 16, then their nibbles. */
  NVFP4: {
    group: 16,
    split(bytes, at, out, to, scales, s) {
      for (let group = 0; group < 4; group++) {
        scales[s + group] = halfE4M3(bytes[at + group]);
        nibbles(E2M1_TWICE, bytes, at + 4 + 8 * group, 8, out, to + 16 * group);
      }
    },
  },
  /** Five ternary digits to a byte, as a fraction of 256 in base 3, first digit first: 32 bytes, then 16; four to each of the last 4. */
  TQ1_0: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales.fill(half(bytes, at + 52), s, s + 8);
      let next = to;
      for (const [start, count, digits] of [[0, 32, 5], [32, 16, 5], [48, 4, 4]] as const) {
        for (let digit = 0; digit < digits; digit++) {
          for (let i = 0; i < count; i++) {
            const fraction = (bytes[at + start + i] * POWERS_OF_THREE[digit]) & 255;
            out[next++] = ((fraction * 3) >> 8) - 1;
          }
        }
      }
    },
  },
  /** Four 2-bit codes to a byte: 32 bytes hold 128 columns, the lowest bits the first 32 of them. */
  TQ2_0: {
    group: 32,
    split(bytes, at, out, to, scales, s) {
      scales.fill(half(bytes, at + 64), s, s + 8);
      let next = to;
      for (const start of [0, 32]) {
        for (let shift = 0; shift < 8; shift += 2) {
          for (let i = 0; i < 32; i++) out[next++] = ((bytes[at + start + i] >> shift) & 3) - 1;
        }
      }
    },
  },
};

/** What `count` bytes of codes stand for: low nibbles are the first `count` columns, high nibbles those after. */
function nibbles(table: Int8Array, bytes: Uint8Array, at: number, count: number, out: Int8Array, to: number): void {
  for (let j = 0; j < count; j++) {
    out[to + j] = table[bytes[at + j] & 15];
    out[to + j + count] = table[bytes[at + j] >> 4];
  }
}

/** Half of the power of two that an exponent byte stands for, so that it fits the doubled values; 255 is NaN (OCP Microscaling Formats 1.0, sections 5.3 and 5.4). */
function halfPower(exponent: number): number {
  return exponent === 255 ? NaN : 2 ** (exponent - 128);
}

/** Half of a float of 4 bits of exponent and 3 of mantissa, whose sign counts for nothing; 127, which the format has for NaN, is 0 as in GGML (`ggml_ue4m3_to_fp32`). */
function halfE4M3(code: number): number {
  const [exponent, mantissa] = [(code >> 3) & 15, code & 7];
  if (code === 127) return 0;
  return exponent === 0 ? mantissa * 2 ** -10 : (8 + mantissa) * 2 ** (exponent - 11);
}

const bits = new Int32Array(1);
const floats = new Float32Array(bits.buffer);

/** The f32 of 32 bits. */
function float(word: number): number {
  bits[0] = word;
  return floats[0];
}
