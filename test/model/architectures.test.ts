import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { configFromGguf } from "../../src/model/architectures.ts";
import type { ModelConfig } from "../../src/model/config.ts";
import { createModel } from "../../src/model/decoder.ts";
import { describeBlocks } from "../../src/model/describe.ts";
import type { GgufValue } from "../../src/model/formats/gguf-values.ts";
import { readGguf } from "../../src/model/formats/gguf.ts";
import { memorySource } from "../../src/model/formats/source.ts";
import { loadWeights } from "../../src/model/load.ts";
import { type Calibration, LINEAR_INPUTS } from "../../src/quant/calibration.ts";
import type { Kernels } from "../../src/tensor/kernels.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { CASES } from "../support/architecture-cases.ts";
import { type ArchitectureModel, architectureModel, bools, drawTokens, f32, text, u32 } from "../support/architecture-model.ts";
import { dice, range } from "../support/dice.ts";
import { probabilities } from "../support/reference.ts";
import { allLogits, bench, relativeError } from "../support/run.ts";

/** What llama.cpp answered (see fixtures/architectures.ts): after some positions, the likeliest ids and their probabilities. */
interface Golden {
  readonly tokens: readonly number[];
  readonly positions: Readonly<Record<string, readonly (readonly [id: number, probability: number])[]>>;
}

const GOLDEN = JSON.parse(readFileSync(fileURLToPath(new URL("../../fixtures/architectures.golden.json", import.meta.url)), "utf8")) as Record<string, Golden>;

/**
 * llama.cpp looks GELU up in a table of 16-bit floats, and rounds the activations that meet quantised weights to 8 bits, with a scale for each 32
 * or, for blocks of 256, for each 256; those that meet F16 to 16 bits.
 */
function tolerance(name: string, { activation, nLayers }: ModelConfig): number {
  if (/_K|[IT]Q/.test(name)) return 4e-2;
  if (/Q\d|FP4/.test(name)) return 2e-2;
  if (/F16/.test(name)) return 2e-3;
  return (activation === "gelu" ? 5e-4 : 4e-6) * (nLayers > 60 ? 10 : 1);
}

function open(name: string, model = CASES.find((each) => each.name === name)!.model) {
  const source = memorySource(name, architectureModel(model));
  const file = { source, ...readGguf(source) };
  return { model, file, config: configFromGguf(file) };
}

function evaluate(name: string, kernels: Kernels) {
  const { model, file, config } = open(name);
  const { tokens, positions } = GOLDEN[name];
  expect(tokens).toEqual(drawTokens(model, tokens.length));
  const logits = allLogits(bench(createModel(config, loadWeights(file, config, kernels)), { kernels }), tokens);
  let worst = 0;
  for (const [position, top] of Object.entries(positions)) {
    const found = probabilities(logits[Number(position)]);
    for (const [id, probability] of top) worst = Math.max(worst, Math.abs(found[id] - probability));
  }
  return { worst, tolerance: tolerance(name, config), logits };
}

describe("architectures as llama.cpp computes them", () => {
  it("has a golden answer for every case", () => {
    expect(Object.keys(GOLDEN)).toEqual(CASES.map(({ name }) => name));
  });

  it.each(CASES.map(({ name }) => name))("%s", (name) => {
    const scalar = evaluate(name, scalarKernels());
    expect(scalar.worst).toBeLessThan(scalar.tolerance);
    const kernels = wasmKernels();
    const wasm = evaluate(name, kernels);
    kernels.close();
    expect(wasm.worst).toBeLessThan(wasm.tolerance);
    if (process.env.PARITY) console.log(`${name.padEnd(44)} scalar ${scalar.worst.toExponential(1)} wasm ${wasm.worst.toExponential(1)}`);
  });
});

describe("what a file says of its architecture", () => {
  const changed = (name: string, change: Partial<ArchitectureModel>) => () => open(name, { ...CASES.find((each) => each.name === name)!.model, ...change });

  it("an unknown one is refused with the list of those that are known", () => {
    const model: ArchitectureModel = { architecture: "llama", seed: 1, name: "mamba" };
    expect(() => open("file", model)).toThrow(/^file: key "general.architecture": expected one of llama, .*gemma3, .*nemotron.*, found "mamba"$/);
  });

  it("a tensor that has no place in the model is refused, a table that follows from the config is not", () => {
    const { file, config } = open("qwen2");
    const info = file.tensors.get("output_norm.weight")!;
    const load = (name: string) => () => loadWeights({ ...file, tensors: new Map([...file.tensors, [name, { ...info, name }]]) }, config, scalarKernels());
    expect(load("blk.1.attn_sub_norm.weight")).toThrow('qwen2: tensor "blk.1.attn_sub_norm.weight": expected only what a qwen2 model is made of, found this one too');
    expect(load("blk.2.attn_norm.weight")).toThrow("found this one too");
    expect(load("blk.1.attn_rot_embd.weight")).not.toThrow();
  });

  it.each([
    ["no number", NaN, 'tensor "blk.0.attn_k.scale": expected finite weights, found NaN at index 0'],
    ["so large that weights overflow", 3e38, 'tensor "blk.0.attn_k.scale": expected a factor that leaves the weights finite, found 3.'],
  ])("a scale that is %s is refused", (_, scale, message) => {
    const bytes = architectureModel({ ...CASES.find(({ name }) => name === "llama: NVFP4, scales")!.model, type: "F32", queryGain: 100 });
    const { tensors } = readGguf(memorySource("file", bytes));
    new DataView(bytes.buffer, bytes.byteOffset).setFloat32(tensors.get("blk.0.attn_k.scale")!.offset, scale, true);
    const file = { source: memorySource("file", bytes), tensors };
    expect(() => loadWeights(file, open("llama: NVFP4, scales").config, scalarKernels())).toThrow(`file: ${message}`);
  });

  it("scales of another shape, or of no matrix, are refused", () => {
    const { file, config } = open("qwen3: scales");
    const load = (name: string, shape: readonly number[]) => () => loadWeights({ ...file, tensors: new Map([...file.tensors, [name, { ...file.tensors.get("blk.0.attn_q.scale")!, name, shape }]]) }, config, scalarKernels());
    expect(load("blk.0.attn_q.scale", [2])).toThrow('qwen3: scales: tensor "blk.0.attn_q.scale": expected [1], found [2]');
    expect(load("blk.0.attn_qk.scale", [1])).toThrow('tensor "blk.0.attn_qk.scale": expected only what a qwen3 model is made of, found this one too');
    expect(load("blk.0.attn_q.input_scale", [1])).not.toThrow();
  });

  it("stacked tensors of another height are refused", () => {
    const { file, config } = open("phi3");
    const load = (given: ModelConfig) => () => loadWeights(file, given, scalarKernels());
    expect(load({ ...config, nHeads: 6 })).toThrow('phi3: tensor "blk.0.attn_qkv.weight": expected 120 rows (attn_q, attn_k, attn_v stacked), found 96');
    expect(load({ ...config, ffnDim: 70 })).toThrow('phi3: tensor "blk.0.ffn_up.weight": expected 140 rows (ffn_gate, ffn_up stacked), found 144');
  });

  it.each<[string, string, Record<string, GgufValue>, string]>([
    ["a list of layers that is too short", "gemma3", { "attention.sliding_window_pattern": bools([true]) }, 'key "gemma3.attention.sliding_window_pattern": expected 7 items, one for each layer, found 1'],
    ["a window below 0", "gemma3", { "attention.sliding_window": f32(-1) }, "window: expected a positive integer, found -1"],
    ["a cap below 0", "gemma2", { attn_logit_softcapping: f32(-50) }, "attentionCap: expected a positive number, found -50"],
    ["a scaling that nobody knows", "llama", { "rope.scaling.type": text("ntk") }, 'key "llama.rope.scaling.type": expected none, linear, yarn, longrope or llama3, found "ntk"'],
    ["an attention factor that is no number", "llama", { "rope.scaling.attn_factor": f32(NaN) }, "rope attention factor: expected a positive number, found NaN"],
    ["an original context of nothing", "llama", { "rope.scaling.type": text("yarn"), "rope.scaling.original_context_length": u32(0) }, "rope scaling original context: expected a positive number, found 0"],
    ["a number of layers that leaves positions open", "baichuan: the layers of 7B", { block_count: u32(33) }, 'key "baichuan.block_count": expected 32 or 40, which tells how positions are known, found 33'],
    ["half of an odd width", "qwen", { feed_forward_length: u32(101) }, "ffnDim: expected a positive integer, found 50.5"],
    ["as many layers as no file holds", "smollm3", { block_count: u32(4e9) }, "nLayers: expected at most 16384, found 4000000000"],
  ])("%s is refused", (_, name, keys, message) => {
    expect(changed(name, { keys: { ...CASES.find((each) => each.name === name)!.model.keys, ...keys } })).toThrow(`${name}: ${message}`);
  });

  it.each(["phi3", "phi2", "gptneox", "stablelm: parallel, norms of heads", "falcon: two norms", "olmo", "olmo2", "mpt", "gemma2"])("factors can move between the weights of %s", (name) => {
    const { file, config } = open(name);
    const { nLayers, dim, nHeads, headDim, ffnDim } = config;
    const d = dice(5);
    const widths = { attn_norm: dim, attention: nHeads * headDim, ffn_norm: dim, ffn_act: ffnDim, output_norm: dim };
    const migrations = range(nLayers + 1).flatMap((i) => LINEAR_INPUTS.map((input) => ({ layer: i - 1, name: input, factors: range(widths[input]).map(() => (input === "attention" ? 2 : 0.5 + d.real())) })));
    const nothing = { scales: { int8: 1, int16: 1 }, largest: 1, channelMax: [], channelMean: [], channelSquare: [], outliers: [], histogram: { range: 1, counts: [] } };
    const ops = migrations.map(({ layer, name: input }) => ({ layer, name: input, ...nothing }));
    const model = { name, dim, nLayers, ffnDim, headDims: nHeads * headDim };
    const calibration: Calibration = { format: "memwall-calibration", version: 1, model, tokens: 1, smooth: { alpha: 0.5, migrations }, ops };
    const { tokens } = GOLDEN[name];
    const run = (given?: Calibration) => allLogits(bench(createModel(config, loadWeights(file, config, scalarKernels(), { calibration: given }))), tokens);
    const [before, after] = [run(), run(calibration)];
    expect(after).not.toEqual(before);
    after.forEach((row, i) => expect(relativeError(row, before[i])).toBeLessThan(1e-5));
  });

  it("a temperature ends the context where it would begin to change queries", () => {
    const withTemperature = (temperature: number) => open("mistral3: yarn", { ...CASES.find(({ name }) => name === "mistral3: yarn")!.model, contextLength: 512, keys: { ...CASES.find(({ name }) => name === "mistral3: yarn")!.model.keys, "attention.temperature_scale": f32(temperature) } }).config.contextLength;
    expect([withTemperature(0.1), withTemperature(0)]).toEqual([128, 512]);
  });

  it("is told in words", () => {
    const words = (name: string) => {
      const { file, config } = open(name);
      return describeBlocks(config, loadWeights(file, config, shapeKernels())).join("\n");
    };
    expect(words("gemma2")).toBe(
      [
        "layers: 4 of attention, then a feed-forward block; RMSNorm before and after each block",
        "attention: grouped-query, 4 heads of 16 on 2 of keys and values; scores capped at 4",
        "layers 0, 2 of 0-3: see a sliding window of 6 positions",
        "all other layers: see everything before",
        "positions: rotary over 16 values of a head (halves turn together), base 10000",
        "feed-forward: gated, GELU (tanh form)(gate) times up, 72 wide",
        "ends: the embedding is the output head too; embedding times 6.9282; logits capped at 8",
      ].join("\n"),
    );
    expect(words("gemma3")).toContain("layers 0-4, 6 of 0-6: see a sliding window of 8 positions; rotary over 20 values of a head (halves turn together), base 10000\n");
    expect(words("smollm3")).toContain("layers 3 of 0-4: see everything before; no positions\n");
    expect(words("hunyuan-dense")).toContain("; norms of q and k by head, behind the rotation\n");
    expect(words("jais")).toContain("scores times 0.0625; ALiBi");
    expect(words("baichuan: the layers of 13B")).toContain("positions: none but what ALiBi gives");
    expect(words("arcee")).toContain("feed-forward: plain, ReLU squared, 50 wide");
    expect(words("minicpm: the scales of old files, tied")).toContain("embedding times 12; blocks add 0.989949 of their result; logits times 0.164063");
    expect(words("phi2")).toContain("LayerNorm before both, one for the two");
    expect(words("falcon: two norms")).toContain("LayerNorm before each block");
    expect(words("bloom: heads no power of two")).toContain("positions: none but what ALiBi gives");
    expect(words("gpt2")).toContain("positions: learned, 512 of them");
    expect(words("olmo")).toContain("without weights");
    expect(words("granite")).toContain("blocks add 0.4 of their result; logits times 2.5");
    expect(words("llama: yarn")).toContain("YaRN by 4, cosines and sines times 1.13863");
    expect(words("stablelm: parallel, norms of heads")).toContain("norms of q and k by head, each its own; biases on q, k, v");
  });
});
