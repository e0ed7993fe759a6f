import { type Energy, energyOf, type EnergyTable, HOROWITZ_2014 } from "./energy.ts";
import { type Hardware, peakOf } from "./hardware.ts";
import { arithmeticOf, type Bound, type RoofOptions, type StepTime, stepTime, sumTimes } from "./roof.ts";
import { kvBytes, type Steps, type Traced, traceDecodes, tracePrefill, type Workload, workspaceBytes } from "./trace.ts";

/** A workload's recorded ops, and the memory it needs: everything that a projection is made of. Independent of hardware. */
export interface Trace {
  readonly workload: Workload;
  readonly prefill: readonly Steps[];
  readonly decodes: readonly Steps[];
  readonly bytes: { readonly weights: number; readonly kv: number; readonly workspace: number };
}

/** What a device would do with a workload at best. Figures are null where the workload does not fit into its memory. */
export interface Projection {
  readonly hw: string;
  readonly fits: boolean;
  /** Weights, the KV cache at full length and the largest op's activations. */
  readonly neededBytes: number;
  readonly capacityBytes: number;
  /** Milliseconds for one decode step: each sequence's next token. */
  readonly tpotMs: number | null;
  /** Decoded tokens per second, all sequences together. */
  readonly tokensPerSecond: number | null;
  /** Milliseconds until all prompts of the batch are read. */
  readonly ttftMs: number | null;
  /** What binds most of a decode step's time. */
  readonly bound: Bound | null;
  /** Achieved shares of the peak bandwidth and of the linears' peak arithmetic in decode. */
  readonly mbu: number | null;
  readonly mfu: number | null;
  /** Decode energy, joules for each token. */
  readonly joulesPerToken: number | null;
  readonly energy: Energy | null;
}

export interface ProjectOptions extends RoofOptions {
  readonly energy?: EnergyTable;
}

/** A workload's steps, traced on cost-only kernels, and the memory that it needs: what `project` holds against a device. */
export function traceWorkload(on: Traced, workload: Workload): Trace {
  const prefill = tracePrefill(on, workload);
  const decodes = traceDecodes(on, workload);
  const workspace = Math.max(...[...prefill, ...decodes].map(({ records }) => workspaceBytes(records)));
  const kv = workload.batch * kvBytes(on, workload.promptTokens + workload.tokens);
  return { workload, prefill, decodes, bytes: { weights: on.weightBytes, kv, workspace } };
}

/**
 * What a device would do with a traced workload at best: each op at its roof (Williams et al. 2009, "Roofline"), one after another. Energy by the
 * table of the options, HOROWITZ_2014 by default.
 */
export function project({ workload, prefill, decodes, bytes }: Trace, hardware: Hardware, options: ProjectOptions = {}): Projection {
  const neededBytes = bytes.weights + bytes.kv + bytes.workspace;
  const capacityBytes = hardware.capacityGB * 1e9;
  const head = { hw: hardware.name, fits: neededBytes <= capacityBytes, neededBytes, capacityBytes };
  if (!head.fits) {
    return { ...head, tpotMs: null, tokensPerSecond: null, ttftMs: null, bound: null, mbu: null, mfu: null, joulesPerToken: null, energy: null };
  }
  const { batch, tokens } = workload;
  const steps = timeOf(decodes, hardware, options);
  const linear = decodes[0].records.find(({ kind }) => kind === "gemv" || kind === "gemm");
  const peak = peakOf(hardware, linear ? arithmeticOf(linear, options.arithmetic) : "fp32");
  const energy: Energy = { arithmetic: 0, cache: 0, dram: 0, total: 0 };
  for (const { records, count } of decodes) {
    const step = energyOf(records, hardware, options.energy ?? HOROWITZ_2014, options.arithmetic);
    for (const part of ["arithmetic", "cache", "dram", "total"] as const) energy[part] += (step[part] * count) / (tokens * batch);
  }
  return {
    ...head,
    tpotMs: (steps.seconds / tokens) * 1e3,
    tokensPerSecond: (batch * tokens) / steps.seconds,
    ttftMs: timeOf(prefill, hardware, options).seconds * 1e3,
    bound: steps.bound,
    mbu: steps.bytes / steps.seconds / (hardware.bandwidthGBs * 1e9),
    mfu: steps.flops / steps.seconds / peak,
    joulesPerToken: energy.total,
    energy,
  };
}

/** Time of all steps, each as often as it counts. */
export function timeOf(steps: readonly Steps[], hardware: Hardware, options: RoofOptions = {}): StepTime {
  return sumTimes(steps.map(({ records, count }) => ({ time: stepTime(records, hardware, options), count })));
}
