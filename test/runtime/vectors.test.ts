import { describe, expect, it } from "vitest";
import { createKernels } from "../../src/runtime/backend.ts";
import { Engine, type EngineOptions } from "../../src/runtime/engine.ts";
import { widenVectors } from "../../src/runtime/node-vectors.ts";
import { cli, cliJson } from "../support/cli.ts";
import { STORIES } from "../support/http.ts";

async function story(options: EngineOptions): Promise<{ text: string; bits: number | null }> {
  const engine = await Engine.load(STORIES, { backend: "wasm", threads: 2, ...options });
  try {
    let text = "";
    for await (const piece of engine.generate("Once upon a time", { temperature: 0, maxTokens: 120 })) text += piece;
    return { text, bits: engine.kernels.vectorBits };
  } finally {
    engine.close();
  }
}

// A flag of V8 holds for the whole process: what is to run without it comes first.
const narrow = await story({});
const joins = widenVectors();

describe("vectors of 256 bits", () => {
  it("refuses other numbers, and kernels that have none", async () => {
    await expect(createKernels("wasm", { vectors: 512 as 256 })).rejects.toThrow("vectors: expected 128 or 256 bits, found 512");
    await expect(createKernels("scalar", { vectors: 256 })).rejects.toThrow("vectors: expected the wasm kernels with 256 bits, found the plain loops");
    await expect(createKernels("auto", { vectors: 256, scalarOnly: "sparse weights" })).rejects.toThrow("found the plain loops (for sparse weights)");
    const usage = cli(["generate", "--vectors", "64"]);
    expect(usage).toMatchObject({ code: 2, out: "", err: expect.stringContaining('--vectors: expected one of 128, 256, found "64"') as string });
  });

  it.runIf(joins)("tell the same story, also on the command line", async () => {
    expect(narrow.bits).toBe(128);
    const wide = await story({ vectors: 256 });
    expect(wide).toEqual({ text: narrow.text, bits: 256 });
    const found = cliJson<{ text: string; kernels: { vectorBits: number } }>(["generate", "--vectors", "256", "--backend", "wasm", "--temperature", "0", "--max-tokens", "120", "--prompt", "Once upon a time"]);
    expect(found.kernels.vectorBits).toBe(256);
    expect(found.text).toBe(wide.text);
  });

  it.skipIf(joins)("say where they are not to be had", async () => {
    await expect(story({ vectors: 256 })).rejects.toThrow("vectors: 256 bits are for Node 24 and later on x86: expected 128 here");
    expect(cli(["generate", "--vectors", "256"])).toMatchObject({ code: 1, out: "", err: expect.stringMatching(/^memwall: vectors: 256 bits are for Node 24.*\n$/) as string });
  });
});
