import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { PhaseBreakdown, Traffic } from "../../../src/index.ts";
import { cli, cliJson } from "../../support/cli.ts";
import { ggufModel } from "../../support/files.ts";
import { drawModel, SMALL } from "../../support/models.ts";

describe("run.ts, the other commands", () => {
  it("prints help for every command and the version", () => {
    expect(cli(["--version"]).out).toMatch(/^memwall \d+\.\d+\.\d+\n$/);
    const overview = cli(["--help"]).out;
    for (const name of ["generate", "logits", "tokenize", "inspect", "bench"]) {
      expect(overview).toContain(`  ${name} `);
      expect(cli([name, "--help"])).toMatchObject({ code: 0, err: "", out: expect.stringContaining(`run.ts ${name}: `) as string });
    }
  });

  it("tokenize: ids and pieces, without BOS unless asked", () => {
    const plain = cliJson<{ ids: number[]; pieces: string[] }>(["tokenize", "--text", "Once upon a time"]);
    expect(plain.pieces.join("")).toBe("▁Once▁upon▁a▁time");
    expect(cliJson<{ ids: number[] }>(["tokenize", "--text", "Once upon a time", "--bos"]).ids).toEqual([1, ...plain.ids]);
    expect(cliJson<{ ids: number[] }>(["tokenize", "--text", ""]).ids).toEqual([]);
    expect(cli(["tokenize"]).code).toBe(2);
  });

  it("logits: a distribution after every position, whose best token greedy generation takes", () => {
    const { ids } = cliJson<{ ids: number[] }>(["tokenize", "--text", "Once upon a time", "--bos"]);
    const { positions } = cliJson<{ positions: { token: number; argmax: number; top: [number, number][] }[] }>(["logits", "--prompt", "Once upon a time", "--top", "512"]);
    expect(positions.map(({ token }) => token)).toEqual(ids);
    for (const { argmax, top } of positions) {
      expect(top[0][0]).toBe(argmax);
      expect(top.reduce((sum, [, p]) => sum + p, 0)).toBeCloseTo(1, 9);
    }
    const { tokens } = cliJson<{ tokens: number[] }>(["--prompt", "Once upon a time", "--temperature", "0", "--max-tokens", "1"]);
    expect(tokens).toEqual([positions.at(-1)!.argmax]);
  });

  it("inspect: what the file holds and what one decode step reads", () => {
    const facts = cliJson<{
      config: { dim: number; nLayers: number };
      metadata: Record<string, unknown>;
      tensors: { name: string; shape: number[]; type: string; bytes: number }[];
      decodeStep: { firstToken: Traffic; fullContext: Traffic };
    }>(["inspect"]);
    expect(facts.metadata["general.architecture"]).toBe("llama");
    expect(facts.tensors.map(({ name }) => name)).toContain("token_embd.weight");
    // Matrices in int8 with an f32 scale for 32 columns, norms in f32; the tied embedding is the output head.
    const expected = facts.tensors.reduce((sum, { shape }) => sum + (shape.length === 2 ? shape[0] * shape[1] * (1 + 4 / 32) : shape[0] * 4), 0);
    const embeddingRow = facts.config.dim * (1 + 4 / 32);
    expect(facts.decodeStep.firstToken.weights).toBe(expected + embeddingRow);
    expect(facts.decodeStep.fullContext.kv).toBeGreaterThan(facts.decodeStep.firstToken.kv * 100);
  });

  it("bench: real speeds, and costs alone for a model that fits nowhere", () => {
    const small = cliJson<{ model: { parameters: number; bytesPerDecodeStep: number }; prefill: { tokensPerSecond: number }; decode: { tokensPerSecond: number; gbPerSecond: number }; breakdown: { decode: PhaseBreakdown } }>(
      ["bench", "--shape", "stories260k", "--prompt-tokens", "8", "--tokens", "4", "--repeat", "1", "--backend", "scalar"],
    );
    expect(small.prefill.tokensPerSecond).toBeGreaterThan(0);
    expect(small.decode.gbPerSecond).toBeCloseTo((small.decode.tokensPerSecond * small.model.bytesPerDecodeStep) / 1e9, 12);
    const huge = cliJson<{ model: { parameters: number; bytes: number }; prefill: { tokensPerSecond: null }; decode: { tokensPerSecond: null } }>(
      ["bench", "--shape", "gpt-3-175b", "--backend", "shapes", "--prompt-tokens", "100", "--tokens", "2"],
    );
    expect(huge.model.parameters / 1e9).toBeCloseTo(174.6, 1);
    expect(huge.model.bytes).toBeGreaterThan(huge.model.parameters);
    expect([huge.prefill.tokensPerSecond, huge.decode.tokensPerSecond]).toEqual([null, null]);
  });

  it("logits: one line where a model's sums go beyond f32", () => {
    const folder = mkdtempSync(join(tmpdir(), "memwall-huge-"));
    const path = join(folder, "huge.gguf");
    const model = drawModel(1, SMALL);
    for (const { shape, f32 } of model.tensors.values()) if (shape.length === 2) f32.fill(3e38);
    writeFileSync(path, ggufModel(model));
    try {
      const { code, out, err } = cli(["logits", "--prompt", "a", "--model", path, "--backend", "scalar"]);
      expect([code, out, err.split("\n").length]).toEqual([1, "", 2]);
      expect(err).toMatch(/logits: expected finite numbers, found (NaN|-?Infinity) as the largest of 40/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("end with one line where a merge is not a pair, also those that wait for somebody's text", () => {
    const folder = mkdtempSync(join(tmpdir(), "memwall-merges-"));
    const path = join(folder, "odd.gguf");
    const metadata = {
      "tokenizer.ggml.model": { type: "string", value: "gpt2" },
      "tokenizer.ggml.merges": { type: "array", itemType: "string", value: ["a b", "ab"] },
    } as const;
    writeFileSync(path, ggufModel(drawModel(1, SMALL), { metadata }));
    try {
      const err = `memwall: ${path}: merge 1: expected two symbols with a space between them, found "ab"\n`;
      for (const args of [["generate", "--prompt", "a"], ["tokenize", "--text", "a"], ["serve", "--port", "0"]]) expect(cli([...args, "--model", path])).toEqual({ code: 1, out: "", err });
      const chat = cli(["chat", "--model", path], "a\n");
      expect([chat.code, chat.err.endsWith(err)]).toEqual([1, true]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
