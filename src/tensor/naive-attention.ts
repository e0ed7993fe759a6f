import type { Arena } from "./arena.ts";
import type { AttentionShape, Kernels, Segment } from "./kernels.ts";
import type { Ledger } from "./ledger.ts";
import { attentionCost, rowsBytes, writeCost } from "./op-costs.ts";
import { keyColumns, visiblePairs } from "./segments.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Attention as the textbook has it (Vaswani et al. 2017, section 3.2.1): scores, their softmax, the mix of values, each an op that stores what it
 * made. The [heads, queries, keys] scores are written and read again, which is what tiled attention does without. out and q as for `Ops.attention`.
 */
export function naiveAttention(
  { kernels, ledger, arena }: { readonly kernels: Kernels; readonly ledger: Ledger; readonly arena: Arena },
  out: Tensor,
  q: Tensor,
  segments: readonly Segment[],
  layer: number,
  shape: AttentionShape,
  sinkQ?: Tensor,
): void {
  const start = () => (ledger.on ? ledger.start() : 0);
  for (const segment of segments) {
    const keys = keyColumns(segment);
    const mark = arena.mark();
    const scores = arena.take("attention_scores", [shape.nHeads, segment.length, keys]);
    const values = shape.nHeads * segment.length * keys;
    const rowBytes = (q.bytes / q.rows) * segment.length;
    const product = visiblePairs([segment]) * shape.nHeads * 2 * shape.headDim;
    const cost = ledger.on ? { ...attentionCost(q, [segment], shape), m: segment.length } : undefined;

    let started = start();
    kernels.attentionScores(scores, q, segment, layer, shape, sinkQ);
    if (cost) {
      const readKv = keys * rowsBytes(segment.pages[0].k);
      writeCost(ledger, "attention_scores", { ...cost, flops: product, readKv, readActivations: rowBytes * (sinkQ ? 2 : 1) }, scores, started);
    }
    started = start();
    kernels.softmax(scores, shape.sinkLogits);
    if (cost) writeCost(ledger, "softmax", { ...cost, flops: 5 * values, readActivations: scores.bytes, readWeights: shape.sinkLogits?.bytes ?? 0 }, scores, started);

    started = start();
    kernels.attentionMix(out, scores, segment, layer, shape);
    if (cost) {
      const readKv = keys * rowsBytes(segment.pages[0].v);
      writeCost(ledger, "attention_mix", { ...cost, flops: product, readKv, readActivations: scores.bytes, writtenActivations: rowBytes }, out, started);
    }
    arena.release(mark);
  }
}
