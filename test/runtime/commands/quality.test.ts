import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { calibrate } from "../../../src/runtime/commands/calibrate.ts";
import type { Command, Values } from "../../../src/runtime/commands/command.ts";
import { evaluate } from "../../../src/runtime/commands/eval.ts";
import { quantize } from "../../../src/runtime/commands/quantize.ts";
import { nodeIo } from "../../../src/runtime/node-io.ts";
import { ggufModel } from "../../support/gguf-model.ts";

const folder = mkdtempSync(join(tmpdir(), "memwall-quality-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => join(folder, name);
const model = at("model.gguf");
writeFileSync(model, ggufModel(3, { dim: 64, ffnDim: 96, headDim: 16, contextLength: 32 }));
writeFileSync(at("text.txt"), "the cat sat on the mat. the dog ran to the cat! and then they sat on the mat, the two of them. ".repeat(2));
writeFileSync(at("short.txt"), "too short");
writeFileSync(at("empty.txt"), "");

/** Runs a command in this process; the text that it printed. */
async function run(command: Command, values: Values): Promise<string> {
  let printed = "";
  await command.run({ model, backend: "scalar", ...values }, { ...nodeIo(new AbortController().signal), interactive: false, out: async (text) => void (printed += text), err: () => {} });
  return printed;
}

const COLUMNS = [
  ...["scheme", "weights", "kv", "activations", "bitsPerWeight", "modelBytes", "kvBytesPerToken", "bytesPerDecodeStep"],
  ...["perplexity", "referencePerplexity", "klMean", "klMax", "top1Agreement", "maxLogitError", "decodeTokensPerSecond"],
];

describe("eval", () => {
  it("prints one row with these columns, and no other", async () => {
    const { rows, ...others } = JSON.parse(await run(evaluate, { text: at("text.txt"), weights: "int8", kv: "int8", activations: "int8", json: true }));
    expect(others).toEqual({});
    expect(rows).toHaveLength(1);
    expect(Object.keys(rows[0]).sort()).toEqual(COLUMNS.sort());
    expect(rows[0]).toMatchObject({ scheme: "int8, kv int8, act int8", weights: "int8", kv: "int8", activations: "int8" });
    expect(rows[0].bitsPerWeight).toBeCloseTo(9, 5);
    // 2 layers, keys and values, 2 heads of 16 bytes and a scale each.
    expect(rows[0].kvBytesPerToken).toBe(2 * 2 * 2 * (16 + 4));
    expect(rows[0].klMean).toBeGreaterThan(0);
    expect(rows[0].decodeTokensPerSecond).toBeGreaterThan(0);
  });

  it("f32 against itself differs in nothing", async () => {
    const { rows } = JSON.parse(await run(evaluate, { text: at("text.txt"), weights: "f32", json: true }));
    expect(rows[0]).toMatchObject({ klMean: 0, klMax: 0, top1Agreement: 1, maxLogitError: 0, bitsPerWeight: 32 });
    expect(rows[0].perplexity).toBe(rows[0].referencePerplexity);
  });

  it("sorts layers by their sensitivity", async () => {
    const { sensitivity } = JSON.parse(await run(evaluate, { text: at("text.txt"), sensitivity: true, json: true }));
    expect(sensitivity.map(({ layer }: { layer: number }) => layer).sort()).toEqual([-1, 0, 1]);
    const losses = sensitivity.map(({ klMean }: { klMean: number }) => klMean);
    expect(losses).toEqual([...losses].sort((a, b) => b - a));
  });

  it("the sweep has a row for every scheme that the backend can do", async () => {
    await run(calibrate, { text: at("text.txt"), out: at("scales.json") });
    const { rows } = JSON.parse(await run(evaluate, { text: at("text.txt"), sweep: true, calibration: at("scales.json"), "max-tokens": "31", json: true }));
    const schemes = rows.map(({ scheme }: { scheme: string }) => scheme);
    expect(schemes).toEqual(expect.arrayContaining(["f32", "int8", "int8:row", "int4", "int4:awq", "int8, kv int8, act int8", "int8, act int8:static", "int8 2:4"]));
    const reads = Object.fromEntries(rows.map((row: { scheme: string; bytesPerDecodeStep: number }) => [row.scheme, row.bytesPerDecodeStep]));
    expect(reads.int4).toBeLessThan(reads.int8);
    expect(reads.int8).toBeLessThan(reads.f32);
    expect(reads["int8, kv int8"]).toBeLessThan(reads.int8);
    expect(reads["int8 2:4"]).toBeLessThan(reads.int8);
    expect(await run(evaluate, { text: at("text.txt"), "max-tokens": "31" })).toContain("perplexity");
  });

  it.each([
    ["short.txt", `expected a text of at least 31 tokens, one window of the context, found`],
    ["empty.txt", "found 0"],
  ])("%s is too short", async (name, problem) => {
    await expect(run(evaluate, { text: at(name) })).rejects.toThrow(problem);
    await expect(run(calibrate, { text: at(name), out: at("none.json") })).rejects.toThrow(problem);
    expect(existsSync(at("none.json"))).toBe(false);
  });
});

describe("quantize", () => {
  it("writes a file that evaluates as the same weights do", async () => {
    expect(await run(quantize, { out: at("q8.gguf"), type: "q8_0" })).toContain("16 Q8_0, 5 F32");
    const { rows } = JSON.parse(await run(evaluate, { model: at("q8.gguf"), text: at("text.txt"), json: true }));
    expect(rows[0].weights).toBe("keep");
    expect(rows[0].klMean).toBeLessThan(1e-9);
    expect(rows[0].bitsPerWeight).toBeCloseTo(9, 5);
  });

  it("refuses the model itself, and a device that is full; the old file stays", async () => {
    const before = readFileSync(model);
    await expect(run(quantize, { out: model, type: "q8_0" })).rejects.toThrow("--out and --model: expected two files, found one");
    await expect(run(quantize, { out: "/dev/full", type: "q4_0" })).rejects.toThrow("/dev/full: cannot write: no space left on the device");
    await expect(run(quantize, { out: at("no/such/folder.gguf"), type: "q4_0" })).rejects.toThrow("cannot write: no such folder");
    expect(readFileSync(model)).toEqual(before);
  });

  it("half-written blocks and weights that are not finite: one line, the old target untouched, nothing left behind", async () => {
    const bytes = new Uint8Array(readFileSync(model));
    writeFileSync(at("cut.gguf"), bytes.subarray(0, bytes.length - 100));
    writeFileSync(at("target.gguf"), "old");
    await expect(run(quantize, { model: at("cut.gguf"), out: at("target.gguf"), type: "q8_0" })).rejects.toThrow("truncated?");
    bytes.set([0, 0, 0xc0, 0x7f], bytes.length - 64);
    writeFileSync(at("nan.gguf"), bytes);
    await expect(run(quantize, { model: at("nan.gguf"), out: at("target.gguf"), type: "q8_0" })).rejects.toThrow("expected finite weights, found NaN");
    expect(readFileSync(at("target.gguf"), "utf8")).toBe("old");
    expect(readdirSync(folder).filter((name) => name.endsWith(".part"))).toEqual([]);
  });
});
