import { describe, expect, it } from "vitest";
import type { AttentionShape, Segment } from "../../src/tensor/kernels.ts";
import { Ledger, type OpRecord } from "../../src/tensor/ledger.ts";
import { Ops } from "../../src/tensor/ops.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { ghost } from "../../src/tensor/tensor.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";

/** What every op writes down, worked out by hand: [op, what to run, flops, weights read, KV read, activations read, KV written, activations written]. */
type Case = readonly [name: string, run: (ops: Ops) => unknown, flops: number, weights: number, kv: number, read: number, kvWritten: number, written: number];

const t = (...shape: number[]) => ghost("f32", shape, 0);
const page = { id: 0, k: ghost("int8", [1, 2, 16, 8], 8), v: ghost("int8", [1, 2, 16, 8], 8) };
const segments: readonly Segment[] = [{ pages: [page], row: 0, start: 5, length: 3 }];
const shape: AttentionShape = { nHeads: 4, nKvHeads: 2, headDim: 8, scale: 1 };
/** One head's row of int8 and its scale. */
const ROW = 8 + 4;
/** Keys that three queries from position 5 on see. */
const PAIRS = 6 + 7 + 8;

const CASES: readonly Case[] = [
  ["linear of one row", (ops) => ops.linear("op", t(1, 32), { weight: ghost("int8", [16, 32], 32), bias: t(16) }), 2 * 16 * 32, 16 * 32 + 16 * 4 + 16 * 4, 0, 128, 0, 64],
  ["linear of three rows", (ops) => ops.linear("op", t(3, 32), { weight: ghost("int4", [16, 32], 32) }), 6 * 16 * 32, 16 * 16 + 16 * 4, 0, 384, 0, 192],
  ["headLinears", (ops) => ops.headLinears("op", t(6, 8), [{ weight: t(4, 8) }, { weight: t(4, 8) }]), 6 * 2 * 4 * 8, 2 * 128, 0, 192, 0, 96],
  ["splitHeads", (ops) => ops.splitHeads("op", t(3, 16), 2, 4, 2), 0, 0, 0, 48, 0, 48],
  ["joinHeads", (ops) => ops.joinHeads("op", [t(6, 2), t(6, 3)], 2), 0, 0, 0, 120, 0, 120],
  ["embed, a doubled id once", (ops) => ops.embed("op", t(10, 8), Int32Array.of(3, 3, 4)), 0, 2 * 32, 0, 12, 0, 96],
  ["gather", (ops) => ops.gather("op", t(5, 8), Int32Array.of(1, 2)), 0, 0, 0, 64 + 8, 0, 64],
  ["copy", (ops) => ops.copy("op", t(2, 8)), 0, 0, 0, 64 + 8, 0, 64],
  ["rmsNorm", (ops) => ops.rmsNorm("op", t(3, 8), t(8), 1e-5), 4 * 24, 32, 0, 96, 0, 96],
  ["layerNorm", (ops) => ops.layerNorm("op", t(3, 8), t(8), t(8), 1e-5), 7 * 24, 64, 0, 96, 0, 96],
  ["ropeAngles", (ops) => ops.ropeAngles(Int32Array.of(1, 2, 3), Float64Array.of(1, 2), 1), 3 * 3 * 2, 0, 0, 12 + 16, 0, 48],
  ["rope", (ops) => ops.rope("op", t(3, 16), t(3, 8), 8, "halves"), 6 * 3 * 2 * 4, 0, 0, 192 + 96, 0, 192],
  ["rope of half of every head", (ops) => ops.rope("op", t(3, 16), t(3, 4), 8, "halves"), 6 * 3 * 2 * 2, 0, 0, 96 + 48, 0, 96],
  ["kvWrite", (ops) => ops.kvWrite(t(3, 16), t(3, 16), segments, 0, shape), 0, 0, 0, 384, 3 * 2 * 2 * ROW, 0],
  ["attention", (ops) => ops.attention(t(3, 32), segments, 0, shape), PAIRS * 4 * (4 * 8 + 5), 0, 8 * 2 * 2 * ROW, 384, 0, 384],
  ["attention with its sinks' queries and logits", (ops) => ops.attention(t(3, 32), segments, 0, { ...shape, sinkLogits: t(4) }, t(3, 32)), PAIRS * 4 * (4 * 8 + 5), 16, 8 * 2 * 2 * ROW, 768, 0, 384],
  ["gated", (ops) => ops.gated("op", t(3, 8), t(3, 8), "silu"), 5 * 24, 0, 0, 192, 0, 96],
  ["activate", (ops) => ops.activate("op", t(3, 8), "gelu"), 4 * 24, 0, 0, 96, 0, 96],
  ["adjust, scaled", (ops) => ops.adjust("op", t(3, 8), "scale", 2), 24, 0, 0, 96, 0, 96],
  ["adjust, capped", (ops) => ops.adjust("op", t(3, 8), "cap", 2), 3 * 24, 0, 0, 96, 0, 96],
  ["add", (ops) => ops.add("op", t(3, 8), t(3, 8)), 24, 0, 0, 192, 0, 96],
  ["zeros", (ops) => ops.zeros("op", [3, 8]), 0, 0, 0, 0, 0, 96],
  ["scatterAdd", (ops) => ops.scatterAdd("op", t(3, 8), t(2, 8), t(3, 2), Int32Array.of(0, 4)), 2 * 16, 0, 0, 2 * 64 + 2 * (4 + 4), 0, 64],
  ["sample", (ops) => ops.sample(t(1, 40), () => 0), 40, 0, 0, 160, 0, 4],
];

const fields = ({ flops, read, written }: OpRecord) => [flops, read.weights, read.kv, read.activations, written.kv, written.activations];

describe("what an op costs", () => {
  it.each(CASES)("%s", (_, run, ...wanted) => {
    const ledger = new Ledger(true, { timing: false, records: true });
    run(new Ops(shapeKernels(), ledger));
    expect(ledger.records.map(fields)).toEqual([wanted]);
  });

  it("naive attention: each step reads what the one before it wrote", () => {
    const ledger = new Ledger(true, { timing: false, records: true });
    new Ops(shapeKernels(), ledger, { attention: "naive" }).attention(t(3, 32), segments, 0, shape);
    const scores = 4 * 3 * 8;
    expect(ledger.records.map(fields)).toEqual([
      [PAIRS * 4 * 2 * 8, 0, 8 * 2 * ROW, 384, 0, 4 * scores],
      [5 * scores, 0, 0, 4 * scores, 0, 4 * scores],
      [PAIRS * 4 * 2 * 8, 0, 8 * 2 * ROW, 4 * scores, 0, 384],
    ]);
  });

  it("a linear that adds to the residual stream reads that, too", () => {
    const kernels = wasmKernels();
    const ledger = new Ledger(true, { timing: false, records: true });
    const [sum, x, weight] = [[2, 8], [2, 32], [8, 32]].map((dims) => kernels.alloc("f32", dims));
    const packer = kernels.packer({ name: "w", dtype: "f32", shape: [8, 32], group: 32 });
    packer.write(weight);
    const packed = packer.finish();
    new Ops(kernels, ledger).addLinear("op", "residual", sum, x, { weight: packed });
    expect(ledger.records.map(fields)).toEqual([[2 * 2 * 8 * 32 + 16, packed.bytes, 0, x.bytes + sum.bytes, 0, sum.bytes]]);
    kernels.close();
  });
});
