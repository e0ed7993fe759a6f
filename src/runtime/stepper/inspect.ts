import { count, formatBytes, percent } from "../report.ts";
import type { Candidate } from "./lens.ts";
import { place as onRoofline } from "./machine.ts";
import type { Session } from "./session.ts";
import type { OpView, Stepper } from "./stepper.ts";
import { intensityAxis, shapeOf, short } from "./views.ts";

/** `2.ffn_down`, or `output` outside the layers. */
export const labelOf = ({ record: { layer, name } }: OpView): string => (layer < 0 ? name : `${layer}.${name}`);

/** A token's name, quoted. */
export const quoted = (stepper: Stepper, id: number): string => JSON.stringify(stepper.tokenizer.piece(id));

export const candidateList = (stepper: Stepper, candidates: readonly Candidate[]): string =>
  candidates.map(({ id, probability }) => `${quoted(stepper, id)} ${percent(probability)}`).join("  ");

/** Where the cursor stands. */
export function place({ stepper }: Session): string[] {
  const { pass, op, passIndex } = stepper;
  const said = pass.tokens.length === 1 ? `token ${quoted(stepper, pass.tokens[0])}` : `${pass.tokens.length} tokens`;
  const lines = op.index === 0 ? [`step ${passIndex}, ${pass.phase}: ${said} at position ${pass.start}`] : [];
  const patched = op.patched ? ", patched" : "";
  lines.push(`[${op.index + 1}/${pass.ops.length}] ${labelOf(op)} ${op.record.kind} ${shapeOf(op.output)}${patched}`);
  if (op.record.name === "sample") lines.push(`next: ${candidateList(stepper, stepper.top(3))}`);
  return lines;
}

/** What the op cost, and where that puts it under the roofline. */
export function costLines({ stepper, machine, isHere, columns }: Session, op = stepper.op): string[] {
  const { kind, m, n, k, dtype, flops, read, written, ns } = op.record;
  const on = machine();
  const { intensity, balance, binds, roofNs, share } = onRoofline(op.record, on);
  const product = k > 0 ? `m ${m}, n ${n}, k ${k}` : `${m} x ${n}`;
  const took = share === undefined ? "" : isHere ? `; took ${formatNs(ns)}, ${reached(share, binds)}` : `; here it took ${formatNs(ns)}`;
  return [
    `${labelOf(op)}: ${kind}, ${product}, ${dtype}`,
    `${count(flops)} flops; reads ${formatBytes(read.weights)} of weights, ${formatBytes(read.kv)} of KV, ${formatBytes(read.activations)} of activations; writes ${formatBytes(written.kv + written.activations)}`,
    `${short(intensity, 3)} flops a byte (o), ${on.name} balances at ${short(balance, 3)} (|): ${binds} binds`,
    intensityAxis(intensity, balance, columns),
    `at the roof ${formatNs(roofNs)}${took}`,
  ];
}

function reached(share: number, binds: "memory" | "arithmetic"): string {
  if (share <= 1.005) return `${percent(share)} of the roof`;
  return `${share.toFixed(1)} times faster than ${binds === "memory" ? "memory allows: its data was in a cache" : "was measured: something slowed that down"}`;
}

function formatNs(ns: number): string {
  return ns >= 1e6 ? `${(ns / 1e6).toPrecision(3)} ms` : ns >= 1e3 ? `${(ns / 1e3).toPrecision(3)} us` : `${ns.toPrecision(3)} ns`;
}
