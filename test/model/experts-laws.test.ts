import { describe, expect, it } from "vitest";
import { commonLinears, expertLinears } from "../../src/model/experts.ts";
import { activeParameterCount, denseLinears, layerNorms, linears, parameterCount, weightBytes } from "../../src/model/weights.ts";
import { loadWeights } from "../../src/model/load.ts";
import { randomWeights } from "../../src/model/random-weights.ts";
import { SHAPES } from "../../src/model/shapes.ts";
import { traceDecode, traced } from "../../src/runtime/hardware/trace.ts";
import type { OpRecord } from "../../src/tensor/ledger.ts";
import type { Kernels } from "../../src/tensor/kernels.ts";
import type { AttentionMethod } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { dice, range } from "../support/dice.ts";
import { expertBench, openExperts } from "../support/expert-bench.ts";
import { CASES } from "../support/expert-cases.ts";
import { type ExpertModel, expertTokens, u32 } from "../support/expert-model.ts";
import { allLogits, type Bench, kept, prompt, recorded, relativeError, step, token } from "../support/run.ts";

const MIXTRAL: ExpertModel = { architecture: "llama", seed: 7, dim: 64, ffnDim: 96, experts: 8, used: 2, type: "Q8_0" };
const QWEN2MOE: ExpertModel = {
  ...{ architecture: "qwen2moe", seed: 8, dim: 64, ffnDim: 32, experts: 9, used: 4, sharedFfnDim: 64, sharedGate: true, type: "Q8_0" },
  keys: { expert_feed_forward_length: u32(32), expert_shared_feed_forward_length: u32(64) },
};
const BACKENDS: [string, Kernels][] = [
  ["scalar", scalarKernels()],
  ["wasm", wasmKernels()],
];

const bytesOf = (all: readonly { weight: { bytes: number }; bias?: { bytes: number } }[]) => all.reduce((sum, { weight, bias }) => sum + weight.bytes + (bias?.bytes ?? 0), 0);
const gemBytes = (records: readonly OpRecord[]) => records.filter(({ kind }) => kind === "gemv" || kind === "gemm").reduce((sum, { read }) => sum + read.weights, 0);

describe.each(BACKENDS)("the bill of a mixture on %s kernels", (_, kernels) => {
  it.each([MIXTRAL, QWEN2MOE])("a decode step reads the chosen experts and everything else, once ($architecture)", (model) => {
    const on = expertBench(model, kernels, { ledger: kept() });
    const { layers, output } = on.model.weights;
    const sequence = on.cache.create();
    step(on, [prompt(sequence, expertTokens(model, 5), "none")]);
    const records = recorded(on, () => step(on, [token(sequence, 9)]));
    const one = layers.reduce((sum, { experts }) => sum + bytesOf(expertLinears(experts!).slice(0, 3)), 0);
    expect(gemBytes(records)).toBe(layers.reduce((sum, layer) => sum + bytesOf(denseLinears(layer)), bytesOf([output])) + model.used! * one);
    expect(records.filter(({ name }) => name === "ffn_exps_down").length).toBe(layers.length * model.used!);
    expect(records.every(({ kind }) => kind !== "gemm")).toBe(true);
    // Of all weights a step leaves most unread.
    expect(gemBytes(records)).toBeLessThan(bytesOf(linears(on.model.weights)));
  });

  it("a batch reads the union of the experts its tokens chose, each once", () => {
    const on = expertBench(MIXTRAL, kernels, { ledger: kept() });
    const tokens = expertTokens(MIXTRAL, 12);
    const sequences = tokens.map(() => on.cache.create());
    const alone = tokens.map((id) => {
      const sequence = on.cache.create();
      return recorded(on, () => step(on, [token(sequence, id)]));
    });
    const together = recorded(on, () => step(on, tokens.map((id, i) => token(sequences[i], id))));
    // First tokens of their sequences: what a token meets depends on it alone, and its experts are told apart by their outputs.
    for (const [layer] of on.model.weights.layers.entries()) {
      const of = (records: readonly OpRecord[], name: string) => records.filter((record) => record.layer === layer && record.name === name);
      const rows = of(together, "ffn_exps_down");
      expect(rows.reduce((sum, { m }) => sum + m, 0)).toBe(tokens.length * 2);
      expect(rows.length).toBeGreaterThan(2);
      expect(rows.length).toBeLessThanOrEqual(8);
      const each = of(alone[0], "ffn_exps_down")[0].read.weights;
      expect(rows.map(({ read }) => read.weights)).toEqual(rows.map(() => each));
      expect(of(together, "ffn_mix").reduce((sum, { written }) => sum + written.activations, 0)).toBe(tokens.length * 2 * 64 * 4);
    }
    expect(gemBytes(together)).toBeLessThan(alone.reduce((sum, records) => sum + gemBytes(records), 0));
    const sum = (records: readonly OpRecord[]) => records.filter(({ name }) => /^ffn_exps_(gate|down)/.test(name)).reduce((flops, record) => flops + record.flops, 0);
    expect(sum(together)).toBeGreaterThan(0);
    expect(sum(together)).toBe(alone.reduce((flops, records) => flops + sum(records), 0));
  });

  it("a token's logits are the same, bit for bit, alone and in any batch", () => {
    for (const model of [MIXTRAL, QWEN2MOE, { ...MIXTRAL, type: "F32" as const, ffnDim: 37, dim: 42, nHeads: 3, nKvHeads: 1, used: 3 }]) {
      const on = expertBench(model, kernels);
      const d = dice(3);
      const prompts = range(5).map(() => range(d.between(1, 20)).map(() => d.between(3, 263)));
      const alone = prompts.map((ids) => allLogits(on, ids));
      const sequences = prompts.map(() => on.cache.create());
      const together = step(on, prompts.map((ids, i) => prompt(sequences[i], ids)));
      expect(together).toEqual(alone.flat());
      const chunked = prompts.map((ids) => {
        const sequence = on.cache.create();
        return ids.map((id) => step(on, [token(sequence, id)])[0]);
      });
      expect(chunked.flat()).toEqual(alone.flat());
    }
  });

  it("files that hold their experts one by one, or gate and up together, are the same model", () => {
    const model: ExpertModel = { architecture: "llama", seed: 9, experts: 3, used: 2, type: "F32" };
    const tensors = (layout: ExpertModel["layout"]) => [...openExperts({ ...model, layout }).tensors.keys()].filter((name) => name.includes("ffn_"));
    expect(tensors("split")).toContain("blk.1.ffn_gate.2.weight");
    expect(tensors("gate and up")).toContain("blk.0.ffn_gate_up_exps.weight");
    const [stacked, ...others] = (["stacked", "split", "gate and up"] as const).map((layout) => allLogits(expertBench({ ...model, layout }, kernels), expertTokens(model, 9)));
    for (const other of others) expect(other).toEqual(stacked);
  });

  it("routers keep their 32 bits whatever the scheme", () => {
    const { layers } = expertBench(QWEN2MOE, kernels, { weights: { name: "int8", method: "nearest", dtype: "int8", group: 32 } }).model.weights;
    for (const { experts } of layers) {
      expect([experts!.router.weight.format, experts!.sharedGate!.weight.format]).toEqual(["f32", "f32"]);
      expect(new Set(expertLinears(experts!).map(({ weight }) => weight.format))).toEqual(new Set(["int8"]));
    }
  });
});

describe("sink logits", () => {
  const GPT_OSS = CASES.find(({ name }) => name === "gpt-oss")!.model;

  it("naive and tiled attention, scalar and wasm, long prompts and single tokens agree", () => {
    const ids = expertTokens(GPT_OSS, 560);
    const [expected, ...others] = [
      ["scalar", "tiled"],
      ["scalar", "naive"],
      ["wasm", "tiled"],
      ["wasm", "naive"],
    ].map(([backend, attention]) => {
      const on = expertBench(GPT_OSS, backend === "wasm" ? wasmKernels() : scalarKernels(), { attention: attention as AttentionMethod });
      const sequence = on.cache.create();
      // The last tokens one by one: on wasm their keys are then split into runs that are merged.
      const [first] = step(on, [prompt(sequence, ids.slice(0, 557), "last")]);
      return [first, ...ids.slice(557).map((id) => step(on, [token(sequence, id)])[0])];
    });
    for (const found of others) found.forEach((row, i) => expect(relativeError(row, expected[i])).toBeLessThan(2e-5));
  });

  it("are read by attention", () => {
    const on = expertBench(GPT_OSS, scalarKernels(), { ledger: kept() });
    const records = recorded(on, () => step(on, [token(on.cache.create(), 9)]));
    expect(records.filter(({ name }) => name === "attention").map(({ read }) => read.weights)).toEqual([16, 16, 16, 16]);
  });
});

describe("published mixtures", () => {
  /** Billions of parameters, all and a token's, as the model cards and papers say them. */
  it.each([
    ["mixtral-8x7b", 46.7, 12.9],
    ["mixtral-8x22b", 141, 39],
    ["qwen1.5-moe-a2.7b", 14.3, 2.7],
    ["qwen2-57b-a14b", 57.4, 14],
    ["qwen3-30b-a3b", 30.5, 3.3],
    ["qwen3-235b-a22b", 235, 22],
    ["olmoe-1b-7b", 6.9, 1.3],
    ["gpt-oss-20b", 20.9, 3.6],
    ["gpt-oss-120b", 116.8, 5.1],
  ])("%s has %d billion parameters and uses %d", (name, all, active) => {
    const { config, tied } = SHAPES[name];
    const weights = randomWeights(SHAPES[name], shapeKernels(), "f32");
    // Cards count with or without the embedding, and round: 4 %.
    const near = (found: number, stated: number) => expect(Math.abs(found / 1e9 / stated - 1)).toBeLessThan(0.04);
    near(parameterCount(weights), all);
    expect(tied).toBe(false);
    const embedding = (config.vocabSize * config.dim) / 1e9;
    const found = activeParameterCount(weights, config.experts) / 1e9;
    expect(active).toBeGreaterThan((found - 2 * embedding) * 0.96);
    expect(active).toBeLessThan(found * 1.04);
  });

  it("a traced decode step of Mixtral reads 12.9 billion weights at batch 1, and the union at larger batches", () => {
    const int8 = { name: "int8", bits: 8, group: 0 };
    const on = traced(SHAPES["mixtral-8x7b"], { weights: int8, kv: { k: int8, v: int8 }, activations: int8 });
    const read = (batch: number) => traceDecode(on, batch, 1).filter(({ kind }) => kind !== "embedding").reduce((sum, op) => sum + op.read.weights, 0);
    const [one, four, all] = [1, 4, 64].map(read);
    expect(one / 1e9).toBeCloseTo(12.75, 1);
    // 8 (1 - 0.75^4) = 5.5 experts of 176 MB each in 32 layers.
    expect((four - one) / (3 * 4096 * 14336 * 32)).toBeCloseTo(3, 5);
    expect((all - one) / (3 * 4096 * 14336 * 32)).toBeCloseTo(6, 5);
  });
});

describe("a mixture's size", () => {
  it.each([MIXTRAL, QWEN2MOE, { ...MIXTRAL, denseLayers: 1 }])("parameters are those of the tensors, and those that a token meets ($architecture)", (model) => {
    const { config, tensors } = openExperts(model);
    const { weights } = expertBench(model, shapeKernels()).model;
    const count = (keep: (name: string) => boolean) =>
      [...tensors.values()].filter(({ name }) => keep(name)).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    const experts = count((name) => name.includes("_exps"));
    expect(parameterCount(weights)).toBe(count(() => true));
    expect(activeParameterCount(weights, config.experts)).toBe(count(() => true) - experts + (experts * model.used!) / model.experts!);
  });

  it("names every weight once, and counts every byte once", () => {
    const { model } = expertBench(QWEN2MOE, scalarKernels());
    const { layers } = model.weights;
    const names = linears(model.weights).map(({ weight }) => weight.name);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain("blk.1.ffn_up.8.weight");
    const norms = layers.flatMap(layerNorms).concat(model.weights.outputNorm);
    expect(weightBytes(model.weights)).toBe(bytesOf(linears(model.weights)) + bytesOf(norms) + model.weights.tokenEmbedding.bytes);
    expect(commonLinears(layers[0].experts!).length).toBe(5);
  });

  it("costs the same on cost-only kernels as in a real decode step", () => {
    const file = openExperts(QWEN2MOE);
    const real = expertBench(QWEN2MOE, scalarKernels(), { ledger: kept() });
    const ghost = expertBench(QWEN2MOE, shapeKernels(), { ledger: kept() });
    expect(weightBytes(ghost.model.weights)).toBe(weightBytes(loadWeights(file, file.config, scalarKernels())));
    const bill = (on: Bench) =>
      recorded(on, () => step({ ...on }, [token(on.cache.create(), 4)])).map(({ name, kind, m, n, k, flops, read, written }) => ({ name, kind, m, n, k, flops, read, written }));
    expect(bill(ghost)).toEqual(bill(real));
  });
});
