import { FormatError, quote } from "./errors.ts";
import type { Piece } from "./hf-layout.ts";
import { madeInPieces } from "./parts.ts";
import type { Found } from "./safetensors.ts";

/** Values of a block that share an exponent (OCP Microscaling Formats, version 1.0, section 5). */
const BLOCK = 32;
const PAIRS = BLOCK / 2;

/** Whether a tensor is the exponents of MXFP4 values that lie in another one. */
export function besideBlocks(name: string, found: ReadonlyMap<string, Found>): boolean {
  return name.endsWith("_scales") && found.has(name.replace(/scales$/, "blocks"));
}

/**
 * Matrices as gpt-oss keeps them, `X_blocks` [count, rows, blocks, 16] with `X_scales` [count, rows, blocks], as GGML's MXFP4: the exponent before
 * each block, and in a byte not two neighbours but values half a block apart.
 * @throws FormatError for blocks without their scales, or of another shape.
 */
export function mxfp4Rows({ tensor, source }: Found, found: ReadonlyMap<string, Found>): Piece {
  const what = `tensor ${quote(tensor.name)}`;
  const scales = found.get(tensor.name.replace(/blocks$/, "scales"));
  if (!scales) throw new FormatError(source.name, `${what}: expected its scales beside it, found none`);
  const [count, rows, blocks, pairs] = tensor.shape;
  if (tensor.shape.length !== 4 || pairs !== PAIRS) throw new FormatError(source.name, `${what}: expected [experts, rows, blocks, ${PAIRS}], found [${tensor.shape.join(", ")}]`);
  if (scales.tensor.dtype !== "U8" || String(scales.tensor.shape) !== String([count, rows, blocks])) {
    throw new FormatError(scales.source.name, `tensor ${quote(scales.tensor.name)}: expected [${count}, ${rows}, ${blocks}] U8, found [${scales.tensor.shape.join(", ")}] ${scales.tensor.dtype}`);
  }
  const each = rows * blocks;
  const make = (index: number): Uint8Array => {
    const [exponents, nibbles, out] = [new Uint8Array(each), new Uint8Array(each * PAIRS), new Uint8Array(each * (1 + PAIRS))];
    scales.source.read(scales.tensor.offset + index * each, exponents);
    source.read(tensor.offset + index * each * PAIRS, nibbles);
    for (let block = 0; block < each; block++) {
      const [from, to] = [block * PAIRS, block * (1 + PAIRS)];
      out[to] = exponents[block];
      for (let i = 0; i < PAIRS / 2; i++) {
        const [low, high] = [nibbles[from + i], nibbles[from + PAIRS / 2 + i]];
        out[to + 1 + 2 * i] = (low & 0x0f) | (high << 4);
        out[to + 2 + 2 * i] = (low >> 4) | (high & 0xf0);
      }
    }
    return out;
  };
  return { type: "MXFP4", shape: [count, rows, blocks * BLOCK], part: madeInPieces(count, each * (1 + PAIRS), make) };
}
