import type { Phase } from "../../tensor/ledger.ts";
import type { Bound } from "../hardware/roof.ts";
import type { Share, ShareKind, ShareSummary } from "../hardware/shares.ts";

/** Everything that a report shows; `--json` prints it, and every number in it stands in a table of the page. */
export interface ReportData {
  readonly model: {
    readonly name: string;
    readonly architecture: string;
    readonly layers: number;
    readonly context: number;
    readonly parameters: number;
    readonly weightBytes: number;
    /** Number format of the matrices. */
    readonly weights: string;
  };
  readonly run: RunFacts;
  readonly roofline: Roofline;
  readonly breakdown: { readonly shares: readonly Share[]; readonly here: ShareSummary; readonly published: ShareSummary };
  readonly timeline: Timeline;
  /** For one token of each phase. */
  readonly bytesPerToken: readonly BytesPerToken[];
  readonly curves: Curves;
  readonly pages: Pages;
  readonly hardware: readonly HardwareRow[];
  readonly energySource: string;
  /** Null where nothing was computed. */
  readonly token: TokenView | null;
}

export interface RunFacts {
  /** `measured`: real kernels, real times. `predicted`: nothing was computed, times are those of a device's roof. */
  readonly mode: "measured" | "predicted";
  /** What the times are of. */
  readonly machine: string;
  readonly promptTokens: number;
  readonly tokens: number;
  /** What the model wrote, prompt included; null where nothing was computed. */
  readonly text: string | null;
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
}

export interface Roofline {
  readonly bandwidthGBs: number;
  /** 10^9 operations per second by number format. */
  readonly peaks: readonly { readonly format: string; readonly gflops: number }[];
  readonly points: readonly RooflinePoint[];
}

/** All calls of one op in one phase. */
export interface RooflinePoint {
  readonly phase: Phase;
  readonly name: string;
  readonly kind: ShareKind;
  readonly calls: number;
  readonly flops: number;
  readonly bytes: number;
  readonly ms: number;
  /** Flops per byte. */
  readonly intensity: number;
  /** 10^9 flops per second. */
  readonly gflops: number;
}

/** One decode step. */
export interface Timeline {
  /** Positions that the sequence has once the step is done. */
  readonly context: number;
  readonly us: number;
  readonly ops: readonly TimelineOp[];
}

export interface TimelineOp {
  readonly layer: number;
  readonly name: string;
  readonly kind: ShareKind;
  readonly startUs: number;
  readonly us: number;
}

export interface BytesPerToken {
  readonly phase: Phase;
  readonly weights: number;
  readonly kv: number;
  readonly activations: number;
}

export interface Curves {
  readonly devices: readonly string[];
  readonly batch: readonly CurveRow[];
  readonly context: readonly CurveRow[];
  readonly bits: readonly CurveRow[];
}

/** A point of each device's curve; null where the workload does not fit into its memory. */
export interface CurveRow {
  readonly value: string;
  readonly tpotMs: readonly (number | null)[];
  readonly tokensPerSecond: readonly (number | null)[];
}

export interface Pages {
  readonly pageTokens: number;
  readonly pageBytes: number;
  /** After each step: positions stored and pages in use. */
  readonly steps: readonly { readonly positions: number; readonly pages: number }[];
}

export interface HardwareRow {
  readonly hw: string;
  readonly fits: boolean;
  readonly neededBytes: number;
  readonly bandwidthGBs: number;
  readonly tpotMs: number | null;
  readonly tokensPerSecond: number | null;
  readonly ttftMs: number | null;
  readonly bound: Bound | null;
  readonly mbu: number | null;
  readonly mfu: number | null;
  /** Joules per token. */
  readonly energy: { readonly arithmetic: number; readonly cache: number; readonly dram: number; readonly total: number } | null;
  /** Fields of the device whose figures were found in no source. */
  readonly unverified: readonly string[];
}

/** What the model did at one token. */
export interface TokenView {
  readonly position: number;
  readonly piece: string;
  /** The positions that were looked at: all, or the first few and the last ones. */
  readonly keys: readonly { readonly position: number; readonly piece: string }[];
  /** Attention weights over these keys. */
  readonly attention: readonly { readonly layer: number; readonly head: number; readonly weights: readonly number[] }[];
  /** What the model would say next if it ended after a layer (-1: the embedding). */
  readonly lens: readonly { readonly layer: number; readonly entropy: number; readonly top: readonly { readonly piece: string; readonly probability: number }[] }[];
}
