import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { readGguf, type GgufFile } from "../../../src/model/formats/gguf.ts";
import type { GgufArray, GgufValue } from "../../../src/model/formats/gguf-values.ts";
import { ggufBytes } from "../../../src/model/formats/gguf-write.ts";
import { readLlama2c, readLlama2cTokenizer } from "../../../src/model/formats/llama2c.ts";
import { memorySource, type TensorInfo } from "../../../src/model/formats/source.ts";
import { decodeRows } from "../../../src/quant/ggml.ts";
import { random } from "../../../src/tensor/random.ts";
import { zeros } from "../../../src/tensor/tensor.ts";
import { checkpoint, tokenizerFile } from "./llama2c-files.ts";

/** Numbers that break readers: limits of every width, and just beyond. */
const NASTY = [0n, 1n, 7n, 31n, 255n, 256n, 65535n, 2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n, 2n ** 60n, 2n ** 61n + 1n, 2n ** 63n, 2n ** 64n - 1n];

type Random = () => number;
const below = (next: Random, n: number) => Math.floor(next() * n);

/** One to four damages: flipped bits, other bytes, nasty numbers of 1 to 8 bytes, cuts, pieces copied, removed or put in. */
function mutate(original: Uint8Array, next: Random): Uint8Array {
  let bytes = original.slice();
  for (let times = 1 + below(next, 4); times > 0 && bytes.length > 0; times--) {
    const at = below(next, bytes.length);
    const length = Math.min(bytes.length - at, 1 + below(next, 40));
    switch (below(next, 8)) {
      case 0:
        bytes[at] ^= 1 << below(next, 8);
        break;
      case 1:
        bytes[at] = below(next, 256);
        break;
      case 2:
      case 3: {
        const value = NASTY[below(next, NASTY.length)];
        const width = [1, 2, 4, 8, 8, 8][below(next, 6)];
        for (let i = 0; i < width && at + i < bytes.length; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 255n);
        break;
      }
      case 4:
        bytes = bytes.slice(0, at);
        break;
      case 5:
        bytes.copyWithin(below(next, bytes.length), at, at + length);
        break;
      case 6:
        bytes = Uint8Array.of(...bytes.subarray(0, at), ...bytes.subarray(at + length));
        break;
      default:
        bytes = Uint8Array.of(...bytes.subarray(0, at), ...bytes.subarray(at, at + length), ...bytes.subarray(at));
    }
  }
  return bytes;
}

/** Runs `parse` on many damaged files: it must return or throw a FormatError of one line, soon. Counts the outcomes. */
function fuzz(seeds: Uint8Array[], rounds: number, seed: number, parse: (bytes: Uint8Array) => void): { good: number; refused: number; messages: Set<string> } {
  const next = random(seed);
  const messages = new Set<string>();
  let good = 0;
  let refused = 0;
  for (let round = 0; round < rounds; round++) {
    const bytes = mutate(seeds[round % seeds.length], next);
    const start = performance.now();
    try {
      parse(bytes);
      good++;
    } catch (error) {
      if (!(error instanceof FormatError)) throw new Error(`round ${round} of seed ${seed}: ${String(error)}`, { cause: error });
      expect(error.message).toMatch(/^fuzz: [^\n\r]{10,1000}$/);
      messages.add(error.message.replace(/\d+|"(?:[^"\\]|\\.)*"/g, "_"));
      refused++;
    }
    const ms = performance.now() - start;
    if (ms > 1000) throw new Error(`round ${round} of seed ${seed}: took ${ms} ms`);
  }
  return { good, refused, messages };
}

/** What a parsed file keeps in memory must be bounded by the file's size: every item costs the file at least a byte. */
function itemsOf(value: GgufValue): number {
  if (value.type === "string") return value.value.length;
  if (value.type !== "array") return 1;
  return value.itemType === "array" || value.itemType === "string"
    ? (value.value as readonly (GgufArray | string)[]).reduce((sum, v) => sum + (typeof v === "string" ? v.length + 1 : itemsOf(v) + 1), 0)
    : value.value.length;
}

function checkTensors(tensors: ReadonlyMap<string, TensorInfo>, bytes: Uint8Array): void {
  for (const { type, shape, offset, bytes: size } of tensors.values()) {
    expect(offset >= 0 && offset + size <= bytes.length && shape.every((n) => n >= 1)).toBe(true);
    decodeRows(type, bytes.subarray(offset, offset + size), zeros("f32", shape));
  }
}

function checkGguf(bytes: Uint8Array): void {
  const file: GgufFile = readGguf(memorySource("fuzz", bytes));
  let items = 0;
  for (const value of file.metadata.values()) items += itemsOf(value);
  expect(items).toBeLessThanOrEqual(bytes.length);
  checkTensors(file.tensors, bytes);
}

describe("damaged files", () => {
  const array = (itemType: "string" | "bool" | "float32" | "uint64", value: unknown[]) => ({ type: "array", itemType, value }) as GgufArray;
  const rich = ggufBytes({
    metadata: new Map<string, GgufValue>([
      ["general.architecture", { type: "string", value: "llama" }],
      ["general.alignment", { type: "uint32", value: 64 }],
      ["f", { type: "float64", value: 0.5 }],
      ["u", { type: "uint64", value: 5 }],
      ["tokens", array("string", ["a", "b", "▁c"])],
      ["scores", array("float32", [1, 2, 3])],
      ["flags", array("bool", [true, false])],
      ["wide", array("uint64", [1, 2])],
      ["nested", { type: "array", itemType: "array", value: [array("string", ["x"]), array("bool", [true])] }],
    ]),
    tensors: [
      { name: "token_embd.weight", shape: [2, 32], type: "Q8_0", data: new Uint8Array(68).fill(3) },
      { name: "k", shape: [1, 256], type: "Q4_K", data: new Uint8Array(144).fill(5) },
      { name: "norm", shape: [4], type: "F32", data: new Uint8Array(16) },
    ],
  });
  const plain = ggufBytes({
    metadata: new Map<string, GgufValue>([["a", { type: "uint8", value: 1 }]]),
    tensors: [{ name: "t", shape: [1, 1, 2], type: "F16", data: new Uint8Array(4) }],
  });
  const version2 = rich.slice();
  version2[4] = 2;

  it("GGUF", () => {
    for (const bytes of [rich, plain, version2]) checkGguf(bytes);
    const { good, refused, messages } = fuzz([rich, plain, version2], 12_000, 1, checkGguf);
    // Damage must reach every part of the reader, and not all of it can be seen in a header.
    expect(good).toBeGreaterThan(500);
    expect(refused).toBeGreaterThan(3000);
    expect(messages.size).toBeGreaterThan(30);
  });

  it("GGUF headers that are nothing but noise", () => {
    const next = random(2);
    for (let round = 0; round < 3000; round++) {
      const bytes = Uint8Array.from({ length: 24 + below(next, 200) }, () => (next() < 0.6 ? 0 : below(next, 256)));
      bytes.set([0x47, 0x47, 0x55, 0x46, 3, 0, 0, 0, below(next, 3), 0, 0, 0, 0, 0, 0, 0, below(next, 3), 0, 0, 0, 0, 0, 0, 0]);
      try {
        checkGguf(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }
  });

  it("llama2.c checkpoints", () => {
    const seeds = [checkpoint(0, true), checkpoint(0, false), checkpoint(1, false)];
    const headers = seeds.map((bytes) => bytes.subarray(0, 40));
    const parse = (bytes: Uint8Array) => checkTensors(readLlama2c(memorySource("fuzz", bytes)).tensors, bytes);
    const whole = fuzz(seeds, 1500, 3, parse);
    expect(whole.good).toBeGreaterThan(100);
    // Weights hide the header from most damage: damage headers, then put the weights back.
    const { refused } = fuzz([0, 1, 2].map((i) => headers[i]), 3000, 4, (header) => {
      const bytes = seeds[0].slice();
      bytes.set(header.subarray(0, 40));
      parse(bytes);
    });
    expect(refused).toBeGreaterThan(1000);
  });

  it("llama2.c tokenizers", () => {
    const tokens = ["<unk>", "\n<s>\n", "\n</s>\n", "<0x00>", " the", "ü"];
    const { good, refused } = fuzz([tokenizerFile(tokens)], 4000, 5, (bytes) => {
      const file = readLlama2cTokenizer(memorySource("fuzz", bytes), 6);
      expect(file.tokens.length).toBe(6);
    });
    expect(good).toBeGreaterThan(300);
    expect(refused).toBeGreaterThan(1000);
  });
});
