import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { describeBlocks } from "../../src/model/describe.ts";
import { loadWeights } from "../../src/model/load.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { expertBench, openExperts, plainTensors } from "../support/expert-bench.ts";
import { CASES, type ExpertCase } from "../support/expert-cases.ts";
import { expertTokens, u32 } from "../support/expert-model.ts";
import { probabilities, referenceLogits } from "../support/reference.ts";
import { allLogits, relativeError } from "../support/run.ts";

const GOLDEN = JSON.parse(readFileSync(fileURLToPath(new URL("../../fixtures/experts.golden.json", import.meta.url)), "utf8")) as Record<string, [number, number][][]>;

const KERNELS = { scalar: scalarKernels(), wasm: wasmKernels() } as const;

/** What llama.cpp rounds: activations to 8 bits where weights are quantised, to f16 where they are F16. */
const TOLERANCES: Readonly<Record<string, number>> = { F32: 2e-6, F16: 1e-3, Q8_0: 2e-2, Q4_0: 3e-2, MXFP4: 2e-2 };

describe.each(Object.keys(KERNELS) as (keyof typeof KERNELS)[])("mixtures of experts on %s kernels", (backend) => {
  it.each(CASES)("$name: llama.cpp's probabilities after every position", ({ name, model, tokens = 14 }: ExpertCase) => {
    const logits = allLogits(expertBench(model, KERNELS[backend]), expertTokens(model, tokens));
    expect(GOLDEN[name].length).toBe(tokens);
    const differences = GOLDEN[name].flatMap((top, i) => {
      const found = probabilities(logits[i]);
      return top.map(([id, probability]) => Math.abs(found[id] - probability));
    });
    // Loud gates make large numbers, of which f32 keeps as many digits.
    expect(Math.max(...differences)).toBeLessThanOrEqual(TOLERANCES[model.mxfp4 ? "MXFP4" : (model.type ?? "F32")] * (model.gateGain ?? 1));
  });

  it.each(CASES)("$name: a float64 reference's logits", ({ model, tokens = 14 }: ExpertCase) => {
    const file = openExperts(model);
    const ids = expertTokens(model, tokens);
    const expected = referenceLogits(file.config, plainTensors(file), ids, model.qkNorm === "row");
    const found = allLogits(expertBench(model, KERNELS[backend]), ids);
    expect(Math.max(...found.map((row, i) => relativeError(row, expected[i])))).toBeLessThanOrEqual(backend === "wasm" && (model.mxfp4 || model.type?.startsWith("Q")) ? 2e-3 : 2e-5);
  });
});

describe("what files of mixtures say", () => {
  const modelOf = (start: string) => CASES.find(({ name }) => name.startsWith(start))!.model;

  it("experts in every second layer are refused", () => {
    const model = modelOf("ernie4_5-moe");
    expect(() => openExperts({ ...model, keys: { ...model.keys, interleave_moe_layer_step: u32(2) } })).toThrow('key "ernie4_5-moe.interleave_moe_layer_step": expected 1, experts in every layer, found 2');
  });

  it.each(["glm4moe: sigmoids", "bailingmoe2"])("layers that guess further tokens are left out, and nothing else is (%s)", (start) => {
    const file = openExperts(modelOf(start));
    expect(file.config).toMatchObject({ nLayers: 3, guessingLayers: 1 });
    expect(file.tensors.has("blk.3.nextn.eh_proj.weight")).toBe(true);
    expect(describeBlocks(file.config, loadWeights(file, file.config, shapeKernels()))[0]).toContain("; 1 more, for guessing further tokens, left out");
    const info = file.tensors.get("output_norm.weight")!;
    const load = (name: string) => () => loadWeights({ ...file, tensors: new Map([...file.tensors, [name, { ...info, name }]]) }, file.config, shapeKernels());
    expect(load("blk.3.attn_norm_2.weight")).not.toThrow();
    expect(load("blk.2.nextn.enorm.weight")).toThrow('tensor "blk.2.nextn.enorm.weight": expected only what');
    expect(load("blk.4.attn_norm.weight")).toThrow('tensor "blk.4.attn_norm.weight": expected only what');
  });

  it("more layers that guess than there are layers is refused", () => {
    const model = modelOf("glm4moe: sigmoids");
    expect(() => openExperts({ ...model, keys: { ...model.keys, nextn_predict_layers: u32(9) } })).toThrow("nLayers: expected a positive integer, found -5");
  });
});
