import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { storyOf } from "../../fixtures/stories.ts";
import { openModel } from "../../src/model/open.ts";
import type { ByteSource } from "../../src/model/formats/source.ts";
import { memorySource } from "../../src/model/formats/source.ts";
import { calibrate } from "../../src/runtime/calibration.ts";
import { Engine, type EngineOptions } from "../../src/runtime/engine.ts";
import { compareLogits, remembered, textWindows } from "../../src/runtime/eval.ts";
import { haveShared, sharedSource } from "../support/shared.ts";

const path = (name: string) => fileURLToPath(new URL(`../../fixtures/${name}`, import.meta.url));
const heldOut = readFileSync(path("heldout.txt"), "utf8");
/** Stories of neither the held-out text nor, but for their plots, of the training. */
const calibrationText = Array.from({ length: 40 }, (_, i) => storyOf(70_000_000 + i).text).join("\n");
const TOKENS = 1022;

const MODELS: readonly [string, () => ByteSource, boolean][] = [
  ["stories260K", () => sharedSource("models/stories260K-F32.gguf"), haveShared("models/stories260K-F32.gguf")],
  ["the shipped model", () => memorySource("stories.gguf", readFileSync(path("stories.gguf"))), true],
];

describe.each(MODELS)("%s", (_, source, present) => {
  it.skipIf(!present)("int8 weights and KV cost at most 0.5 % of perplexity, int4 by AWQ at most 5 % and less divergence than by rounding", { timeout: 120_000 }, async () => {
    const load = (options: EngineOptions) => Engine.load(source(), { maxSequences: 1, ...options });
    const model = openModel(source());
    const reference = await load({ weights: "f32" });
    const windows = textWindows(heldOut, model.tokenizer, 512, "heldout.txt", TOKENS);
    const exact = remembered((window) => reference.logits(window), windows, model.config.vocabSize);
    const measure = async (options: EngineOptions) => {
      const engine = await load(options);
      const quality = compareLogits((window) => engine.logits(window), exact, windows);
      engine.close();
      return { ...quality, loss: quality.perplexity / quality.referencePerplexity - 1 };
    };
    const calibration = await calibrate(model, model.config, textWindows(calibrationText, model.tokenizer, 512, "stories", 2044), (given) => load({ weights: "f32", calibration: given, fusions: [] }));
    const int8 = await measure({ weights: "int8", kv: "int8" });
    expect(int8.loss).toBeLessThan(0.005);
    expect(int8.top1Agreement).toBeGreaterThan(0.95);
    const nearest = await measure({ weights: "int4" });
    const awq = await measure({ weights: "int4:awq", calibration });
    expect(awq.loss).toBeLessThan(0.05);
    expect(awq.klMean).toBeLessThan(nearest.klMean);
    reference.close();
  });
});
