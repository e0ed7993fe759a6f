import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { configFromGguf } from "../../src/model/architectures.ts";
import type { ModelConfig } from "../../src/model/config.ts";
import { createModel } from "../../src/model/decoder.ts";
import { readGguf } from "../../src/model/formats/gguf.ts";
import { memorySource } from "../../src/model/formats/source.ts";
import { loadWeights } from "../../src/model/load.ts";
import type { Kernels } from "../../src/tensor/kernels.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { CASES } from "../support/architecture-cases.ts";
import { architectureModel, drawTokens } from "../support/architecture-model.ts";
import { probabilities } from "../support/reference.ts";
import { allLogits, bench } from "../support/run.ts";

/** What llama.cpp answered (see fixtures/architectures.ts): after some positions, the likeliest ids and their probabilities. */
interface Golden {
  readonly tokens: readonly number[];
  readonly positions: Readonly<Record<string, readonly (readonly [id: number, probability: number])[]>>;
}

const GOLDEN = JSON.parse(readFileSync(fileURLToPath(new URL("../../fixtures/architectures.golden.json", import.meta.url)), "utf8")) as Record<string, Golden>;

/** llama.cpp looks GELU up in a table of 16-bit floats, and rounds the activations that meet quantised weights to 8 bits. */
function tolerance(name: string, { activation, nLayers }: ModelConfig): number {
  if (/Q\d_/.test(name)) return 2e-2;
  return activation === "gelu" ? 6e-4 : nLayers > 60 ? 5e-5 : 4e-6;
}

function evaluate(name: string, kernels: Kernels) {
  const { model } = CASES.find((each) => each.name === name)!;
  const source = memorySource(name, architectureModel(model));
  const file = { source, ...readGguf(source) };
  const config = configFromGguf(file);
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
