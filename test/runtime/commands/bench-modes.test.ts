import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { benchAttention } from "../../../src/runtime/commands/bench-attention.ts";
import { benchBatch } from "../../../src/runtime/commands/bench-batch.ts";
import { bench } from "../../../src/runtime/commands/bench.ts";
import { benchFusion } from "../../../src/runtime/commands/bench-fusion.ts";
import { benchServe } from "../../../src/runtime/commands/bench-serve.ts";
import type { Command } from "../../../src/runtime/commands/command.ts";
import { nodeIo } from "../../../src/runtime/node-io.ts";
import { ggufModel } from "../../support/files.ts";
import { drawModel, SMALL } from "../../support/models.ts";

let folder: string;
const model = () => join(folder, "a.gguf");

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "memwall-bench-"));
  writeFileSync(model(), ggufModel(drawModel(11, SMALL)));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function run(command: Command, values: Readonly<Record<string, string | boolean>>): Promise<string> {
  let out = "";
  const io = { ...nodeIo(new AbortController().signal), interactive: false, out: async (text: string) => void (out += text) };
  await command.run(values, io);
  return out;
}

describe("bench", () => {
  it("says before it draws weights that they do not fit", async () => {
    for (const backend of ["wasm", "scalar"]) {
      await expect(run(bench, { shape: "gpt-3-175b", backend, threads: "1" })).rejects.toThrow(/^gpt-3-175b: its weights take 196 GB as int8, and .* holds \d/);
    }
  });
});

describe("bench fusion", () => {
  const quick = { backend: "wasm", threads: "1", "prompt-tokens": "4", tokens: "2", repeat: "1" };

  it("keeps keys and values in the format that it is given", async () => {
    const bytes = async (kv: string) => {
      const { points } = JSON.parse(await run(benchFusion, { model: model(), ...quick, kv, json: true })) as { points: { decode: { bytes: number } }[] };
      return points.map(({ decode }) => decode.bytes);
    };
    const [f32, int4] = [await bytes("f32"), await bytes("int4")];
    expect(f32).toHaveLength(7);
    for (const [i, count] of int4.entries()) expect(count).toBeLessThan(f32[i]);
  });

  it("refuses formats that do not exist", async () => {
    await expect(run(benchFusion, { model: model(), ...quick, kv: "int3" })).rejects.toThrow(/--kv: expected one of .*"int3"/);
  });
});

describe("bench", () => {
  it("names --batch when it is out of range", async () => {
    await expect(run(bench, { model: model(), batch: "100000000" })).rejects.toThrow(/--batch: expected .*4096.*"100000000"/);
  });
});

describe("bench batch", () => {
  it("prints a line for each batch, and the same as JSON", async () => {
    const values = { model: model(), backend: "scalar", batches: "1,3", "prompt-tokens": "8", tokens: "2" };
    expect((await run(benchBatch, values)).trimEnd().split("\n").length).toBe(4);
    const { points } = JSON.parse(await run(benchBatch, { ...values, json: true })) as { points: { batch: number; tokensPerSecond: number }[] };
    expect(points.map(({ batch }) => batch)).toEqual([1, 3]);
    for (const { tokensPerSecond } of points) expect(tokensPerSecond).toBeGreaterThan(0);
  });

  it("traces shapes of any size", async () => {
    const { points } = JSON.parse(await run(benchBatch, { shape: "llama-2-7b", backend: "shapes", json: true })) as { points: { bytesPerToken: number; intensity: number }[] };
    expect(points.length).toBe(6);
    expect(points[0].bytesPerToken).toBeGreaterThan(7e9);
    expect(points[5].bytesPerToken).toBeLessThan(points[0].bytesPerToken / 10);
  });

  it("says what is wrong with the flags", async () => {
    await expect(run(benchBatch, { model: model(), batches: "1,x" })).rejects.toThrow('--batches: expected whole numbers such as 1,2,4, found "1,x"');
    await expect(run(benchBatch, { model: model(), backend: "shapes", "prompt-tokens": "200" })).rejects.toThrow("expected at most 128 positions (the model's context), found 217");
    await expect(run(benchBatch, { model: model(), shape: "gpt2" })).rejects.toThrow("--shape and --model: expected one of them");
  });
});

describe("bench attention", () => {
  it("compares both methods at every context", async () => {
    const values = { model: model(), backend: "scalar", contexts: "16,64" };
    expect((await run(benchAttention, values)).trimEnd().split("\n").length).toBe(4);
    const { points } = JSON.parse(await run(benchAttention, { ...values, json: true })) as { points: { context: number; naive: { ms: number; materialised: number }; tiled: { materialised: number } }[] };
    expect(points.map(({ context }) => context)).toEqual([16, 64]);
    expect(points[1].naive.materialised).toBeGreaterThan(points[1].tiled.materialised);
    expect(points[1].naive.ms).toBeGreaterThan(0);
  });
});

describe("bench serve", () => {
  it("runs a load and prints a table, and the same as JSON", async () => {
    const values = { model: model(), backend: "scalar", requests: "6", rate: "100", "prompt-tokens": "5-20", tokens: "4", policy: "continuous", "token-budget": "16" };
    expect(await run(benchServe, values)).toMatch(/6 requests at 100 a second, continuous, token budget 16\n.*p50 .*p90 .*p99\n.*TTFT.*\n.*TPOT.*\n/);
    expect(await run(benchServe, { ...values, tokens: "1" })).toMatch(/TPOT +- +- +-\n/); // No token follows another.
    const found = JSON.parse(await run(benchServe, { ...values, json: true })) as Record<string, unknown>;
    expect(found).toMatchObject({ policy: "continuous", requests: 6, generatedTokens: 24, seed: 1 });
  });

  it("says what is wrong with the flags", async () => {
    await expect(run(benchServe, { tokens: "many" })).rejects.toThrow('--tokens: expected a distribution such as 64, 16-128, exp:64 or normal:64,16, found "many"');
    await expect(run(benchServe, { policy: "best" })).rejects.toThrow("--policy: expected one of chunked, continuous, static");
  });
});
