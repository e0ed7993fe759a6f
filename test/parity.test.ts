import { describe, expect, it } from "vitest";
import { configFromGguf } from "../src/model/architectures.ts";
import { createModel } from "../src/model/decoder.ts";
import { readGguf } from "../src/model/formats/gguf.ts";
import { loadWeights } from "../src/model/load.ts";
import { Engine } from "../src/runtime/engine.ts";
import { argmax } from "../src/tensor/ranking.ts";
import { scalarKernels } from "../src/tensor/scalar/index.ts";
import { probabilities } from "./support/reference.ts";
import { allLogits, type Bench, bench, prompt, step, token } from "./support/run.ts";
import { type Golden, golden, haveShared, type Position, sharedSource, sharedText } from "./support/shared.ts";

const PARITY = ["llama-gqa-f32", "llama-gqa-q8_0", "llama3-tied-ropefreqs-f32", "qwen2-f32", "qwen3-f32", "qwen3-q4_0"].map((name) => `parity/${name}`);
const STORIES = ["F32", "F16", "Q8_0"].map((type) => `models/stories260K-${type}`);

/** The decoder of a GGUF file, without its tokenizer. */
function load(path: string): Bench {
  const source = sharedSource(`${path}.gguf`);
  const file = { source, ...readGguf(source) };
  const config = configFromGguf(file);
  const kernels = scalarKernels();
  return bench(createModel(config, loadWeights(file, config, kernels)), { kernels });
}

/** Every listed probability, and the argmax wherever the first two listed ones are further apart than the tolerance. */
function expectPosition(logits: Float32Array, { argmax: best, top }: Position, tolerance: number): void {
  const found = probabilities(logits);
  for (const [id, probability] of top) expect(Math.abs(found[id] - probability), `token ${id}`).toBeLessThanOrEqual(tolerance);
  if (top[0][1] - top[1][1] > 2 * tolerance) expect(argmax(logits)).toBe(best);
}

/**
 * The float64 values where a file has them (every file with rounded weights does), else llama.cpp's own, which for f32 weights are as
 * exact. The files' own tolerances are wider than what float64 sums need.
 */
function strictest({ exact, positions, prob_abs_tol }: Golden): NonNullable<Golden["exact"]> {
  return { ...(exact ?? { positions }), prob_abs_tol: Math.min(prob_abs_tol, 1e-5) };
}

/** Most probable ids, one after another, with the gap between the first and the second probability. */
function* greedy(on: Bench, tokens: readonly number[]): Generator<{ id: number; margin: number }> {
  const sequence = on.cache.create();
  let [logits] = step(on, [prompt(sequence, tokens, "last")]);
  for (;;) {
    const id = argmax(logits);
    const [first, second] = [...probabilities(logits)].sort((a, b) => b - a);
    yield { id, margin: first - second };
    [logits] = step(on, [token(sequence, id)]);
  }
}

describe.each([...PARITY, ...STORIES])("%s", (path) => {
  it.skipIf(!haveShared(`${path}.gguf`, `${path}.golden.json`))("has the listed distribution after every position of the prompt", () => {
    const expected = golden(`${path}.golden.json`);
    const { positions, prob_abs_tol } = strictest(expected);
    const logits = allLogits(load(path), expected.tokens);
    expect(positions.length).toBe(expected.tokens.length);
    positions.forEach((position, i) => expectPosition(logits[i], position, prob_abs_tol));
  });
});

describe.each(PARITY)("%s, further on", (path) => {
  it.skipIf(!haveShared(`${path}.gguf`, `${path}.golden.json`))("has the listed distribution after a long prompt", () => {
    const expected = golden(`${path}.golden.json`);
    const { long = expected.long!, prob_abs_tol } = strictest(expected);
    expectPosition(allLogits(load(path), expected.long!.tokens).at(-1)!, long, prob_abs_tol);
  });

  it.skipIf(!haveShared(`${path}.gguf`, `${path}.golden.json`))("continues greedily as listed, while the choice is clear", () => {
    const expected = golden(`${path}.golden.json`);
    const { greedy: wanted = expected.greedy!, prob_abs_tol } = strictest(expected);
    const found = greedy(load(path), expected.tokens);
    let compared = 0;
    for (const id of wanted) {
      const { id: own, margin } = found.next().value!;
      if (margin < prob_abs_tol) break;
      expect(own).toBe(id);
      compared++;
    }
    expect(compared).toBeGreaterThan(20);
  });
});

describe.each(STORIES)("%s through the engine", (path) => {
  it.skipIf(!haveShared(`${path}.gguf`, `${path}.golden.json`))("writes llama.cpp's 200 greedy tokens", async () => {
    const engine = await Engine.load(sharedSource(`${path}.gguf`), { backend: "scalar" });
    const { tokens } = await engine.complete("", { temperature: 0, maxTokens: 200 });
    expect(tokens).toEqual(golden(`${path}.golden.json`).greedyFromBos);
  });

  it.skipIf(!haveShared(`${path}.gguf`, `${path}.golden.json`))("lists the same logits chunk by chunk", async () => {
    const expected = golden(`${path}.golden.json`);
    const engine = await Engine.load(sharedSource(`${path}.gguf`), { backend: "scalar" });
    const tokens = [...expected.tokens, ...expected.tokens.slice(1, 20)];
    expect([...engine.logits(tokens)]).toEqual(allLogits(load(path), tokens));
    expect(engine.cache.usedPages).toBe(0);
  });
});

describe("llama2.c's stories260K.bin", () => {
  const files = ["models/stories260K.bin", "models/tok512.bin", "models/stories260K.greedy.txt"] as const;

  it.skipIf(!haveShared(...files))("tells llama2.c's own greedy story, text for text", async () => {
    const engine = await Engine.load(sharedSource(files[0]), { tokenizer: sharedSource(files[1]), backend: "scalar" });
    const { text, finishReason } = await engine.complete("", { temperature: 0, maxTokens: 256 });
    expect(`${text}\n`).toBe(sharedText(files[2]));
    expect(finishReason).toBe("length");
  });
});
