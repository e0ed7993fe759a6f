import { describe, expect, it } from "vitest";
import { memorySource } from "../../src/model/formats/source.ts";
import { Engine, type EngineOptions } from "../../src/runtime/engine.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { KvCache } from "../../src/kvcache/cache.ts";
import { ggufModel } from "../support/files.ts";
import { drawModel, SMALL } from "../support/models.ts";

const GGUF = ggufModel(drawModel(11, SMALL));
const load = (options: EngineOptions = {}) => Engine.load(memorySource("small.gguf", GGUF), { backend: "scalar", ...options });
const PROMPT = [1, 5, 9, 12];

describe("a session", () => {
  it("of another engine, or a closed one, is refused, and nobody else is touched", async () => {
    const [a, b] = [await load(), await load()];
    const session = a.session();
    await a.complete(PROMPT, { session, maxTokens: 3 });
    const innocent = b.complete(PROMPT, { maxTokens: 8, temperature: 0 });
    expect(() => b.generate([7], { session })).toThrow("session: expected an open one of this engine");
    expect((await innocent).tokens.length).toBeGreaterThan(0);
    session.close();
    expect(() => a.generate([7], { session })).toThrow("session: expected an open one of this engine");
    for (const engine of [a, b]) engine.close();
  });

  it("is idle after a request that was refused", async () => {
    const engine = await load();
    const session = engine.session();
    expect(() => engine.generate(PROMPT, { session, stop: "abc" as unknown as string[] })).toThrow('stop: expected a list of texts, found "abc"');
    expect(session.busy).toBe(false);
    session.close();
    engine.close();
  });
});

it("samples whose seeds end too early start nothing", async () => {
  const engine = await load();
  expect(() => engine.samples(PROMPT, 3, { seed: Number.MAX_SAFE_INTEGER })).toThrow(/^seed: expected one after which 2 more follow/);
  expect(engine.stats()).toMatchObject({ running: 0, waiting: 0 });
  engine.close();
});

it("a hook that runs the model is told that it cannot, and the next step is whole", async () => {
  const engine = await load();
  const wanted = [...engine.logits(PROMPT)];
  const off = engine.onOp(({ name, layer }) => {
    if (name === "ffn_down" && layer === 1) void [...engine.logits([3, 4])];
  });
  expect(() => [...engine.logits(PROMPT)]).toThrow("a hook cannot run the model that it watches");
  await expect(engine.complete(PROMPT)).rejects.toThrow("a hook cannot run the model that it watches");
  off();
  expect([...engine.logits(PROMPT)]).toEqual(wanted);
  expect(engine.cache.usedPages).toBe(0);
  engine.close();
});

it("so is a listener that runs it between two tokens, and what the step made stays", async () => {
  const engine = await load();
  const all = () => Promise.all([[1, 5], [1, 9, 2], [1, 11]].map(async (prompt) => (await engine.complete(prompt, { temperature: 0, maxTokens: 8 })).tokens));
  const wanted = await all();
  const errors: string[] = [];
  engine.onEvent(({ type }) => {
    if (type !== "token") return;
    try {
      void [...engine.logits([3, 4, 6])];
    } catch (error) {
      errors.push((error as Error).message);
    }
  });
  expect(await all()).toEqual(wanted);
  expect(new Set(errors)).toEqual(new Set(["a hook cannot run the model that it watches: its step is not over"]));
  engine.close();
});

it("a second loop over one generation throws; the first goes on", async () => {
  const engine = await load();
  const generation = engine.generate(PROMPT, { maxTokens: 5, temperature: 0 });
  const loop = async () => {
    let text = "";
    for await (const piece of generation) text += piece;
    return text;
  };
  const [first, second] = await Promise.allSettled([loop(), loop()]);
  expect(first).toEqual({ status: "fulfilled", value: (await generation.result).text });
  expect(second).toMatchObject({ status: "rejected", reason: { message: "generation: expected one loop over its text, found a second one" } });
  engine.close();
});

it("requests that wait for pages which others hold let the process sleep, and go on when they come back", async () => {
  const engine = await load({ maxSequences: 1 });
  const held = engine.logits(Array.from({ length: 60 }, (_, i) => i % 30));
  held.next();
  let turns = 0;
  const generation = engine.generate(PROMPT, { maxTokens: 110, temperature: 1, topK: 0, seed: 3, topP: 1, minP: 0 });
  const plan = (engine as unknown as { loop: { scheduler: { plan: () => unknown[] } } }).loop.scheduler;
  const original = plan.plan.bind(plan);
  let empty = 0;
  plan.plan = () => {
    const made = original();
    if (made.length === 0) empty++;
    turns++;
    return made;
  };
  await new Promise((resolve) => setTimeout(resolve, 400));
  expect(empty).toBeGreaterThan(0);
  expect(empty).toBeLessThan(400); // Some 2 ms each; without sleep there would be thousands.
  held.return(undefined);
  expect((await generation.result).tokens.length).toBeGreaterThan(50);
  expect(turns).toBeGreaterThan(empty);
  engine.close();
});

describe("options that do not exist", () => {
  it.each<[EngineOptions, string]>([
    [{ backend: "Scalar" as "scalar" }, 'backend: expected one of auto, wasm, scalar, found "Scalar"'],
    [{ attention: "Naive" as "naive" }, 'attention: expected one of tiled, naive, found "Naive"'],
    [{ policy: "x" as "static" }, "policy: expected one of chunked, continuous, static"],
    [{ preemption: "x" as "swap" }, "preemption: expected one of recompute, swap"],
    [{ sparsity: "x" as "2:4" }, "sparsity: expected one of none, 2:4"],
    [{ weights: "int8", layer: 99 }, "layer: expected -1 to 1, found 99"],
    [{ backend: "wasm", threads: 65 }, "threads: expected a whole number from 1 to 64, found 65"],
  ])("%j", async (options, message) => {
    await expect(load(options)).rejects.toThrow(message);
  });
});

it("logits are for ids of the vocabulary, as many as the context holds", async () => {
  const engine = await load();
  expect(() => engine.logits([9999]).next()).toThrow(`tokens: expected token ids below ${engine.config.vocabSize}, found 9999`);
  expect(() => engine.logits(Array<number>(engine.context + 1).fill(1)).next()).toThrow(`tokens: expected at most ${engine.context} (the context), found ${engine.context + 1}`);
  expect([...engine.logits(Array<number>(engine.context).fill(1))].length).toBe(engine.context);
  expect(() => engine.cache.append(engine.cache.create(), -1)).toThrow("append: expected a whole number of positions, found -1");
  expect(() => new KvCache(wasmKernels(), engine.config, -1)).toThrow("KV cache: expected a whole number of pages, found -1");
  engine.close();
});

it("steppers and the logit lens give their memory back", async () => {
  const engine = await load({ backend: "wasm", threads: 1 });
  const { heap } = (engine as unknown as { ops: { kernels: { device: { heap: { used(): number } } } } }).ops.kernels.device;
  const round = () => {
    const stepper = engine.stepper(PROMPT);
    stepper.runTo("sample");
    stepper.lens(3);
    stepper.close();
    return heap.used();
  };
  const first = round();
  for (let i = 0; i < 5; i++) expect(round()).toBe(first);
  engine.close();
});
