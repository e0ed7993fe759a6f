import type { Model } from "../../model/decoder.ts";
import { weightTensors } from "../../model/weights.ts";
import type { Kernels } from "../../tensor/kernels.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** All weight tensors by their names in the file (`blk.0.attn_q.weight`). */
export function namedWeights({ weights }: Model): Map<string, Tensor> {
  return new Map([...weightTensors(weights)].map((tensor) => [tensor.name, tensor]));
}

/** Rows [from, to) of a weight, dequantised: the kernels themselves look them up, whatever their layout is. */
export function weightRows(tensor: Tensor, from: number, to: number, kernels: Kernels): Float32Array {
  if (tensor.dtype === "f32") return tensor.f32.slice(from * tensor.cols, to * tensor.cols);
  const out = kernels.alloc("f32", [to - from, tensor.cols]);
  kernels.embed(out, tensor, Int32Array.from({ length: to - from }, (_, i) => from + i));
  const values = out.f32.slice();
  kernels.free(out);
  return values;
}
