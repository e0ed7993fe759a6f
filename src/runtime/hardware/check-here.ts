import type { NamedShape } from "../../model/shapes.ts";
import type { OpRecord, Phase } from "../../tensor/ledger.ts";
import { createKernels } from "../backend.ts";
import { randomModel } from "../random-model.ts";
import { parseFormat } from "./formats.ts";
import type { Hardware } from "./hardware.ts";
import { measure } from "./measured.ts";
import { project, type ProjectOptions, traceWorkload } from "./projection.ts";
import { traced, type Workload } from "./trace.ts";

export interface StepMs {
  /** All prompts. */
  readonly ttftMs: number;
  /** One decode step. */
  readonly tpotMs: number;
}

/** A projection beside the step that was measured on the machine it is for; errors are projected over measured, less one. */
export type StepCheck =
  | { readonly measured: StepMs; readonly projected: StepMs; readonly error: StepMs; readonly weights: string; /** Whether the weights fit into the caches. */ readonly cached: boolean }
  | { readonly measured: null; readonly why: string };

/** Runs of the workload, of which the fastest counts: other programs only slow it. */
const ROUNDS = 3;

/**
 * Runs the workload here, with random weights in memwall's own format of that name, and projects the very same.
 * @param device This machine as it was measured.
 */
export async function checkHere(shape: NamedShape, weights: string, workload: Workload, device: Hardware, options: ProjectOptions = {}): Promise<StepCheck> {
  const dtype = (["f32", "int8", "int4"] as const).find((name) => name === weights.replace(/:32$/, ""));
  if (!dtype) return { measured: null, why: `memwall computes with f32, int8 and int4 weights, found ${weights}` };
  const { contextLength } = shape.config;
  if (workload.promptTokens + workload.tokens > contextLength) return { measured: null, why: `the workload is longer than the model's ${contextLength} positions` };
  const format = parseFormat(dtype === "f32" ? dtype : `${dtype}:32`)!;
  const f32 = parseFormat("f32")!;
  const trace = traceWorkload(traced(shape, { weights: format, kv: { k: f32, v: f32 }, activations: f32 }), workload);
  const { fits, ttftMs, tpotMs } = project(trace, device, options);
  if (!fits) return { measured: null, why: "it does not fit into its memory" };

  const projected = { ttftMs: ttftMs!, tpotMs: tpotMs! };
  const measured = await measureHere(shape, dtype, workload);
  const error = { ttftMs: projected.ttftMs / measured.ttftMs - 1, tpotMs: projected.tpotMs / measured.tpotMs - 1 };
  return { measured, projected, error, weights: format.name, cached: trace.bytes.weights <= (device.cacheMB ?? 0) * 1e6 };
}

async function measureHere(shape: NamedShape, dtype: "f32" | "int8" | "int4", workload: Workload): Promise<StepMs> {
  const kernels = await createKernels("auto");
  try {
    const model = await randomModel(shape, kernels, dtype);
    const best = { ttftMs: Infinity, tpotMs: Infinity };
    for (let round = 0; round < ROUNDS; round++) {
      const records: OpRecord[] = [];
      measure(model, kernels, workload, { attention: "tiled" }, (record) => void records.push(record));
      best.ttftMs = Math.min(best.ttftMs, elapsed(records, "prefill"));
      best.tpotMs = Math.min(best.tpotMs, elapsed(records, "decode") / workload.tokens);
    }
    return best;
  } finally {
    kernels.close();
  }
}

/** From the begin of a phase's first op to the end of its last, milliseconds. */
function elapsed(records: readonly OpRecord[], phase: Phase): number {
  const own = records.filter((record) => record.phase === phase);
  const last = own[own.length - 1];
  return last.startMs - own[0].startMs + last.ns / 1e6;
}
