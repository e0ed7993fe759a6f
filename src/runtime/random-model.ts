import { createModel, type Model } from "../model/decoder.ts";
import { randomWeights } from "../model/random-weights.ts";
import type { NamedShape } from "../model/shapes.ts";
import { weightBytes } from "../model/weights.ts";
import type { Kernels } from "../tensor/kernels.ts";
import { shapeKernels } from "../tensor/shapes.ts";
import { ADDRESSABLE, threading } from "./backend.ts";
import { formatBytes } from "./report.ts";

/**
 * A model of a published shape with random weights, drawn when it is certain that they fit.
 * @throws RangeError with both sizes where the kernels cannot hold so many bytes, or the machine cannot.
 */
export async function randomModel(shape: NamedShape, kernels: Kernels, dtype: "f32" | "int8" | "int4"): Promise<Model> {
  if (kernels.name !== "shapes") {
    const bytes = weightBytes(randomWeights(shape, shapeKernels(), dtype));
    const { memoryBytes = Infinity } = await threading();
    const [most, where] = kernels.name === "wasm" && memoryBytes > ADDRESSABLE ? [ADDRESSABLE, "32-bit WebAssembly memory"] : [memoryBytes, "this machine"];
    if (bytes > most) throw new RangeError(`${shape.config.name}: its weights take ${formatBytes(bytes)} as ${dtype}, and ${where} holds ${formatBytes(most)}`);
  }
  return createModel(shape.config, randomWeights(shape, kernels, dtype));
}
