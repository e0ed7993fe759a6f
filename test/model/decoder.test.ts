import { describe, expect, it } from "vitest";
import { KvCache, type KvSequence, KvCacheFullError } from "../../src/kvcache/cache.ts";
import { forward, makeBatch, type Run } from "../../src/model/decoder.ts";
import type { AttentionWindow, Kernels } from "../../src/tensor/kernels.ts";
import { Ledger } from "../../src/tensor/ledger.ts";
import type { AttentionMethod } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { dice, range } from "../support/dice.ts";
import { drawModel, drawOptions, type ModelOptions, packModel, type PlainModel, SMALL } from "../support/models.ts";
import { referenceLogits } from "../support/reference.ts";
import { allLogits, bench, PAGE_SIZE, prompt, readPlain, relativeError, smallBench, step, token } from "../support/run.ts";

const TOLERANCE = 1e-5;

function hasRowNorms({ config, tensors }: PlainModel): boolean {
  const shape = tensors.get("blk.0.attn_q_norm.weight")?.shape;
  return shape?.length === 1 && shape[0] === config.nHeads * config.headDim;
}

/** Worst relative error over all positions of one random sequence. */
function errorOf(seed: number, given: ModelOptions = {}, length = dice(seed).between(1, 24)): number {
  const plain = drawModel(seed, given);
  const d = dice(seed);
  const tokens = range(length).map(() => d.below(plain.config.vocabSize));
  const expected = referenceLogits(plain.config, readPlain(plain), tokens, hasRowNorms(plain));
  const found = allLogits(bench(packModel(plain, scalarKernels())), tokens);
  expect(found.length).toBe(tokens.length);
  return Math.max(...found.map((row, i) => relativeError(row, expected[i])));
}

describe("decoder against a float64 reference", () => {
  it("draws models of every option", () => {
    const drawn = range(300).map(drawOptions);
    const seen = (what: (o: (typeof drawn)[0]) => boolean) => expect(drawn.filter(what).length).toBeGreaterThan(5);
    seen((o) => o.nHeads === 1 && o.nLayers === 1);
    seen((o) => o.nKvHeads === o.nHeads && o.nHeads > 1);
    seen((o) => o.nKvHeads === 1 && o.nHeads > 1);
    seen((o) => o.nKvHeads > 1 && o.nKvHeads < o.nHeads);
    seen((o) => o.dim % 2 === 1 && o.ffnDim % 2 === 1);
    for (const type of ["f32", "int8", "int4"]) seen((o) => o.matrices === type);
    for (const type of ["none", "linear", "llama3", "yarn", "longrope"]) for (const style of ["interleaved", "halves"]) seen((o) => o.rope?.scaling.type === type && o.rope.style === style);
    seen((o) => o.rope !== undefined && o.rope.dims < o.headDim - 1);
    seen((o) => o.rope === undefined && o.norm === "layer" && o.ffn === "plain");
    seen((o) => o.rope?.scaling.type === "longrope" && o.ropeFactors);
    for (const key of ["alibi", "window", "attentionCap", "attentionScale", "qkvClamp", "embeddingScale", "residualScale", "logitScale", "logitCap"] as const) seen((o) => o[key] !== undefined);
    seen((o) => o.learnedPositions === false);
    for (const placement of ["after", "both"]) seen((o) => o.normPlacement === placement);
    for (const shared of [true, false]) seen((o) => o.parallelResidual === true && o.sharedNorm === shared);
    for (const kind of ["by head", "row"]) seen((o) => o.qkNorm === kind);
    seen((o) => o.normWeights === false);
    seen((o) => o.alternate?.window !== undefined && o.alternate.rope === o.rope);
    seen((o) => o.alternate !== undefined && o.rope !== undefined && o.alternate.rope === undefined);
    seen((o) => o.alternate?.rope !== undefined && o.alternate.rope !== o.rope);
    for (const flag of ["ropeFactors", "qkNorm", "tied", "normBias", "embeddingNorm"] as const) for (const on of [true, false]) seen((o) => o[flag] === on);
  });

  for (const from of range(6).map((i) => i * 50)) {
    it(`agrees to ${TOLERANCE} on random models ${from} to ${from + 49}`, () => {
      const errors = range(50).map((i) => ({ seed: from + i, error: errorOf(from + i) }));
      expect(errors.filter(({ error }) => !(error <= TOLERANCE))).toEqual([]);
    });
  }

  it.each<[string, ModelOptions]>([
    ["a plain llama", {}],
    ["multi-query attention", { nKvHeads: 1 }],
    ["multi-head attention", { nKvHeads: 4 }],
    ["one head, one layer", { nHeads: 1, nKvHeads: 1, nLayers: 1 }],
    ["headDim other than dim / nHeads", { headDim: 12 }],
    ["a tied head", { tied: true }],
    ["biases on all linears", { biases: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "output"] }],
    ["norms of every head (Qwen 3)", { qkNorm: true }],
    ["a large eps", { normEps: 0.5 }],
    ["a partial rotation", { rope: { style: "halves", base: 10000, dims: 4, scaling: { type: "none" } } }],
    ["rope factors", { ropeFactors: true }],
    ["linear rope scaling", { rope: { style: "interleaved", base: 10000, dims: 8, scaling: { type: "linear", factor: 4 } } }],
    [
      "llama3 rope scaling",
      {
        headDim: 32,
        rope: { style: "interleaved", base: 10000, dims: 32, scaling: { type: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 32 } },
      },
    ],
    ["GPT-2's parts", { norm: "layer", normBias: true, rope: undefined, ffn: "plain", activation: "gelu", biases: ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"], tied: true }],
    ["int8 weights in odd groups", { matrices: "int8", group: 7 }],
    ["int8 weights with a scale for each row", { matrices: "int8", group: 64 }],
    ["int4 weights", { matrices: "int4", dim: 64, ffnDim: 96 }],
  ])("agrees over several pages with %s", (_, given) => {
    expect(errorOf(5, { ...SMALL, ...given }, 2 * PAGE_SIZE + 5)).toBeLessThanOrEqual(TOLERANCE);
  });

  it("agrees with one token and the smallest shapes", () => {
    const least: ModelOptions = { ...SMALL, dim: 2, ffnDim: 1, vocabSize: 2, nHeads: 1, nKvHeads: 1, headDim: 2, nLayers: 1, rope: { style: "halves", base: 10000, dims: 2, scaling: { type: "none" } } };
    expect(errorOf(1, least, 1)).toBeLessThanOrEqual(TOLERANCE);
  });
});

/**
 * Feeds some texts in any order and in any pieces; returns the logits of every position of each. With `forking`, every text but the
 * first begins as the fork of another one, cut back to what the two have in common.
 */
function feedMixed(seed: number, given: ModelOptions, texts: readonly number[][], forking: boolean): Float32Array[][] {
  const d = dice(seed);
  const on = smallBench(seed, given, { maxPages: 200 });
  const found: Float32Array[][] = texts.map(() => []);
  const sequences: (KvSequence | undefined)[] = texts.map(() => undefined);
  const common = (a: number, b: number, most: number) => range(most).find((i) => texts[a][i] !== texts[b][i]) ?? most;
  while (found.some((rows, i) => rows.length < texts[i].length)) {
    const runs: { run: Run; text: number }[] = [];
    for (const [text, tokens] of texts.entries()) {
      const done = found[text].length;
      if (done === tokens.length || d.chance(0.3)) continue;
      if (forking && text > 0 && sequences[text] === undefined) {
        const parent = d.pick(range(texts.length).filter((other) => found[other].length > 0));
        if (parent === undefined) continue;
        const sequence = (sequences[text] = on.cache.fork(sequences[parent]!));
        on.cache.truncate(sequence, common(parent, text, Math.min(sequence.length, tokens.length - 1)));
        found[text] = found[parent].slice(0, sequence.length);
      }
      const sequence = (sequences[text] ??= on.cache.create());
      const left = tokens.length - found[text].length;
      const count = d.chance(0.4) ? 1 : d.between(1, left);
      runs.push({ text, run: prompt(sequence, tokens.slice(sequence.length, sequence.length + count)) });
    }
    if (runs.length === 0) continue;
    const logits = step(on, runs.map(({ run }) => run));
    let row = 0;
    for (const { run, text } of runs) for (let i = 0; i < run.tokens.length; i++) found[text].push(logits[row++]);
    expect(row).toBe(logits.length);
  }
  return found;
}

describe("batch invariance, bit for bit", () => {
  const shapes: [string, ModelOptions][] = [
    ["f32", SMALL],
    ["int8", { ...SMALL, matrices: "int8" }],
    ["int4", { ...SMALL, matrices: "int4", dim: 64, ffnDim: 64 }],
    ["GPT-2's parts", { ...SMALL, norm: "layer", normBias: true, rope: undefined, ffn: "plain", activation: "gelu" }],
    ["local windows, caps, post-norms", { ...SMALL, nLayers: 3, alternate: { layers: [true, false, true], rope: SMALL.rope, window: 7 }, attentionCap: 2, logitCap: 3, normPlacement: "both" }],
    ["ALiBi, blocks side by side", { ...SMALL, rope: undefined, alibi: 8, parallelResidual: true, sharedNorm: true, qkvClamp: 1 }],
    ["qk-norm, odd sizes", { ...SMALL, dim: 27, ffnDim: 13, vocabSize: 31, qkNorm: true, nHeads: 3, nKvHeads: 1 }],
  ];

  it.each(shapes)("one by one, in any chunks and in any mixed batch: %s", (_, shape) => {
    for (const seed of range(4)) {
      const d = dice(seed);
      const texts = range(5).map(() => range(d.between(1, 3 * PAGE_SIZE)).map(() => d.below(shape.vocabSize!)));
      const alone = texts.map((tokens) => allLogits(smallBench(seed, shape), tokens));
      expect(feedMixed(seed, shape, texts, false)).toEqual(alone);
      const single = smallBench(seed, shape);
      const oneByOne = texts.map((tokens) => {
        const sequence = single.cache.create();
        return tokens.map((id) => step(single, [token(sequence, id)])[0]);
      });
      expect(oneByOne).toEqual(alone);
    }
  });

  it.each(shapes)("forked sequences: %s", (_, shape) => {
    for (const seed of range(4)) {
      const d = dice(seed + 100);
      const trunk = range(2 * PAGE_SIZE).map(() => d.below(shape.vocabSize!));
      const branch = (at: number) => [...trunk.slice(0, at), ...range(d.between(1, 20)).map(() => d.below(shape.vocabSize!))];
      const texts = [trunk, branch(5), branch(PAGE_SIZE), branch(PAGE_SIZE + 3), branch(31)];
      const alone = texts.map((tokens) => allLogits(smallBench(seed, shape), tokens));
      expect(feedMixed(seed, shape, texts, true)).toEqual(alone);
    }
  });

  it("only asks for the rows that are wanted, and gives the same ones", () => {
    const on = smallBench(3, SMALL);
    const [a, b, c] = range(3).map(() => on.cache.create());
    const all = allLogits(smallBench(3, SMALL), [1, 2, 3]);
    const runs: Run[] = [prompt(a, [1, 2, 3], "none"), prompt(b, [1, 2, 3], "last"), prompt(c, [1, 2], "all")];
    expect(step(on, runs)).toEqual([all[2], all[0], all[1]]);
    expect(step(on, [prompt(a, [5], "none")])).toEqual([]);
  });
});

describe("naive attention", () => {
  it("equals tiled attention", () => {
    for (const seed of range(60)) {
      const d = dice(seed);
      const plain = drawModel(seed);
      const texts = range(3).map(() => range(d.between(1, 40)).map(() => d.below(plain.config.vocabSize)));
      const run = (attention: "tiled" | "naive") => {
        const on = bench(packModel(plain, scalarKernels()), { attention });
        const sequences = texts.map(() => on.cache.create());
        const first = step(on, texts.map((tokens, i) => prompt(sequences[i], tokens)));
        return [...first, ...step(on, sequences.map((sequence) => token(sequence, 1)))];
      };
      const tiled = run("tiled");
      run("naive").forEach((row, i) => expect(relativeError(row, tiled[i])).toBeLessThanOrEqual(TOLERANCE));
    }
  });
});

describe("layers with a window of their own", () => {
  const LOCAL: ModelOptions = { ...SMALL, nLayers: 2, alternate: { layers: [true, false], rope: SMALL.rope, window: 9 } };
  const text = range(90).map((i) => (7 * i) % SMALL.vocabSize!);

  /** Logits of every position, the cache keeping a window of its own, fed in pieces of `chunk`. */
  function windowed(kernels: Kernels, given: ModelOptions, window: AttentionWindow | undefined, chunk: number, attention: AttentionMethod = "tiled") {
    const on = bench(packModel(drawModel(9, given), kernels), { kernels, attention });
    const cache = new KvCache(kernels, on.model.config, 40, { window });
    const sequence = cache.create();
    const found: Float32Array[] = [];
    for (let at = 0; at < text.length; at += chunk) found.push(...step({ ...on, cache }, [prompt(sequence, text.slice(at, at + chunk))]));
    return { found, pages: cache.usedPages };
  }

  it.each([{ size: 20, sinks: 3 }, { size: 5, sinks: 2 }, { size: 8, sinks: 4 }])("go with a cache that keeps only $size positions and $sinks sinks", (window) => {
    const kernels = wasmKernels();
    const { found, pages } = windowed(scalarKernels(), LOCAL, window, 1);
    expect(pages).toBeLessThan(5);
    expect(windowed(scalarKernels(), LOCAL, window, 13).found).toEqual(found);
    const others = [windowed(scalarKernels(), LOCAL, window, 13, "naive"), windowed(kernels, LOCAL, window, 13)];
    for (const { found: other } of others) other.forEach((row, i) => expect(relativeError(row, found[i])).toBeLessThan(TOLERANCE));
    kernels.close();
  });

  it("see no less of a cache that keeps more, and nothing beyond their own window", () => {
    const { found } = windowed(scalarKernels(), LOCAL, undefined, 13);
    expect(windowed(scalarKernels(), LOCAL, { size: 200, sinks: 4 }, 13).found).toEqual(found);
    // Two layers that see 9 positions each: the last one hears of no more than 17.
    const both = { ...LOCAL, alternate: { ...LOCAL.alternate!, layers: [true, true] } };
    const local = windowed(scalarKernels(), both, undefined, 13);
    expect(windowed(scalarKernels(), both, { size: 30, sinks: 1 }, 13).found).toEqual(local.found);
    expect(windowed(scalarKernels(), { ...both, alternate: undefined }, undefined, 13).found).not.toEqual(local.found);
  });

  it("cost what they see", () => {
    const ledger = new Ledger(true);
    const reads: number[] = [];
    ledger.onOp(({ name, layer, read }) => name === "attention" && (reads[layer] = read.kv));
    const on = smallBench(9, LOCAL, { ledger });
    const sequence = on.cache.create();
    step(on, [prompt(sequence, text.slice(0, 50), "none")]);
    step(on, [token(sequence, 1)]);
    expect(reads[1] / reads[0]).toBeCloseTo(51 / 9, 10);
  });
});

describe("makeBatch", () => {
  it("lays runs out one after another, with their own positions", () => {
    const { cache } = smallBench(1, SMALL);
    const [a, b] = [cache.create(), cache.create()];
    cache.append(a, 3);
    const batch = makeBatch(cache, [prompt(a, [7, 8], "last"), prompt(b, [9], "none"), prompt(b, [10], "all")]);
    expect([...batch.tokens]).toEqual([7, 8, 9, 10]);
    expect([...batch.positions]).toEqual([3, 4, 0, 1]);
    expect([...batch.outputs]).toEqual([1, 3]);
    expect(batch.segments.map(({ row, start, length }) => [row, start, length])).toEqual([[0, 3, 2], [2, 0, 1], [3, 1, 1]]);
    expect([a.length, b.length]).toEqual([5, 2]);
  });

  it("names the phase after what the runs are", () => {
    const { cache } = smallBench(1, SMALL);
    const sequence = cache.create();
    const phase = (...runs: Run[]) => makeBatch(cache, runs).phase;
    expect(phase(prompt(sequence, [1]))).toBe("prefill");
    expect(phase(token(sequence, 1))).toBe("decode");
    expect(phase(token(sequence, 1), prompt(sequence, [1, 2]))).toBe("mixed");
  });

  it("refuses an empty run, and a full cache", () => {
    const { cache } = smallBench(1, SMALL, { maxPages: 1 });
    expect(() => makeBatch(cache, [])).toThrow("at least one token");
    expect(() => makeBatch(cache, [prompt(cache.create(), [])])).toThrow("at least one token");
    expect(() => makeBatch(cache, [prompt(cache.create(), range(PAGE_SIZE + 1))])).toThrow(KvCacheFullError);
  });

  it("refuses a token that the embedding does not have", () => {
    const { model, ops, cache } = smallBench(1, SMALL);
    expect(() => forward(model, ops, makeBatch(cache, [prompt(cache.create(), [SMALL.vocabSize!])]))).toThrow("token_embd: expected ids below 40, found 40");
  });
});
