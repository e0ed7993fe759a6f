import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { PhaseBreakdown, SpeculatePoint, SpeculationTimings } from "../../../src/index.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { type Io, speculationFrom, UsageError, type Values } from "../../../src/runtime/commands/command.ts";
import { cli, cliJson } from "../../support/cli.ts";
import { post, serveStories, STORIES } from "../../support/http.ts";

interface Generated {
  tokens: number[];
  timings: { weightBytesPerToken: number; speculation?: SpeculationTimings };
  breakdown: { decode: PhaseBreakdown };
  draft?: { model: string; bytes: number; breakdown: { decode: PhaseBreakdown } };
}

const folder = mkdtempSync(join(tmpdir(), "memwall-guess-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A text that says everything twice: prompt lookup's home. */
const TWICE = "Once upon a time, there was a little girl named Zoe. Once upon a time, there was a little girl named";
const ARGS = ["--prompt", TWICE, "--temperature", "0", "--max-tokens", "40", "--threads", "1"];

describe("run.ts generate with guesses", () => {
  it("says the same, and shows acceptance, tokens a step and fewer weight bytes a token", () => {
    const plain = cliJson<Generated>(ARGS);
    expect(plain.timings.speculation).toBeUndefined();
    expect(plain.draft).toBeUndefined();
    const ngram = cliJson<Generated>([...ARGS, "--speculate", "ngram"]);
    expect(ngram.tokens).toEqual(plain.tokens);
    expect(ngram.timings.speculation).toMatchObject({ method: "ngram" });
    expect(ngram.timings.speculation!.accepted).toBeGreaterThan(0);
    expect(ngram.timings.weightBytesPerToken).toBeLessThan(plain.timings.weightBytesPerToken);

    const draft = cliJson<Generated>([...ARGS, "--draft-model", STORIES, "--draft-tokens", "4"]);
    expect(draft.tokens).toEqual(plain.tokens);
    expect(draft.timings.speculation).toMatchObject({ method: "draft", acceptanceRate: 1 });
    expect(draft.timings.speculation!.tokensPerStep).toBeGreaterThan(4);
    expect(draft.breakdown.decode.byKind.gemv).toBeUndefined();
    expect(draft.draft!.breakdown.decode.byKind.gemv!.calls).toBeGreaterThan(0);
  });

  it("tells people in one line, and the draft model's share in tables of its own", () => {
    const { code, out } = cli([...ARGS, "--draft-model", STORIES]);
    expect(code).toBe(0);
    expect(out).toMatch(/; draft: [\d,]+ of [\d,]+ guesses accepted \(100\.0 %\), [\d.]+ tokens a step\n/);
    expect(out).toContain("draft model memwall stories\n");
    expect(out).toMatch(/A step of decode read \d+ kB of weights and gave [\d.]+ tokens: \d+ kB of weights a token, the draft model's among them\./);
  });

  it.each<[Values, string]>([
    [{ speculate: "magic" }, '--speculate: expected one of ngram, off, found "magic"'],
    [{ "draft-tokens": "3" }, "--draft-tokens: expected --speculate ngram or --draft-model with it, found neither"],
    [{ speculate: "ngram", "draft-tokens": "17" }, '--draft-tokens: expected a whole number from 1 to 16, found "17"'],
    [{ speculate: "ngram", "draft-model": STORIES }, "--speculate and --draft-model: expected one of them"],
    [{ window: "64", "draft-model": STORIES }, "--draft-model and --window: expected one of them (--speculate ngram goes with a window)"],
  ])("refuses %j", (values, message) => {
    const io = { openFile: () => memorySource("never opened", new Uint8Array(0)) } as unknown as Io;
    expect(() => speculationFrom(values, io)).toThrow(new UsageError(message));
  });
});

describe("run.ts chat, batch and bench with guesses", () => {
  it("chat shows them in /stats", () => {
    const { code, out } = cli(["chat", "--speculate", "ngram", "--max-tokens", "20", "--temperature", "0"], "Once upon a time\n/stats\n");
    expect(code).toBe(0);
    expect(out).toMatch(/ngram: .* tokens a step/);
  });

  it("batch gives the same results", () => {
    const requests = join(folder, "requests.jsonl");
    writeFileSync(requests, [0, 1, 2].map((id) => JSON.stringify({ id, prompt: TWICE, maxTokens: 20, temperature: id / 2, seed: id })).join("\n"));
    const results = [[], ["--speculate", "ngram"]].map((more, i) => {
      const out = join(folder, `out-${i}.jsonl`);
      expect(cli(["batch", "--requests", requests, "--out", out, ...more]).code).toBe(0);
      const lines = readFileSync(out, "utf8").trim().split("\n").map((line) => JSON.parse(line) as { id: number; tokens: number[] });
      return lines.sort((a, b) => a.id - b.id).map(({ tokens }) => tokens);
    });
    expect(results[1]).toEqual(results[0]);
  });

  it("bench speculate measures side by side", () => {
    const args = ["bench", "speculate", "--prompt", TWICE, "--tokens", "24", "--repeat", "2", "--threads", "1", "--draft-model", STORIES];
    const { points } = cliJson<{ points: SpeculatePoint[] }>(args);
    expect(points.map(({ speculate }) => speculate)).toEqual(["off", "ngram", "draft"]);
    const [off, ngram, draft] = points;
    expect(off).toMatchObject({ speedup: 1, guessed: 0, acceptanceRate: null, tokensPerStep: 1, sameText: true });
    for (const point of points) {
      expect(point.sameText).toBe(true);
      expect(point.tokensPerSecond).toBeGreaterThan(0);
      expect(point.spread.lowest).toBeLessThanOrEqual(point.tokensPerSecond);
      expect(point.spread.highest).toBeGreaterThanOrEqual(point.tokensPerSecond);
    }
    expect(ngram.weightBytesPerToken).toBeLessThan(off.weightBytesPerToken);
    expect(draft.acceptanceRate).toBe(1);
  });
});

describe("a server with guesses", () => {
  it("answers as one without, and counts them", async () => {
    const [plain, guessing] = [await serveStories(), await serveStories({}, { speculate: "ngram" })];
    try {
      const body = { prompt: TWICE, max_tokens: 40, temperature: 0 };
      const [a, b] = await Promise.all([plain, guessing].map(({ url }) => post<{ choices: { text: string }[] }>(`${url}/v1/completions`, body)));
      expect(b.body.choices[0].text).toBe(a.body.choices[0].text);
      const metrics = await (await fetch(`${guessing.url}/metrics`)).text();
      const count = (name: string) => Number(new RegExp(`^memwall_${name} (\\d+)$`, "m").exec(metrics)![1]);
      expect(count("guessed_tokens_total")).toBeGreaterThan(0);
      expect(count("accepted_tokens_total")).toBeGreaterThan(0);
      expect(count("generated_tokens_total")).toBe(40);
    } finally {
      await plain.end();
      await guessing.end();
    }
  });
});
