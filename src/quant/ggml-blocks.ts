import { f16Table } from "../tensor/float16.ts";

/** Decodes one block of a quantised type. */
export interface BlockDecoder {
  /** Where in a block its f16 scales and minima stand: a weight is finite exactly when they are. */
  readonly scales: readonly number[];
  /** Writes the block at byte `at` to out[to], out[to + 1], ... */
  readonly decode: (bytes: Uint8Array, at: number, out: Float32Array, to: number) => void;
}

/** Decodes one block of a type whose values are whole numbers of 8 bits times a scale. */
export interface IntegerDecoder {
  /** How many values share a scale. */
  readonly group: 16 | 32;
  /** Writes the whole numbers of the block at byte `at` to out[to], out[to + 1], ..., and its scales to scales[s], scales[s + 1], ... */
  readonly split: (bytes: Uint8Array, at: number, out: Int8Array, to: number, scales: Float32Array, s: number) => void;
}

/** The f16 at byte `at`. */
export function half(bytes: Uint8Array, at: number): number {
  return f16Table()[bytes[at] | (bytes[at + 1] << 8)];
}

/**
 * The 32-value blocks of ggml-common.h (block_q4_0 and so on): an f16 scale d, for the _1 types an f16 minimum m, for Q5_1 4 bytes of
 * fifth bits, then the values; low nibbles are columns 0-15, high nibbles 16-31. All are exact in f32 but for the one rounding of d * q + m.
 */
export const BLOCK_DECODERS: Readonly<Record<string, BlockDecoder>> = {
  Q4_0: {
    scales: [0],
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      for (let j = 0; j < 16; j++) {
        const q = bytes[at + 2 + j];
        out[to + j] = ((q & 15) - 8) * d;
        out[to + j + 16] = ((q >> 4) - 8) * d;
      }
    },
  },
  Q4_1: {
    scales: [0, 2],
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      const m = half(bytes, at + 2);
      for (let j = 0; j < 16; j++) {
        const q = bytes[at + 4 + j];
        out[to + j] = (q & 15) * d + m;
        out[to + j + 16] = (q >> 4) * d + m;
      }
    },
  },
  Q5_1: {
    scales: [0, 2],
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      const m = half(bytes, at + 2);
      const fifth = word(bytes, at + 4);
      for (let j = 0; j < 16; j++) {
        const q = bytes[at + 8 + j];
        out[to + j] = ((q & 15) | (((fifth >>> j) & 1) << 4)) * d + m;
        out[to + j + 16] = ((q >> 4) | (((fifth >>> (j + 16)) & 1) << 4)) * d + m;
      }
    },
  },
  Q8_0: {
    scales: [0],
    decode(bytes, at, out, to) {
      const d = half(bytes, at);
      for (let j = 0; j < 32; j++) out[to + j] = ((bytes[at + 2 + j] << 24) >> 24) * d;
    },
  },
};

/** The 32 bits at byte `at`. */
export function word(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
}
