import type { OpRecord, Phase } from "../../tensor/ledger.ts";
import { bytesMoved } from "../hardware/roof.ts";
import { PUBLISHED_SHARES, shareCounter, shareKind, summary } from "../hardware/shares.ts";
import type { BytesPerToken, ReportData, RooflinePoint, Timeline } from "./data.ts";

/** Steps of a run with their ops, each op's `ns` measured or predicted. */
export interface Executed {
  readonly phase: Phase;
  /** New tokens of one such step. */
  readonly tokens: number;
  /** How many steps these records stand for. */
  readonly count: number;
  /** Positions stored once the step is done. */
  readonly context: number;
  readonly records: readonly OpRecord[];
}

/** The parts of a report that are sums over executed ops. */
export function fromSteps(steps: readonly Executed[]): Pick<ReportData, "breakdown" | "timeline" | "bytesPerToken"> & { points: RooflinePoint[] } {
  const counter = shareCounter("attention");
  for (const { records, count } of steps) for (const record of records) counter.add(record, record.ns * 1e-9, count);
  const shares = counter.shares();
  return {
    points: rooflinePoints(steps),
    breakdown: { shares, here: summary(shares), published: PUBLISHED_SHARES },
    timeline: timelineOf(typicalDecode(steps)),
    bytesPerToken: bytesPerToken(steps),
  };
}

function rooflinePoints(steps: readonly Executed[]): RooflinePoint[] {
  const sums = new Map<string, { phase: Phase; name: string; kind: RooflinePoint["kind"]; calls: number; flops: number; bytes: number; ns: number }>();
  for (const { phase, records, count } of steps) {
    for (const record of records) {
      const key = `${phase} ${record.kind} ${record.name}`;
      const sum = sums.get(key) ?? { phase, name: record.name, kind: shareKind(record, "attention"), calls: 0, flops: 0, bytes: 0, ns: 0 };
      sum.calls += count;
      sum.flops += record.flops * count;
      sum.bytes += bytesMoved(record) * count;
      sum.ns += record.ns * count;
      sums.set(key, sum);
    }
  }
  return [...sums.values()].map(({ ns, ...sum }) => ({ ...sum, ms: ns / 1e6, intensity: sum.bytes === 0 ? 0 : sum.flops / sum.bytes, gflops: ns === 0 ? 0 : sum.flops / ns }));
}

/** The decode step of median duration. */
function typicalDecode(steps: readonly Executed[]): Executed {
  const decodes = steps.filter(({ phase }) => phase === "decode");
  const duration = ({ records }: Executed) => records.reduce((sum, { ns }) => sum + ns, 0);
  return decodes.sort((a, b) => duration(a) - duration(b))[decodes.length >> 1];
}

/** Measured ops stand where they ran; predicted ones follow each other. */
function timelineOf({ records, context }: Executed): Timeline {
  const origin = records[0].startMs;
  const clocked = origin > 0;
  let end = 0;
  const ops = records.map((record) => {
    const startUs = clocked ? (record.startMs - origin) * 1e3 : end;
    end = startUs + record.ns / 1e3;
    return { layer: record.layer, name: record.name, kind: shareKind(record, "attention"), startUs, us: record.ns / 1e3 };
  });
  return { context, us: end, ops };
}

function bytesPerToken(steps: readonly Executed[]): BytesPerToken[] {
  return (["prefill", "decode"] as const).flatMap((phase) => {
    const own = steps.filter((step) => step.phase === phase);
    const tokens = own.reduce((sum, step) => sum + step.tokens * step.count, 0);
    if (tokens === 0) return [];
    const total = { phase, weights: 0, kv: 0, activations: 0 };
    for (const { records, count } of own) {
      for (const { read, written } of records) {
        for (const what of ["weights", "kv", "activations"] as const) total[what] += ((read[what] + written[what]) * count) / tokens;
      }
    }
    return [total];
  });
}
