import { describe, expect, it } from "vitest";
import { KvCache } from "../../src/kvcache/cache.ts";
import { createModel, forward, makeBatch } from "../../src/model/decoder.ts";
import { FormatError } from "../../src/model/formats/errors.ts";
import type { GgufValue } from "../../src/model/formats/gguf-values.ts";
import { readGguf } from "../../src/model/formats/gguf.ts";
import { memorySource } from "../../src/model/formats/source.ts";
import { loadWeights } from "../../src/model/load.ts";
import { openModel } from "../../src/model/open.ts";
import type { Kernels } from "../../src/tensor/kernels.ts";
import { Ledger } from "../../src/tensor/ledger.ts";
import { Ops } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { storageBytes } from "../../src/tensor/tensor.ts";
import { architectureModel } from "../support/architecture-model.ts";
import { DRAWN_TYPES } from "../support/blocks.ts";
import { type Dice, dice, range } from "../support/dice.ts";
import { ggufModel, llama2cModel, llama2cTokenizer } from "../support/files.ts";
import { drawModel, type ModelOptions, SMALL } from "../support/models.ts";

const TINY: ModelOptions = { ...SMALL, dim: 32, ffnDim: 32, nLayers: 1, vocabSize: 40, contextLength: 32 };

/** Kernels that refuse to take more memory than any of these files could need. */
function frugalKernels(limit: number): Kernels {
  const kernels = scalarKernels();
  let taken = 0;
  const take = (bytes: number) => {
    taken += bytes;
    if (!(taken <= limit)) throw new Error(`took ${taken} bytes for a file of a few thousand`);
  };
  return {
    ...kernels,
    alloc: (dtype, shape, group) => (take(storageBytes(dtype, shape, group)), kernels.alloc(dtype, shape, group)),
    packer: (spec) => (take(storageBytes(spec.dtype, spec.shape, spec.group)), kernels.packer(spec)),
  };
}

/** Opens and loads the files and takes one step: "loaded", or the FormatError's message. Anything else that is thrown is a bug. */
function outcome(model: Uint8Array, tokenizer?: Uint8Array): string {
  try {
    const file = openModel(memorySource("fuzzed", model), tokenizer && memorySource("fuzzed", tokenizer));
    file.tokenizer.decode(file.tokenizer.encode("a cab, Ünïcode"));
    const kernels = frugalKernels(16 << 20);
    const loaded = createModel(file.config, loadWeights(file, file.config, kernels));
    const cache = new KvCache(scalarKernels(), { ...file.config, nLayers: Math.min(file.config.nLayers, 64) }, 1);
    const run = { sequence: cache.create(), tokens: [0], logits: "all", prompt: true } as const;
    const logits = forward(loaded, new Ops(kernels, new Ledger(false)), makeBatch(cache, [run]));
    expect(logits!.f32.length).toBe(file.config.vocabSize);
    return "loaded";
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    expect(error.message).toMatch(/^fuzzed: \S.*$/);
    // The longest lists the architectures that are known.
    expect(error.message.length).toBeLessThan(1000);
    return error.message;
  }
}

/** Numbers that headers get wrong. */
const AWKWARD = [0, 1, -1, 2, 3, 7, 31, 33, 127, 255, 65535, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53, 2 ** 60, 2 ** 63, 2 ** 64 - 1];

/** A damaged copy; most damage falls on the first `header` bytes. */
function mutate(d: Dice, original: Uint8Array, header: number): Uint8Array {
  const bytes = original.slice();
  const view = new DataView(bytes.buffer);
  const place = (room: number) => Math.max(0, d.below((d.chance(0.85) ? header : bytes.length) - room));
  for (let times = d.pick([1, 1, 1, 2, 4]); times > 0; times--) {
    const at = place(8);
    switch (d.below(8)) {
      case 0:
        bytes[at] ^= 1 << d.below(8);
        break;
      case 1:
        bytes[at] = d.below(256);
        break;
      case 2:
        view.setUint32(at, Number(BigInt.asUintN(32, BigInt(d.pick(AWKWARD)))), true);
        break;
      case 3:
        view.setBigUint64(at, BigInt.asUintN(64, BigInt(d.pick(AWKWARD))), true);
        break;
      case 4:
        view.setFloat32(at, d.pick([Number.NaN, Infinity, -0, 1e38, -1, 0.5]), true);
        break;
      case 5:
        return bytes.slice(0, place(0));
      case 6: {
        const length = d.between(1, 40);
        return Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at, at + length), ...bytes.subarray(at)]);
      }
      default: {
        const length = d.between(1, 40);
        return Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + length)]);
      }
    }
  }
  return bytes;
}

/** Any metadata value, or none at all. */
function drawValue(d: Dice): GgufValue | undefined {
  const number = () => d.pick([0, 1, 2, 3, 4, 8, 16, 32, 33, 40, 1000, 65536, 2 ** 32 - 1]);
  const real = () => d.pick([0, -0, 1, -1, 1e-5, 0.5, 10000, 1e38, Number.NaN, Infinity, -Infinity]);
  const text = () => d.pick(["", "llama", "qwen2", "gpt2", "linear", "yarn", "llama3", "a", "\u0000", "x".repeat(300)]);
  const numbers = (draw: () => number) => range(d.pick([0, 1, 39, 40, 41])).map(draw);
  return d.pick<() => GgufValue | undefined>([
    () => undefined,
    () => ({ type: "uint32", value: number() }),
    () => ({ type: "uint64", value: d.pick([number(), 2n ** 60n]) }),
    () => ({ type: "int32", value: -1 }),
    () => ({ type: "float32", value: real() }),
    () => ({ type: "float64", value: real() }),
    () => ({ type: "bool", value: d.chance(0.5) }),
    () => ({ type: "string", value: text() }),
    () => ({ type: "array", itemType: "string", value: range(d.pick([0, 1, 39, 40, 41])).map((i) => `${text()}${d.chance(0.9) ? i : ""}`) }),
    () => ({ type: "array", itemType: "float32", value: numbers(real) }),
    () => ({ type: "array", itemType: "int32", value: numbers(() => d.between(-2, 9)) }),
  ])();
}

/** Runs many mutations; what came out, counted. Fails with the seeds of those that ended in anything but a load or a FormatError. */
function fuzz(from: number, count: number, attempt: (d: Dice) => string): Map<string, number> {
  const outcomes = new Map<string, number>();
  const failures: string[] = [];
  for (let seed = from; seed < from + count; seed++) {
    try {
      const kind = attempt(dice(seed)).replace(/[0-9]+/g, "#");
      outcomes.set(kind, (outcomes.get(kind) ?? 0) + 1);
    } catch (error) {
      failures.push(`seed ${seed}: ${(error as Error).stack?.split("\n").slice(0, 3).join(" ") ?? String(error)}`);
    }
  }
  expect(failures.slice(0, 5)).toEqual([]);
  return outcomes;
}

describe("damaged GGUF files", () => {
  const files = (["F32", "F16", "Q8_0", "Q4_0"] as const).map((type, i) => {
    const bytes = ggufModel(drawModel(i, { ...TINY, tied: i % 2 === 0, ropeFactors: i > 1, qkNorm: i === 3, biases: i === 2 ? ["attn_q"] : [] }), { type });
    return { type, bytes, header: readGguf(memorySource("whole", bytes)).dataOffset };
  });

  it("load when they are whole", () => {
    for (const { bytes } of files) expect(outcome(bytes)).toBe("loaded");
  });

  it.each(files)("end in a FormatError or in a model that runs: $type", ({ bytes, header }) => {
    const outcomes = fuzz(header, 500, (d) => outcome(mutate(d, bytes, header)));
    expect(outcomes.size).toBeGreaterThan(50);
    expect(outcomes.get("loaded")).toBeGreaterThan(20);
  });

  it("end likewise when any of its metadata is another value of any type", () => {
    const plain = drawModel(1, TINY);
    const keys = [...readGguf(memorySource("whole", files[0].bytes)).metadata.keys(), "llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear", "tokenizer.ggml.add_space_prefix", "general.alignment"];
    const outcomes = fuzz(0, 500, (d) => {
      const metadata = Object.fromEntries(range(d.between(1, 3)).map(() => [d.pick(keys), drawValue(d)]));
      let bytes: Uint8Array;
      try {
        bytes = ggufModel(plain, { metadata });
      } catch (error) {
        if (error instanceof RangeError) return "the writer refuses";
        throw error;
      }
      return outcome(bytes);
    });
    expect(outcomes.size).toBeGreaterThan(50);
    expect(outcomes.get("loaded")).toBeGreaterThan(20);
  });

  it("cut off at any byte of the header, and at any tensor's end, end in a FormatError", () => {
    const { bytes, header } = files[0];
    const ends = [...readGguf(memorySource("whole", bytes)).tensors.values()].map(({ offset, bytes: size }) => offset + size - 1);
    for (const end of [...range(header), ...ends]) expect(outcome(bytes.subarray(0, end))).not.toBe("loaded");
  });
});

describe.each(DRAWN_TYPES)("a file of %s", (type) => {
  const bytes = architectureModel({ architecture: "llama", seed: 1, dim: 256, nLayers: 1, ffnDim: 256, type });
  const tensors = [...readGguf(memorySource("whole", bytes)).tensors.values()];

  it("loads with any bits in its values, and is refused for a scale that is not finite", () => {
    const outcomes = fuzz(1, 12, (d) => {
      const damaged = bytes.slice();
      const { offset, bytes: size } = d.pick(tensors);
      for (let times = d.pick([1, 4, 64]); times > 0; times--) damaged[offset + d.below(size)] = d.below(256);
      return outcome(damaged);
    });
    for (const each of outcomes.keys()) expect(each).toMatch(/^(loaded|fuzzed: tensor "[^"]+": expected finite weights, found (NaN|-?Infinity) at index #)$/);
  });

  it("is refused when it ends within a tensor", () => {
    for (const { offset, bytes: size } of tensors) expect(outcome(bytes.subarray(0, offset + size - 1))).toMatch(/^fuzzed: /);
  });
});

describe("damaged llama2.c files", () => {
  const models = [true, false].map((tied) => llama2cModel(drawModel(1, { ...TINY, tied })));
  const tokenizer = llama2cTokenizer(TINY.vocabSize!);

  it("load when they are whole", () => {
    for (const model of models) expect(outcome(model, tokenizer)).toBe("loaded");
  });

  it.each([0, 1])("a checkpoint ends in a FormatError or in a model that runs: %i", (i) => {
    const outcomes = fuzz(i, 300, (d) => outcome(mutate(d, models[i], 28), tokenizer));
    expect(outcomes.size).toBeGreaterThan(10);
  });

  it("a header of awkward numbers ends in a FormatError", () => {
    fuzz(0, 300, (d) => {
      const model = models[0].slice();
      const view = new DataView(model.buffer);
      for (let field = 0; field < 7; field++) if (d.chance(0.4)) view.setInt32(4 * field, d.pick(AWKWARD) | 0, true);
      return outcome(model, tokenizer);
    });
  });

  it("a tokenizer ends in a FormatError or in one that encodes", () => {
    const outcomes = fuzz(0, 400, (d) => outcome(models[0], mutate(d, tokenizer, tokenizer.length)));
    expect(outcomes.size).toBeGreaterThan(10);
    expect(outcomes.get("loaded")).toBeGreaterThan(20);
  });
});

describe("weights that do not fit the config", () => {
  const plain = drawModel(1, TINY);
  const without = (name: string) => ({ ...plain, tensors: new Map([...plain.tensors].filter(([other]) => other !== name)) });
  const withOther = (name: string, given: ModelOptions) => ({ ...plain, tensors: new Map([...plain.tensors, [name, drawModel(1, { ...TINY, ...given }).tensors.get(name)!]]) });

  it.each(["output_norm.weight", "blk.0.attn_q.weight", "blk.0.ffn_gate.weight", "token_embd.weight"])("a missing %s is named", (name) => {
    expect(outcome(ggufModel(without(name)))).toMatch(new RegExp(`^fuzzed: tensor "${name}": expected .*found no such tensor$`));
  });

  it("a missing output.weight means a tied head", () => {
    expect(outcome(ggufModel(without("output.weight")))).toBe("loaded");
  });

  it.each<[string, ModelOptions, string]>([
    ["blk.0.attn_k.weight", { nKvHeads: 4 }, "expected [16, 32], found [32, 32]"],
    ["blk.0.ffn_up.weight", { ffnDim: 48 }, "expected [32, 32], found [48, 32]"],
    ["output_norm.weight", { dim: 64 }, "expected [32], found [64]"],
  ])("a misshapen %s is named", (name, given, problem) => {
    expect(outcome(ggufModel(withOther(name, given)))).toBe(`fuzzed: tensor "${name}": ${problem}`);
  });

  it.each(["token_embd.weight", "blk.0.ffn_norm.weight", "blk.0.attn_v.weight"])("a weight of %s that is not finite is named", (name) => {
    for (const bad of [Number.NaN, Infinity]) {
      const model = drawModel(1, TINY);
      model.tensors.get(name)!.f32[7] = bad;
      expect(outcome(ggufModel(model))).toBe(`fuzzed: tensor "${name}": expected finite weights, found ${bad} at index 7`);
      expect(outcome(ggufModel(model, { type: "F16" }))).toBe(`fuzzed: tensor "${name}": expected finite weights, found ${bad} at index 7`);
    }
  });

  it.each<[string, number]>([["llama.block_count", 2], ["llama.embedding_length", 64], ["llama.attention.head_count", 8], ["llama.feed_forward_length", 31]])("a wrong %s is noticed", (key, value) => {
    expect(outcome(ggufModel(plain, { metadata: { [key]: { type: "uint32", value } } }))).toMatch(/^fuzzed: tensor "[^"]+": expected \[.*\], found /);
  });

  it.each<[string, number]>([["llama.block_count", 0], ["llama.attention.head_count", 3], ["llama.context_length", 2 ** 31], ["llama.rope.dimension_count", 7]])("an impossible %s is noticed", (key, value) => {
    expect(outcome(ggufModel(plain, { metadata: { [key]: { type: "uint32", value } } }))).toMatch(/^fuzzed: .*expected .*, found \d+/);
  });

  it("a tokenizer of another size than the embedding is noticed", () => {
    const larger = drawModel(1, { ...TINY, vocabSize: 41 });
    const names = range(40).map((i) => `t${i}`);
    const metadata = {
      "tokenizer.ggml.tokens": { type: "array", itemType: "string", value: names },
      "tokenizer.ggml.scores": { type: "array", itemType: "float32", value: names.map(() => 0) },
      "tokenizer.ggml.token_type": { type: "array", itemType: "int32", value: names.map(() => 1) },
    } as const;
    expect(outcome(ggufModel(larger, { metadata }))).toBe("fuzzed: tokenizer: expected 41 tokens, the rows of the embedding, found 40");
  });
});
