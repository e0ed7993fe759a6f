import { describe, expect, it } from "vitest";
import { PRE_TOKENIZERS, words } from "../../../src/model/tokenizer/pretokenize.ts";
import { randomInts, randomText } from "./support.ts";

const cut = (name: string, text: string): string[] => words(text, PRE_TOKENIZERS.get(name)!);

describe("words", () => {
  const cases: [string, string, string[]][] = [
    ["gpt-2", "it's  2024's end", ["it", "'s", " ", " 2024", "'s", " end"]],
    ["gpt-2", "IT'S", ["IT", "'", "S"]],
    ["gpt-2", "a\n\n b  ", ["a", "\n\n", " b", "  "]],
    ["llama-bpe", "IT'S 12345!\n\nx", ["IT", "'S", " ", "123", "45", "!\n\n", "x"]],
    ["llama-bpe", "a  \n  b", ["a", "  \n", " ", " b"]],
    ["llama-bpe", "(word) é́", ["(word", ")", " é", "\u0301"]],
    ["qwen2", "v12 x", ["v", "1", "2", " x"]],
    ["qwen35", "e\u0301a", ["e\u0301a"]],
    ["starcoder", "a 12", ["a", " ", "1", "2"]],
    ["falcon", "a+b 12345", ["a", "+", "b", " ", "123", "45"]],
    ["gpt-4o", "camelCase's HTTPServer/\n", ["camel", "Case's", " HTTPServer", "/\n"]],
    ["tekken", "don't 12", ["don", "'t", " ", "1", "2"]],
    ["deepseek-v3", "x=日本1234 y", ["x", "=", "日本", "123", "4", " y"]],
    ["deepseek-coder", "a, 12\n", ["a", ",", " ", "1", "2", "\n"]],
    ["bloom", "Hi, you. ok", ["Hi", ",", " you", ".", " ok"]],
    ["ufakzeka", "Ankara'da 12", ["Ankara", "'da", " ", "1", "2"]],
    ["laguna", "a!\n\nb", ["a", "!", "\n\n", "b"]],
    ["minicpm5", "x12345 IT'S", ["x", "123", "45", " IT", "'S"]],
    ["jais-2", `a${" ".repeat(13)}b12345`, ["a", " ".repeat(8), " ".repeat(4), " b", "123", "45"]],
    ["tiny_aya", "12345 camelCase's 1234x", ["12", "345", " camel", "Case's", " ", "123", "4", "x"]],
    ["youtu", "한국어日本，ㄅB12", ["한국어", "日本", "，", "ㄅ", "B", "1", "2"]],
    ["spark2_5", "日1234!\n\nx", ["日", "1", "2", "3", "4", "!", "\n", "\n", "x"]],
    ["exaone-moe", "a b c!\n\n12", ["a b c", "!\n", "\n", "1", "2"]],
    ["deepseek-llm", "Hello, мир日本 123 Ա\u0561  ", ["Hello", ",", " мир", "日本", " ", "123", " Ա", "\u0561", "  "]],
    ["deepseek-llm", "\u3000x𝐀", ["\u3000", "x", "𝐀"]],
    ["default", "a1234.", ["a", "123", "4", "."]],
  ];
  it.each(cases)("%s: %j", (name, text, expected) => expect(cut(name, text)).toEqual(expected));

  it("knows Unicode's white space: U+0085 is, U+FEFF is not", () => {
    expect(cut("llama-bpe", "a\u0085\u0085b")).toEqual(["a", "\u0085", "\u0085b"]);
    expect(cut("llama-bpe", "!\ufeff!")).toEqual(["!\ufeff!"]);
  });

  it("keeps all of the text, under every rule", () => {
    const random = randomInts(3);
    for (let round = 0; round < 30; round++) {
      const text = randomText(random, 60);
      for (const rule of PRE_TOKENIZERS.values()) expect(words(text, rule).join("")).toBe(text);
    }
  });

  it("cuts a megabyte of one character", () => {
    for (const character of ["a", " ", "\n", "日", "!", "A"]) {
      for (const name of ["gpt-2", "llama-bpe", "gpt-4o", "deepseek-v3"]) {
        const text = character.repeat(1e6);
        expect(cut(name, `${text}1`).join("")).toHaveLength(1e6 + 1);
      }
    }
    for (const [name, character] of [["tiny_aya", "1"], ["deepseek-llm", " "], ["exaone-moe", "a"]]) expect(cut(name, `${character.repeat(1e6)}x`).join("")).toHaveLength(1e6 + 1);
  });
});
