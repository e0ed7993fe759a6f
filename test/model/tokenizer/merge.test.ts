import { describe, expect, it } from "vitest";
import { cachedFind, symbolMerger, type Merges } from "../../../src/model/tokenizer/merge.ts";
import { randomInts } from "./support.ts";

/** Random merges over symbols 0 to `base - 1`; each merge makes a new symbol. Some ranks are equal. */
function randomMerges(random: (n: number) => number, base: number, count: number): Required<Merges> & { finds: () => number } {
  const table = new Map<string, number>();
  const rank: number[] = [];
  const result: number[] = [];
  for (let merge = 0; merge < count; merge++) {
    const pair = `${random(base + merge)},${random(base + merge)}`;
    if (!table.has(pair)) table.set(pair, merge);
    rank.push(random(count));
    result.push(base + merge);
  }
  let finds = 0;
  const find = (left: number, right: number): number => {
    finds++;
    return table.get(`${left},${right}`) ?? -1;
  };
  return { find, rank, result, finds: () => finds };
}

/** The definition, word for word: look at all neighbours, merge the best, start again. */
function naive(symbols: number[], { find, rank, result }: Required<Merges>): number[] {
  let best = -1;
  for (let i = 0; i + 1 < symbols.length; i++) {
    const merge = find(symbols[i], symbols[i + 1]);
    if (merge < 0) continue;
    if (best < 0 || rank[merge] < rank[find(symbols[best], symbols[best + 1])]) best = i;
  }
  if (best < 0) return symbols;
  return naive([...symbols.slice(0, best), result[find(symbols[best], symbols[best + 1])], ...symbols.slice(best + 2)], { find, rank, result });
}

describe("symbolMerger", () => {
  it("equals the definition for random merges and symbols", () => {
    const random = randomInts(7);
    for (let round = 0; round < 400; round++) {
      const base = 1 + random(4);
      const merges = randomMerges(random, base, random(30));
      const symbols = Array.from({ length: random(40) }, () => random(base));
      const merged = Int32Array.from(symbols);
      const kept = symbolMerger(merges)(merged, merged.length);
      expect([...merged.subarray(0, kept)]).toEqual(naive(symbols, merges));
    }
  });

  it("touches only the first `count` symbols", () => {
    const merges: Merges = { find: () => 0, rank: [0], result: [5] };
    const symbols = Int32Array.of(5, 5, 5, 9);
    const merge = symbolMerger(merges);
    expect(merge(symbols, 3)).toBe(1);
    expect([...symbols]).toEqual([5, -1, -1, 9]);
    expect(merge(symbols, 0)).toBe(0);
  });

  it("looks at a number of pairs that is linear in the symbols", () => {
    for (const length of [1000, 16000]) {
      const random = randomInts(3);
      // Doubling: 1 and 1 make 2, 2 and 2 make 3, ... so that all symbols merge into one in the end.
      let finds = 0;
      const find = (left: number, right: number): number => (finds++, left === right ? left : -1);
      const merges: Merges = { find, rank: Array.from({ length: 64 }, (_, i) => i), result: Array.from({ length: 64 }, (_, i) => i + 1) };
      const symbols = Int32Array.from({ length }, () => random(2));
      symbolMerger(merges)(symbols, length);
      // At most 3n when pushed and 3n when taken out again.
      expect(finds).toBeLessThan(6 * length);
    }
  });
});

it("cachedFind gives what it searched for, also when pairs share a slot", () => {
  const random = randomInts(11);
  let searches = 0;
  const find = cachedFind((left, right) => (searches++, left * 3000 + right));
  for (let i = 0; i < 200_000; i++) {
    const left = random(3000);
    const right = random(3000);
    if (find(left, right) !== left * 3000 + right) expect.fail(`pair ${left}, ${right}`);
  }
  const before = searches;
  for (let i = 0; i < 1000; i++) find(1, 2);
  expect(searches - before).toBeLessThan(2);
});
