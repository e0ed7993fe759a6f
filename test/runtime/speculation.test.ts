import { describe, expect, it } from "vitest";
import { memorySource } from "../../src/model/formats/source.ts";
import { Engine, type EngineOptions, type GenerateParams } from "../../src/runtime/engine.ts";
import type { Distribution } from "../../src/runtime/sampler.ts";
import { lookUp } from "../../src/runtime/speculation/ngram.ts";
import { verify } from "../../src/runtime/speculation/verify.ts";
import { createKernels } from "../../src/runtime/backend.ts";
import { silent } from "../../src/runtime/commands/bench-serve.ts";
import { dice, range } from "../support/dice.ts";
import { ggufModel } from "../support/files.ts";
import { drawModel, type ModelOptions, packModel, SMALL } from "../support/models.ts";
import { probabilities } from "../support/reference.ts";

const SHAPE: ModelOptions = { ...SMALL, nLayers: 1, ffnDim: 32 };
const source = (name: string, seed: number, shape = SHAPE, type: "F32" | "Q4_0" = "F32") => memorySource(`${name}.gguf`, ggufModel(drawModel(seed, { ...shape, name }), { type }));
const target = () => source("large", 11);
/** The target itself with rounded weights: often right. */
const likely = () => source("rounded", 11, SHAPE, "Q4_0");
/** Another model: hardly ever right. */
const unlikely = () => source("other", 12);

/** An engine whose texts have no end of their own. */
async function load(options: EngineOptions = {}, from = target()): Promise<Engine> {
  const engine = await Engine.load(from, { backend: "scalar", context: 96, ...options });
  Object.assign(engine.tokenizer, { eos: [] });
  return engine;
}

const prompt = (seed: number, length = 12) => {
  const d = dice(seed);
  return [1, ...range(length).map(() => d.between(3, 39))];
};
const GREEDY: GenerateParams = { temperature: 0, maxTokens: 40 };
const SAMPLED: GenerateParams = { seed: 3, temperature: 0.7, topK: 12, topP: 0.95, minP: 0.02, repeatPenalty: 1.1, maxTokens: 30 };

describe("prompt lookup", () => {
  it("takes what followed the longest and latest equal run", () => {
    expect(lookUp([1, 2, 3, 9, 1, 2, 3], 2)).toEqual([9, 1]);
    expect(lookUp([7, 2, 3, 8, 5, 2, 3, 9, 2, 3], 1)).toEqual([9]);
    expect(lookUp([4, 2, 3, 8, 5, 2, 3, 9, 4, 2, 3], 1)).toEqual([8]);
    expect(lookUp([1, 2, 3, 4, 3], 4)).toEqual([]);
    expect(lookUp([], 4)).toEqual([]);
  });

  it("carries a repetition on, beyond the tokens that there are", () => {
    expect(lookUp([5, 6, 7, 5, 6, 7, 5, 6], 7)).toEqual([7, 5, 6, 7, 5, 6, 7]);
    expect(lookUp([9, 9, 9], 3)).toEqual([9, 9, 9]);
  });
});

const weighted = (weights: readonly number[], ids = range(weights.length)): Distribution => ({ ids, weights, total: weights.reduce((sum, weight) => sum + weight, 0) });

/** Probability of each id below `size`. */
const spread = (size: number, { ids, weights, total }: Distribution) => range(size).map((id) => (ids.includes(id) ? weights[ids.indexOf(id)] / total : 0));

describe("a tested guess", () => {
  it("is distributed as the target's tokens, whatever the draft's distribution: integrated over the guess and the random number", () => {
    const POINTS = 4000;
    for (const seed of range(40)) {
      const d = dice(seed);
      const size = d.between(2, 7);
      const some = () => {
        const ids = range(size).filter(() => d.chance(0.8));
        return weighted((ids.length > 0 ? ids : [0]).map(() => d.real() ** 3 + 1e-3), ids.length > 0 ? ids : [0]);
      };
      const [p, q] = [some(), some()];
      const found = new Float64Array(size);
      for (const [i, token] of q.ids.entries()) {
        for (let at = 0; at < POINTS; at++) found[verify(p, { token, from: q }, (at + 0.5) / POINTS)] += q.weights[i] / q.total / POINTS;
      }
      spread(size, p).forEach((probability, id) => expect(Math.abs(found[id] - probability), `seed ${seed}, token ${id}`).toBeLessThan(size / POINTS));
    }
  });

  it("stands as often as can be: with probability sum min(p, q)", () => {
    const [p, q] = [weighted([0.5, 0.3, 0.2]), weighted([0.2, 0.2, 0.6])];
    const stands = q.ids.map((token, i) => (q.weights[i] * range(1000).filter((at) => verify(p, { token, from: q }, (at + 0.5) / 1000) === token).length) / 1000);
    expect(stands.reduce((sum, share) => sum + share, 0)).toBeCloseTo(0.2 + 0.2 + 0.2, 2);
  });

  it("without chance in it leaves the token as the same random number draws it", () => {
    const p = weighted([0.1, 0.6, 0.3]);
    for (const guess of [{ token: 1 }, { token: 7 }, { token: 2, from: weighted([5], [2]) }]) expect([0.05, 0.5, 0.95].map((u) => verify(p, guess, u))).toEqual([0, 1, 2]);
  });
});

describe.each<[string, EngineOptions]>([
  ["scalar", {}],
  ["scalar, int8 keys and values, no prefix cache", { kv: "int8", prefixCache: false }],
  ["scalar, int4 keys and values", { kv: "int4" }],
  ["wasm, two threads", { backend: "wasm", threads: 2 }],
  ["wasm, int8 keys and values", { backend: "wasm", threads: 1, kv: "int8" }],
])("greedy text with guesses is bit for bit the text without: %s", (_, options) => {
  it("by prompt lookup and by drafts good and bad, alone and together, in any number", async () => {
    const prompts = range(6).map((seed) => prompt(seed, 5 + 6 * seed));
    const plain = await load(options);
    const expected = await Promise.all(prompts.map(async (tokens) => (await plain.complete(tokens, GREEDY)).tokens));
    plain.close();
    const [guessed, accepted] = [new Map<string, number>(), new Map<string, number>()];
    for (const [name, draftModel, draftTokens] of [["itself", target, 5], ["likely", likely, 16], ["unlikely", unlikely, 3]] as const) {
      const engine = await load({ ...options, draftModel: draftModel() });
      for (const [i, tokens] of prompts.entries()) {
        for (const speculate of ["draft", "ngram"] as const) {
          const { tokens: found, timings } = await engine.complete(tokens, { ...GREEDY, speculate, draftTokens });
          expect(found, `prompt ${i}, ${speculate} ${name}`).toEqual(expected[i]);
          const key = speculate === "draft" ? name : speculate;
          guessed.set(key, (guessed.get(key) ?? 0) + timings.speculation!.guessed);
          accepted.set(key, (accepted.get(key) ?? 0) + timings.speculation!.accepted);
        }
      }
      const together = await Promise.all(prompts.map((tokens, i) => engine.complete(tokens, { ...GREEDY, speculate: (["draft", "ngram", "off"] as const)[i % 3], draftTokens })));
      expect(together.map(({ tokens }) => tokens)).toEqual(expected);
      expect(engine.cache.usedPages).toBe(0);
      expect(engine.draft!.cache.usedPages).toBe(0);
      engine.close();
    }
    const rate = (name: string) => accepted.get(name)! / guessed.get(name)!;
    // With int8 and int4 keys the model itself may disagree with its own f32 draft.
    expect(rate("itself")).toBeGreaterThan(options.kv === undefined ? 0.999 : 0.2);
    expect(rate("unlikely")).toBeLessThan(0.3);
    expect(rate("ngram")).toBeGreaterThan(0.1);
  });
});

describe("models of every option", () => {
  it.each(["scalar", "wasm"] as const)("give the same text with guesses and without on %s", async (backend) => {
    let accepted = 0;
    for (const seed of range(16)) {
      const plain = drawModel(seed, { group: 32 });
      const kernels = await createKernels(backend, { threads: 1 + (seed % 2) });
      const engine = Engine.from(packModel(plain, kernels), kernels, silent(plain.config.vocabSize), { kv: (["f32", "int8"] as const)[seed % 2], context: 100 });
      const tokens = range(7).map((i) => (i * 5 + seed) % plain.config.vocabSize);
      for (const params of [{ temperature: 0 }, { temperature: 0.6, seed, topK: 3 }]) {
        const expected = await engine.complete(tokens, { ...params, maxTokens: 50 });
        const found = await engine.complete(tokens, { ...params, maxTokens: 50, speculate: "ngram" });
        expect(found.tokens, `model ${seed}, temperature ${params.temperature}`).toEqual(expected.tokens);
        accepted += found.timings.speculation!.accepted;
      }
      engine.close();
    }
    expect(accepted).toBeGreaterThan(300);
  });
});

describe("a run that ends in the middle", () => {
  it("stops at maxTokens, at stop strings and at the context as without guesses", async () => {
    const plain = await load();
    const engine = await load({ draftModel: target() });
    const tokens = prompt(5, 20);
    const whole = await plain.complete(tokens, { ...GREEDY, maxTokens: 30 });
    for (const speculate of ["draft", "ngram"] as const) {
      for (const maxTokens of range(14)) {
        const { tokens: found, finishReason } = await engine.complete(tokens, { ...GREEDY, speculate, maxTokens: maxTokens + 1 });
        expect([found, finishReason]).toEqual([whole.tokens.slice(0, maxTokens + 1), "length"]);
      }
      for (const at of [1, 4, 7, 11]) {
        const stop = [whole.text.slice(at, at + 3)];
        const expected = await plain.complete(tokens, { ...GREEDY, stop });
        expect(await engine.complete(tokens, { ...GREEDY, speculate, stop })).toMatchObject({ text: expected.text, tokens: expected.tokens, finishReason: "stop" });
      }
      const long = prompt(6, 85);
      const expected = await plain.complete(long, GREEDY);
      expect(await engine.complete(long, { ...GREEDY, speculate })).toMatchObject({ tokens: expected.tokens, finishReason: "length" });
      expect(expected.tokens).toHaveLength(96 - 86);
    }
  });

  it("ends at an end token that was guessed", async () => {
    const tokens = prompt(5, 20);
    const whole = (await (await load()).complete(tokens, { ...GREEDY, maxTokens: 30 })).tokens;
    const engine = await load({ draftModel: target() });
    for (const at of [2, 3, 6, 9]) {
      const first = whole.indexOf(whole[at]);
      Object.assign(engine.tokenizer, { eos: [whole[at]] });
      for (const speculate of ["draft", "ngram"] as const) {
        expect(await engine.complete(tokens, { ...GREEDY, speculate })).toMatchObject({ tokens: whole.slice(0, first), finishReason: "stop" });
      }
    }
    expect(engine.cache.usedPages).toBe(0);
  });
});

describe("sampled text", () => {
  it("by prompt lookup is the seed's text without guesses", async () => {
    const engine = await load();
    for (const seed of range(8)) {
      const expected = await engine.complete(prompt(seed), { ...SAMPLED, seed });
      const { tokens, timings } = await engine.complete(prompt(seed), { ...SAMPLED, seed, speculate: "ngram" });
      expect(tokens).toEqual(expected.tokens);
      expect(timings.speculation!.method).toBe("ngram");
    }
  });

  /** Small enough that the probability of every text of four tokens can be written down. */
  it("by a draft model has the target's distribution", async () => {
    const tiny: ModelOptions = { ...SHAPE, dim: 8, ffnDim: 8, nHeads: 1, nKvHeads: 1, headDim: 8, vocabSize: 7, contextLength: 16 };
    const params = { temperature: 1.2, topK: 6, topP: 1, minP: 0.05, repeatPenalty: 1, maxTokens: 4 };
    const engine = await load({ context: 16, draftModel: source("tiny draft", 8, tiny), tokenBudget: 400 }, source("tiny", 4, tiny));
    const first = [1, 4, 5];
    const distribution = (tokens: readonly number[]): number[] => {
      const logits = [...[...engine.logits(tokens)].at(-1)!];
      const ranked = range(7).sort((a, b) => logits[b] - logits[a]).slice(0, params.topK);
      const kept = ranked.filter((id) => Math.exp(logits[id] - logits[ranked[0]]) >= params.minP);
      const weights = probabilities(kept.map((id) => logits[id] / params.temperature));
      return range(7).map((id) => (kept.includes(id) ? weights[kept.indexOf(id)] : 0));
    };
    const wanted = new Map<string, number>();
    const walk = (tokens: readonly number[], probability: number): void => {
      if (tokens.length === first.length + params.maxTokens) return void wanted.set(tokens.slice(first.length + 1).join(), (wanted.get(tokens.slice(first.length + 1).join()) ?? 0) + probability);
      distribution(tokens).forEach((p, id) => p > 0 && walk([...tokens, id], probability * p));
    };
    walk(first, 1);
    const DRAWS = 6000;
    const counts = new Map<string, number>();
    let [guessed, accepted] = [0, 0];
    for (const seeds of range(DRAWS / 300).map((i) => range(300).map((j) => 300 * i + j))) {
      for (const { tokens, timings } of await Promise.all(seeds.map((seed) => engine.complete(first, { ...params, seed, draftTokens: 2 + (seed % 3) })))) {
        const key = tokens.slice(1).join();
        expect(wanted.has(key), key).toBe(true);
        counts.set(key, (counts.get(key) ?? 0) + 1);
        guessed += timings.speculation!.guessed;
        accepted += timings.speculation!.accepted;
      }
    }
    expect([...wanted.values()].reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 9);
    // Pearson's chi-squared over the last three tokens together; rare texts count as one.
    const common = [...wanted].filter(([, p]) => p * DRAWS >= 8);
    const [seen, expected] = [common.map(([key]) => counts.get(key) ?? 0), common.map(([, p]) => p * DRAWS)];
    seen.push(DRAWS - seen.reduce((a, b) => a + b, 0));
    expected.push(DRAWS - expected.reduce((a, b) => a + b, 0));
    const chi = seen.reduce((sum, n, i) => sum + (n - expected[i]) ** 2 / expected[i], 0);
    const freedom = seen.length - 1;
    expect(freedom).toBeGreaterThan(30);
    expect(Math.abs(chi - freedom)).toBeLessThan(3.5 * Math.sqrt(2 * freedom));
    // A test that is worth something: some guesses stand and some fall.
    expect(accepted / guessed).toBeGreaterThan(0.3);
    expect(accepted / guessed).toBeLessThan(0.9);
  });
});

describe("a request that guesses", () => {
  it("gives the same text under any schedule, guesses cut, pages taken away, drafts forgotten", async () => {
    const requests = range(8).map((i) => ({ tokens: prompt(i, 4 + 4 * i), params: { ...SAMPLED, seed: i, temperature: [0, 0.7, 1.1][i % 3], speculate: (["draft", "draft", "ngram"] as const)[i % 3 === 0 ? 2 : i % 2] } }));
    const alone: (readonly number[])[] = [];
    for (const { tokens, params } of requests) alone.push((await (await load({ draftModel: likely(), prefixCache: false })).complete(tokens, params)).tokens);
    let [preemptions, guessed] = [0, 0];
    for (const seed of range(24)) {
      const d = dice(seed);
      const options: EngineOptions = { preemption: d.pick(["recompute", "swap"]), tokenBudget: d.pick([2, 3, 7, 16, 40]), kvPages: d.between(6, 9), prefixCache: d.chance(0.6), policy: d.pick(["chunked", "continuous", "static"]) };
      const engine = await load({ ...options, draftModel: likely(), maxSequences: d.between(1, 3) });
      const running = requests.map(({ tokens, params }) => engine.generate(tokens, params));
      if (d.chance(0.3)) engine.generate(requests[1].tokens, requests[1].params).cancel();
      const results = await Promise.all(running.map(({ result }) => result));
      expect(results.map(({ tokens }) => tokens), `schedule ${seed}`).toEqual(alone);
      for (const { metrics } of results) preemptions += metrics.preemptions;
      guessed += engine.stats().guessedTokens;
      expect(engine.stats().acceptedTokens).toBeLessThanOrEqual(engine.stats().guessedTokens);
      expect([engine.cache.usedPages, engine.draft!.cache.usedPages]).toEqual([0, 0]);
      engine.close();
    }
    expect(preemptions).toBeGreaterThan(12);
    expect(guessed).toBeGreaterThan(1000);
  });

  it("goes on in a session, saved or not, and under a window", async () => {
    for (const options of [{}, { kv: "int8", window: 20 }] as EngineOptions[]) {
      const plain = await load(options);
      const whole = await plain.complete(prompt(2), { ...GREEDY, maxTokens: 60 });
      for (const speculate of options.window ? (["ngram"] as const) : (["ngram", "draft"] as const)) {
        const draftModel = options.window ? undefined : target();
        const engine = await load({ ...options, draftModel });
        const session = engine.session();
        const first = await engine.complete(prompt(2), { ...GREEDY, speculate, maxTokens: 23, session });
        const other = await load({ ...options, draftModel: draftModel && target() });
        const restored = other.restoreSession(session.save());
        for (const [on, own] of [[engine, session], [other, restored]] as const) {
          const rest = await on.complete([], { ...GREEDY, speculate, maxTokens: 37, session: own });
          expect([...first.tokens, ...rest.tokens]).toEqual(whole.tokens);
          expect(rest.cachedTokens).toBe(rest.promptTokens - 1);
        }
      }
    }
  });

  it("ends when its signal says so, and leaves nothing behind", async () => {
    const engine = await load({ draftModel: likely() });
    for (const i of range(12)) {
      const stop = new AbortController();
      const generation = engine.generate(prompt(i), { ...SAMPLED, maxTokens: 70, speculate: i % 2 ? "draft" : "ngram", signal: stop.signal });
      for (let wait = i; wait > 0; wait--) await new Promise<void>((resolve) => setImmediate(resolve));
      stop.abort(new Error("enough"));
      await expect(generation.result).rejects.toThrow("enough");
      expect([engine.cache.usedPages, engine.draft!.cache.usedPages]).toEqual([0, 0]);
    }
    let ops = 0;
    const generation = engine.generate(prompt(1), { ...GREEDY, speculate: "draft" });
    engine.onOp(() => ++ops === 60 && generation.cancel());
    expect(await generation.result).toMatchObject({ finishReason: "cancelled" });
    expect([engine.cache.usedPages, engine.draft!.cache.usedPages]).toEqual([0, 0]);
  });

  it("has samples of one prompt, each what its seed gives alone", async () => {
    const engine = await load({ draftModel: likely() });
    const results = await Promise.all(engine.samples(prompt(3, 30), 4, SAMPLED).map(({ result }) => result));
    for (const { tokens, seed } of results) expect(tokens).toEqual((await (await load({ draftModel: likely() })).complete(prompt(3, 30), { ...SAMPLED, seed })).tokens);
  });
});

describe("the account of guessing", () => {
  it("shows the weight bytes of a token fall, steps that are decode and gemm, and the draft model apart", async () => {
    const engine = await load({ ledger: true, draftModel: likely() });
    const run = async (params: GenerateParams) => {
      engine.ledger.clear();
      engine.draft!.ledger.clear();
      const { timings, tokens } = await engine.complete(prompt(5, 20), { ...GREEDY, ...params });
      return { timings, tokens, own: engine.breakdown().decode!, draft: engine.draft!.breakdown() };
    };
    const off = await run({ speculate: "off" });
    const step = off.timings.weightBytesPerToken!;
    expect(step).toBeCloseTo(off.own.total.read.weights / 39, 6);
    expect(off.own.byKind.gemm).toBeUndefined();
    expect([off.draft, off.timings.speculation]).toEqual([{}, undefined]);

    const { timings, own, draft } = await run({ speculate: "draft" });
    const { steps, guessed, accepted, acceptanceRate, tokensPerStep } = timings.speculation!;
    expect(accepted).toBe(39 - steps);
    expect([acceptanceRate, tokensPerStep]).toEqual([accepted / guessed, 39 / steps]);
    expect(tokensPerStep).toBeGreaterThan(1.5);
    const drafted = (draft.prefill?.total.read.weights ?? 0) + (draft.decode?.total.read.weights ?? 0);
    expect(timings.weightBytesPerToken).toBeCloseTo((own.total.read.weights + drafted) / 39, 6);
    expect(own.total.read.weights / 39).toBeLessThan(step / 1.4);
    expect(own.byKind.gemm!.calls).toBeGreaterThan(0);
    expect(own.byKind.sampling!.calls).toBe(39);
    expect(draft.prefill).toBeDefined();

    const ngram = await run({ speculate: "ngram" });
    expect(ngram.timings.weightBytesPerToken).toBeCloseTo(ngram.own.total.read.weights / 39, 6);
    expect(ngram.timings.weightBytesPerToken).toBeLessThan(step);
    expect(ngram.draft).toEqual({});
  });
});

describe("what cannot be done is refused in one line", () => {
  it("names both models where vocabularies differ", async () => {
    await expect(load({ draftModel: source("few", 1, { ...SHAPE, vocabSize: 30 }) })).rejects.toThrow(
      new RangeError("draft model few.gguf: expected the vocabulary of large.gguf (40 tokens), found another (30 tokens)"),
    );
    const names = ["<unk>", "<s>", "</s>", "▁", ...range(36).map((i) => String.fromCharCode(0x41 + i))];
    const capitals = ggufModel(drawModel(1, SHAPE), { metadata: { "tokenizer.ggml.tokens": { type: "array", itemType: "string", value: names } } });
    await expect(load({ draftModel: memorySource("capitals.gguf", capitals) })).rejects.toThrow(
      new RangeError('draft model capitals.gguf: expected the vocabulary of large.gguf (token 4 is "a"), found another ("A")'),
    );
  });

  it.each<[string, EngineOptions]>([
    ["draftModel: expected no window with it (its own memory has an end; speculate ngram goes with a window), found both", { window: 20, draftModel: likely() }],
    ["speculate: expected a draft model (draftModel) for draft, found none", { speculate: "draft" }],
    ["speculate: expected draft or off with a draft model, found ngram", { speculate: "ngram", draftModel: likely() }],
    ["draftTokens: expected a whole number from 1 to 16, found 17", { speculate: "ngram", draftTokens: 17 }],
    ["draftTokens: expected a whole number from 1 to 16, found 0", { draftTokens: 0 }],
    ['speculate: expected one of off, ngram, draft, found "magic"', { speculate: "magic" as "off" }],
  ])("%s", async (message, options) => {
    await expect(load(options)).rejects.toThrow(new RangeError(message));
  });

  it("for a request too", async () => {
    const engine = await load();
    expect(() => engine.generate([1], { speculate: "draft" })).toThrow("speculate: expected a draft model (draftModel) for draft, found none");
    expect(() => engine.generate([1], { draftTokens: 1.5 })).toThrow("draftTokens: expected a whole number from 1 to 16, found 1.5");
  });
});
