import { half, type BlockDecoder } from "./ggml-blocks.ts";

/**
 * The 256-value super-blocks ("k-quants") of ggml-common.h: block_q2_K to block_q6_K. One f16 scale d (and for types 2, 4 and 5 an f16
 * minimum) per super-block, and small integer scales (and minima) for its 16 groups of 16, or 8 groups of 32.
 *
 * Bits of many values share a byte: a byte of 2-bit parts holds columns c, c + 32, c + 64, c + 96, one of 4-bit parts c and c + 32
 * (type 6: c and c + 64). Products of the scales and values are exact in a double, so each result is rounded to f32 once, as in GGML.
 */
export const K_BLOCK_DECODERS: Readonly<Record<string, BlockDecoder>> = {
  /** scales[16] (low nibble scale, high nibble minimum), qs[64], d, dmin. */
  Q2_K: {
    scales: [80, 82],
    decode(bytes, at, out, to) {
      const d = half(bytes, at + 80);
      const dmin = half(bytes, at + 82);
      for (let group = 0; group < 16; group++) {
        const scale = d * (bytes[at + group] & 15);
        const min = dmin * (bytes[at + group] >> 4);
        const from = at + 16 + twoBitBase(group);
        const shift = twoBitShift(group);
        for (let j = 0; j < 16; j++) out[to++] = scale * ((bytes[from + j] >> shift) & 3) - min;
      }
    },
  },

  /** hmask[32] (third bits, inverted: a clear bit subtracts 4), qs[64], scales[12] (6 bits each, less 32), d. */
  Q3_K: {
    scales: [108],
    decode(bytes, at, out, to) {
      const d = half(bytes, at + 108);
      for (let group = 0; group < 16; group++) {
        const low = bytes[at + 96 + (group & 7)] >> (group < 8 ? 0 : 4);
        const high = bytes[at + 104 + (group & 3)] >> (2 * (group >> 2));
        const scale = d * (((low & 15) | ((high & 3) << 4)) - 32);
        const from = at + 32 + twoBitBase(group);
        const shift = twoBitShift(group);
        const mask = at + 16 * (group & 1);
        const third = group >> 1;
        for (let j = 0; j < 16; j++) {
          out[to++] = scale * (((bytes[from + j] >> shift) & 3) - 4 + 4 * ((bytes[mask + j] >> third) & 1));
        }
      }
    },
  },

  /** d, dmin, scales[12], qs[128]. */
  Q4_K: {
    scales: [0, 2],
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      const dmin = half(bytes, at + 2);
      for (let group = 0; group < 8; group++) {
        const scale = d * groupScale(bytes, at + 4, group);
        const min = dmin * groupMin(bytes, at + 4, group);
        const from = at + 16 + 32 * (group >> 1);
        const shift = 4 * (group & 1);
        for (let j = 0; j < 32; j++) out[to++] = scale * ((bytes[from + j] >> shift) & 15) - min;
      }
    },
  },

  /** d, dmin, scales[12], qh[32] (fifth bits: bit g for group g), qs[128]. */
  Q5_K: {
    scales: [0, 2],
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      const dmin = half(bytes, at + 2);
      for (let group = 0; group < 8; group++) {
        const scale = d * groupScale(bytes, at + 4, group);
        const min = dmin * groupMin(bytes, at + 4, group);
        const from = at + 48 + 32 * (group >> 1);
        const shift = 4 * (group & 1);
        for (let j = 0; j < 32; j++) {
          const fifth = (bytes[at + 16 + j] >> group) & 1;
          out[to++] = scale * (((bytes[from + j] >> shift) & 15) + 16 * fifth) - min;
        }
      }
    },
  },

  /** ql[128] (low 4 bits), qh[64] (high 2 bits), scales[16] (int8), d; values are less 32. */
  Q6_K: {
    scales: [208],
    decode(bytes, at, out, to) {
      const d = half(bytes, at + 208);
      for (let group = 0; group < 16; group++) {
        const scale = d * ((bytes[at + 192 + group] << 24) >> 24);
        const quarter = (group >> 1) & 3;
        const low = at + 64 * (group >> 3) + 32 * (quarter & 1) + 16 * (group & 1);
        const lowShift = 4 * (quarter >> 1);
        const high = at + 128 + twoBitBase(group);
        const highShift = twoBitShift(group);
        for (let j = 0; j < 16; j++) {
          const q = ((bytes[low + j] >> lowShift) & 15) | (((bytes[high + j] >> highShift) & 3) << 4);
          out[to++] = scale * (q - 32);
        }
      }
    },
  },
};

/** Where the 2-bit parts of a group of 16 begin among their 64 bytes: 128 columns in 32 bytes. */
function twoBitBase(group: number): number {
  return 32 * (group >> 3) + 16 * (group & 1);
}

function twoBitShift(group: number): number {
  return 2 * ((group >> 1) & 3);
}

/** The 6-bit scale of a group of 32: twelve bytes hold eight scales and eight minima, the upper groups' high bits atop the lower ones. */
function groupScale(bytes: Uint8Array, at: number, group: number): number {
  return group < 4 ? bytes[at + group] & 63 : (bytes[at + group + 4] & 15) | ((bytes[at + group - 4] >> 6) << 4);
}

/** The 6-bit minimum of a group of 32. */
function groupMin(bytes: Uint8Array, at: number, group: number): number {
  return group < 4 ? bytes[at + group + 4] & 63 : (bytes[at + group + 4] >> 4) | ((bytes[at + group] >> 6) << 4);
}
