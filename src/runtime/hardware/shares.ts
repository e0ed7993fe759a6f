import type { OpRecord } from "../../tensor/ledger.ts";
import { bytesMoved } from "./roof.ts";

export const SHARE_KINDS = ["gemv", "gemm", "attention", "norm", "activation", "other"] as const;
export type ShareKind = (typeof SHARE_KINDS)[number];

/** Shares of a whole workload, 0 to 1. */
export interface Share {
  readonly kind: ShareKind;
  readonly calls: number;
  readonly flops: number;
  readonly bytes: number;
  /** 0 for every kind where no time is known. */
  readonly time: number;
}

/**
 * `attention`: all of attention is a kind of its own. `products`: its two products (separate ops in naive attention) count as what they
 * are, matrix times vector for one query and matrix times matrix for several, which is how workload analyses of GPUs count kernels.
 */
export type AttentionCount = "attention" | "products";

export function shareKind({ kind, name, m }: Pick<OpRecord, "kind" | "name" | "m">, counting: AttentionCount): ShareKind {
  if (counting === "products" && (name === "attention_scores" || name === "attention_mix")) return m === 1 ? "gemv" : "gemm";
  return SHARE_KINDS.find((known) => known === kind) ?? "other";
}

/** Sums of ops by kind. */
export interface ShareCounter {
  /** Counts an op `count` times. */
  add(record: OpRecord, seconds: number, count?: number): void;
  shares(): Share[];
  /** What all ops took, seconds. */
  seconds(): number;
}

/** A counter without any ops yet. */
export function shareCounter(counting: AttentionCount): ShareCounter {
  const sums = new Map(SHARE_KINDS.map((kind) => [kind, { calls: 0, flops: 0, bytes: 0, time: 0 }]));
  const total = (what: "calls" | "flops" | "bytes" | "time") => [...sums.values()].reduce((sum, one) => sum + one[what], 0);
  const ratio = (part: number, whole: number) => (whole === 0 ? 0 : part / whole);
  return {
    add(record, seconds, count = 1) {
      const sum = sums.get(shareKind(record, counting))!;
      sum.calls += count;
      sum.flops += record.flops * count;
      sum.bytes += bytesMoved(record) * count;
      sum.time += seconds * count;
    },
    shares() {
      const [calls, flops, bytes, time] = [total("calls"), total("flops"), total("bytes"), total("time")];
      return SHARE_KINDS.map((kind) => {
        const sum = sums.get(kind)!;
        return { kind, calls: ratio(sum.calls, calls), flops: ratio(sum.flops, flops), bytes: ratio(sum.bytes, bytes), time: ratio(sum.time, time) };
      });
    },
    seconds: () => total("time"),
  };
}

/**
 * Samsung's analysis of GPT workloads (Hot Chips 35, 2023, on processing in memory): GEMV is 86.53 % of the operations and 82.27 % of the
 * latency, GEMM 2.12 % of the latency, the rest non-linear functions and data movement. Model, lengths and machine are not given.
 */
export const PUBLISHED_SHARES = {
  ...{ gemvFlops: 0.8653, gemvTime: 0.8227, gemmTime: 0.0212 },
  /** The slides themselves could not be read: the figures are as they are usually quoted. */
  verified: false,
  source: "Samsung, Hot Chips 35 (2023), as quoted; a report of the talk says 60 to 80 % of generation latency (aivon.com, Inside Samsung's memory processing)",
} as const;

export interface ShareSummary {
  readonly gemvFlops: number;
  readonly gemvTime: number;
  readonly gemmTime: number;
}

export function summary(shares: readonly Share[]): ShareSummary {
  const of = (kind: ShareKind) => shares.find((share) => share.kind === kind)!;
  return { gemvFlops: of("gemv").flops, gemvTime: of("gemv").time, gemmTime: of("gemm").time };
}

/** Largest difference from the published shares, 0 to 1. */
export function distance({ gemvFlops, gemvTime, gemmTime }: ShareSummary): number {
  const { gemvFlops: flops, gemvTime: gemv, gemmTime: gemm } = PUBLISHED_SHARES;
  return Math.max(Math.abs(gemvFlops - flops), Math.abs(gemvTime - gemv), Math.abs(gemmTime - gemm));
}
