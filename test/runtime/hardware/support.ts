import type { NamedShape } from "../../../src/model/shapes.ts";
import { validateConfig } from "../../../src/model/config.ts";
import { parseFormat, parseKvFormats } from "../../../src/runtime/hardware/formats.ts";
import type { Hardware } from "../../../src/runtime/hardware/hardware.ts";
import type { OpWork } from "../../../src/runtime/hardware/roof.ts";
import type { Formats } from "../../../src/runtime/hardware/trace.ts";

/** Round figures: 100 GB/s, 1 GB, 10 TFLOPS in fp32, 20 in fp16, 40 in int8, 10 us a launch. */
export const ROUND: Hardware = {
  ...{ name: "round", bandwidthGBs: 100, capacityGB: 1, peaks: { fp32: 10, fp16: 20, int8: 40 } },
  ...{ linkGBs: 10, cacheMB: 1, launchUs: 10, sources: {} },
};

export const formats = (weights = "f16", kv = "f16", activations = "f16"): Formats => ({
  weights: parseFormat(weights)!,
  kv: parseKvFormats(kv)!,
  activations: parseFormat(activations)!,
});

/** A llama small enough to be traced thousands of times. */
export function small(change: Partial<NamedShape["config"]> = {}, tied = false): NamedShape {
  const config = validateConfig({
    ...{ architecture: "llama", name: "small", dim: 64, nLayers: 5, nHeads: 4, nKvHeads: 2, headDim: 16, ffnDim: 160, vocabSize: 100, contextLength: 4096 },
    ...{ norm: "rms", normEps: 1e-5, ffn: "gated", activation: "silu" },
    rope: { style: "interleaved", base: 10000, dims: 16, scaling: { type: "none" } },
    ...change,
  });
  return { tied, config };
}

/** An op with just these costs. */
export function op(kind: OpWork["kind"], dtype: string, flops: number, weights: number, activations = 0, name: string = kind): OpWork {
  return { kind, name, dtype, flops, read: { weights, kv: 0, activations }, written: { weights: 0, kv: 0, activations: 0 } };
}
