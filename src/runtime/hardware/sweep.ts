import { learnsPositions } from "../../model/config.ts";
import type { NamedShape } from "../../model/shapes.ts";
import type { OpRecord, Traffic } from "../../tensor/ledger.ts";
import { parseFormat, parseKvFormats } from "./formats.ts";
import { type Hardware } from "./hardware.ts";
import { project, type Projection, type ProjectOptions, traceWorkload } from "./projection.ts";
import { type OpWork, stepTime } from "./roof.ts";
import { type Formats, kvBytes, traceDecode, traced, type Traced, type Workload, workspaceBytes } from "./trace.ts";

export const SWEEPS = ["batch", "context", "bits", "kv"] as const;
export type Sweep = (typeof SWEEPS)[number];

export const SWEEP_VALUES: Readonly<Record<Sweep, readonly string[]>> = {
  batch: ["1", "2", "4", "8", "16", "32", "64", "128", "256"],
  context: ["128", "256", "512", "1024", "2048", "4096", "8192", "16384", "32768", "65536", "131072"],
  bits: ["f16", "int8", "int6", "int5", "int4", "int3", "int2"],
  kv: ["f32", "f16", "int8", "int4"],
};

export interface SweepRow {
  /** The swept value: sequences, positions, or a format. */
  readonly value: string;
  readonly projections: readonly Projection[];
}

/** The workload projected for every value of one of its dimensions. A context is what one decode step sees; contexts that the model cannot have are left out. */
export function sweep(kind: Sweep, shape: NamedShape, formats: Formats, workload: Workload, hardware: readonly Hardware[], options: ProjectOptions = {}): SweepRow[] {
  const base = traced(shape, formats);
  return SWEEP_VALUES[kind].flatMap((value) => {
    let [on, work]: [Traced, Workload] = [base, workload];
    if (kind === "batch") work = { ...workload, batch: Number(value) };
    if (kind === "context") work = { ...workload, promptTokens: Number(value) - 1, tokens: 1 };
    if (kind === "bits") on = traced(shape, { ...formats, weights: parseFormat(value)! });
    if (kind === "kv") on = traced(shape, { ...formats, kv: parseKvFormats(value)! });
    if (learnsPositions(shape.config) && work.promptTokens + work.tokens > shape.config.contextLength) return [];
    const trace = traceWorkload(on, work);
    return [{ value, projections: hardware.map((device) => project(trace, device, options)) }];
  });
}

/** How many sequences of a length a device holds, and what a decode step of all of them takes. */
export interface Capacity {
  readonly hw: string;
  readonly context: number;
  readonly kv: string;
  /** Bytes of one sequence's KV cache. */
  readonly sequenceBytes: number;
  /** Largest batch that fits beside the weights; 0 where not even one does. */
  readonly batch: number;
  readonly tpotMs: number | null;
  readonly tokensPerSecond: number | null;
}

/** The largest batch for every context and KV format. */
export function capacities(shape: NamedShape, formats: Formats, hardware: readonly Hardware[], options: ProjectOptions = {}): Capacity[] {
  return SWEEP_VALUES.kv.flatMap((kv) => {
    const on = traced(shape, { ...formats, kv: parseKvFormats(kv)! });
    return SWEEP_VALUES.context.map(Number).flatMap((context) => {
      if (learnsPositions(shape.config) && context > shape.config.contextLength) return [];
      const sequenceBytes = kvBytes(on, context);
      const step = anyBatch(on, context);
      const workspace = workspaceBytes(step(1));
      return hardware.map((device): Capacity => {
        const room = device.capacityGB * 1e9 - on.weightBytes;
        const batch = Math.max(0, Math.floor(room / (sequenceBytes + workspace)));
        const seconds = batch > 0 ? stepTime(step(batch), device, options).seconds : null;
        const speed = seconds === null ? { tpotMs: null, tokensPerSecond: null } : { tpotMs: seconds * 1e3, tokensPerSecond: batch / seconds };
        return { hw: device.name, context, kv, sequenceBytes, batch, ...speed };
      });
    });
  });
}

/**
 * A decode step of any number of sequences of one length. Each op's flops and bytes are linear in the batch once linears have several
 * rows, so steps of two and of four sequences, extended as straight lines, give every larger one without its page tables.
 */
export function anyBatch(on: Traced, context: number): (batch: number) => OpWork[] {
  const [two, four] = [2, 4].map((batch) => joinSampling(traceDecode(on, batch, context)));
  return (batch) => (batch < 2 ? traceDecode(on, batch, context) : two.map((op, i) => extended(op, four[i], (batch - 2) / 2)));
}

/** One op for all rows' sampling, so that steps of different batches have as many ops. */
function joinSampling(records: readonly OpRecord[]): OpWork[] {
  const sampling = records.filter(({ kind }) => kind === "sampling");
  const [first] = sampling;
  return [...records.filter(({ kind }) => kind !== "sampling"), extended({ ...first, flops: 0, read: NONE, written: NONE }, first, sampling.length)];
}

const NONE: Traffic = { weights: 0, kv: 0, activations: 0 };

/** a + (b - a) * times */
function extended(a: OpWork, b: OpWork, times: number): OpWork {
  const line = (from: number, to: number) => from + (to - from) * times;
  const traffic = (from: Traffic, to: Traffic): Traffic => ({
    weights: line(from.weights, to.weights),
    kv: line(from.kv, to.kv),
    activations: line(from.activations, to.activations),
  });
  return { ...a, flops: line(a.flops, b.flops), read: traffic(a.read, b.read), written: traffic(a.written, b.written) };
}
