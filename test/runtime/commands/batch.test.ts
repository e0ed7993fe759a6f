import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BatchResult, parseRequests } from "../../../src/runtime/batch.ts";
import { batch } from "../../../src/runtime/commands/batch.ts";
import { nodeIo } from "../../../src/runtime/node-io.ts";
import { range } from "../../support/dice.ts";
import { ggufModel } from "../../support/files.ts";
import { drawModel, SMALL } from "../../support/models.ts";

let folder: string;
const path = (name: string) => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "memwall-batch-"));
  writeFileSync(path("a.gguf"), ggufModel(drawModel(11, SMALL)));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the command in this process; returns what it said on standard error, and why it failed. */
async function run(requests: string, out: string, stop = new AbortController(), onErr = (_: string) => {}) {
  let err = "";
  const io = { ...nodeIo(stop.signal), interactive: false, err: (text: string) => void ((err += text), onErr(text)) };
  const values = { requests: path(requests), out: path(out), model: path("a.gguf"), backend: "scalar" };
  const failure = await batch.run(values, io).then(() => undefined, (error: Error) => error.message);
  return { err, failure };
}

const results = (name: string) => readFileSync(path(name), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line) as BatchResult);
const requestLines = range(30).map((i) => JSON.stringify({ id: `r${i}`, prompt: [1, 5, 3 + i], maxTokens: 1 + (i % 9), temperature: 1, seed: i }));

describe("run.ts batch", () => {
  it("writes one result for each request", async () => {
    writeFileSync(path("in.jsonl"), `${requestLines.join("\n")}\n\n`);
    const { err, failure } = await run("in.jsonl", "whole.jsonl");
    expect(failure).toBeUndefined();
    expect(err).toMatch(/^30 of 30 requests done, \d+ tokens, \d+ tokens\/s\n$/);
    const found = results("whole.jsonl");
    expect(new Set(found.map(({ id }) => id))).toEqual(new Set(range(30).map((i) => `r${i}`)));
    for (const one of found) {
      expect(Object.keys(one)).toEqual(["id", "text", "tokens", "finishReason", "metrics"]);
      expect(one.metrics).toMatchObject({ promptTokens: 3, tokens: one.tokens.length });
    }
  });

  it("goes on where it was cut off, in the middle of a line too, with the same results", async () => {
    const sorted = (name: string) => results(name).map(({ id, text, tokens }) => ({ id, text, tokens })).sort((a, b) => (a.id < b.id ? -1 : 1));
    const whole = readFileSync(path("whole.jsonl"), "utf8");
    for (const at of [0, 1, 500, whole.indexOf("\n") + 1, whole.length - 1]) {
      writeFileSync(path("part.jsonl"), whole.slice(0, at));
      const kept = whole.slice(0, at).split("\n").length - 1;
      const { err, failure } = await run("in.jsonl", "part.jsonl");
      expect(failure).toBeUndefined();
      if (kept > 0) expect(err).toContain(`(${kept} before)`);
      expect(sorted("part.jsonl")).toEqual(sorted("whole.jsonl"));
    }
  });

  it("writes whole lines only when it is interrupted", async () => {
    const stop = new AbortController();
    writeFileSync(path("long.jsonl"), range(40).map((i) => JSON.stringify({ id: i, prompt: [1, 5, 3 + (i % 30)], maxTokens: 100, seed: i })).join("\n"));
    const going = run("long.jsonl", "cut.jsonl", stop);
    setTimeout(() => stop.abort(), 60);
    expect((await going).failure).toBe("interrupted: the same command goes on with what is left");
    const text = readFileSync(path("cut.jsonl"), "utf8");
    expect(text === "" || text.endsWith("\n")).toBe(true);
    expect((await run("long.jsonl", "cut.jsonl")).failure).toBeUndefined();
    expect(new Set(results("cut.jsonl").map(({ id }) => id)).size).toBe(40);
    expect(results("cut.jsonl").length).toBe(40);
  });

  it("names the lines that are no requests, and runs the others", async () => {
    writeFileSync(path("bad.jsonl"), ['{"id": 1, "prompt": "ab", "maxTokens": 2}', "{", '{"id": 2, "prompt": [1, 999]}', '{"id": 3, "prompt": "ab", "maxTokens": 0}'].join("\n"));
    const { err, failure } = await run("bad.jsonl", "good.jsonl");
    expect(failure).toBe(`${path("bad.jsonl")}: 3 of its lines could not be run, the first is line 2`);
    expect(err).toContain("bad.jsonl: line 2: expected a JSON object, found something else\n");
    expect(err).toContain("bad.jsonl: line 3: prompt: expected token ids below 40, found 999\n");
    expect(err).toContain("bad.jsonl: line 4: maxTokens: expected a whole number, 1 or more, found 0\n");
    expect(results("good.jsonl").map(({ id }) => id)).toEqual([1]);
  });

  it("refuses to mix results with something else", async () => {
    writeFileSync(path("notes.txt"), "not mine\n");
    expect((await run("in.jsonl", "notes.txt")).failure).toBe(`${path("notes.txt")}: line 1: expected a result of run.ts batch, found something else`);
    expect((await run("in.jsonl", "in.jsonl")).failure).toMatch(/^--out and --requests: expected two files, found one, /);
    appendFileSync(path("notes.txt"), "");
    expect(readFileSync(path("notes.txt"), "utf8")).toBe("not mine\n");
  });
});

describe("a line of requests", () => {
  it.each([
    ["[]", "expected a JSON object, found something else"],
    ['{"prompt": "a"}', "id: expected a text or a whole number, found nothing"],
    ['{"id": 1.5, "prompt": "a"}', "id: expected a text or a whole number, found 1.5"],
    ['{"id": 1}', "prompt: expected a text or token ids, found nothing"],
    ['{"id": 1, "prompt": ["a"]}', 'prompt: expected a text or token ids, found ["a"]'],
    ['{"id": 1, "prompt": "a", "seed": "7"}', 'seed: expected a number, found "7"'],
    ['{"id": 1, "prompt": "a", "stop": [1]}', "stop: expected a text or several, found [1]"],
    ['{"id": 1, "prompt": "a", "top": 1}', 'expected id, prompt, maxTokens, temperature, seed, stop, found "top"'],
  ])("%s is refused", (line, problem) => {
    expect(parseRequests(`\n${line}`)).toEqual({ requests: [], bad: [{ line: 2, problem }] });
  });

  it("has an id of its own, and one or several stop strings", () => {
    const { requests, bad } = parseRequests('{"id": 1, "prompt": "a", "stop": "x"}\r\n{"id": "1", "prompt": "b"}\n{"id": 2, "prompt": "", "stop": ["y", "z"]}');
    expect(bad).toEqual([{ line: 2, problem: "id: expected one of its own, found that of line 1" }]);
    expect(requests.map(({ params }) => params.stop)).toEqual([["x"], ["y", "z"]]);
  });
});
