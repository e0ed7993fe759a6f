import type { ModelConfig } from "../model/config.ts";
import { checkCalibration } from "../model/folding.ts";
import type { LoadOptions } from "../model/load.ts";
import { type Calibration, LINEAR_INPUTS } from "../quant/calibration.ts";
import { parseWeights, type Sparsity } from "../quant/scheme.ts";
import type { Kernels } from "../tensor/kernels.ts";
import type { ActivationFormat } from "../tensor/ops.ts";
import { probe } from "../tensor/wasm/index.ts";
import type { BackendOptions } from "./backend.ts";

/** `int8` and `int16` give every token a scale of its own, computed as it comes; `:static` takes the calibration's. */
export const ACTIVATIONS = ["f32", "int16", "int8", "int16:static", "int8:static"] as const;
/** What linears read their inputs as: one of ACTIVATIONS. */
export type Activations = (typeof ACTIVATIONS)[number];

/** How a model's numbers are stored and computed with. */
export interface SchemeOptions {
  /** keep (default), f32, int8, int8:64, int8:128, int8:row, int4 or int4:awq: see WeightScheme. */
  weights?: string;
  /** Default `none`. */
  sparsity?: Sparsity;
  /** What linears read their inputs as, default f32. */
  activations?: Activations;
  /** Of this model, for int4:awq, static activations and pruning by activation; with a migration in it, SmoothQuant. */
  calibration?: Calibration;
  /** The one layer (-1: embedding and output head) that `weights` is for, the others being f32. */
  layer?: number;
}

export interface ResolvedSchemes {
  readonly load: LoadOptions;
  readonly activations: ActivationFormat;
  readonly backend: Pick<BackendOptions, "scalarOnly" | "activations">;
}

/** @throws RangeError naming the option, what was expected and what was found. */
export function resolveSchemes(options: SchemeOptions, config: ModelConfig): ResolvedSchemes {
  const { weights = "keep", sparsity = "none", activations = "f32", calibration, layer } = options;
  if (calibration) checkCalibration(calibration, config);
  const [dtype, fixed] = activations.split(":") as [ActivationFormat["dtype"], "static"?];
  if (!ACTIVATIONS.includes(activations)) throw new RangeError(`activations: expected one of ${ACTIVATIONS.join(", ")}, found ${JSON.stringify(activations)}`);
  if (layer !== undefined && !(Number.isSafeInteger(layer) && layer >= -1 && layer < config.nLayers)) throw new RangeError(`layer: expected -1 to ${config.nLayers - 1}, found ${layer}`);
  if (fixed && !calibration) throw new RangeError(`activations: ${activations} needs a calibration, found none (run.ts calibrate makes one)`);
  return {
    backend: backendFor(options),
    load: { weights: parseWeights(weights), sparsity, calibration, layer },
    activations: fixed && calibration ? { dtype, scale: staticScales(calibration, config.nLayers, dtype === "int8" ? "int8" : "int16") } : { dtype },
  };
}

/** Whether the wasm kernels compute with these activations at full speed: 8 bits, where the relaxed dot product is exact. */
function inKernels({ activations, sparsity = "none" }: SchemeOptions): boolean {
  return activations === "int8" && sparsity === "none" && ["u8s8", "s8s8"].includes(probe().relaxedDot);
}

/** The format that ops give linears: f32 where the kernels round activations themselves. */
export function opsActivations(kernels: Kernels, activations: ActivationFormat): ActivationFormat {
  return kernels.quantize ? activations : { dtype: "f32" };
}

/** What the kernels must be able to do. */
export function backendFor(options: SchemeOptions): Pick<BackendOptions, "scalarOnly" | "activations"> {
  const { sparsity = "none", activations = "f32" } = options;
  if (inKernels(options)) return { activations: "int8" };
  return { scalarOnly: activations !== "f32" ? `${activations} activations` : sparsity !== "none" ? "sparse weights" : undefined };
}

function staticScales({ ops }: Calibration, nLayers: number, dtype: "int8" | "int16"): (layer: number, name: string) => number | undefined {
  const tables: Record<string, (number | undefined)[]> = Object.fromEntries(LINEAR_INPUTS.map((name) => [name, new Array(nLayers + 1)]));
  // An op whose outputs were all zero has no scale to offer: its rows bring their own.
  for (const { layer, name, scales } of ops) tables[name][layer + 1] = scales[dtype] || undefined;
  // What is no input in a calibration (experts, latent attention) brings its own, too.
  return (layer, name) => tables[name]?.[layer + 1];
}
