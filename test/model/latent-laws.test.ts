import { describe, expect, it } from "vitest";
import { KvCache, PAGE_SIZE } from "../../src/kvcache/cache.ts";
import { decodeSnapshot, encodeSnapshot } from "../../src/kvcache/snapshot.ts";
import { createModel } from "../../src/model/decoder.ts";
import { describeBlocks } from "../../src/model/describe.ts";
import { memorySource } from "../../src/model/formats/source.ts";
import { openModel } from "../../src/model/open.ts";
import { randomWeights } from "../../src/model/random-weights.ts";
import { SHAPES } from "../../src/model/shapes.ts";
import { activeParameterCount, denseLinears, parameterCount } from "../../src/model/weights.ts";
import { traceDecode, traced, traceStep } from "../../src/runtime/hardware/trace.ts";
import { Ledger, type OpRecord } from "../../src/tensor/ledger.ts";
import type { Kernels, KvFormat } from "../../src/tensor/kernels.ts";
import { Ops } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { f32, type Tensor } from "../../src/tensor/tensor.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { dice, range } from "../support/dice.ts";
import { expertBench, openExperts } from "../support/expert-bench.ts";
import { type ExpertModel, expertModel, expertTokens, f32 as float, type LatentModel, u32 } from "../support/expert-model.ts";
import { LATENT_CASES } from "../support/latent-cases.ts";
import { allLogits, type Bench, kept, prompt, recorded, relativeError, step, token } from "../support/run.ts";

const named = (name: string): ExpertModel => LATENT_CASES.find((one) => one.name === name)!.model;
const PLAIN = named("deepseek2: low-rank queries");
const QUANTISED = named("deepseek2: Q8_0");
const OLDER = named("deepseek2: low-rank queries, attn_kv_b");
const BACKENDS: [string, Kernels][] = [
  ["scalar", scalarKernels()],
  ["wasm", wasmKernels()],
];

const withKv = (on: Bench, kernels: Kernels, kv: KvFormat): Bench => ({ ...on, cache: new KvCache(kernels, on.model.config, 64, { kv }) });
const ofKind = (records: readonly OpRecord[], name: string) => records.filter((record) => record.name === name);

describe.each(BACKENDS)("latent attention on %s kernels", (_, kernels) => {
  it.each([["f32", 4 * (24 + 6)], ["int8", 24 + 6 + 4]] as const)("the cache keeps one row a token and layer, and the ledger says so (%s)", (kv, rowBytes) => {
    const on = withKv(expertBench(PLAIN, kernels, { ledger: kept() }), kernels, kv);
    expect(on.cache.bytesPerToken).toBe(3 * rowBytes);
    const sequence = on.cache.create();
    const records = recorded(on, () => step(on, [prompt(sequence, expertTokens(PLAIN, 21), "last")]));
    expect(ofKind(records, "kv_write").map(({ written }) => written.kv)).toEqual([21, 21, 21].map((tokens) => tokens * rowBytes));
    expect(ofKind(records, "attention").map(({ read }) => read.kv)).toEqual([21, 21, 21].map((tokens) => tokens * rowBytes));
    expect(on.cache.bytesInUse).toBe(2 * PAGE_SIZE * 3 * rowBytes);
    for (const { k, v } of sequence.pages) expect(v).toBe(k);
  });

  it.each([PLAIN, QUANTISED])("a decode step reads every weight that its token meets, once ($type)", (model) => {
    const on = expertBench(model, kernels, { ledger: kept() });
    const { layers, output } = on.model.weights;
    const records = recorded(on, () => step(on, [token(on.cache.create(), 9)]));
    const read = records.filter(({ kind, name }) => kind === "gemv" && !name.startsWith("ffn_exps")).reduce((sum, record) => sum + record.read.weights, 0);
    expect(read).toBe([...layers.flatMap(denseLinears), output].reduce((sum, { weight }) => sum + weight.bytes, 0));
    expect(records.some(({ kind }) => kind === "gemm")).toBe(false);
    const { nHeads = 4, latent } = model;
    expect(ofKind(records, "attn_k_b").map(({ flops }) => flops)).toEqual(layers.map(() => 2 * nHeads * latent!.kvRank * latent!.nopeDim));
    expect(ofKind(records, "attn_v_b").map(({ flops }) => flops)).toEqual(layers.map(() => 2 * nHeads * latent!.kvRank * latent!.valueDim));
  });

  it.each([PLAIN, OLDER, QUANTISED])("a token's logits are the same, bit for bit, alone and in any batch ($seed)", (model) => {
    const on = expertBench(model, kernels);
    const d = dice(3);
    const prompts = range(4).map(() => range(d.between(1, 20)).map(() => d.between(3, 263)));
    const alone = prompts.map((ids) => allLogits(on, ids));
    const sequences = prompts.map(() => on.cache.create());
    expect(step(on, prompts.map((ids, i) => prompt(sequences[i], ids)))).toEqual(alone.flat());
    const chunked = prompts.map((ids) => {
      const sequence = on.cache.create();
      return ids.map((id) => step(on, [token(sequence, id)])[0]);
    });
    expect(chunked.flat()).toEqual(alone.flat());
  });

  it("fused ops and ops one by one agree, bit for bit", () => {
    for (const model of [PLAIN, QUANTISED]) {
      const on = expertBench(model, kernels);
      const plain = { ...on, ops: new Ops(kernels, on.ledger, { fusions: [] }) };
      expect(allLogits(on, expertTokens(model, 17))).toEqual(allLogits(plain, expertTokens(model, 17)));
    }
  });

  it("naive attention agrees with tiled attention, over long prompts and single tokens", () => {
    const ids = expertTokens(PLAIN, 300);
    const run = (attention: "tiled" | "naive") => {
      const on = expertBench(PLAIN, kernels, { attention });
      const sequence = on.cache.create();
      const [first] = step(on, [prompt(sequence, ids.slice(0, 298), "last")]);
      return [first, ...ids.slice(298).map((id) => step(on, [token(sequence, id)])[0])];
    };
    const [tiled, naive] = [run("tiled"), run("naive")];
    tiled.forEach((row, i) => expect(relativeError(row, naive[i])).toBeLessThan(2e-5));
  });

  it("int8 and int4 pages stay near f32", () => {
    const on = expertBench(PLAIN, kernels);
    const ids = expertTokens(PLAIN, 40).slice(0, 8);
    const expected = allLogits(on, ids);
    const errorOf = (kv: KvFormat) => allLogits(withKv(on, kernels, kv), ids).map((row, i) => relativeError(row, expected[i]))[1];
    expect(errorOf("int8")).toBeGreaterThan(0);
    expect(errorOf("int8")).toBeLessThan(0.05);
    expect(errorOf("int4")).toBeGreaterThan(errorOf("int8"));
  });

  it("a fork and a saved session go on with the same bits", () => {
    const on = withKv(expertBench(PLAIN, kernels), kernels, "int8");
    const ids = expertTokens(PLAIN, 20);
    const sequence = on.cache.create();
    step(on, [prompt(sequence, ids, "none")]);
    on.cache.record(sequence, ids);
    const model = { name: "drawn", fingerprint: "x", vocabSize: 264 };
    const bytes = encodeSnapshot(on.cache, sequence, model, { tokens: ids, notes: {} });
    const fork = on.cache.fork(sequence);
    const [first] = step(on, [token(sequence, 30)]);
    expect(step(on, [token(fork, 30)])[0]).toEqual(first);
    const { sequence: restored } = decodeSnapshot(withKv(on, kernels, "int8").cache, bytes, model);
    expect(restored.length).toBe(20);
    const other = withKv(on, kernels, "int8");
    expect(step(other, [token(decodeSnapshot(other.cache, bytes, model).sequence, 30)])[0]).toEqual(first);
  });

  it("files of both forms are the same model", () => {
    const [newer, older] = [PLAIN, OLDER].map((model) => allLogits(expertBench(model, kernels), expertTokens(model, 9)));
    expect(older).toEqual(newer);
  });

  it("heads come apart and together again", () => {
    const d = dice(11);
    const ops = new Ops(kernels, new Ledger(false));
    for (const [tokens, heads, a, b] of [[1, 4, 3, 5], [3, 1, 2, 6], [5, 3, 4, 1], [2, 7, 16, 8]]) {
      const x = kernels.alloc("f32", [tokens, heads * (a + b)]);
      for (let i = 0; i < x.f32.length; i++) x.f32[i] = d.normal();
      const [first, second] = [ops.splitHeads("first", x, heads, 0, a), ops.splitHeads("second", x, heads, a, b)];
      const at = (part: Tensor, head: number, row: number, column: number) => part.f32[(head * tokens + row) * part.cols + column];
      expect(at(first, heads - 1, tokens - 1, a - 1)).toBe(x.f32[x.f32.length - b - 1]);
      expect(at(second, heads - 1, 0, 0)).toBe(x.f32[heads * (a + b) - b]);
      expect([...ops.joinHeads("both", [first, second], heads).f32]).toEqual([...x.f32]);
    }
    const x = f32([2, 12]);
    expect(() => ops.splitHeads("part", x, 5, 0, 1)).toThrow(/part: shapes do not fit/);
    expect(() => ops.splitHeads("part", x, 4, 2, 2)).toThrow(/part: shapes do not fit/);
    expect(() => ops.joinHeads("whole", [f32([4, 2]), f32([2, 2])], 2)).toThrow(/whole: shapes do not fit/);
    expect(() => ops.headLinears("each", f32([6, 4]), [{ weight: f32([2, 5]) }, { weight: f32([2, 5]) }])).toThrow(/each: shapes do not fit/);
  });

  it("refuses formats that differ for keys and values", () => {
    const { config } = expertBench(PLAIN, kernels).model;
    expect(() => new KvCache(kernels, config, 4, { kv: { k: "int8", v: "int4" } })).toThrow("kv: expected one format, as this model's values are part of its keys, found k=int8,v=int4");
  });
});

describe("latent attention", () => {
  it("costs the same on cost-only kernels as in a real decode step", () => {
    const bill = (kernels: Kernels) => {
      const on = expertBench(PLAIN, kernels, { ledger: kept() });
      return recorded(on, () => step(on, [token(on.cache.create(), 4)])).map(({ name, kind, m, n, k, flops, read, written }) => ({ name, kind, m, n, k, flops, read, written }));
    };
    expect(bill(shapeKernels())).toEqual(bill(scalarKernels()));
  });

  it("weighs the same scores whatever the form: a traced model's weights are those of a file", () => {
    const { tensors } = openExperts(PLAIN);
    const count = [...tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    expect(parameterCount(expertBench(PLAIN, shapeKernels()).model.weights)).toBe(count);
    expect(parameterCount(expertBench(OLDER, shapeKernels()).model.weights)).toBe(count);
  });

  it("is described", () => {
    const { model } = expertBench(PLAIN, shapeKernels());
    expect(describeBlocks(model.config, model.weights)[1]).toBe(
      "attention: multi-head latent, 4 heads of 10 + 6 rotating and values of 14, on a latent vector of 24; the cache keeps 30 values a token and layer, keys and values in one; queries through 20 values; scores times 0.25",
    );
  });

  /** Billions of parameters, all and a token's, as the papers say them, and values in the cache for each token and layer. */
  it.each([
    ["deepseek-v2-lite", 15.7, 2.4],
    ["deepseek-v3", 671, 37],
  ])("%s has %d billion parameters, uses %d and keeps 576 values a token and layer", (name, all, active) => {
    const shape = SHAPES[name];
    const { config } = shape;
    const weights = randomWeights(shape, shapeKernels(), "f32");
    expect(Math.abs(parameterCount(weights) / 1e9 / all - 1)).toBeLessThan(0.01);
    expect(Math.abs((activeParameterCount(weights, config.experts) - config.vocabSize * config.dim) / 1e9 / active - 1)).toBeLessThan(0.04);
    const f16 = { name: "f16", bits: 16, group: 0 };
    const on = traced(shape, { weights: f16, kv: { k: f16, v: f16 }, activations: f16 });
    const kv = traceDecode(on, 1, 1000).reduce((sum, { read }) => sum + read.kv, 0);
    expect(kv).toBe(1000 * 576 * 2 * config.nLayers);
    expect(traceStep(on, [{ past: 0, tokens: 3, prompt: true }]).filter(({ name: op }) => op === "kv_write").reduce((sum, { written }) => sum + written.kv, 0)).toBe(3 * 576 * 2 * config.nLayers);
  });

  it("YaRN's factor for whole keys goes into the scale of scores", () => {
    // DeepSeek's own code: softmax_scale = (nope + rope)^-0.5 * mscale^2 with mscale = 0.1 * mscale_all_dim * ln(factor) + 1.
    expect(SHAPES["deepseek-v3"].config.attentionScale).toBeCloseTo((0.1 * Math.log(40) + 1) ** 2 / Math.sqrt(192), 12);
    expect(SHAPES["deepseek-v3"].config.rope!.magnitude).toBeUndefined();
  });

  const refused = (change: Partial<ExpertModel>): unknown => {
    try {
      const file = openModel(memorySource("model.gguf", expertModel({ ...PLAIN, ...change })));
      createModel(file.config, expertBench({ ...PLAIN, ...change }, scalarKernels()).model.weights);
    } catch (error) {
      return (error as Error).message;
    }
    return undefined;
  };
  const keys = (more: ExpertModel["keys"]): Partial<ExpertModel> => ({ keys: { ...PLAIN.keys, ...more } });
  const latent = (change: Partial<LatentModel>): LatentModel => ({ ...PLAIN.latent!, ...change });

  it.each([
    [keys({ "attention.kv_lora_rank": u32(0) }), 'model.gguf: latent attention, kv rank: expected a whole number from 1 to 65536, found 0'],
    [keys({ "attention.kv_lora_rank": u32(23) }), /tensor "blk.0.attn_kv_a_mqa.weight": expected 29 rows of 48, found \[30, 48\]/],
    [keys({ "attention.key_length_mla": u32(6) }), 'model.gguf: key "deepseek2.attention.key_length": expected more than the 6 values that rotate, found 6'],
    [keys({ "attention.value_length_mla": u32(15) }), /tensor "blk.0.attn_v_b.weight": expected 60 rows of 24, found \[4, 14, 24\]/],
    [keys({ "attention.q_lora_rank": u32(21) }), /tensor "blk.0.attn_q_b.weight": expected \[64, 21\], found \[64, 20\]/],
    [keys({ "attention.temperature_scale": float(0.1) }), /key "deepseek2.attention.temperature_scale": expected none/],
    [{ latent: latent({ form: "attn_kv_b" }), ...keys({ "attention.value_length": u32(15) }) }, /tensor "blk.0.attn_kv_b.weight": expected 100 rows of 24, found \[96, 24\]/],
  ] as [Partial<ExpertModel>, string | RegExp][])("refuses what does not fit (%#)", (change, message) => {
    expect(refused(change)).toMatch(message);
  });
});
