import { existsSync, readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { memorySource } from "../../../src/model/formats/source.ts";
import { readGguf } from "../../../src/model/formats/gguf.ts";
import type { HasMetadata } from "../../../src/model/formats/gguf-values.ts";

/** Where the real models lie that the tests compare with; missing outside of the team's machines. */
export const SHARED = fileURLToPath(new URL("../../../../shared/", import.meta.url));

export interface GoldenTokens {
  /** Path of the model. */
  path: string;
  cases: { text: string; ids: number[] }[];
}

/** All models with golden `tokenize` cases under ../shared. */
export function goldenTokens(): GoldenTokens[] {
  const suffix = ".golden.json";
  return ["models/", "parity/"].flatMap((folder) => {
    if (!existsSync(SHARED + folder)) return [];
    const goldens = readdirSync(SHARED + folder).filter((name) => name.endsWith(suffix));
    return goldens.map((name): GoldenTokens => {
      const stem = SHARED + folder + name.slice(0, -suffix.length);
      const golden = JSON.parse(readFileSync(stem + suffix, "utf8")) as { tokenize: GoldenTokens["cases"] };
      return { path: `${stem}.gguf`, cases: golden.tokenize };
    });
  });
}

export function ggufAt(path: string): HasMetadata {
  return readGguf(memorySource(path, readFileSync(path)));
}

/** Numbers from 0 to below `n`, the same on every run (xorshift32). */
export function randomInts(seed: number): (n: number) => number {
  let state = seed | 1;
  return (n) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % n;
  };
}

/** `length` characters from all of Unicode, the plainer ones more often; now and then a lone surrogate if asked. */
export function randomText(random: (n: number) => number, length: number, surrogates = false): string {
  const ranges = [
    [0x20, 0x7f],
    [0x61, 0x7b],
    [0x00, 0x100],
    [0x300, 0x600],
    [0x2000, 0x2070],
    [0x4e00, 0x4f00],
    [0x1f600, 0x1f640],
    [0x0, 0x110000],
  ];
  let text = "";
  while (text.length < length) {
    const [from, to] = ranges[random(ranges.length)];
    const code = random(3) === 0 ? 0x20 : from + random(to - from);
    if (surrogates || code < 0xd800 || code > 0xdfff) text += String.fromCodePoint(code);
  }
  return text;
}
