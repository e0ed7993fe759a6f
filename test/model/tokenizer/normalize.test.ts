import { describe, expect, it } from "vitest";
import { parseJson } from "../../../src/model/formats/json.ts";
import { readNormalizer } from "../../../src/model/tokenizer/json-normalize.ts";
import { normalForm } from "../../../src/model/tokenizer/normal-form.ts";
import { literalPattern, PatternError, translatePattern } from "../../../src/model/tokenizer/regex.ts";
import { buildTrie, pairMap } from "../../../src/model/tokenizer/trie.ts";
import { charsmap } from "./charsmap.ts";
import { randomInts } from "./support.ts";

const normalizer = (spec: object) => readNormalizer(parseJson("x", new TextEncoder().encode(JSON.stringify(spec))));

describe("normal forms", () => {
  const marks = ["\u0301", "\u0316", "\u0334", "\u0345", "\u0323", "\u0302", "\u0344", "\u0f73", "\u0489", "\u3099", "\u093c", "\u0903", "\u{1d165}", "\u0f71"];

  it.each(["NFC", "NFD", "NFKC", "NFKD"] as const)("%s of long runs of marks are the platform's", (form) => {
    const random = randomInts(5);
    for (let round = 0; round < 60; round++) {
      let text = "a";
      for (let i = 0; i < 300; i++) text += random(60) === 0 ? ["x", "e", "\u1100\u1161", " "][random(4)] : marks[random(marks.length)];
      expect(normalForm(text, form)).toBe(text.normalize(form));
    }
  });

  it("of a letter with half a million marks come soon", () => {
    const started = performance.now();
    normalForm(`a${"\u0301\u0316".repeat(250_000)}`, "NFC");
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});

describe("SentencePiece's compiled normalisation", () => {
  it("replaces what the trie knows, whole graphemes first, the shortest prefix of them", () => {
    const map = { ａ: "a", "\u00a0": " ", "ﬁ": "fi", é: "e'", "e\u0301": "E", Ⅷ: "VIII", "\u200b": "" };
    const { apply } = normalizer({ type: "Precompiled", precompiled_charsmap: charsmap(map) });
    // The outcome is that of the tokenizers library.
    expect(apply("ａé e\u0301x\u0301\u00a0ﬁn\u200bⅧ 👍")).toBe("ae' Ex\u0301 finVIII 👍");
    expect(apply("")).toBe("");
  });
});

describe("patterns", () => {
  const matches = (pattern: string, text: string) => [...text.matchAll(translatePattern(pattern))].map(([match]) => match);

  it.each<[string, string, string[]]>([
    [String.raw`\s+`, "a\u0085b\u00a0c\ufeffd", ["\u0085", "\u00a0"]],
    ["(?i:'s|K)", "'S'ſ\u212akx", ["'S", "'ſ", "\u212a", "k"]],
    ["(?i)ab", "AbaB", ["Ab", "aB"]],
    ["a++b|a", "aaab aa", ["aaab", "a", "a"]],
    ["(?>a*)a|x", "aaax", ["x"]],
    ["[^\\W\\d]+", "ab1_c", ["ab", "_c"]],
    ["[a-z&&&]+".replace("&&&", "&"), "a&b", ["a&b"]],
    ["[[:alpha:]-]+", "a-b1", ["a-b"]],
    [".+", "a\u2028b\nc", ["a\u2028b", "c"]],
    ["^b|c$", "a\nb\nc", ["b", "c"]],
    ["{|}|]", "{}]", ["{", "}", "]"]],
    [String.raw`\x41\x{1F600}\u0042`, "A😀B", ["A😀B"]],
    [String.raw`\p{Han}+|\p{^L}`, "中文1a", ["中文", "1"]],
    ["x{2}|y{,2}z|w{1,}", "xxyyzww", ["xx", "yyz", "ww"]],
  ])("%s", (pattern, text, expected) => expect(matches(pattern, text)).toEqual(expected));

  it.each(["(", ")", "[a", "a**?+(", "*a", "(?<n>a)", "[z-a]", String.raw`\p{Nonsense}`, String.raw`\q`, "[a&&b]", `${"(".repeat(200)}`, "\\"])("%s has no translation", (pattern) =>
    expect(() => translatePattern(pattern)).toThrow(PatternError));

  it("of texts match the text only", () => expect([..."a.b*a.b".matchAll(literalPattern("a.b"))].length).toBe(2));
});

describe("tries and pairs", () => {
  it("find what was put in, and nothing else", () => {
    const random = randomInts(9);
    const words = Array.from({ length: 500 }, () => Array.from({ length: 1 + random(6) }, () => "abc👍"[random(5)]).join(""));
    const last = new Map(words.map((word, i) => [word, i]));
    const trie = buildTrie(words.map((word, i) => [word, i]));
    const find = (word: string) => {
      let node = 0;
      for (let i = 0; i < word.length && node >= 0; i++) node = trie.child(node, word.charCodeAt(i));
      return node < 0 ? -1 : trie.value[node];
    };
    for (const word of [...words, "abcabcabc", "z", ""]) expect(find(word)).toBe(last.get(word) ?? -1);

    const pairs = pairMap(300);
    const known = new Map<string, number>();
    for (let i = 0; i < 300; i++) {
      const [a, b] = [random(40), random(40)];
      pairs.set(a, b, i);
      known.set(`${a} ${b}`, i);
    }
    for (let a = 0; a < 40; a++) for (let b = 0; b < 40; b++) expect(pairs.get(a, b)).toBe(known.get(`${a} ${b}`) ?? -1);
  });
});
