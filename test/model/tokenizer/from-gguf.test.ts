import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import type { GgufValue } from "../../../src/model/formats/gguf-values.ts";
import { tokenizerFromGguf } from "../../../src/model/tokenizer/from-gguf.ts";

const strings = (value: string[]): GgufValue => ({ type: "array", itemType: "string", value });
const floats = (value: number[]): GgufValue => ({ type: "array", itemType: "float32", value });
const ints = (value: number[]): GgufValue => ({ type: "array", itemType: "int32", value });
const uint = (value: number): GgufValue => ({ type: "uint32", value });
const bool = (value: boolean): GgufValue => ({ type: "bool", value });

function load(keys: Record<string, GgufValue>) {
  const metadata = new Map(Object.entries(keys).map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
  return tokenizerFromGguf({ name: "x.gguf", metadata });
}

const LLAMA: Record<string, GgufValue> = {
  model: { type: "string", value: "llama" },
  tokens: strings(["<unk>", "<s>", "</s>", "▁", "a", "▁a", "<|im_end|>"]),
  scores: floats([0, 0, 0, 0, 0, 0, 0]),
  token_type: ints([2, 3, 3, 1, 1, 1, 4]),
};

describe("tokenizerFromGguf", () => {
  it("has llama.cpp's defaults for what a llama vocabulary leaves out", () => {
    const tokenizer = load(LLAMA);
    expect(tokenizer).toMatchObject({ vocabSize: 7, bos: 1, addBos: true });
    expect(tokenizer.encode("a")).toEqual([5]);
  });

  it("follows the keys", () => {
    const tokenizer = load({ ...LLAMA, bos_token_id: uint(3), eos_token_id: uint(4), add_bos_token: bool(false), add_space_prefix: bool(false) });
    expect(tokenizer).toMatchObject({ bos: 3, addBos: false });
    expect(tokenizer.eos).toContain(4);
    expect(tokenizer.encode("a")).toEqual([4]);
  });

  it("ends a generation at tokens known by name or key, and treats the named ones as control", () => {
    expect(load(LLAMA).eos).toEqual([2, 6]);
    expect(load({ ...LLAMA, eot_token_id: uint(5) }).eos).toEqual([2, 5, 6]);
    expect(load(LLAMA).encode("<|im_end|>")).not.toContain(6);
    expect(load(LLAMA).encode("<|im_end|>", { special: true })).toEqual([6]);
    expect(load(LLAMA).decode([5, 6])).toBe("a");
  });

  it("does not end at <|end|> where it only ends a message", () => {
    const tokens = ["<unk>", "<s>", "</s>", "<|end|>", "<|return|>", "<|call|>", "a"];
    expect(load({ ...LLAMA, tokens: strings(tokens) }).eos).toEqual([2, 4, 5]);
    expect(load({ ...LLAMA, tokens: strings(tokens.with(5, "b")) }).eos).toEqual([2, 3, 4]);
  });

  it("does without scores and types", () => {
    const { model, tokens } = LLAMA;
    expect(load({ model, tokens }).encode("a")).toEqual([5]);
  });

  it("reads a gpt2 vocabulary; whether bos comes first depends on its rule for words", () => {
    const gpt2 = (pre: string, more: Record<string, GgufValue> = {}) =>
      load({
        model: { type: "string", value: "gpt2" },
        pre: { type: "string", value: pre },
        tokens: strings(["a", "b", "ab", "<s>"]),
        merges: strings(["a b"]),
        token_type: ints([1, 1, 1, 3]),
        ...more,
      });
    expect(gpt2("qwen2").encode("aba")).toEqual([2, 0]);
    expect(gpt2("qwen2")).toMatchObject({ bos: undefined, eos: [], addBos: false });
    expect(gpt2("llama-bpe", { bos_token_id: uint(3), eos_token_id: uint(3) })).toMatchObject({ bos: 3, eos: [3], addBos: true });
    expect(gpt2("llama-bpe", { bos_token_id: uint(3), add_bos_token: bool(false) }).addBos).toBe(false);
    expect(() => gpt2("kimi-k2")).toThrow(/x\.gguf: key "tokenizer\.ggml\.pre": expected one of llama3, .*, found "kimi-k2"/);
  });

  it("refuses what it does not know, naming what it does", () => {
    const make = () => load({ ...LLAMA, model: { type: "string", value: "bert" } });
    expect(make).toThrow(FormatError);
    expect(make).toThrow(/x\.gguf: key "tokenizer\.ggml\.model": expected one of llama, gpt2, found "bert"/);
    expect(() => load({})).toThrow("tokenizer.ggml.model");
    expect(() => load({ model: LLAMA.model })).toThrow("tokenizer.ggml.tokens");
    expect(() => load({ ...LLAMA, scores: floats([1]) })).toThrow("x.gguf: token scores: expected 7, one for each token, found 1");
  });
});
