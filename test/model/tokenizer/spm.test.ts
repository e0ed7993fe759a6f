import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { tokenizerFromGguf } from "../../../src/model/tokenizer/from-gguf.ts";
import { spmTokenizer, tokenizerFromLlama2c, type SpmInit } from "../../../src/model/tokenizer/spm.ts";
import { byteName, TokenType } from "../../../src/model/tokenizer/vocabulary.ts";
import { ggufAt, goldenTokens, randomInts, randomText, SHARED } from "./support.ts";

const BYTES = Array.from({ length: 256 }, (_, byte) => byteName(byte));

/** <unk>, <s>, </s>, the bytes, then the words given, better ones first. */
function vocabularyOf(words: readonly string[], scores?: readonly number[]): SpmInit {
  const tokens = ["<unk>", "<s>", "</s>", ...BYTES, ...words];
  const types = tokens.map((_, id) => (id === 0 ? TokenType.unknown : id < 3 ? TokenType.control : id < 259 ? TokenType.byte : TokenType.normal));
  const all = tokens.map((_, id) => (id < 259 ? 0 : (scores?.[id - 259] ?? 258 - id)));
  return { tokens, scores: all, types, bos: 1, eos: 2, unk: 0 };
}

const WORDS = ["▁", "a", "b", "c", "▁a", "ab", "▁ab", "abc", "▁▁", "é", "😀"];
const small = (): SpmInit => vocabularyOf(WORDS);
const idOf = (word: string): number => small().tokens.indexOf(word);

/** The definition: characters, then again and again the neighbours whose joined name has the best score. Quadratic. */
function naiveIds(init: SpmInit, text: string): number[] {
  if (text === "") return [];
  const symbols = [...` ${text}`.replaceAll(" ", "▁")];
  const ids = new Map(init.tokens.map((token, id) => [token, id]));
  for (;;) {
    let best = -1;
    let bestScore = -Infinity;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const id = ids.get(symbols[i] + symbols[i + 1]);
      if (id !== undefined && (best < 0 || init.scores[id] > bestScore)) [best, bestScore] = [i, init.scores[id]];
    }
    if (best < 0) break;
    symbols.splice(best, 2, symbols[best] + symbols[best + 1]);
  }
  const utf8 = new TextEncoder();
  return symbols.flatMap((symbol) => ids.get(symbol) ?? Array.from(utf8.encode(symbol), (byte) => ids.get(byteName(byte))!));
}

const golden = goldenTokens().filter(({ path }) => ggufAt(path).metadata.get("tokenizer.ggml.model")?.value === "llama");

describe.skipIf(golden.length === 0)("llama.cpp's ids", () => {
  for (const { path, cases } of golden) {
    it.each(cases)(`${path.slice(SHARED.length)}: $text`, ({ text, ids }) => {
      expect(tokenizerFromGguf(ggufAt(path)).encode(text)).toEqual(ids);
    });
  }
});

describe.skipIf(!existsSync(`${SHARED}models/tok512.bin`))("tok512.bin of llama2.c", () => {
  const tokenizer = () => tokenizerFromLlama2c({ ...readTok512(), source: "tok512.bin" });

  it("gives the ids of the same model's GGUF file", () => {
    const cases = golden.filter(({ path }) => path.includes("stories260K")).flatMap((model) => model.cases);
    for (const { text, ids } of cases) expect(tokenizer().encode(text)).toEqual(ids);
  });

  it("has the pieces of the same model's GGUF file", () => {
    const other = tokenizerFromGguf(ggufAt(`${SHARED}models/stories260K-F32.gguf`));
    for (let id = 0; id < 512; id++) expect(tokenizer().piece(id)).toBe(other.piece(id));
    expect([other.bos, other.eos, other.addBos]).toEqual([1, [2], true]);
    expect([tokenizer().bos, tokenizer().eos, tokenizer().addBos]).toEqual([1, [1, 2], true]);
  });

  it("prints the story that llama2.c prints", () => {
    const story = readFileSync(`${SHARED}models/stories260K.greedy.txt`, "utf8");
    const ids = JSON.parse(readFileSync(`${SHARED}models/stories260K-F32.golden.json`, "utf8")).greedyFromBos as number[];
    const stream = tokenizer().stream([1]);
    const text = ids.map((id) => stream.push(id)).join("") + stream.flush();
    expect(story.startsWith(text)).toBe(true);
    expect(text.startsWith("Once upon a time")).toBe(true);
    expect(tokenizer().decode([1, ...ids])).toBe(text);
  });

  it("round-trips any text without U+2581", () => {
    const random = randomInts(23);
    for (const each of [tokenizer(), tokenizerFromGguf(ggufAt(`${SHARED}models/stories260K-Q8_0.gguf`))]) {
      for (let round = 0; round < 200; round++) {
        const text = randomText(random, random(60)).replaceAll("▁", "");
        expect(each.decode(each.encode(text))).toBe(text);
        expect(each.decode([1, ...each.encode(text)])).toBe(text);
      }
    }
  });
});

/** Length of the longest name, then for each token its score (f32), byte length (i32) and name (llama2.c, tokenizer.py). */
function readTok512(): { tokens: string[]; scores: number[] } {
  const file = readFileSync(`${SHARED}models/tok512.bin`);
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const tokens: string[] = [];
  const scores: number[] = [];
  for (let at = 4; at < file.length; ) {
    const length = view.getInt32(at + 4, true);
    scores.push(view.getFloat32(at, true));
    tokens.push(new TextDecoder().decode(file.subarray(at + 8, at + 8 + length)));
    at += 8 + length;
  }
  return { tokens, scores };
}

describe("spmTokenizer, encode", () => {
  const encode = (text: string, init = small(), special = false): number[] => spmTokenizer(init).encode(text, { special });

  it("merges the best score first, the leftmost of equals", () => {
    expect(encode("abc")).toEqual([idOf("▁ab"), idOf("c")]);
    const tie = vocabularyOf(["▁", "a", "aa"]);
    expect(encode("aaa", { ...tie, addSpacePrefix: false })).toEqual([tie.tokens.indexOf("aa"), tie.tokens.indexOf("a")]);
  });

  it("has no tokens for the empty text and prefixes any other with a space", () => {
    expect(encode("")).toEqual([]);
    expect(encode(" ")).toEqual([idOf("▁▁")]);
    expect(encode("", { ...small(), addSpacePrefix: false })).toEqual([]);
    expect(encode("a", { ...small(), addSpacePrefix: false })).toEqual([idOf("a")]);
  });

  it("spells unknown characters in bytes, and lone surrogates as U+FFFD", () => {
    expect(encode("aü")).toEqual([idOf("▁a"), idOf("<0xC3>"), idOf("<0xBC>")]);
    expect(encode("a\ud800b")).toEqual(encode("a\ufffdb"));
    expect(encode("\udc00😀")).toEqual(encode("\ufffd😀"));
  });

  it("uses unk, once for each character, where bytes have no tokens", () => {
    const init: SpmInit = { tokens: ["<unk>", "▁", "a"], scores: [0, 0, 0], unk: 0 };
    expect(encode("a日!", init)).toEqual([1, 2, 0, 0]);
    expect(() => spmTokenizer({ ...init, unk: undefined })).toThrow("neither an unk token nor one for byte <0x00>");
  });

  it("merges characters that are no tokens by themselves", () => {
    const init = vocabularyOf(["▁", "xy"]);
    expect(encode("xyx", init)).toEqual([init.tokens.indexOf("▁"), init.tokens.indexOf("xy"), idOf("<0x78>")]);
  });

  it("splits user-defined tokens out always, control tokens only when asked", () => {
    const init = small();
    const types = [...(init.types as number[]), TokenType.userDefined];
    const user = { ...init, tokens: [...init.tokens, "<tool>"], types, scores: [...(init.scores as number[]), 0] };
    const tool = user.tokens.length - 1;
    expect(encode("a<tool>a", user)).toEqual([idOf("▁a"), tool, idOf("▁a")]);
    expect(encode("<tool>", user)).toEqual([tool]);
    expect(encode("a</s>b", user, true)).toEqual([idOf("▁a"), 2, idOf("▁"), idOf("b")]);
    expect(encode("a</s>", user)).not.toContain(2);
    expect(encode("<unk><s>a", user, true)).toEqual([0, 1, idOf("▁a")]);
    const decoded = spmTokenizer(user).decode(encode("a<tool> a", user));
    expect(decoded).toBe("a<tool> a");
  });

  it("equals the quadratic definition for random vocabularies and texts", () => {
    const random = randomInts(99);
    const letters = (alphabet: string[], length: number): string => Array.from({ length }, () => alphabet[random(alphabet.length)]).join("");
    for (let round = 0; round < 300; round++) {
      const alphabet = ["▁", ..."abéx日😀"].slice(0, 2 + random(6));
      const words = new Set<string>();
      for (let i = random(40); i > 0; i--) words.add(letters(alphabet, 1 + random(5)));
      const init = vocabularyOf([...words], [...words].map(() => -random(20)));
      const tokenizer = spmTokenizer(init);
      for (let i = 0; i < 5; i++) {
        const text = letters([" ", ...alphabet.slice(1), "q"], random(60));
        expect(tokenizer.encode(text)).toEqual(naiveIds(init, text));
      }
    }
  });

  it("encodes a megabyte of anything", () => {
    const tokenizer = spmTokenizer(small());
    expect(tokenizer.encode("a".repeat(1e6))).toHaveLength(1e6);
    expect(tokenizer.encode(" ".repeat(1e6))).toHaveLength(5e5 + 1);
    expect(tokenizer.encode("abc ".repeat(25e4))).toHaveLength(5e5 + 1);
    expect(tokenizer.encode("😀".repeat(25e4))).toHaveLength(25e4 + 1);
    expect(tokenizer.encode("日".repeat(3e5))).toHaveLength(9e5 + 1);
    const long = vocabularyOf(["▁", "a", "a".repeat(1e5)]);
    expect(spmTokenizer(long).encode("a".repeat(1e6))).toHaveLength(1e6 + 1);
  });
});

describe("spmTokenizer, errors", () => {
  const cases: [string, Partial<SpmInit>, string][] = [
    ["a doubled name", { tokens: [...small().tokens.slice(0, -1), "ab"] }, 'token "ab" occurs twice, as ids 264 and 269'],
    ["too few scores", { scores: [1, 2] }, "token scores: expected 270, one for each token, found 2"],
    ["too few types", { types: [1] }, "token types: expected 270, one for each token, found 1"],
    ["a score that is no number", { scores: small().tokens.map((_, id) => (id === 7 ? NaN : 0)) }, "score of token 7: expected a number, found NaN"],
    ["bos out of range", { bos: 270 }, "bos token id: expected 0 to 269, found 270"],
    ["eos out of range", { eos: [2, -1] }, "eos token id: expected 0 to 269, found -1"],
    ["unk that is no integer", { unk: 1.5 }, "unk token id: expected 0 to 269, found 1.5"],
    ["bos wanted, not given", { bos: undefined, addBos: true }, "prompts should start with a bos token, but none is given"],
    ["no tokens", { tokens: [] }, "the vocabulary is empty"],
  ];
  it.each(cases)("refuses %s", (_, change, message) => {
    const make = () => spmTokenizer({ ...small(), ...change, source: "x.gguf" });
    expect(make).toThrow(FormatError);
    expect(make).toThrow(`x.gguf: ${message}`);
  });

  it("refuses ids outside of the vocabulary with a RangeError", () => {
    const tokenizer = spmTokenizer(small());
    for (const id of [-1, 270, 1.5, NaN]) {
      for (const act of [() => tokenizer.decode([5, id]), () => tokenizer.piece(id), () => tokenizer.stream().push(id)]) {
        expect(act).toThrow(RangeError);
        expect(act).toThrow(`token id ${id} is not in the vocabulary: expected an integer from 0 to 269`);
      }
    }
  });
});

describe("spmTokenizer, decode and stream", () => {
  const tokenizer = spmTokenizer(small());

  it("drops the space prefix at the start of a text, with or without bos, and nowhere else", () => {
    expect(tokenizer.decode([idOf("▁a"), idOf("▁a")])).toBe("a a");
    expect(tokenizer.decode([1, idOf("▁a"), idOf("▁a")])).toBe("a a");
    expect(tokenizer.decode([idOf("▁▁"), idOf("a")])).toBe(" a");
    expect(tokenizer.decode([])).toBe("");
    expect(spmTokenizer({ ...small(), addSpacePrefix: false }).decode([idOf("▁a")])).toBe(" a");
  });

  it("shows nothing of control and unknown tokens", () => {
    expect(tokenizer.decode([1, idOf("▁a"), 0, idOf("b"), 2])).toBe("ab");
  });

  it("names tokens for display", () => {
    expect([1, idOf("<0x0A>"), idOf("▁ab")].map(tokenizer.piece)).toEqual(["<s>", "<0x0A>", "▁ab"]);
  });

  it("continues a prompt: text is prompt + stream", () => {
    const prompt = tokenizer.encode("ab");
    const rest = [idOf("▁ab"), idOf("c")];
    const stream = tokenizer.stream([1, ...prompt]);
    expect(`ab${rest.map(stream.push).join("")}${stream.flush()}`).toBe("ab abc");
    expect(tokenizer.decode([1, ...prompt, ...rest])).toBe("ab abc");
    expect(tokenizer.stream([1]).push(idOf("▁a"))).toBe("a");
    expect(tokenizer.stream().push(idOf("▁a"))).toBe("a");
    expect(tokenizer.stream([]).push(idOf("▁a"))).toBe("a");
  });

  it("waits for the last byte of a character, also across the end of the prompt", () => {
    const bytes = ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"].map(idOf);
    const stream = tokenizer.stream();
    expect(bytes.map(stream.push)).toEqual(["", "", "", "😀"]);
    const late = tokenizer.stream([1, idOf("a"), ...bytes.slice(0, 3)]);
    expect(late.push(bytes[3])).toBe("😀");
    expect(stream.push(bytes[0])).toBe("");
    expect(stream.flush()).toBe("\ufffd");
    expect(stream.flush()).toBe("");
  });

  it("keeps a byte order mark", () => {
    const text = "\ufeffa\ufeff";
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    expect(streamed(tokenizer.encode(text))).toBe(text);
  });

  function streamed(ids: readonly number[], prompt: readonly number[] = []): string {
    const stream = tokenizer.stream(prompt);
    const parts = ids.map((id) => stream.push(id));
    for (const part of parts) expect(part).not.toMatch(/^\p{Surrogate}|\p{Surrogate}$/u);
    return parts.join("") + stream.flush();
  }

  it("streams what it decodes, for any ids and any split into prompt and continuation", () => {
    const random = randomInts(41);
    // Mostly lead and continuation bytes, so that broken characters of all kinds come up.
    const bytes = [0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc2, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xc0, 0x20, 0x41];
    const pick = (): number => (random(3) > 0 ? 3 + bytes[random(bytes.length)] : random(270));
    for (let round = 0; round < 3000; round++) {
      const ids = Array.from({ length: random(14) }, pick);
      const whole = tokenizer.decode(ids);
      expect(streamed(ids)).toBe(whole);
      const cut = random(ids.length + 1);
      const head = tokenizer.stream();
      const before = ids.slice(0, cut).map((id) => head.push(id)).join("");
      expect(before + streamed(ids.slice(cut), ids.slice(0, cut))).toBe(whole);
    }
  });

  it("decodes what it encoded, for any text without U+2581", () => {
    const random = randomInts(17);
    for (let round = 0; round < 500; round++) {
      const text = randomText(random, random(40), true).replaceAll("▁", "");
      const ids = tokenizer.encode(text);
      const wellFormed = text.replace(/\p{Surrogate}/gu, "\ufffd");
      expect(tokenizer.decode(ids)).toBe(wellFormed);
      expect(streamed(ids)).toBe(wellFormed);
    }
  });
});
