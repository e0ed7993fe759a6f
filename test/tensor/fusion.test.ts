import { afterAll, describe, expect, it } from "vitest";
import { KvCache } from "../../src/kvcache/cache.ts";
import { linears } from "../../src/model/weights.ts";
import { type Fusion, FUSIONS } from "../../src/tensor/fusion.ts";
import { Ledger, type OpRecord } from "../../src/tensor/ledger.ts";
import { Ops } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { drawModel, type ModelOptions, packModel } from "../support/models.ts";
import { prompt, step, token } from "../support/run.ts";

const kernels = wasmKernels();
afterAll(() => kernels.close());

const BASE: ModelOptions = { dim: 64, ffnDim: 96, nLayers: 2, nHeads: 4, nKvHeads: 2, headDim: 16, vocabSize: 40, norm: "rms", ffn: "gated", activation: "silu", biases: [], qkNorm: false, logitScale: undefined, logitCap: undefined };
const MODELS: [string, ModelOptions][] = [
  ["int8", { ...BASE, matrices: "int8", group: 32 }],
  ["int4 with biases", { ...BASE, matrices: "int4", biases: ["attn_q", "attn_output", "ffn_gate", "ffn_down", "output"] }],
  ["f32", { ...BASE, matrices: "f32" }],
  ["LayerNorm and a plain feed-forward block", { ...BASE, matrices: "int8", group: 32, norm: "layer", normBias: true, ffn: "plain", activation: "gelu", rope: undefined }],
  ["drawn", { matrices: "int8", group: 32 }],
];

function fresh(shape: ModelOptions, fusions: readonly Fusion[]) {
  const ledger = new Ledger(true, { timing: false, records: true });
  const model = packModel(drawModel(5, shape), kernels);
  return { model, ledger, ops: new Ops(kernels, ledger, { fusions }), cache: new KvCache(kernels, model.config, 8) };
}

/** Logits and records of a prompt and two decode steps. */
function run(shape: ModelOptions, fusions: readonly Fusion[]) {
  const on = fresh(shape, fusions);
  const { ledger, model } = on;
  const sequence = on.cache.create();
  const logits = [step(on, [prompt(sequence, [1, 2, 0, 1, 2], "last")]), step(on, [token(sequence, 1)]), step(on, [token(sequence, 0)])];
  const steps = [1, 2, 3].map((number) => ledger.records.filter((record) => record.step === number));
  return { model, steps, bits: logits.flatMap((rows) => rows.flatMap((row) => [...new Uint32Array(Float32Array.from(row).buffer)])) };
}

const bytes = (records: readonly OpRecord[]) => records.reduce((sum, { read, written }) => sum + read.weights + read.kv + read.activations + written.kv + written.activations, 0);
const names = (records: readonly OpRecord[]) => new Set(records.map(({ name }) => name));
const LINEAR = ["gemv", "gemm"];

describe.each(MODELS)("fusing changes no bit: %s", (_, shape) => {
  const plain = run(shape, []);

  it.each([["all", FUSIONS], ...FUSIONS.map((fusion) => [fusion, [fusion]] as const)] as [string, readonly Fusion[]][])("%s", (_, fusions) => {
    expect(run(shape, fusions).bits).toEqual(plain.bits);
  });
});

describe("what fusing saves", () => {
  const shape = MODELS[0][1];
  const plain = run(shape, []);
  const all = run(shape, FUSIONS);

  it("weights are still read once, all of them", () => {
    const packed = linears(all.model.weights).reduce((sum, { weight, bias }) => sum + weight.bytes + (bias?.bytes ?? 0), 0);
    const read = all.steps[1].filter(({ kind }) => LINEAR.includes(kind)).reduce((sum, { read }) => sum + read.weights, 0);
    expect(read).toBe(packed);
  });

  it("arithmetic stays: only additions and activations move into the linears", () => {
    const flops = (records: readonly OpRecord[]) => records.reduce((sum, record) => sum + record.flops, 0);
    for (const at of [1, 2]) expect(flops(all.steps[at])).toBe(flops(plain.steps[at]));
    // The prompt's head runs for one row instead of five.
    const head = 2 * 40 * 64 + 4 * 64;
    expect(flops(plain.steps[0]) - flops(all.steps[0])).toBe(4 * head);
  });

  it.each([
    ["qkv", ["attn_q", "attn_k", "attn_v"], ["attn_qkv"]],
    ["gate-up", ["ffn_gate", "ffn_up", "ffn_act"], ["ffn_gate_up"]],
    ["residual", ["attn_residual", "ffn_residual"], []],
  ] as const)("%s: fewer ops and fewer bytes", (fusion, gone, come) => {
    const fused = run(shape, [fusion]);
    for (const at of [0, 1]) {
      for (const name of gone) expect([names(plain.steps[at]).has(name), names(fused.steps[at]).has(name)]).toEqual([true, false]);
      for (const name of come) expect([names(plain.steps[at]).has(name), names(fused.steps[at]).has(name)]).toEqual([false, true]);
      expect(bytes(fused.steps[at])).toBeLessThan(bytes(plain.steps[at]));
    }
  });

  it("norm: the next linears read 80 bytes for 32 values instead of 128", () => {
    const fused = run(shape, ["norm"]);
    const [norm] = fused.steps[1].filter(({ name }) => name === "attn_norm");
    expect(norm.written.activations).toBe((64 / 32) * 80);
    const [query] = fused.steps[1].filter(({ name }) => name === "attn_q");
    expect(query.read.activations).toBe((64 / 32) * 80);
  });

  it("outputs: the head runs for the rows that are wanted", () => {
    const fused = run(shape, ["outputs"]);
    const head = ({ steps }: typeof fused) => steps[0].find(({ name }) => name === "output")!.m;
    expect([head(fused), head(plain)]).toEqual([1, 5]);
  });

  it("quantised activations do not pass for floats", () => {
    const { ledger, ops, model, cache } = fresh(shape, ["norm"]);
    const read: string[] = [];
    ledger.onOp(({ name }, output) => {
      if (output.dtype !== "packed") return;
      expect(() => output.f32).toThrow(/attn_norm|ffn_norm|output_norm/);
      expect(String(output)).toContain(`${name} [1, 64] int16`);
      read.push(name);
    });
    step({ model, ledger, ops, cache }, [token(cache.create(), 1)]);
    expect(read).toEqual(["attn_norm", "ffn_norm", "attn_norm", "ffn_norm", "output_norm"]);
  });

  it("kernels that fuse nothing are asked for nothing", () => {
    const ops = new Ops(scalarKernels(), new Ledger(false));
    expect([...ops.fusions]).toEqual(["outputs"]);
  });
});
