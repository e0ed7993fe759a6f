import { GGML_TYPES } from "./ggml.ts";

/**
 * Where a block of a type has numbers of several bytes, as [offset, bytes]: the structs of ggml-common.h. Types that read their bits through
 * wider integers than they declare (Q5_0's qh, the codebook types) are left out: what their bytes are on a big-endian machine is nowhere
 * laid down, and llama.cpp's gguf_convert_endian.py refuses them too.
 */
const FIELDS: Readonly<Record<string, readonly (readonly [offset: number, bytes: number])[]>> = {
  F64: [[0, 8]],
  I64: [[0, 8]],
  F32: [[0, 4]],
  I32: [[0, 4]],
  F16: [[0, 2]],
  BF16: [[0, 2]],
  I16: [[0, 2]],
  I8: [],
  Q4_0: [[0, 2]],
  Q4_1: [[0, 2], [2, 2]],
  Q8_0: [[0, 2]],
  Q2_K: [[80, 2], [82, 2]],
  Q3_K: [[108, 2]],
  Q4_K: [[0, 2], [2, 2]],
  Q5_K: [[0, 2], [2, 2]],
  Q6_K: [[208, 2]],
  IQ4_NL: [[0, 2]],
  IQ4_XS: [[0, 2], [2, 2]],
  TQ1_0: [[52, 2]],
  TQ2_0: [[64, 2]],
  MXFP4: [],
  NVFP4: [],
  Q1_0: [[0, 2]],
  Q2_0: [[0, 2]],
};

/** Whether `swapBlocks` knows a type. */
export function canSwap(type: string): boolean {
  return Object.hasOwn(FIELDS, type);
}

/** Turns the byte order of whole blocks of a type, in place. */
export function swapBlocks(type: string, bytes: Uint8Array): void {
  const { blockBytes } = GGML_TYPES[type];
  for (const [offset, width] of FIELDS[type]) {
    for (let at = offset; at < bytes.length; at += blockBytes) bytes.subarray(at, at + width).reverse();
  }
}
