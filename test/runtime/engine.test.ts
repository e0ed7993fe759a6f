import { describe, expect, it } from "vitest";
import { memorySource } from "../../src/model/formats/source.ts";
import { Engine, type EngineOptions, type GenerateParams } from "../../src/runtime/engine.ts";
import type { Generation } from "../../src/runtime/generation.ts";
import { dice, range } from "../support/dice.ts";
import { ggufModel, llama2cModel, llama2cTokenizer } from "../support/files.ts";
import { drawModel, type ModelOptions, SMALL } from "../support/models.ts";
import { rows } from "../support/run.ts";

const bytesOf = (given: ModelOptions = {}) => ggufModel(drawModel(11, { ...SMALL, ...given }));
const GGUF = bytesOf();
const source = (bytes = GGUF) => memorySource("small.gguf", bytes);
const load = (options: EngineOptions = {}) => Engine.load(source(), { backend: "scalar", ...options });

/** All pieces; throws what the loop throws. */
async function collect(generation: AsyncIterable<string>): Promise<string[]> {
  const pieces: string[] = [];
  for await (const piece of generation) pieces.push(piece);
  return pieces;
}

/** An engine's whole state when nothing runs. */
function expectIdle(engine: Engine): void {
  expect([engine.cache.usedPages, engine.cache.freePages]).toEqual([0, engine.cache.maxPages]);
}

const PROMPT = [1, 5, 9, 12];
/** Long enough to look at, by a seed under which the model does not end early. */
const STORY: GenerateParams = { seed: 3, temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens: 24 };

describe("a generation", () => {
  it("streams pieces that make up its text, and reports itself", async () => {
    const engine = await load();
    const generation = engine.generate(PROMPT, STORY);
    const pieces = await collect(generation);
    const result = await generation.result;
    expect(pieces.join("")).toBe(result.text);
    expect(result).toMatchObject({ promptTokens: 4, finishReason: "length", seed: 3 });
    expect(result.tokens.length).toBe(24);
    expect(result.text).toBe(engine.tokenizer.decode([...PROMPT, ...result.tokens]).slice(engine.tokenizer.decode(PROMPT).length));
    expect(pieces.length).toBeGreaterThan(1);
    expectIdle(engine);
  });

  it("is what the model itself says, greedily", async () => {
    const engine = await load();
    const { tokens } = await engine.complete(PROMPT, { temperature: 0, maxTokens: 12 });
    const fed = [...PROMPT];
    for (const token of tokens) {
      const logits = [...engine.logits(fed)].at(-1)!;
      expect(token).toBe(logits.indexOf(Math.max(...logits)));
      fed.push(token);
    }
  });

  it("repeats itself with the same seed, and says which seed it took", async () => {
    const engine = await load();
    const { seed: _, ...unseeded } = STORY;
    const first = await engine.complete(PROMPT, unseeded);
    const again = await engine.complete(PROMPT, { ...unseeded, seed: first.seed });
    expect(again.tokens).toEqual(first.tokens);
    expect(again.seed).toBe(first.seed);
  });

  it("ends at an end token, which is not part of it", async () => {
    const engine = await load();
    const results = await Promise.all(range(24).map((seed) => engine.complete(PROMPT, { ...STORY, seed, maxTokens: 100 })));
    const stopped = results.filter(({ finishReason }) => finishReason === "stop");
    expect(stopped.length).toBeGreaterThan(5);
    for (const { tokens } of results) expect(tokens).not.toContain(2);
    for (const { tokens } of stopped) expect(tokens.length).toBeLessThan(100);
    expectIdle(engine);
  });

  it("ends at maxTokens or at the context, whichever comes first", async () => {
    const engine = await load({ context: 20 });
    const lengths = async (params: GenerateParams) => {
      const { tokens, finishReason } = await engine.complete(PROMPT, { ...STORY, ...params });
      return [tokens.length, finishReason];
    };
    expect(await lengths({ maxTokens: 1 })).toEqual([1, "length"]);
    expect(await lengths({ maxTokens: 15 })).toEqual([15, "length"]);
    expect(await lengths({ maxTokens: 16 })).toEqual([16, "length"]);
    expect(await lengths({ maxTokens: 500 })).toEqual([16, "length"]);
    const { tokens } = await engine.complete(range(19), STORY);
    expect(tokens.length).toBe(1);
    expectIdle(engine);
  });

  it("times itself: a rate needs two tokens", async () => {
    const engine = await load();
    const many = await engine.complete(PROMPT, STORY);
    expect(many.timings.ttftMs).toBeGreaterThan(0);
    for (const rate of [many.timings.tpotMs, many.timings.prefillTokensPerSecond, many.timings.decodeTokensPerSecond]) expect(rate).toBeGreaterThan(0);
    const one = await engine.complete(PROMPT, { ...STORY, maxTokens: 1 });
    expect([one.timings.tpotMs, one.timings.decodeTokensPerSecond]).toEqual([null, null]);
    expect(engine.loadMs).toBeGreaterThan(0);
  });
});

describe("concurrent generations", () => {
  /** Prompts, parameters and start times all mixed. */
  const requests = range(14).map((i) => {
    const d = dice(i);
    const tokens = [1, ...range(d.between(0, 60)).map(() => d.between(3, 39))];
    return { tokens, params: { ...STORY, seed: i, temperature: d.pick([0, 0.7, 1.3]), maxTokens: d.between(1, 40), repeatPenalty: d.pick([1, 1.3]) } };
  });

  it.each<[string, EngineOptions]>([
    ["all at once", {}],
    ["with a small token budget", { tokenBudget: 5 }],
    ["with room for one sequence", { maxSequences: 1 }],
    ["with naive attention", { attention: "naive" }],
    ["with the ledger on", { ledger: { records: true } }],
  ])("give the same tokens as alone, %s", async (_, options) => {
    const alone: number[][] = [];
    const quiet = await load({ attention: options.attention });
    for (const { tokens, params } of requests) alone.push((await quiet.complete(tokens, params)).tokens);

    const engine = await load(options);
    const running: Generation[] = [];
    for (const [i, { tokens, params }] of requests.entries()) {
      running.push(engine.generate(tokens, params));
      if (i % 3 === 2) await collect(engine.generate([1], { ...STORY, maxTokens: 2 }));
    }
    const together = await Promise.all(running.map(({ result }) => result));
    expect(together.map(({ tokens }) => tokens)).toEqual(alone);
    expectIdle(engine);
  });

  it("share steps", async () => {
    const engine = await load({ ledger: true });
    await Promise.all(range(8).map((seed) => engine.complete(PROMPT, { ...STORY, seed, maxTokens: 10 })));
    expect(engine.ledger.step).toBeLessThanOrEqual(10);
  });

  it("go on when others are cancelled", async () => {
    const expected = await (await load()).complete(PROMPT, STORY);
    const engine = await load();
    const others = range(5).map((seed) => engine.generate([1, 8, 20], { ...STORY, seed, maxTokens: 100 }));
    const kept = engine.generate(PROMPT, STORY);
    for await (const _ of kept) others.pop()?.cancel();
    expect((await kept.result).tokens).toEqual(expected.tokens);
    expectIdle(engine);
  });
});

describe("cancelling", () => {
  it("by leaving the loop gives the pages back and keeps what there is", async () => {
    const engine = await load();
    const generation = engine.generate(PROMPT, STORY);
    let text = "";
    for await (const piece of generation) {
      text += piece;
      if (text.length >= 3) break;
    }
    const result = await generation.result;
    expect(result.finishReason).toBe("cancelled");
    expect(result.text.startsWith(text)).toBe(true);
    expect(result.tokens.length).toBeLessThan(24);
    expectIdle(engine);
  });

  it("by an error inside the loop does too", async () => {
    const engine = await load();
    const generation = engine.generate(PROMPT, STORY);
    const consume = async () => {
      for await (const piece of generation) throw new Error(`cannot print ${piece.length}`);
    };
    await expect(consume()).rejects.toThrow("cannot print");
    expect((await generation.result).finishReason).toBe("cancelled");
    expectIdle(engine);
  });

  it("before the first step, and again, is no error", async () => {
    const engine = await load();
    const generation = engine.generate(PROMPT, STORY);
    generation.cancel();
    generation.cancel();
    expect(await generation.result).toMatchObject({ finishReason: "cancelled", tokens: [], text: "" });
    expect(await collect(generation)).toEqual([]);
    expectIdle(engine);
  });

  it("in the middle of a step, from a hook, leaves the step and the others whole", async () => {
    const expected = await (await load()).complete([1, 7], STORY);
    const engine = await load();
    const victim = engine.generate(PROMPT, STORY);
    const other = engine.generate([1, 7], STORY);
    engine.onOp(({ name, layer, step }) => {
      if (name === "attn_q" && layer === 1 && step === 3) victim.cancel();
    });
    const result = await victim.result;
    const tokens = [...result.tokens];
    expect(result.finishReason).toBe("cancelled");
    expect(tokens.length).toBe(2);
    expect((await other.result).tokens).toEqual(expected.tokens);
    expect(result.tokens).toEqual(tokens);
    expect((await collect(victim)).join("")).toBe(result.text);
    expectIdle(engine);
  });
});

describe("an AbortSignal", () => {
  it("ends the loop and the result with its reason", async () => {
    const engine = await load();
    const abort = new AbortController();
    const generation = engine.generate(PROMPT, { ...STORY, signal: abort.signal });
    const pieces: string[] = [];
    const consume = async () => {
      for await (const piece of generation) {
        pieces.push(piece);
        if (pieces.length === 3) abort.abort(new Error("enough"));
      }
    };
    await expect(consume()).rejects.toThrow("enough");
    await expect(generation.result).rejects.toThrow("enough");
    expect(pieces.length).toBeLessThan(24);
    expectIdle(engine);
  });

  it("that is aborted already starts nothing", async () => {
    const engine = await load();
    expect(() => engine.generate(PROMPT, { signal: AbortSignal.abort(new Error("too late")) })).toThrow("too late");
    expectIdle(engine);
  });

  it("without a reason of its own throws an AbortError", async () => {
    const engine = await load();
    const abort = new AbortController();
    const generation = engine.generate(PROMPT, { ...STORY, signal: abort.signal });
    abort.abort();
    await expect(collect(generation)).rejects.toMatchObject({ name: "AbortError" });
  });

  it("that comes after the end changes nothing", async () => {
    const engine = await load();
    const abort = new AbortController();
    const generation = engine.generate(PROMPT, { ...STORY, signal: abort.signal });
    const { tokens } = await generation.result;
    abort.abort();
    expect((await generation.result).tokens).toEqual(tokens);
    expect((await collect(generation)).length).toBeGreaterThan(0);
  });
});

describe("stop strings", () => {
  it("end the text before them, wherever they lie in it", async () => {
    const engine = await load();
    const { text, tokens } = await engine.complete(PROMPT, STORY);
    for (const start of range(text.length - 1)) {
      for (const length of [1, 2, 5]) {
        const stop = text.slice(start, start + length);
        const generation = engine.generate(PROMPT, { ...STORY, stop: ["never", stop, ""] });
        const pieces = await collect(generation);
        const result = await generation.result;
        expect(result.text).toBe(text.slice(0, text.indexOf(stop)));
        expect(pieces.join("")).toBe(result.text);
        expect(result.finishReason).toBe("stop");
        expect(result.tokens).toEqual(tokens.slice(0, result.tokens.length));
      }
    }
    expectIdle(engine);
  });

  it("that never come hold nothing back in the end", async () => {
    const engine = await load();
    const { text } = await engine.complete(PROMPT, STORY);
    const almost = `${text.at(-1)!}#`;
    expect((await engine.complete(PROMPT, { ...STORY, stop: [almost] })).text).toBe(text);
  });
});

describe("prompts", () => {
  it("of text are encoded, with BOS in front", async () => {
    const engine = await load();
    expect(engine.promptTokens("ab")).toEqual([1, 3, 4, 5]);
    expect((await engine.complete("ab", STORY)).tokens).toEqual((await engine.complete([1, 3, 4, 5], STORY)).tokens);
    expect(engine.promptTokens("")).toEqual([1]);
  });

  it("of ids are taken as they are", async () => {
    const engine = await load();
    const ids = [5, 6];
    expect(engine.promptTokens(ids)).toEqual([5, 6]);
    expect(engine.promptTokens(ids)).not.toBe(ids);
  });

  it("that are empty need a BOS token", async () => {
    const bytes = ggufModel(drawModel(11, SMALL), { metadata: { "tokenizer.ggml.add_bos_token": { type: "bool", value: false } } });
    const engine = await Engine.load(source(bytes), { backend: "scalar" });
    expect(engine.promptTokens("")).toEqual([1]);
    expect(engine.promptTokens("a")).toEqual([3, 4]);
    expect(() => engine.generate([])).toThrow("prompt: expected at least one token, found none");
  });

  it.each<[string, number[], string]>([
    ["beyond the context", range(20), "prompt: expected fewer than 20 tokens (the context), found 20"],
    ["with an id beyond the vocabulary", [1, 40], "prompt: expected token ids below 40, found 40"],
    ["with a negative id", [-1], "prompt: expected token ids below 40, found -1"],
    ["with half an id", [1.5], "prompt: expected token ids below 40, found 1.5"],
    ["with NaN", [Number.NaN], "prompt: expected token ids below 40, found NaN"],
    ["without any", [], "prompt: expected at least one token, found none (the model has no BOS token to begin with)"],
  ])("%s are refused at once", async (_, tokens, message) => {
    const engine = await load({ context: 20 });
    expect(() => engine.generate(tokens)).toThrow(new RangeError(message));
    expect((await engine.complete(PROMPT, STORY)).tokens.length).toBe(16);
    expectIdle(engine);
  });

  it("with parameters out of range are refused at once", async () => {
    const engine = await load();
    expect(() => engine.generate("a", { maxTokens: 0 })).toThrow(new RangeError("maxTokens: expected a whole number, 1 or more, found 0"));
    expect(() => engine.generate("a", { maxTokens: 1.5 })).toThrow("maxTokens");
    expect(() => engine.generate("a", { temperature: -1 })).toThrow(new RangeError("temperature: expected 0 or more, found -1"));
    await expect(engine.complete("a", { topP: 2 })).rejects.toThrow("topP");
    expectIdle(engine);
  });
});

describe("close", () => {
  it("ends what runs with an error, and refuses more", async () => {
    const engine = await load();
    const generations = range(3).map((seed) => engine.generate(PROMPT, { ...STORY, seed, maxTokens: 100 }));
    const consume = async () => {
      for await (const _ of generations[0]) engine.close();
    };
    await expect(consume()).rejects.toThrow("engine: closed while generating");
    for (const { result } of generations) await expect(result).rejects.toThrow("engine: closed while generating");
    expect(() => engine.generate(PROMPT)).toThrow("engine: closed");
    expectIdle(engine);
    engine.close();
  });

  it("before the first step, too", async () => {
    const engine = await load();
    const generation = engine.generate(PROMPT, STORY);
    engine.close();
    await expect(generation.result).rejects.toThrow("engine: closed while generating");
  });
});

describe("an error inside a step", () => {
  it("ends one request whose logits are no numbers, and no other", async () => {
    const engine = await load();
    const story = { ...STORY, temperature: 0 };
    const prompts = [[1, 2, 3], [1, 7, 3], [4, 5]];
    const alone = [];
    for (const prompt of prompts) alone.push((await engine.generate(prompt, story).result).tokens);
    const off = engine.onOp(({ name }, output) => {
      if (name === "output" && output.rows === prompts.length) output.f32.fill(NaN, output.cols, 2 * output.cols);
    });
    const [first, second, third] = prompts.map((prompt) => engine.generate(prompt, story).result.then(({ tokens }) => tokens, (error: Error) => error.message));
    expect(await second).toBe("logits: expected finite numbers, found NaN as the largest of 40: the model's weights are too large, or damaged");
    expect([await first, await third]).toEqual([alone[0], alone[2]]);
    off();
    expect((await engine.generate(prompts[1], story).result).tokens).toEqual(alone[1]);
    engine.close();
  });

  it("reaches every generation of that step, and the engine goes on", async () => {
    const engine = await load();
    const off = engine.onOp(({ name, step }) => {
      if (name === "output" && step === 4) throw new Error("hook failed");
    });
    const generations = range(3).map((seed) => engine.generate(PROMPT, { ...STORY, seed }));
    for (const { result } of generations) await expect(result).rejects.toThrow("hook failed");
    off();
    expectIdle(engine);
    expect((await engine.complete(PROMPT, STORY)).tokens).toEqual((await (await load()).complete(PROMPT, STORY)).tokens);
  });
});

describe("logits", () => {
  it("come for every position, and leave nothing behind, read to the end or not", async () => {
    const engine = await load();
    const tokens = range(100).map((i) => (i * 7) % 40);
    const all = [...engine.logits(tokens)];
    expect(all.length).toBe(100);
    expect([...engine.logits(tokens.slice(0, 70))]).toEqual(all.slice(0, 70));
    for (const row of engine.logits(tokens)) {
      expect(row).toEqual(all[0]);
      break;
    }
    expectIdle(engine);
  });

  it("can be read while generations run, which wait for their pages", async () => {
    const expected = await (await load()).complete(PROMPT, STORY);
    const engine = await load({ maxSequences: 1 });
    const tokens = range(128).map((i) => i % 40);
    const wanted = [...engine.logits(tokens)];
    const reading = engine.logits(tokens);
    const found = range(65).map(() => reading.next().value);
    const generation = engine.generate(PROMPT, STORY);
    await new Promise((resolve) => setTimeout(resolve, 5));
    found.push(...reading);
    expect(found).toEqual(wanted);
    expect((await generation.result).tokens).toEqual(expected.tokens);
    expectIdle(engine);
  });

  it("never take the pages that a running generation was promised", async () => {
    const expected = await (await load()).complete(PROMPT, { ...STORY, maxTokens: 100 });
    const engine = await load({ maxSequences: 1 });
    const generation = engine.generate(PROMPT, { ...STORY, maxTokens: 100 });
    let refused = 0;
    for await (const _ of generation) {
      try {
        expect([...engine.logits(range(40))].length).toBe(40);
      } catch (error) {
        expect((error as Error).message).toMatch(/^logits: 3 pages of the KV cache needed, 1 not promised to running generations$/);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(0);
    expect([...engine.logits(range(40))].length).toBe(40);
    expect((await generation.result).tokens).toEqual(expected.tokens);
    expectIdle(engine);
  });
});

describe("the ledger of an engine", () => {
  it("is off unless asked for", async () => {
    const engine = await load();
    await engine.complete(PROMPT, STORY);
    expect(engine.breakdown()).toEqual({});
  });

  it("shows decode as GEMV: most of its bytes are weights, each read once a token", async () => {
    const engine = await load({ ledger: true });
    await engine.complete(PROMPT, { ...STORY, maxTokens: 11 });
    const { prefill, decode } = engine.breakdown();
    expect(prefill!.byKind.gemm!.calls + prefill!.byKind.gemv!.calls).toBe(15);
    expect(decode!.byKind.gemv!.calls).toBe(10 * 15);
    expect(decode!.byKind.gemm).toBeUndefined();
    const { layers, output } = engine.model.weights;
    const linear = layers.flatMap(({ q, k, v, o, gate, up, down }) => [q, k, v, o, gate!, up!, down!]).concat(output);
    expect(decode!.byKind.gemv!.read.weights).toBe(10 * linear.reduce((sum, { weight }) => sum + weight.bytes, 0));
    expect(decode!.byKind.sampling!.calls).toBe(10);
  });

  it("hooks see the logits that the sampler gets", async () => {
    const engine = await load();
    const seen: Float32Array[] = [];
    engine.onOp(({ name }, output) => {
      if (name === "output") seen.push(...rows(output));
    });
    const { tokens } = await engine.complete(PROMPT, { ...STORY, temperature: 0, maxTokens: 5 });
    expect(seen.map((logits) => logits.indexOf(Math.max(...logits)))).toEqual(tokens);
  });
});

describe("loading", () => {
  it("tells how far it is", async () => {
    const shares: number[] = [];
    await load({ onProgress: (share) => shares.push(share) });
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(shares.at(-1)).toBe(1);
  });

  it("reads a llama2.c checkpoint with its tokenizer like the GGUF of the same weights", async () => {
    const plain = drawModel(11, SMALL);
    const engine = await Engine.load(memorySource("small.bin", llama2cModel(plain)), {
      backend: "scalar",
      tokenizer: memorySource("tok.bin", llama2cTokenizer(SMALL.vocabSize!)),
    });
    const params = { ...STORY, temperature: 0 };
    expect((await engine.complete(PROMPT, params)).text).toBe((await (await load()).complete(PROMPT, params)).text);
  });

  it.each<[EngineOptions, string]>([
    [{ context: 1 }, "context: expected 2 to 128 tokens (the model's own context), found 1"],
    [{ context: 129 }, "context: expected 2 to 128 tokens (the model's own context), found 129"],
    [{ context: 2.5 }, "context: expected 2 to 128 tokens (the model's own context), found 2.5"],
    [{ maxSequences: 0 }, "maxSequences: expected a whole number, 1 or more, found 0"],
    [{ maxSequences: Number.NaN }, "maxSequences: expected a whole number, 1 or more, found NaN"],
    [{ tokenBudget: 0 }, "tokenBudget: expected a whole number, 1 or more, found 0"],
    [{ tokenBudget: 0.5 }, "tokenBudget: expected a whole number, 1 or more, found 0.5"],
  ])("refuses %o", async (options, message) => {
    await expect(load(options)).rejects.toThrow(new RangeError(message));
  });

  it("closes what it opened, also when it fails", async () => {
    const watched = (name: string, bytes: Uint8Array) => {
      const inner = memorySource(name, bytes);
      const file = { name, size: inner.size, closed: 0, read: inner.read, close: () => void file.closed++ };
      return file;
    };
    const plain = drawModel(11, SMALL);
    const [model, tokenizer] = [watched("small.bin", llama2cModel(plain)), watched("tok.bin", llama2cTokenizer(30))];
    await expect(Engine.load(model, { tokenizer, backend: "scalar" })).rejects.toThrow("tok.bin: ");
    expect([model.closed, tokenizer.closed]).toEqual([1, 1]);
    const whole = watched("small.gguf", GGUF);
    await Engine.load(whole, { backend: "scalar" });
    expect(whole.closed).toBe(1);
  });

  it("says what is wrong with the files in one line", async () => {
    const plain = drawModel(11, SMALL);
    const bin = memorySource("small.bin", llama2cModel(plain));
    await expect(Engine.load(bin)).rejects.toThrow(/^small\.bin: a llama2\.c checkpoint needs its tokenizer file/);
    await expect(Engine.load(source(), { tokenizer: bin })).rejects.toThrow(/^small\.gguf: a GGUF file brings its own tokenizer/);
    await expect(Engine.load("/no/such/model.gguf")).rejects.toThrow("/no/such/model.gguf: cannot open: no such file");
    await expect(Engine.load(source(GGUF.subarray(0, GGUF.length - 300)))).rejects.toThrow(/^small\.gguf: .*truncated/);
    const fewer = ggufModel(drawModel(11, SMALL), { metadata: { "tokenizer.ggml.tokens": { type: "array", itemType: "string", value: ["<unk>", "<s>", "</s>"] } } });
    await expect(Engine.load(source(fewer))).rejects.toThrow(/^small\.gguf: /);
  });
});
