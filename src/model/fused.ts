import { ggmlBytes } from "../quant/ggml.ts";
import type { ModelConfig } from "./config.ts";
import { FormatError } from "./formats/errors.ts";
import type { TensorInfo } from "./formats/source.ts";

/** Parts of a stacked tensor, from its first row on. */
type Parts = readonly (readonly [name: string, rows: number])[];

/**
 * The tensors of a file with q, k and v apart, and the gate apart from `ffn_up`, where the file has them stacked. A part is a range of whole
 * rows: it lies in the file as it would alone, and nothing is copied. A scale is for all parts.
 * @throws FormatError for a stack of another height.
 */
export function unfused(file: string, tensors: ReadonlyMap<string, TensorInfo>, config: ModelConfig): ReadonlyMap<string, TensorInfo> {
  const { nHeads, nKvHeads, headDim, ffnDim } = config;
  const qkv: Parts = [["attn_q", nHeads * headDim], ["attn_k", nKvHeads * headDim], ["attn_v", nKvHeads * headDim]];
  const gated: Parts = [["ffn_gate", ffnDim], ["ffn_up", ffnDim]];
  const found = new Map<string, TensorInfo>();
  for (const [name, info] of tensors) {
    const [, block, part, kind] = /^(blk\.\d+\.)(attn_qkv|ffn_up)\.(weight|bias|scale)$/.exec(name) ?? [];
    const stacked = part === "attn_qkv" || (part === "ffn_up" && config.ffn === "gated" && info.shape[0] !== ffnDim && !tensors.has(`${block}ffn_gate.weight`));
    const parts = part === "attn_qkv" ? qkv : gated;
    const nameOf = (own: string) => `${block}${own}.${kind}`;
    if (!stacked) found.set(name, info);
    else for (const each of kind === "scale" ? parts.map(([own]) => ({ ...info, name: nameOf(own) })) : split(file, info, parts, nameOf)) found.set(each.name, each);
  }
  return found;
}

function split(file: string, info: TensorInfo, parts: Parts, nameOf: (part: string) => string): TensorInfo[] {
  const [rows, ...rest] = info.shape;
  const expected = parts.reduce((sum, [, height]) => sum + height, 0);
  if (rows !== expected) throw new FormatError(file, `tensor "${info.name}": expected ${expected} rows (${parts.map(([name]) => name).join(", ")} stacked), found ${rows}`);
  let offset = info.offset;
  return parts.map(([part, height]) => {
    const bytes = rest.length > 0 ? ggmlBytes(info.type, height, rest[0]) : ggmlBytes(info.type, 1, height);
    const own: TensorInfo = { name: nameOf(part), shape: [height, ...rest], type: info.type, offset, bytes };
    offset += bytes;
    return own;
  });
}
