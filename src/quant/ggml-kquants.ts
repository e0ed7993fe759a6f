import type { BlockDecoder } from "./ggml-blocks.ts";

/** The 256-value "k-quant" super-blocks of ggml-common.h. */
export const K_BLOCK_DECODERS: Readonly<Record<string, BlockDecoder>> = {};
