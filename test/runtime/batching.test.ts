import { describe, expect, it } from "vitest";
import { memorySource } from "../../src/model/formats/source.ts";
import { Engine, type EngineOptions, type GenerateParams, QueueFullError } from "../../src/runtime/engine.ts";
import type { Generation } from "../../src/runtime/generation.ts";
import type { EngineEvent } from "../../src/runtime/monitor.ts";
import { dice, range } from "../support/dice.ts";
import { ggufModel } from "../support/files.ts";
import { drawModel, SMALL } from "../support/models.ts";

const GGUF = ggufModel(drawModel(11, { ...SMALL, nLayers: 1, dim: 16, ffnDim: 24, nHeads: 2, nKvHeads: 1 }));

async function load(options: EngineOptions = {}): Promise<Engine> {
  const engine = await Engine.load(memorySource("small.gguf", GGUF), { backend: "scalar", context: 96, ...options });
  Object.assign(engine.tokenizer, { eos: [] });
  return engine;
}

const STORY: GenerateParams = { seed: 3, temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens: 12 };

/** Twelve requests, some of which begin alike. */
const REQUESTS = range(12).map((i) => {
  const d = dice(i + 50);
  const own = range(d.between(1, 40)).map(() => d.between(3, 39));
  const common = range(d.pick([0, 16, 33])).map((j) => 3 + (j % 30));
  return { tokens: [1, ...common, ...own], params: { ...STORY, seed: i, temperature: d.pick([0, 0.8, 1.2]), maxTokens: d.between(1, 20) } };
});

/** The tokens of every request, and the logits that each was chosen from. */
interface Outcome {
  readonly tokens: readonly number[];
  readonly logits: readonly string[];
}

/** A generation whose sampler also writes down what it sees. */
function watch(generation: Generation): { generation: Generation; logits: string[] } {
  const logits: string[] = [];
  const pick = generation.pick.bind(generation);
  generation.pick = (values) => {
    logits.push(new Uint32Array(values.buffer, values.byteOffset, values.length).join());
    return pick(values);
  };
  return { generation, logits };
}

const outcome = async ({ generation, logits }: ReturnType<typeof watch>): Promise<Outcome> => ({ tokens: (await generation.result).tokens, logits });

describe.each<[string, EngineOptions]>([
  ["f32 keys and values", {}],
  ["int8 keys and values", { kv: "int8" }],
])("%s: a request gives bit for bit the same", (_, base) => {
  it.each(["recompute", "swap"] as const)("alone and under 60 random schedules, preempted by %s", { timeout: 180_000 }, async (preemption) => {
    const alone: Outcome[] = [];
    for (const { tokens, params } of REQUESTS) {
      const engine = await load({ ...base, prefixCache: false });
      alone.push(await outcome(watch(engine.generate(tokens, params))));
    }
    let [preemptions, cached] = [0, 0];
    for (const seed of range(60)) {
      const d = dice(seed + (preemption === "swap" ? 1000 : 0));
      const engine = await load({
        ...{ ...base, preemption, tokenBudget: d.pick([1, 2, 3, 7, 16, 40, 200]), kvPages: d.between(6, 14), prefixCache: d.chance(0.6) },
        policy: d.pick(["chunked", "chunked", "continuous", "static"]),
      });
      const order = REQUESTS.map((_, i) => i).sort(() => d.real() - 0.5).slice(0, d.between(1, 12));
      const running = new Map<number, ReturnType<typeof watch>>();
      for (const i of order) {
        const { tokens, params } = REQUESTS[i];
        running.set(i, watch(engine.generate(tokens, { ...params, priority: d.below(3) })));
        if (d.chance(0.3)) engine.generate(tokens, params).cancel();
        for (let wait = d.below(6); wait > 0; wait--) await new Promise<void>((resolve) => setImmediate(resolve));
      }
      for (const [i, one] of running) {
        const found = await outcome(one);
        expect(found.tokens, `schedule ${seed}, request ${i}`).toEqual(alone[i].tokens);
        expect(found.logits.every((row, at) => row === alone[i].logits[at]) && found.logits.length === alone[i].logits.length, `logits of schedule ${seed}, request ${i}`).toBe(true);
        preemptions += (await one.generation.result).metrics.preemptions;
        cached += (await one.generation.result).cachedTokens;
      }
      expect([engine.cache.usedPages, engine.stats().running, engine.stats().waiting]).toEqual([0, 0, 0]);
    }
    expect(preemptions, "some were preempted").toBeGreaterThan(20);
    expect(cached, "some had a prefix hit").toBeGreaterThan(100);
  });
});

describe("samples of one prompt", () => {
  it("are what each seed gives alone, and are computed once", async () => {
    const engine = await load({ prefixCache: false });
    const prompt = [1, ...range(40).map((i) => 3 + (i % 30))];
    const results = await Promise.all(engine.samples(prompt, 5, STORY).map(({ result }) => result));
    for (const [i, { tokens, seed }] of results.entries()) {
      expect(seed).toBe(3 + i);
      expect(tokens).toEqual((await (await load()).complete(prompt, { ...STORY, seed })).tokens);
    }
    expect(results.map(({ cachedTokens }) => cachedTokens)).toEqual([0, 40, 40, 40, 40]);
    expect(engine.stats().promptTokens).toBe(41 + 4);
    expect(engine.cache.usedPages).toBe(0);
  });

  it("come from no session, and are at least one", async () => {
    const engine = await load();
    expect(() => engine.samples([1], 2, { session: engine.session() })).toThrow("samples: expected no session");
    expect(() => engine.samples([1], 0)).toThrow(new RangeError("samples: expected a whole number, 1 or more, found 0"));
  });
});

describe("a hundred cancellations in a row", () => {
  it("leave no page behind and an engine that works", async () => {
    const engine = await load({ kvPages: 12 });
    const expected = (await (await load()).complete([1, 5, 9], STORY)).tokens;
    for (const i of range(100)) {
      const generations = engine.samples([1, ...range(i % 40)], 1 + (i % 3), { ...STORY, maxTokens: 50 });
      for (let wait = i % 7; wait > 0; wait--) await new Promise<void>((resolve) => setImmediate(resolve));
      for (const generation of generations) generation.cancel();
      expect(engine.cache.usedPages).toBe(0);
    }
    expect(engine.stats().requests).toMatchObject({ cancelled: engine.stats().requests.queued, finished: 0 });
    expect((await engine.complete([1, 5, 9], STORY)).tokens).toEqual(expected);
  });
});

describe("the weight bytes of a step", () => {
  it("do not depend on its batch", async () => {
    const bytes = async (batch: number) => {
      const engine = await load({ ledger: true, tokenBudget: 64 });
      await Promise.all(range(batch).map((seed) => engine.complete([1, 5 + seed], { ...STORY, seed, maxTokens: 5 })));
      const decode = engine.breakdown().decode!;
      return (decode.byKind.gemv ?? decode.byKind.gemm)!.read.weights / 4;
    };
    const one = await bytes(1);
    for (const batch of [2, 3, 8, 20]) expect(await bytes(batch)).toBe(one);
  });
});

describe("the queue", () => {
  it("is bounded: beyond, a clear error, and later there is room again", async () => {
    const engine = await load({ maxQueue: 3, tokenBudget: 2 });
    const first = range(3).map((seed) => engine.generate([1, 5], { ...STORY, seed }));
    expect(() => engine.generate([1, 5], STORY)).toThrow(QueueFullError);
    expect(() => engine.generate([1, 5], STORY)).toThrow("engine: 3 requests wait already, at most 3 may (maxQueue): try again later");
    await Promise.all(first.map(({ result }) => result));
    expect((await engine.complete([1, 5], STORY)).tokens.length).toBe(12);
    expect(engine.stats().requests).toMatchObject({ queued: 4, finished: 4, refused: 2 });
    await expect(load({ maxQueue: 0 })).rejects.toThrow("maxQueue: expected a whole number, 1 or more, found 0");
  });
});

describe("what happens", () => {
  it("is told as it happens, and adds up", async () => {
    const engine = await load({ tokenBudget: 8, kvPages: 6 });
    const events: EngineEvent[] = [];
    const off = engine.onEvent((event) => events.push(event));
    const results = await Promise.all(range(6).map((seed) => engine.complete([1, ...range(20)], { ...STORY, seed, maxTokens: 20 })));
    off();
    await engine.complete([1], STORY);
    const of = <T extends EngineEvent["type"]>(type: T) => events.filter((event): event is Extract<EngineEvent, { type: T }> => event.type === type);
    for (const type of ["queued", "started", "finished"] as const) expect(of(type).map(({ id }) => id).sort()).toEqual([1, 2, 3, 4, 5, 6]);
    expect(of("token").length).toBe(120);
    expect(of("preempted").length).toBe(results.reduce((sum, { metrics }) => sum + metrics.preemptions, 0));
    for (const step of of("step")) expect(step.decodes + step.prompts).toBeLessThanOrEqual(8);
    for (const { metrics } of results) {
      expect(metrics).toMatchObject({ promptTokens: 21, tokens: 20 });
      expect(metrics.queueMs).toBeGreaterThanOrEqual(0);
      expect(metrics.ttftMs!).toBeGreaterThan(metrics.queueMs);
      expect(metrics.totalMs).toBeGreaterThan(metrics.ttftMs!);
      expect(metrics.pages).toBe(3);
    }
    const { rows, steps, generatedTokens, requests } = engine.stats();
    expect([generatedTokens, requests.finished]).toEqual([132, 7]);
    expect(rows).toBeGreaterThan(steps);
  });
});

describe("priorities", () => {
  it("are whole numbers", async () => {
    const engine = await load();
    expect(() => engine.generate([1], { priority: 0.5 })).toThrow(new RangeError("priority: expected a whole number, found 0.5"));
  });
});
