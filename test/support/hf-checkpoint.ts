import { f32ToBf16 } from "../../src/tensor/float16.ts";
import { dice } from "./dice.ts";
import type { FolderModel, SafeTensorOut } from "./hf-folder.ts";

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = Readonly<Record<string, Json>>;

/** Names and shapes of a checkpoint's tensors; `uint8` where they are MXFP4's blocks and scales. */
export type Shapes = Readonly<Record<string, readonly number[]>>;

/** A drawn checkpoint, and its values in float64 by name. */
export interface DrawnCheckpoint extends Pick<FolderModel, "tensors"> {
  readonly config: JsonObject;
  readonly values: ReadonlyMap<string, Float64Array>;
}

/** A checkpoint with weights drawn from a seed: all of them BF16's values, in that type or as F32. */
export function drawCheckpoint(config: JsonObject, shapes: Shapes, seed: number, dtype: "F32" | "BF16"): DrawnCheckpoint {
  const d = dice(seed);
  const tensors: Record<string, SafeTensorOut> = {};
  const values = new Map<string, Float64Array>();
  for (const [name, shape] of Object.entries(shapes)) {
    const size = shape.reduce((a, b) => a * b, 1);
    if (/_(blocks|scales)$/.test(name)) {
      const bytes = Uint8Array.from({ length: size }, () => (name.endsWith("_scales") ? d.between(122, 125) : d.below(256)));
      tensors[name] = { dtype: "U8", shape, data: bytes };
      values.set(name, Float64Array.from(bytes));
      continue;
    }
    const isNorm = /norm(_[12f])?\.weight$|ln_\w+\.weight$|layernorm\.weight$/.test(name);
    const isVector = shape.length === 1 || /bias$/.test(name);
    const [mean, spread] = isNorm ? [1, 0.3] : isVector ? [0, 0.3] : [0, (/embed|wte/.test(name) ? 1.6 : 1.3) / Math.sqrt(shape[shape.length - 1])];
    const halves = Uint16Array.from({ length: size }, () => f32ToBf16(mean + spread * d.normal()));
    const floats = new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
    tensors[name] = { dtype, shape, data: dtype === "BF16" ? new Uint8Array(halves.buffer) : new Uint8Array(floats.buffer) };
    values.set(name, Float64Array.from(floats));
  }
  return { config, tensors, values };
}
