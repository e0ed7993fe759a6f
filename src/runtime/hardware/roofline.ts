import type { OpKind, OpRecord, Phase } from "../../tensor/ledger.ts";
import { type Spread, spread } from "../../tensor/wasm/measure.ts";
import { type Machine, PEAK_FORMATS, type PeakFormat } from "./measure-machine.ts";
import { arithmeticOf, bytesMoved, type OpWork } from "./roof.ts";

/** The part of a measured machine that all its threads together have. */
export interface Roof {
  /** Reads from memory, 10^9 bytes per second. */
  readonly memoryGBs: number;
  /** Sizes that stay in a cache, smallest first. */
  readonly caches: readonly { readonly bytes: number; readonly gbPerSecond: number }[];
  /** 10^9 operations per second. */
  readonly gops: Readonly<Record<PeakFormat, number>>;
  readonly overheadNs: number;
}

export type RooflineBound = "memory" | "arithmetic" | "overhead";

/** Rules of the placement, for people. */
export const RULES: readonly string[] = [
  "roof: min(peak, flops/byte x bandwidth), peak of the op's number format; an op takes at least max(bytes / bandwidth, flops / peak)",
  "fastest against fastest: the roof is the better of two measurements, before and after the steps, which are those of the fastest repetition, for other programs only slow",
  "bandwidth: weights and KV come from the cache if all that the step reads of them fits there, activations if the op's own do; else from memory",
  "above: an op cannot be faster than its roof, so that one which is shows a roof that was measured too low, or data from a cache nearer than the roof assumes",
  "overhead: the call took more than twice its roof, and its roof is less than what an op without work takes",
];

/** All calls of one op in one phase, against the machine's roof. */
export interface PlacedOp {
  readonly phase: Phase;
  readonly name: string;
  readonly kind: OpKind;
  /** Of the weights, or of the KV pages. */
  readonly dtype: string;
  readonly calls: number;
  readonly flops: number;
  readonly bytes: number;
  /** What all calls took, milliseconds. */
  readonly ms: number;
  /** What they would take at the roof. */
  readonly roofMs: number;
  /** Flops per byte. */
  readonly intensity: number;
  /** Reached: 10^9 bytes and 10^9 flops per second. */
  readonly gbPerSecond: number;
  readonly gflops: number;
  /** The bandwidth and the peak over this op, and what they allow at its intensity. */
  readonly roofGBs: number;
  readonly peakGflops: number;
  readonly roofGflops: number;
  /** Share of its own roof that it reached: roofMs / ms. */
  readonly share: number;
  /** It was faster than its own roof: the roof is too low. */
  readonly aboveRoof: boolean;
  readonly bound: RooflineBound;
}

/** Ops that were faster than their own roofs. */
export interface AboveRoof {
  readonly ops: readonly string[];
  /** Their share of the ops' time. */
  readonly timeShare: number;
  /** The largest share of its roof that one reached, above 1; 0 where none did. */
  readonly most: number;
}

/** The timed steps of one phase against the machine's roof. `flops` and `bytes` are sums of all steps, milliseconds those of one, on average. */
export interface PlacedPhase {
  readonly phase: Phase;
  readonly steps: number;
  readonly flops: number;
  readonly bytes: number;
  /** What a step took, from the begin of its first op to the end of its last, milliseconds. */
  readonly stepMs: number;
  /** The part of it inside ops; the rest is between them. */
  readonly opsMs: number;
  /** What it would take at the roof, and with `overheadNs` for each op on top. */
  readonly roofMs: number;
  readonly withOverheadMs: number;
  /** The projections' errors: projected over measured, less one. */
  readonly error: number;
  readonly errorWithOverhead: number;
  /** Bytes per second over the memory's, and linears' and attention's flops per second over the peak of the linears' format. */
  readonly mbu: number;
  readonly mfu: number;
  readonly above: AboveRoof;
  /** Shares of the ops' time by what binds them. */
  readonly boundShares: Readonly<Record<RooflineBound, number>>;
  /** The op that takes most of the time first. */
  readonly ops: readonly PlacedOp[];
}

/** The machine with all its threads: the fastest that was measured, for whatever else runs on it only slows. */
export function roofOf({ threads, read, peaks, cacheBytes, overheadNs }: Machine): Roof {
  const own = read.filter((one) => one.threads === threads).sort((a, b) => a.bytes - b.bytes);
  const caches = own.filter(({ bytes }) => bytes <= cacheBytes).map(({ bytes, gbPerSecond }) => ({ bytes, gbPerSecond: gbPerSecond.highest }));
  const peak = (format: PeakFormat) => peaks.find((one) => one.threads === threads && one.format === format)!.gops.highest;
  return { memoryGBs: own[own.length - 1].gbPerSecond.highest, caches, gops: { int8: peak("int8"), int4: peak("int4"), f32: peak("f32") }, overheadNs };
}

/** Bandwidth for data that is used again after `bytes` bytes of others: the fastest measured cache size that holds them, else the memory's. 10^9 bytes per second. */
export function bandwidthFor({ memoryGBs, caches }: Roof, bytes: number): number {
  return caches.reduce((best, cache) => (cache.bytes >= bytes ? Math.max(best, cache.gbPerSecond) : best), memoryGBs);
}

/** Which measured peak an op is held against: its weights' format for linears, f32 for all else. */
export function peakFormat(op: Pick<OpWork, "kind" | "name" | "dtype">): PeakFormat {
  if (arithmeticOf(op) !== "int8") return "f32";
  return PEAK_FORMATS.find((format) => op.dtype.startsWith(format)) ?? "int8";
}

/** Times of one record at the roof, nanoseconds. `stepBytes`: all weights and KV that its step reads. */
export function roofTimes(op: OpWork, roof: Roof, stepBytes: number): { memory: number; arithmetic: number } {
  const activations = op.read.activations + op.written.activations;
  const rest = bytesMoved(op) - activations;
  const memory = rest / bandwidthFor(roof, stepBytes) + activations / bandwidthFor(roof, activations);
  return { memory, arithmetic: op.flops / roof.gops[peakFormat(op)] };
}

/** A phase of one repetition, and the span over all of them, milliseconds a step. */
export interface ChosenPhase extends PlacedPhase {
  readonly spread: Spread;
}

/** Every phase of the repetition whose steps were fastest. */
export function fastestPhases(rounds: readonly (readonly PlacedPhase[])[]): Partial<Record<Phase, ChosenPhase>> {
  const chosen: Partial<Record<Phase, ChosenPhase>> = {};
  for (const { phase } of rounds[0]) {
    const own = rounds.map((round) => round.find((one) => one.phase === phase)!);
    const fastest = own.reduce((best, one) => (one.stepMs < best.stepMs ? one : best));
    chosen[phase] = { ...fastest, spread: spread(own.map(({ stepMs }) => stepMs)) };
  }
  return chosen;
}

interface Sum {
  readonly first: OpRecord;
  calls: number;
  flops: number;
  bytes: number;
  ns: number;
  memory: number;
  arithmetic: number;
  roofNs: number;
}

/** Places every op of some timed steps, phase by phase. @param records As the ledger kept them, step after step. */
export function placeSteps(records: readonly OpRecord[], roof: Roof): PlacedPhase[] {
  const steps = new Map<number, OpRecord[]>();
  for (const record of records) {
    const own = steps.get(record.step);
    if (own) own.push(record);
    else steps.set(record.step, [record]);
  }
  return (["prefill", "decode", "mixed"] as const).flatMap((phase) => {
    const own = [...steps.values()].filter(([first]) => first.phase === phase);
    return own.length > 0 ? [placePhase(phase, own, roof)] : [];
  });
}

function placePhase(phase: Phase, steps: readonly (readonly OpRecord[])[], roof: Roof): PlacedPhase {
  const sums = new Map<string, Sum>();
  let tookNs = 0;
  for (const step of steps) {
    const last = step[step.length - 1];
    tookNs += (last.startMs - step[0].startMs) * 1e6 + last.ns;
    const stepBytes = step.reduce((sum, { read }) => sum + read.weights + read.kv, 0);
    for (const op of step) {
      const key = `${op.kind} ${op.name}`;
      const sum = sums.get(key) ?? { first: op, calls: 0, flops: 0, bytes: 0, ns: 0, memory: 0, arithmetic: 0, roofNs: 0 };
      const { memory, arithmetic } = roofTimes(op, roof, stepBytes);
      sum.calls++;
      sum.flops += op.flops;
      sum.bytes += bytesMoved(op);
      sum.ns += op.ns;
      sum.memory += memory;
      sum.arithmetic += arithmetic;
      sum.roofNs += Math.max(memory, arithmetic);
      sums.set(key, sum);
    }
  }
  const ops = [...sums.values()].map((sum) => placed(phase, sum, roof)).sort((a, b) => b.ms - a.ms);
  const total = (of: (op: PlacedOp) => number) => ops.reduce((sum, op) => sum + of(op), 0);
  const [flops, bytes, roofNs] = [total((op) => op.flops), total((op) => op.bytes), total((op) => op.roofMs) * 1e6];
  const overhead = total((op) => op.calls) * roof.overheadNs;
  const products = ops.filter(({ kind }) => kind === "gemv" || kind === "gemm" || kind === "attention");
  const linear = products.find(({ kind }) => kind !== "attention");
  const shareOf = (bound: RooflineBound) => ratio(total((op) => (op.bound === bound ? op.ms : 0)), total((op) => op.ms));
  return {
    ...{ phase, steps: steps.length, flops, bytes },
    ...{ stepMs: tookNs / steps.length / 1e6, opsMs: total((op) => op.ms) / steps.length, roofMs: roofNs / steps.length / 1e6, withOverheadMs: (roofNs + overhead) / steps.length / 1e6 },
    ...{ error: ratio(roofNs, tookNs) - 1, errorWithOverhead: ratio(roofNs + overhead, tookNs) - 1 },
    mbu: ratio(bytes, tookNs) / roof.memoryGBs,
    mfu: ratio(products.reduce((sum, op) => sum + op.flops, 0), tookNs) / roof.gops[linear ? peakFormat(linear) : "f32"],
    above: aboveRoof(ops),
    boundShares: { memory: shareOf("memory"), arithmetic: shareOf("arithmetic"), overhead: shareOf("overhead") },
    ops,
  };
}

function placed(phase: Phase, { first, calls, flops, bytes, ns, memory, arithmetic, roofNs }: Sum, roof: Roof): PlacedOp {
  const { name, kind, dtype } = first;
  const intensity = ratio(flops, bytes);
  const roofGBs = memory === 0 ? roof.memoryGBs : bytes / memory;
  const peakGflops = roof.gops[peakFormat(first)];
  const small = ns > 2 * roofNs && roofNs < calls * roof.overheadNs;
  return {
    ...{ phase, name, kind, dtype, calls, flops, bytes, ms: ns / 1e6, roofMs: roofNs / 1e6, intensity },
    ...{ gbPerSecond: ratio(bytes, ns), gflops: ratio(flops, ns) },
    ...{ roofGBs, peakGflops, roofGflops: Math.min(peakGflops, intensity * roofGBs) },
    share: ratio(roofNs, ns),
    aboveRoof: roofNs > ns,
    bound: small ? "overhead" : arithmetic > memory ? "arithmetic" : "memory",
  };
}

function aboveRoof(ops: readonly PlacedOp[]): AboveRoof {
  const above = ops.filter((op) => op.aboveRoof);
  const ms = (of: readonly PlacedOp[]) => of.reduce((sum, op) => sum + op.ms, 0);
  return { ops: above.map(({ name }) => name), timeShare: ratio(ms(above), ms(ops)), most: above.reduce((most, { share }) => Math.max(most, share), 0) };
}

const ratio = (a: number, b: number) => (b === 0 ? 0 : a / b);
