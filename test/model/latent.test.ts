import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { expertBench, openExperts, plainTensors } from "../support/expert-bench.ts";
import type { ExpertCase } from "../support/expert-cases.ts";
import { expertTokens } from "../support/expert-model.ts";
import { LATENT_CASES } from "../support/latent-cases.ts";
import { probabilities, referenceLogits } from "../support/reference.ts";
import { allLogits, relativeError } from "../support/run.ts";

const GOLDEN = JSON.parse(readFileSync(fileURLToPath(new URL("../../fixtures/latent.golden.json", import.meta.url)), "utf8")) as Record<string, [number, number][][]>;

const KERNELS = { scalar: scalarKernels(), wasm: wasmKernels() } as const;

/** llama.cpp rounds activations to 8 bits where weights are quantised; seeds are such that no expert is chosen for that alone. */
const TOLERANCES: Readonly<Record<string, number>> = { F32: 3e-6, Q8_0: 3e-2, Q4_0: 3e-2 };

describe.each(Object.keys(KERNELS) as (keyof typeof KERNELS)[])("latent attention on %s kernels", (backend) => {
  it.each(LATENT_CASES)("$name: llama.cpp's probabilities after every position", ({ name, model, tokens = 14 }: ExpertCase) => {
    const logits = allLogits(expertBench(model, KERNELS[backend]), expertTokens(model, tokens));
    expect(GOLDEN[name].length).toBe(tokens);
    const differences = GOLDEN[name].flatMap((top, i) => top.map(([id, probability]) => Math.abs(probabilities(logits[i])[id] - probability)));
    expect(Math.max(...differences)).toBeLessThanOrEqual(TOLERANCES[model.type ?? "F32"]);
  });

  it.each(LATENT_CASES)("$name: a float64 reference's logits", ({ model, tokens = 14 }: ExpertCase) => {
    const file = openExperts(model);
    const ids = expertTokens(model, tokens);
    const expected = referenceLogits(file.config, plainTensors(file), ids);
    const found = allLogits(expertBench(model, KERNELS[backend]), ids);
    expect(Math.max(...found.map((row, i) => relativeError(row, expected[i])))).toBeLessThanOrEqual(backend === "wasm" && model.type ? 2e-3 : 2e-5);
  });
});
