import { describe, expect, it } from "vitest";
import { specialSplitter } from "../../../src/model/tokenizer/special.ts";
import { randomInts } from "./support.ts";

const utf8 = new TextEncoder();

/** As the rule reads: one name after the other, longest first, each out of all text that is still ordinary, from left to right. */
function naive(text: string, names: ReadonlyMap<string, number>): (number | string)[] {
  let parts: (number | string)[] = [text];
  const ordered = [...names].sort(([a], [b]) => utf8.encode(b).length - utf8.encode(a).length);
  for (const [name, id] of ordered) {
    parts = parts.flatMap((part) => (typeof part === "number" ? [part] : part.split(name).flatMap((piece, i) => (i === 0 ? [piece] : [id, piece]))));
  }
  return parts.filter((part) => part !== "");
}

function split(text: string, names: ReadonlyMap<string, number>): (number | string)[] {
  return specialSplitter(names)(text).map((part) => ("id" in part ? part.id : text.slice(part.start, part.end)));
}

describe("specialSplitter", () => {
  it("leaves a text without special tokens whole", () => {
    const names = new Map([["<s>", 1]]);
    expect(split("plain <text", names)).toEqual(["plain <text"]);
    expect(split("", names)).toEqual([]);
    expect(split("any", new Map())).toEqual(["any"]);
    expect(split("", new Map())).toEqual([]);
  });

  it("takes tokens out wherever they stand", () => {
    const names = new Map([["<s>", 1], ["</s>", 2]]);
    expect(split("<s>a</s><s>b c<s", names)).toEqual([1, "a", 2, 1, "b c<s"]);
  });

  it("prefers the longest name in the whole text to the leftmost", () => {
    expect(split("abcd", new Map([["ab", 1], ["bcd", 2]]))).toEqual(["a", 2]);
    expect(split("aaaaaaa", new Map([["a", 1], ["aa", 2], ["aaaa", 3]]))).toEqual([3, 2, 1]);
    expect(split("xaby", new Map([["xab", 1], ["xa", 2], ["aby!", 3]]))).toEqual([1, "y"]);
  });

  it("counts length in UTF-8 bytes", () => {
    // Both names have two letters; "bé" has three bytes.
    expect(split("abé", new Map([["ab", 1], ["bé", 2]]))).toEqual(["a", 2]);
  });

  it("falls back to a shorter name at the same place", () => {
    expect(split("abcxyzw", new Map([["abcx", 1], ["cxyzw", 2], ["ab", 3]]))).toEqual([3, 2]);
  });

  it("equals the rule taken literally", () => {
    const random = randomInts(5);
    const letters = (length: number): string => Array.from({ length }, () => "abé"[random(3)]).join("");
    for (let round = 0; round < 2000; round++) {
      const names = new Map<string, number>();
      const lengths = new Set<number>();
      for (let i = 0; i < 1 + random(5); i++) {
        const name = letters(1 + random(4));
        // The order of different names of one length is not defined by the rule.
        if (lengths.has(utf8.encode(name).length)) continue;
        lengths.add(utf8.encode(name).length);
        names.set(name, i);
      }
      const text = letters(random(30));
      expect(split(text, names), JSON.stringify([text, [...names]])).toEqual(naive(text, names));
    }
  });
});
