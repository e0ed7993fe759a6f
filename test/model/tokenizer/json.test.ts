import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { parseJson } from "../../../src/model/formats/json.ts";
import { tokenizerFromJson } from "../../../src/model/tokenizer/json.ts";
import type { Tokenizer } from "../../../src/model/tokenizer/tokenizer.ts";
import { tokenizerJson } from "../../support/hf-folder.ts";
import { randomInts, randomText } from "./support.ts";

interface Golden {
  vocabularies: Record<string, { vocab: Record<string, number> | [string, number][]; merges?: [string, string][] }>;
  texts: string[];
  tokenizers: { name: string; vocabulary: string; legacyMerges: boolean; tokenizer: Record<string, unknown> & { model: object; added_tokens: { id: number }[] }; ids: string[] }[];
}

const golden = JSON.parse(readFileSync(new URL("../../../fixtures/tokenizers.golden.json", import.meta.url), "utf8")) as Golden;

function open(document: object, vocabSize: number): Tokenizer {
  return tokenizerFromJson(parseJson("tokenizer.json", new TextEncoder().encode(JSON.stringify(document))), { vocabSize });
}

function goldenTokenizer({ vocabulary, legacyMerges, tokenizer }: Golden["tokenizers"][number]): Tokenizer {
  const { vocab, merges } = golden.vocabularies[vocabulary];
  const model = { ...tokenizer.model, vocab, ...(merges && { merges: legacyMerges ? merges.map((pair) => pair.join(" ")) : merges }) };
  const size = (Array.isArray(vocab) ? vocab.length : Object.keys(vocab).length) + tokenizer.added_tokens.length;
  return open({ ...tokenizer, model }, size);
}

describe.each(golden.tokenizers)("$name", (one) => {
  const own = goldenTokenizer(one);

  it("has the ids of the tokenizers library", () => {
    const found = golden.texts.map((text) => own.encode(text, { special: true }).join(" "));
    expect(Object.fromEntries(golden.texts.map((text, i) => [text, found[i]]))).toEqual(Object.fromEntries(golden.texts.map((text, i) => [text, one.ids[i]])));
  });

  it("streams what it decodes, and takes any text", () => {
    const random = randomInts(7);
    for (let round = 0; round < 100; round++) {
      const ids = own.encode(randomText(random, 1 + random(40), true), { special: random(2) === 0 });
      const stream = own.stream();
      expect(ids.map((id) => stream.push(id)).join("") + stream.flush()).toBe(own.decode(ids));
    }
  });
});

describe("decoding", () => {
  it("inverts encoding, where the rules lose nothing", () => {
    const random = randomInts(3);
    for (const one of golden.tokenizers.filter(({ name }) => ["llama 3's rules", "possessive patterns"].includes(name))) {
      const own = goldenTokenizer(one);
      for (let round = 0; round < 200; round++) {
        const text = randomText(random, 1 + random(60)).replaceAll("<", "(");
        expect(own.decode(own.encode(text))).toBe(text);
      }
    }
    const llama2 = goldenTokenizer(golden.tokenizers.find(({ name }) => name === "llama 2's rules")!);
    for (const text of ["the cat", " the cat", "a</s>b", "你好\n\n 𠀀", ""]) expect(llama2.decode(llama2.encode(text, { special: true }))).toBe(text.replace("</s>", ""));
  });

  it("leaves control tokens in a text alone unless asked", () => {
    const own = open(tokenizerJson(), 270);
    expect(own.encode("<s>")).not.toContain(260);
    expect(own.encode("<s>", { special: true })).toEqual([260]);
    expect(own.decode(own.encode("a<s>b", { special: true }))).toBe("ab");
    expect(own.decode(own.encode("a<s>b"))).toBe("a<s>b");
    expect(own.piece(260)).toBe("<s>");
    expect(own.piece(269)).toBe("");
    expect(() => own.piece(270)).toThrow(RangeError);
  });
});

describe("time", () => {
  const texts: [string, (n: number) => string][] = [
    ["spaces", (n) => " ".repeat(n)],
    ["one letter", (n) => "a".repeat(n)],
    ["marks out of order", (n) => `a${"\u0301\u0316".repeat(n / 2)}`],
    ["almost special tokens", (n) => "<|en".repeat(n / 4)],
    ["line ends", (n) => "\n".repeat(n)],
    ["unknown characters", (n) => "\u4e00".repeat(n)],
  ];

  it.each(golden.tokenizers)("of $name grows with the text, not with its square", (one) => {
    const own = goldenTokenizer(one);
    for (const [name, text] of texts) {
      const started = performance.now();
      own.encode(text(200_000), { special: true });
      expect(performance.now() - started, name).toBeLessThan(10_000);
    }
  }, 60_000);
});

describe("a tokenizer.json that is not right", () => {
  const base = tokenizerJson();
  const model = base.model as object;
  const change = (part: object) => ({ ...base, ...part });
  const inModel = (part: object) => change({ model: { ...model, ...part } });
  const step = (type: string, rest: object = {}) => ({ type, ...rest });

  it.each<[string, object, string]>([
    ["no object", [], "the document: expected an object, found an array of 0"],
    ["no model", change({ model: undefined }), 'key "model": expected an object, found no such key'],
    ["WordPiece", inModel({ type: "WordPiece" }), 'key "model.type": expected BPE or Unigram, found "WordPiece"'],
    ["dropout", inModel({ dropout: 0.1 }), 'key "model.dropout": expected no dropout, found 0.1'],
    ["a merge of one token", inModel({ merges: ["ab"] }), 'merge 0: expected two tokens, found "\\"ab\\""'],
    ["a merge of three", inModel({ merges: ["a b c"] }), "merge 0: expected two tokens"],
    ["a merge with an empty side", inModel({ merges: [["", "a"]] }), "merge 0: expected two tokens"],
    ["a merge of no token", inModel({ merges: ["a ✗"] }), 'merge 0 of "a" and "✗": expected tokens that make a token, found no token "✗"'],
    ["a merge into no token", inModel({ merges: ["x y"] }), 'merge 0 of "x" and "y": expected tokens that make a token, found no token "xy"'],
    ["merges of another kind", inModel({ merges: { a: 1 } }), 'key "model.merges": expected an array of merges, found an object'],
    ["an id that is none", inModel({ vocab: { a: "1" } }), 'token "a": expected an id below 270, the rows of the embedding, found NaN'],
    ["an id beyond", inModel({ vocab: { a: 270 } }), 'token "a": expected an id below 270, the rows of the embedding, found 270'],
    ["an unknown token that is unknown", inModel({ unk_token: "<none>" }), 'key "model.unk_token": expected a token of the vocabulary, found "<none>"'],
    ["no tokens", inModel({ vocab: {}, merges: [] }), 'key "model.vocab": expected tokens, found none'],
    ["pieces without scores", change({ model: { type: "Unigram", vocab: [["a"]], unk_id: 0 } }), 'key "model.vocab[0]": expected a piece and its score, found an array of 1'],
    ["an unk_id beyond", change({ model: { type: "Unigram", vocab: [["a", 0]], unk_id: 1 } }), 'key "model.unk_id": expected an id below 1, found 1'],
    ["a normalizer that is unknown", change({ normalizer: step("Magic") }), 'key "normalizer.type": expected one of Sequence, NFC'],
    ["a pre-tokenizer that is unknown", change({ pre_tokenizer: step("Sequence", { pretokenizers: [step("Magic")] }) }), 'key "pre_tokenizer.pretokenizers[0].type": expected one of Sequence, ByteLevel'],
    ["a decoder that is unknown", change({ decoder: step("WordPiece") }), 'key "decoder.type": expected one of Sequence, ByteLevel'],
    ["a pattern that is none", change({ pre_tokenizer: step("Split", { pattern: { Regex: "(" }, behavior: "Isolated" }) }), 'key "pre_tokenizer.pattern": expected ")" at character'],
    ["a pattern beyond JavaScript", change({ pre_tokenizer: step("Split", { pattern: { Regex: "(?<n>a)" }, behavior: "Isolated" }) }), "expected (?:, (?=, (?!, (?<=, (?<!, (?> or (?i:"],
    ["an unknown behaviour", change({ pre_tokenizer: step("Split", { pattern: { String: "a" }, behavior: "Eaten" }) }), 'key "pre_tokenizer.behavior": expected one of Removed, Isolated'],
    ["a charsmap that is none", change({ normalizer: step("Precompiled", { precompiled_charsmap: "AAAA" }) }), 'key "precompiled_charsmap": expected a trie within its 3 bytes'],
    ["an added token without a name", change({ added_tokens: [{ id: 1, content: "" }] }), 'key "added_tokens[0].content": expected a token\'s name, found ""'],
  ])("%s", (_, document, message) => {
    const attempt = () => open(document, 270);
    expect(attempt).toThrow(FormatError);
    expect(attempt).toThrow(message);
    expect(attempt).not.toThrow(/\n/);
  });
});
