import type { Linear } from "./fusion.ts";
import type { AttentionShape, KvPage, Segment } from "./kernels.ts";
import type { Ledger, OpCost } from "./ledger.ts";
import { keyColumns } from "./segments.ts";
import type { Tensor } from "./tensor.ts";

/** The cost of an op that did nothing: what others begin with. */
export const NOTHING: OpCost = {
  ...{ kind: "elementwise", m: 0, n: 0, k: 0, dtype: "f32", flops: 0 },
  ...{ readWeights: 0, readKv: 0, readActivations: 0, writtenKv: 0, writtenActivations: 0 },
};

/** Of linears over the same x: weights and biases read, x read once. */
export function linearCost(x: Tensor, parts: readonly Linear[]): OpCost {
  const [m, k] = [x.rows, x.cols];
  let [n, readWeights] = [0, 0];
  for (const { weight, bias } of parts) {
    n += weight.rows;
    readWeights += weight.bytes + (bias ? bias.bytes : 0);
  }
  return { ...NOTHING, kind: m === 1 ? "gemv" : "gemm", m, n, k, dtype: parts[0].weight.format, flops: 2 * m * n * k, readWeights, readActivations: x.bytes };
}

/** Bytes of a page's keys or values that belong to one position of one layer, scales included. */
export function rowsBytes({ bytes, shape }: Tensor): number {
  return bytes / (shape[0] * shape[2]);
}

export function positionBytes({ k, v }: KvPage): number {
  return rowsBytes(k) + (v === k ? 0 : rowsBytes(v));
}

/** "int8", or "int8/int4" where keys and values differ. */
export function kvFormat([{ pages }]: readonly Segment[]): string {
  const { k, v } = pages[0];
  return k.format === v.format ? k.format : `${k.format}/${v.format}`;
}

export function attentionCost(q: Tensor, segments: readonly Segment[], { headDim }: AttentionShape): OpCost {
  const longest = segments.reduce((max, segment) => Math.max(max, keyColumns(segment)), 0);
  return { ...NOTHING, kind: "attention", m: q.rows, n: longest, k: headDim, dtype: kvFormat(segments) };
}

/** Writes an op down. It wrote its whole output, unless its cost says otherwise. */
export function writeCost(ledger: Ledger, name: string, cost: OpCost, out: Tensor, started: number): void {
  if (cost.writtenActivations === 0 && cost.writtenKv === 0) cost.writtenActivations = out.bytes;
  ledger.write(name, cost, out, started);
}

/** Of every head the first `angles.cols` values turn, two by two; the others are not touched. */
export function ropeCost(x: Tensor, angles: Tensor, headDim: number): OpCost {
  const turning = (x.rows * x.cols * angles.cols) / headDim;
  const touched = (x.bytes * angles.cols) / headDim;
  return { ...NOTHING, kind: "rope", m: x.rows, n: x.cols, flops: 3 * turning, readActivations: touched + angles.bytes, writtenActivations: touched };
}
