import { nativeDtype } from "../quant/ggml.ts";
import type { MatrixFormat, Sparsity, WeightScheme } from "../quant/scheme.ts";
import { type HalfDType, isHalf } from "../tensor/tensor.ts";
import type { TensorInfo } from "./formats/source.ts";

export interface Placement {
  readonly weights: WeightScheme;
  readonly sparsity: Sparsity;
  /** The only layer that the scheme is for (-1: embedding and output head); all others become f32. */
  readonly layer?: number;
}

const F32: MatrixFormat = { dtype: "f32", group: 0 };
const HALF: Readonly<Record<HalfDType, MatrixFormat>> = { f16: { dtype: "f16", group: 0 }, bf16: { dtype: "bf16", group: 0 } };
const INT8: MatrixFormat = { dtype: "int8", group: 32 };
const INT4: MatrixFormat = { dtype: "int4", group: 32 };

/** The layer of a tensor by its name, -1 outside the layers. */
export function layerOf(name: string): number {
  const found = /^blk\.(\d+)\./.exec(name);
  return found ? Number(found[1]) : -1;
}

/**
 * What a matrix of a file becomes in memory.
 *
 * - `keep`: what a type's values are exactly where that is int8 or int4 in groups of 32 (`nativeDtype`), every other block type (k-quants and the
 *   like) rounded to int8 in groups of 32; of plain numbers F16 and BF16 as they are, the others f32.
 * - f32, int8: everything, the embedding and the output head too, as llama.cpp's Q8_0 does.
 * - int4: all matrices of the layers, and the embedding where it is not also the head. The head, which is most sensitive, is int8
 *   (llama.cpp gives it Q6_K), and so is a matrix whose columns are no multiple of 32.
 * - 2:4 sparsity: the matrices of the layers, with int8 values; one whose columns are no multiple of 4 keeps its place above.
 * Learned position embeddings, which are read a row at a time, and the routers of experts, where rounding changes which ones are chosen, are
 * never quantised.
 */
export function matrixFormat({ name, type, shape }: TensorInfo, tied: boolean, { weights, sparsity, layer }: Placement): MatrixFormat {
  const cols = shape[shape.length - 1];
  const own = layerOf(name);
  const native = nativeDtype(type);
  const kept = isHalf(native) ? HALF[native] : native === "int8" ? INT8 : native === "int4" ? INT4 : /^[FI]\d/.test(type) ? F32 : INT8;
  if (name === "position_embd.weight" || /\.ffn_gate_inp(_shexp)?\.weight$/.test(name)) return weights.dtype === "keep" ? kept : F32;
  if (layer !== undefined && layer !== own) return F32;
  if (sparsity === "2:4" && own >= 0 && cols % 4 === 0) return { dtype: "sparse", group: weights.dtype === "int8" ? weights.group : 32 };
  const isHead = name === "output.weight" || (tied && name === "token_embd.weight");
  switch (weights.dtype) {
    case "keep":
      return kept;
    case "f32":
      return F32;
    case "int8":
      return { dtype: "int8", group: weights.group };
    case "int4":
      return isHead || cols % 32 !== 0 ? INT8 : INT4;
  }
}
