import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { bpeTokenizer, type BpeInit } from "../../../src/model/tokenizer/bpe.ts";
import { tokenizerFromGguf } from "../../../src/model/tokenizer/from-gguf.ts";
import { PRE_TOKENIZERS, words } from "../../../src/model/tokenizer/pretokenize.ts";
import { TokenType } from "../../../src/model/tokenizer/vocabulary.ts";
import { ggufAt, goldenTokens, randomInts, randomText, SHARED } from "./support.ts";

/** GPT-2's characters for bytes, the other way round from the source: decided by listing the printable ranges. */
const CHARACTERS = (() => {
  const ranges = [[0x21, 0x7e], [0xa1, 0xac], [0xae, 0xff]];
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(ranges.some(([from, to]) => byte >= from && byte <= to) ? byte : next++));
})();
const spell = (text: string): string => Array.from(new TextEncoder().encode(text), (byte) => CHARACTERS[byte]).join("");

const qwen2 = PRE_TOKENIZERS.get("qwen2")!;

/** All bytes, what the merges make, then <|end|> (control) and <tool> (user-defined). */
function vocabularyOf(merges: readonly string[], pre = qwen2): BpeInit {
  const made = merges.map((line) => line.replace(" ", ""));
  const tokens = [...CHARACTERS, ...new Set(made), "<|end|>", "<tool>"];
  const types = tokens.map((_, id) => (id < tokens.length - 2 ? TokenType.normal : id < tokens.length - 1 ? TokenType.control : TokenType.userDefined));
  return { tokens, types, merges: { value: merges }, pre, eos: tokens.length - 2 };
}

/** The definition: in each word, join all leftmost-first occurrences of the earliest merge, one at a time. Quadratic. */
function naiveIds(init: BpeInit, text: string): number[] {
  const order = new Map<string, number>();
  init.merges.value.forEach((line, i) => order.set(line, order.get(line) ?? i));
  return words(text, init.pre).flatMap((word) => {
    const symbols = [...spell(word)];
    for (;;) {
      const ranks = symbols.slice(1).map((right, i) => order.get(`${symbols[i]} ${right}`) ?? Infinity);
      const best = Math.min(...ranks);
      if (best === Infinity) return symbols.map((symbol) => init.tokens.indexOf(symbol));
      const at = ranks.indexOf(best);
      symbols.splice(at, 2, symbols[at] + symbols[at + 1]);
    }
  });
}

const golden = goldenTokens().filter(({ path }) => ggufAt(path).metadata.get("tokenizer.ggml.model")?.value === "gpt2");

describe.skipIf(golden.length === 0)("llama.cpp's ids", () => {
  for (const { path, cases } of golden) {
    const tokenizer = tokenizerFromGguf(ggufAt(path));
    it.each(cases)(`${path.slice(SHARED.length)}: $text`, ({ text, ids }) => {
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(text);
    });
    it(`${path.slice(SHARED.length)}: special tokens, bos and eos`, () => {
      const end = tokenizer.eos.at(-1)!;
      expect(tokenizer.encode(`a${tokenizer.piece(end)}`, { special: true })).toEqual([...tokenizer.encode("a"), end]);
      expect(tokenizer.encode(tokenizer.piece(end))).not.toContain(end);
      expect(tokenizer.addBos).toBe(path.includes("llama3"));
      expect(tokenizer.bos).toBe(tokenizer.vocabSize - 3);
    });
  }
});

describe("bpeTokenizer", () => {
  const simple = vocabularyOf(["a b", "ab c", "Ġ ab", "b c"]);
  const tokenizer = bpeTokenizer(simple);
  const ids = (...names: string[]): number[] => names.map((name) => simple.tokens.indexOf(name));

  it("merges by the order of the list, within words", () => {
    expect(tokenizer.encode("abc bc ab")).toEqual(ids("abc", "Ġ", "bc", "Ġab"));
    expect(tokenizer.encode("")).toEqual([]);
  });

  it("equals the quadratic definition for random merges and texts", () => {
    const random = randomInts(77);
    for (let round = 0; round < 200; round++) {
      const parts = ["Ġ", "a", "b", "c", ...spell("é"), "1"];
      const merges: string[] = [];
      for (let i = random(25); i > 0; i--) {
        const [left, right] = [parts[random(parts.length)], parts[random(parts.length)]];
        merges.push(`${left} ${right}`);
        parts.push(left + right);
      }
      const init = vocabularyOf(merges, PRE_TOKENIZERS.get(["qwen2", "gpt-2", "falcon"][random(3)]));
      const each = bpeTokenizer(init);
      for (let i = 0; i < 5; i++) {
        const text = Array.from({ length: random(40) }, () => [" ", "a", "b", "c", "é", "1", "\n"][random(7)]).join("");
        expect(each.encode(text)).toEqual(naiveIds(init, text));
      }
    }
  });

  it("takes whole words that are tokens, where the vocabulary's rule says so", () => {
    const merges = ["a b", "b c", "ab c"];
    const whole = { ...vocabularyOf(merges, PRE_TOKENIZERS.get("llama-bpe")) };
    whole.tokens = whole.tokens.with(256, "cab");
    expect(bpeTokenizer(whole).encode("cab")).toEqual([256]);
    expect(bpeTokenizer({ ...whole, pre: qwen2 }).encode("cab")).not.toEqual([256]);
  });

  it("spells a merged symbol that is no token, and leaves bytes without a token out", () => {
    const init = vocabularyOf(["a b", "ab c"]);
    init.tokens = init.tokens.with(init.tokens.indexOf("ab"), "unrelated");
    expect(bpeTokenizer(init).encode("abd")).toEqual(ids("a", "b", "d"));
    expect(bpeTokenizer(init).encode("abc")).toEqual([init.tokens.indexOf("abc")]);
    const few: BpeInit = { tokens: ["a", "b"], merges: { value: [] }, pre: qwen2 };
    expect(bpeTokenizer(few).encode("abé")).toEqual([0, 1]);
  });

  it("splits user-defined tokens out always, control tokens only when asked, and adds no space", () => {
    const [end, tool] = ids("<|end|>", "<tool>");
    expect(tokenizer.encode("ab<tool>ab<|end|>", { special: true })).toEqual([...ids("ab"), tool, ...ids("ab"), end]);
    expect(tokenizer.encode("ab<tool>")).toEqual([...ids("ab"), tool]);
    expect(tokenizer.encode("<|end|>")).not.toContain(end);
    expect(tokenizer.decode([tool, ...ids("Ġab"), end])).toBe("<tool> ab");
    expect(tokenizer.decode(ids("Ġab"))).toBe(" ab");
    expect(tokenizer.piece(ids("Ġab")[0])).toBe("Ġab");
  });

  it("decodes and streams what it encoded, for any text", () => {
    const random = randomInts(29);
    for (let round = 0; round < 300; round++) {
      const text = randomText(random, random(60), true);
      const wellFormed = text.replace(/\p{Surrogate}/gu, "\ufffd");
      const encoded = tokenizer.encode(text);
      expect(tokenizer.decode(encoded)).toBe(wellFormed);
      const cut = random(encoded.length + 1);
      const head = tokenizer.stream();
      const tail = tokenizer.stream(encoded.slice(0, cut));
      const parts = [...encoded.slice(0, cut).map(head.push), ...encoded.slice(cut).map(tail.push), tail.flush()];
      expect(parts.join("")).toBe(wellFormed);
    }
  });

  it("encodes a megabyte of anything", () => {
    expect(tokenizer.encode("a".repeat(1e6))).toHaveLength(1e6);
    expect(tokenizer.encode("abc".repeat(3e5))).toHaveLength(3e5);
    expect(tokenizer.encode(" ".repeat(1e6))).toHaveLength(1e6);
    expect(tokenizer.encode(" ab".repeat(3e5))).toHaveLength(3e5);
    expect(tokenizer.encode("😀".repeat(25e4))).toHaveLength(1e6);
    expect(tokenizer.encode("<tool>".repeat(1e5))).toHaveLength(1e5);
  });

  it("refuses merges that are not pairs, once it needs them", () => {
    for (const line of ["ab", " a", "a ", ""]) {
      const wrong = bpeTokenizer({ ...simple, merges: { value: ["a b", line] }, source: "x.gguf" });
      expect(wrong.decode([0x61])).toBe("a");
      expect(() => wrong.encode("ab")).toThrow(FormatError);
      expect(() => wrong.encode("ab")).toThrow(`x.gguf: merge 1: expected two symbols with a space between them, found ${JSON.stringify(line)}`);
    }
  });
});
