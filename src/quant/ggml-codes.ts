import { type BlockDecoder, half } from "./ggml-blocks.ts";

/** What the 4-bit codes of the IQ4 types stand for (kvalues_iq4nl of ggml-common.h). */
const IQ4 = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

const POWERS_OF_THREE = [1, 3, 9, 27, 81];

/**
 * Types whose bits are codes: 4-bit ones for a table of uneven steps (block_iq4_nl, block_iq4_xs), and ternary ones for -1, 0 and 1
 * (block_tq1_0, block_tq2_0).
 */
export const CODE_BLOCK_DECODERS: Readonly<Record<string, BlockDecoder>> = {
  IQ4_NL: {
    scales: [0],
    decode: (bytes, at, out, to) => uneven(bytes, at + 2, half(bytes, at), out, to),
  },
  /** 8 groups of 32: 6-bit scales, their low 4 bits in scales_l and their high 2 in scales_h, less 32. */
  IQ4_XS: {
    scales: [0],
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      const high = bytes[at + 2] | (bytes[at + 3] << 8);
      for (let group = 0; group < 8; group++) {
        const low = (bytes[at + 4 + (group >> 1)] >> (4 * (group & 1))) & 15;
        const scale = (low | (((high >> (2 * group)) & 3) << 4)) - 32;
        uneven(bytes, at + 8 + 16 * group, Math.fround(d * scale), out, to + 32 * group);
      }
    },
  },
  /** Five ternary digits to a byte, as a fraction of 256 in base 3, first digit first: 32 bytes, then 16; four to each of the last 4. */
  TQ1_0: {
    scales: [52],
    decode(bytes, at, out, to) {
      const d = half(bytes, at + 52);
      let next = to;
      for (const [start, count, digits] of [[0, 32, 5], [32, 16, 5], [48, 4, 4]] as const) {
        for (let digit = 0; digit < digits; digit++) {
          for (let i = 0; i < count; i++) {
            const fraction = (bytes[at + start + i] * POWERS_OF_THREE[digit]) & 255;
            out[next++] = (((fraction * 3) >> 8) - 1) * d;
          }
        }
      }
    },
  },
  /** Four 2-bit codes to a byte: 32 bytes hold 128 columns, the lowest bits the first 32 of them. */
  TQ2_0: {
    scales: [64],
    decode(bytes, at, out, to) {
      const d = half(bytes, at + 64);
      let next = to;
      for (const start of [0, 32]) {
        for (let shift = 0; shift < 8; shift += 2) {
          for (let i = 0; i < 32; i++) out[next++] = (((bytes[at + start + i] >> shift) & 3) - 1) * d;
        }
      }
    },
  },
};

/** 16 bytes of codes: low nibbles are columns 0-15, high nibbles 16-31. */
function uneven(bytes: Uint8Array, at: number, scale: number, out: Float32Array, to: number): void {
  for (let j = 0; j < 16; j++) {
    out[to + j] = IQ4[bytes[at + j] & 15] * scale;
    out[to + j + 16] = IQ4[bytes[at + j] >> 4] * scale;
  }
}
