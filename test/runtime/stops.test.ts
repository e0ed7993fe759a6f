import { describe, expect, it } from "vitest";
import { stopMatcher } from "../../src/runtime/stops.ts";
import { type Dice, dice, range } from "../support/dice.ts";

/** Where the first stop string to be completed begins: text is cut there; undefined where none occurs. */
function cutAt(text: string, stops: readonly string[]): number | undefined {
  for (let end = 0; end <= text.length; end++) {
    const found = stops.filter((stop) => stop !== "" && text.slice(0, end).endsWith(stop));
    if (found.length > 0) return end - Math.max(...found.map((stop) => stop.length));
  }
  return undefined;
}

/** Feeds the pieces up to the stop; what came out, and whether it stopped. */
function stream(pieces: readonly string[], stops: readonly string[]): { text: string; stopped: boolean } {
  const matcher = stopMatcher(stops);
  let out = "";
  for (const piece of pieces) {
    const { text, stopped } = matcher.push(piece);
    out += text;
    if (stopped) return { text: out, stopped };
  }
  return { text: out + matcher.flush(), stopped: false };
}

function cuts(d: Dice, text: string): string[] {
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    const size = d.pick([0, 1, 1, 2, 3, 10]);
    pieces.push(text.slice(at, at + size));
    at += size;
  }
  return pieces;
}

describe("stop strings", () => {
  it("however the text is cut into pieces, the outcome is the same", () => {
    let stopped = 0;
    for (const seed of range(3000)) {
      const d = dice(seed);
      const word = (length: number) => range(length).map(() => d.pick(["a", "b", "c"])).join("");
      const text = word(d.between(0, 25));
      const stops = range(d.between(0, 3)).map(() => word(d.between(0, 5)));
      const at = cutAt(text, stops);
      const expected = { text: text.slice(0, at ?? text.length), stopped: at !== undefined };
      const label = `${text} / ${stops}`;
      expect(stream([text], stops), label).toEqual(expected);
      expect(stream([...text], stops), label).toEqual(expected);
      expect(stream(cuts(d, text), stops), label).toEqual(expected);
      if (at !== undefined) stopped++;
    }
    expect(stopped).toBeGreaterThan(300);
  });

  it("holds back only what may become a stop string", () => {
    const matcher = stopMatcher(["END", "\n\n"]);
    expect(matcher.push("one E")).toEqual({ text: "one ", stopped: false });
    expect(matcher.push("N")).toEqual({ text: "", stopped: false });
    expect(matcher.push("E")).toEqual({ text: "EN", stopped: false });
    expect(matcher.push("x\n")).toEqual({ text: "Ex", stopped: false });
    expect(matcher.flush()).toBe("\n");
    expect(matcher.flush()).toBe("");
  });

  it("without any, lets all text through at once", () => {
    expect(stopMatcher([]).push("text")).toEqual({ text: "text", stopped: false });
    expect(stopMatcher([""]).push("text")).toEqual({ text: "text", stopped: false });
  });
});
