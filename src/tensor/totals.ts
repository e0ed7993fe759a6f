import type { OpKind, Phase, Total, Traffic } from "./ledger.ts";

/** A line of a breakdown: sums and what follows from them. */
export interface BreakdownRow {
  calls: number;
  flops: number;
  bytesRead: number;
  bytesWritten: number;
  read: Traffic;
  written: Traffic;
  /** Milliseconds, 0 without timing. */
  ms: number;
  /** Shares of the whole table, 0 to 1. */
  callShare: number;
  flopShare: number;
  byteShare: number;
  timeShare: number;
  /** Arithmetic intensity: flops per byte read or written. */
  intensity: number;
  /** Bytes read or written per second, in GB/s (10^9); 0 without timing. */
  gbPerSecond: number;
  /** GFLOP/s; 0 without timing. */
  gflops: number;
}

/** The ops of one phase, all together and by kind, the kind that reads most bytes first. Shares are of this phase. */
export interface PhaseBreakdown {
  total: BreakdownRow;
  byKind: Partial<Record<OpKind, BreakdownRow>>;
}

/** Groups totals by any key, shares relative to all of them, in order of first appearance. */
export function groupTotals<K extends string | number>(totals: readonly Total[], key: (total: Total) => K): Map<K, BreakdownRow> {
  const all = sum(totals);
  const groups = new Map<K, Total[]>();
  for (const total of totals) {
    const group = groups.get(key(total));
    if (group) group.push(total);
    else groups.set(key(total), [total]);
  }
  return new Map([...groups].map(([k, group]) => [k, row(sum(group), all)]));
}

/** The breakdown by phase and, within a phase, by kind of op. */
export function breakdown(totals: readonly Total[]): Partial<Record<Phase, PhaseBreakdown>> {
  const result: Partial<Record<Phase, PhaseBreakdown>> = {};
  for (const phase of ["prefill", "decode", "mixed"] as const) {
    const own = totals.filter((total) => total.phase === phase);
    if (own.length === 0) continue;
    const all = sum(own);
    const kinds = [...groupTotals(own, (total) => total.kind)].sort(([, a], [, b]) => b.bytesRead - a.bytesRead);
    result[phase] = { total: row(all, all), byKind: Object.fromEntries(kinds) };
  }
  return result;
}

type Sum = Pick<Total, "calls" | "flops" | "read" | "written" | "ns">;

function sum(totals: readonly Sum[]): Sum {
  const result: Sum = { calls: 0, flops: 0, read: { weights: 0, kv: 0, activations: 0 }, written: { weights: 0, kv: 0, activations: 0 }, ns: 0 };
  for (const total of totals) {
    result.calls += total.calls;
    result.flops += total.flops;
    result.ns += total.ns;
    for (const side of ["read", "written"] as const) {
      for (const what of ["weights", "kv", "activations"] as const) result[side][what] += total[side][what];
    }
  }
  return result;
}

const bytes = (traffic: Traffic) => traffic.weights + traffic.kv + traffic.activations;
const ratio = (a: number, b: number) => (b === 0 ? 0 : a / b);

function row(own: Sum, all: Sum): BreakdownRow {
  const moved = bytes(own.read) + bytes(own.written);
  return {
    calls: own.calls,
    flops: own.flops,
    bytesRead: bytes(own.read),
    bytesWritten: bytes(own.written),
    read: own.read,
    written: own.written,
    ms: own.ns / 1e6,
    callShare: ratio(own.calls, all.calls),
    flopShare: ratio(own.flops, all.flops),
    byteShare: ratio(moved, bytes(all.read) + bytes(all.written)),
    timeShare: ratio(own.ns, all.ns),
    intensity: ratio(own.flops, moved),
    gbPerSecond: ratio(moved, own.ns),
    gflops: ratio(own.flops, own.ns),
  };
}
