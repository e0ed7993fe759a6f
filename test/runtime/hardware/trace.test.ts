import { describe, expect, it } from "vitest";
import { linears } from "../../../src/model/weights.ts";
import { SHAPES } from "../../../src/model/shapes.ts";
import { bytesMoved } from "../../../src/runtime/hardware/roof.ts";
import { kvBytes, type Steps, traceDecode, traceDecodes, traced, tracePrefill, traceStep } from "../../../src/runtime/hardware/trace.ts";
import type { OpRecord } from "../../../src/tensor/ledger.ts";
import { formats, small } from "./support.ts";

const sums = (records: readonly OpRecord[]) => ({
  calls: records.length,
  flops: records.reduce((sum, { flops }) => sum + flops, 0),
  bytes: records.reduce((sum, record) => sum + bytesMoved(record), 0),
});

function total(steps: readonly Steps[]) {
  const all = { calls: 0, flops: 0, bytes: 0 };
  for (const { records, count } of steps) {
    const step = sums(records);
    for (const what of ["calls", "flops", "bytes"] as const) all[what] += count * step[what];
  }
  return all;
}

describe("traces", () => {
  it("of a long decode sum to what every single step costs", () => {
    const on = traced(small(), formats());
    for (const tokens of [1, 8, 9, 50, 101]) {
      const each = Array.from({ length: tokens }, (_, i) => ({ records: traceDecode(on, 3, 41 + i), count: 1 }));
      const [found, expected] = [total(traceDecodes(on, { batch: 3, promptTokens: 40, tokens })), total(each)];
      for (const what of ["calls", "flops", "bytes"] as const) expect(found[what]).toBeCloseTo(expected[what], 3);
    }
  });

  it("read each linear weight once a step at any batch, in its format", () => {
    for (const format of ["f32", "f16", "int8", "int8:32", "int4", "int2"]) {
      const on = traced(small(), formats(format));
      const held = linears(on.model.weights).reduce((sum, { weight }) => sum + weight.bytes, 0);
      for (const batch of [1, 7]) {
        const read = traceDecode(on, batch, 100).filter(({ kind }) => kind === "gemv" || kind === "gemm");
        expect(read.reduce((sum, op) => sum + op.read.weights, 0), format).toBe(held);
        expect(read.every(({ dtype, kind }) => dtype === format && kind === (batch === 1 ? "gemv" : "gemm"))).toBe(true);
      }
    }
  });

  it("count 16-bit activations as half of 32-bit ones, KV pages by their own format", () => {
    const of = (...names: [string, string, string]) => traceDecode(traced(small(), formats(...names)), 1, 64);
    const activations = (records: readonly OpRecord[], name: string) => records.find((record) => record.name === name)!.written.activations;
    expect(activations(of("f16", "f16", "f32"), "ffn_up")).toBe(160 * 4);
    expect(activations(of("f16", "f16", "f16"), "ffn_up")).toBe(160 * 2);
    const kv = (format: string) => of("f16", format, "f16").find(({ kind }) => kind === "attention")!.read.kv;
    expect(kv("f16")).toBe(2 * 64 * 2 * 16 * 2);
    expect(kv("int8")).toBe(2 * 64 * 2 * (16 + 4));
    expect(kv("k=int8,v=int4")).toBe(64 * 2 * (16 + 4 + 8 + 4));
  });

  it("read prompts in steps of at most 2048 tokens that add up to the whole", () => {
    const on = traced(small(), formats());
    const linearFlops = (steps: readonly Steps[]) => total(steps.map(({ records, count }) => ({ count, records: records.filter(({ layer, kind }) => layer >= 0 && kind === "gemm") }))).flops;
    for (const [batch, promptTokens] of [[1, 100], [5, 1000], [3, 2048], [2, 3000]]) {
      const steps = tracePrefill(on, { batch, promptTokens });
      const layer = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 160);
      expect(linearFlops(steps)).toBe(5 * layer * batch * promptTokens);
      const pairs = (batch * promptTokens * (promptTokens + 1)) / 2;
      const attention = total(steps.map(({ records, count }) => ({ count, records: records.filter(({ kind }) => kind === "attention") })));
      expect(attention.flops).toBe(5 * 4 * pairs * (4 * 16 + 5));
      expect(Math.max(...steps.map(({ records }) => records[0].m))).toBeLessThanOrEqual(2048);
    }
  });

  it("tell naive attention's products apart, one per sequence", () => {
    const records = traceStep(traced(small(), formats(), "naive"), [{ past: 9, tokens: 1, prompt: false }, { past: 0, tokens: 4, prompt: true }]);
    expect(records.filter(({ name }) => name === "attention_scores").slice(0, 2).map(({ m }) => m)).toEqual([1, 4]);
    expect(records[0].phase).toBe("mixed");
  });

  it("know the bytes of a KV cache of any length by its pages", () => {
    const on = traced(small(), formats());
    expect(kvBytes(on, 16)).toBe(5 * 2 * 2 * 16 * 16 * 2);
    expect(kvBytes(on, 17)).toBe(2 * kvBytes(on, 16));
    expect(kvBytes(traced(SHAPES["llama-2-7b"], formats()), 4096)).toBe(4096 * 32 * 2 * 4096 * 2);
  });
});
