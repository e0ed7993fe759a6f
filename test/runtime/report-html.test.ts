import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SHAPES } from "../../src/model/shapes.ts";
import { parseFormat } from "../../src/runtime/hardware/formats.ts";
import { HARDWARE } from "../../src/runtime/hardware/profiles.ts";
import { collectShape } from "../../src/runtime/report-html/collect-shape.ts";
import type { ReportData } from "../../src/runtime/report-html/data.ts";
import { escape } from "../../src/runtime/report-html/html.ts";
import { reportPage } from "../../src/runtime/report-html/page.ts";
import { linear, logarithmic, short } from "../../src/runtime/report-html/scale.ts";
import { cli } from "../support/cli.ts";
import { markupProblems } from "./well-formed.ts";

const folder = mkdtempSync(join(tmpdir(), "memwall-report-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every number of a JSON document, with the way to it. */
function numbersOf(value: unknown, path = ""): { path: string; value: number }[] {
  if (typeof value === "number") return [{ path, value }];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, item]) => numbersOf(item, `${path}.${key}`));
}

function checkPage(html: string, data: ReportData): void {
  expect(markupProblems(html)).toEqual([]);
  const inTables = new Set([...html.matchAll(/<data value="([^"]*)">/g)].map(([, value]) => Number(value)));
  expect(numbersOf(data).filter(({ value }) => !inTables.has(value))).toEqual([]);
  expect(html).not.toMatch(/\b(?:src|href|srcset|xlink:href|action|data)="(?!#)/);
  expect(html).not.toMatch(/url\(|@import|https?:|fetch\(|XMLHttpRequest|import\(/);
  const charts = [...html.matchAll(/<svg [^>]*role="img" aria-label="([^"]*)"/g)];
  expect(charts.length).toBeGreaterThan(20);
  for (const [, label] of charts) expect(label.length).toBeGreaterThan(10);
  for (const [section] of html.matchAll(/<section [\s\S]*?<\/section>/g)) {
    expect(section).toMatch(/<h2 [^>]*>[^<]+<\/h2><p class="see">[^<]{20,}\.<\/p>/);
    if (section.includes("<figure>")) expect(section).toMatch(/<details><summary>[\s\S]*<caption>/);
  }
}

const format = (name: string) => parseFormat(name)!;
const FORMATS = { weights: format("int8"), kv: { k: format("f16"), v: format("f16") }, activations: format("f16") };
const DEVICES = HARDWARE.filter(({ name }) => ["a100-80g", "orin", "tesla-fsd-hw3"].includes(name));

describe("a report on a shape", () => {
  const data = collectShape(SHAPES["llama-2-7b"], FORMATS, { batch: 1, promptTokens: 64, tokens: 20 }, DEVICES);

  it("is a well-formed page without a reference to anything outside, that holds every number", () => checkPage(reportPage(data), data));

  it("adds up", () => {
    for (const what of ["calls", "flops", "bytes", "time"] as const) expect(data.breakdown.shares.reduce((sum, share) => sum + share[what], 0)).toBeCloseTo(1, 10);
    const { ops, us } = data.timeline;
    expect(ops.reduce((sum, op) => sum + op.us, 0)).toBeCloseTo(us, 6);
    expect(ops.filter(({ name }) => name === "attn_q")).toHaveLength(32);
    const decode = data.bytesPerToken.find(({ phase }) => phase === "decode")!;
    const linears = data.roofline.points.filter(({ phase, kind }) => phase === "decode" && kind === "gemv");
    expect(decode.weights).toBeGreaterThan(data.model.weightBytes * 0.97);
    expect(decode.weights).toBeLessThan(data.model.weightBytes);
    expect(linears.reduce((sum, { flops }) => sum + flops, 0) / 20).toBeCloseTo(2 * (data.model.parameters - 32000 * 4096 - 65 * 4096), -3);
    expect(data.pages.steps.map(({ pages }) => pages)).toEqual(Array.from({ length: 21 }, (_, i) => Math.ceil((64 + i) / 16)));
  });

  it("puts every op on the roof, and says what does not fit", () => {
    const { bandwidthGBs, points } = data.roofline;
    for (const { phase, kind, intensity, gflops } of points) if (phase === "decode" && kind === "gemv") expect(gflops).toBeCloseTo(intensity * bandwidthGBs, 6);
    expect(data.hardware.map(({ hw, unverified }) => [hw, unverified])).toEqual([["a100-80g", []], ["orin", ["bandwidthGBs"]], ["tesla-fsd-hw3", []]]);
    expect(reportPage(data)).toMatch(/<th scope="row">orin<\/th>.*<td>bandwidthGBs<\/td><\/tr>/);
    const large = collectShape(SHAPES["gpt-3-175b"], FORMATS, { batch: 1, promptTokens: 16, tokens: 2 }, DEVICES.slice(1));
    expect(large.hardware.map(({ fits, tokensPerSecond }) => [fits, tokensPerSecond])).toEqual([[false, null], [false, null]]);
    const page = reportPage(large);
    expect(page).toContain("gpt-3-175b fits into none of these devices.");
    checkPage(page, large);
  });
});

describe("run.ts report", () => {
  const out = join(folder, "run.html");
  let data: ReportData;
  beforeAll(() => {
    const { code, out: json, err } = cli(["report", "--out", out, "--prompt", 'Tom said "<b>&amp;', "--max-tokens", "12", "--hw", "orin,a100-80g", "--json"]);
    expect(err).toBe("");
    expect(code).toBe(0);
    data = JSON.parse(json) as ReportData;
  });

  it("writes a well-formed page that holds every number of the JSON, whatever the text is", () => {
    const html = readFileSync(out, "utf8");
    checkPage(html, data);
    expect(html).toContain(escape(data.run.text!));
    expect(readdirSync(folder)).toEqual(["run.html"]);
  });

  it("measures the run it reports on", () => {
    const { run, token, model, timeline, roofline } = data;
    expect(run.mode).toBe("measured");
    expect(run.decodeTokensPerSecond).toBeGreaterThan(0);
    expect(timeline.ops.every(({ us, startUs }) => us > 0 && startUs >= 0)).toBe(true);
    expect(roofline.points.every(({ ms }) => ms > 0)).toBe(true);
    for (const { weights } of token!.attention) expect(weights.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 4);
    expect(token!.lens.map(({ layer }) => layer)).toEqual(Array.from({ length: model.layers + 1 }, (_, i) => i - 1));
    expect(token!.keys).toHaveLength(token!.position + 1);
  });

  it.each([
    ["a path that cannot be written", ["--out", "/no/such/folder/r.html"], 1, /^memwall: \/no\/such\/folder\/r\.html: cannot write: no such folder\n$/],
    ["a folder for a file", ["--out", folder], 1, /^memwall: .*: cannot write: this is a folder\n$/],
    ["a token that is not there", ["--out", join(folder, "x.html"), "--max-tokens", "4", "--at", "500"], 1, /^memwall: at: expected a position from 0 to \d+, found 500\n$/],
    ["an unknown shape", ["--shape", "llama-2-7", "--out", join(folder, "x.html")], 2, /did you mean llama-2-7b\?/],
    ["an unknown device", ["--hw", "orion", "--out", join(folder, "x.html")], 2, /did you mean orin\?/],
    ["a prompt for a shape", ["--shape", "llama-2-7b", "--prompt", "x"], 2, /--prompt: expected not with --shape/],
    ["lengths for a model", ["--prompt-tokens", "5"], 2, /--prompt-tokens: expected only with --shape/],
  ])("%s: one line", (_, args, expected, says) => {
    const { code, out: text, err } = cli(["report", ...args]);
    expect(err).toMatch(says);
    expect(err.trimEnd().split("\n")).toHaveLength(1);
    expect(text).toBe("");
    expect(code).toBe(expected);
    expect(readdirSync(folder)).toEqual(["run.html"]);
  });
});

describe("scales", () => {
  it("are linear from zero in round steps", () => {
    const scale = linear(47, 0, 100);
    expect(scale.ticks.map(({ label }) => label)).toEqual(["0", "10", "20", "30", "40", "50"]);
    expect(scale.at(25)).toBe(50);
  });

  it("are logarithmic over whole decades", () => {
    const scale = logarithmic([3, 2000, 0, Infinity], 0, 400);
    expect(scale.ticks.map(({ label }) => label)).toEqual(["1", "10", "100", "1k", "10k"]);
    expect(scale.at(10)).toBeCloseTo(100);
  });

  it.each([[0, "0"], [0.01, "0.01"], [1500, "1.5k"], [2e7, "20M"], [1e-6, "1e-6"]])("write %d as %s", (value, text) => expect(short(value)).toBe(text));
});

describe("text in HTML", () => {
  it.each([["a<b>&\"c\"", "a&lt;b&gt;&amp;&quot;c&quot;"], ["\u0000\u001b[1m", "\ufffd\ufffd[1m"], ["\ud800x\udc00", "\ufffdx\ufffd"], ["😀", "😀"]])("%j", (text, safe) => expect(escape(text)).toBe(safe));
});
