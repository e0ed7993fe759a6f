import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import type { PhaseBreakdown } from "../../../src/index.ts";
import { cli, cliJson } from "../../support/cli.ts";

interface Generated {
  text: string;
  tokens: number[];
  promptTokens: number;
  finishReason: string;
  seed: number;
  timings: { loadMs: number; ttftMs: number; prefillTokensPerSecond: number; decodeTokensPerSecond: number };
  breakdown: { prefill: PhaseBreakdown; decode: PhaseBreakdown };
}

const folder = mkdtempSync(join(tmpdir(), "memwall-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const greedy = ["--temperature", "0", "--max-tokens", "16"];

describe("run.ts generate", () => {
  it("is the default: a story on standard output, then the breakdown", () => {
    const { code, out, err } = cli(["--seed", "3", "--max-tokens", "40"]);
    expect(code).toBe(0);
    expect(err).toBe("");
    expect(out.startsWith("Once upon a time")).toBe(true);
    expect(out).toMatch(/^decode .*calls.*flops.*bytes/m);
    expect(out).toMatch(/^gemv /m);
    expect(out).not.toContain("\x1b");
  });

  it("gives one JSON document with the fields that programs rely on", () => {
    const result = cliJson<Generated>(["--prompt", "Once upon a time", ...greedy]);
    expect(result.tokens).toHaveLength(16);
    expect(result.promptTokens).toBeGreaterThan(3);
    expect(result.finishReason).toBe("length");
    for (const value of Object.values(result.timings)) expect(value).toBeGreaterThan(0);
    const { gemv } = result.breakdown.decode.byKind;
    for (const field of ["calls", "flops", "bytesRead", "bytesWritten", "ms", "flopShare", "byteShare", "timeShare", "intensity"] as const) {
      expect(gemv![field]).toBeGreaterThan(0);
    }
    expect(result.breakdown.prefill.byKind.gemm!.calls).toBeGreaterThan(0);
    expect(gemv!.flopShare).toBeGreaterThan(0.8);
  });

  it("says the same for the same seed, and something else for another", () => {
    const told = (seed: string) => cli(["--seed", seed, "--max-tokens", "40", "--no-breakdown", "--temperature", "1"]).out;
    expect(told("5")).toBe(told("5"));
    expect(told("5")).not.toBe(told("6"));
  });

  it("takes its prompt as text, file, standard input or ids, and may start from BOS alone", () => {
    const file = join(folder, "prompt.txt");
    writeFileSync(file, "Once upon a time");
    const plain = cliJson<Generated>(["--prompt", "Once upon a time", ...greedy]);
    expect(cliJson<Generated>(["--prompt-file", file, ...greedy]).tokens).toEqual(plain.tokens);
    expect(cliJson<Generated>(["--prompt-file", "-", ...greedy], "Once upon a time").tokens).toEqual(plain.tokens);
    expect(cliJson<Generated>(["--prompt", "-", ...greedy], "Once upon a time").tokens).toEqual(plain.tokens);
    const { ids } = cliJson<{ ids: number[] }>(["tokenize", "--text", "Once upon a time", "--bos"]);
    expect(cliJson<Generated>(["--tokens", ids.join(","), ...greedy]).tokens).toEqual(plain.tokens);
    expect(cliJson<Generated>(["--prompt", "", ...greedy]).promptTokens).toBe(1);
  });

  it("ends at a stop text, which is not part of the result", () => {
    const { text } = cliJson<Generated>(["--prompt", "Once upon a time", ...greedy]);
    const stop = text.slice(5, 8);
    const cut = cliJson<Generated>(["--prompt", "Once upon a time", ...greedy, "--stop", "never", "--stop", stop]);
    expect(cut.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(cut.finishReason).toBe("stop");
  });

  it("writes a trace that accounts for every op", () => {
    const file = join(folder, "trace.json");
    const result = cliJson<Generated>([...greedy, "--trace", file]);
    const { traceEvents } = JSON.parse(readFileSync(file, "utf8")) as { traceEvents: { ph: string; cat?: string; args: { flops?: number; phase?: string } }[] };
    const gemv = traceEvents.filter(({ ph, cat, args }) => ph === "X" && cat === "gemv" && args.phase === "decode");
    expect(gemv).toHaveLength(result.breakdown.decode.byKind.gemv!.calls);
    expect(gemv.reduce((sum, { args }) => sum + args.flops!, 0)).toBe(result.breakdown.decode.byKind.gemv!.flops);
    expect(readdirSync(folder).filter((name) => name.endsWith(".part"))).toEqual([]);
  });
});

describe("run.ts with bad input", () => {
  const oneLine = ({ code, out, err }: ReturnType<typeof cli>, expected: number, says: RegExp) => {
    expect(err).toMatch(says);
    expect(err.trimEnd().split("\n")).toHaveLength(1);
    expect(out).toBe("");
    expect(code).toBe(expected);
  };

  it.each([
    ["an unknown command", ["sing"], /generate.*"sing"/],
    ["an unknown flag", ["--tempo", "1"], /--tempo/],
    ["a flag without its value", ["--prompt"], /--prompt/],
    ["a number that is none", ["--temperature", "warm"], /--temperature: expected a number.*"warm"/],
    ["a fraction of a token", ["--max-tokens", "1.5"], /--max-tokens: expected a whole number.*"1.5"/],
    ["an empty number", ["--seed", ""], /--seed/],
    ["a negative number", ["--max-tokens", "-1"], /--max-tokens: expected a whole number, 1 or more, found "-1"/],
    ["a probability of nothing", ["--top-p", "0"], /--top-p: expected a number above 0 up to 1, found "0"/],
    ["a probability above 1", ["--top-p", "2"], /--top-p.*above 0 up to 1.*"2"/],
    ["ids that are none", ["--tokens", "1,x"], /--tokens.*"1,x"/],
    ["two prompts", ["--prompt", "a", "--tokens", "1"], /--prompt and --tokens/],
    ["an unknown backend", ["--backend", "gpu"], /--backend: expected one of auto.*"gpu"/],
    ["an unknown shape", ["bench", "--shape", "gpt-9"], /--shape: expected one of .*gpt-3-175b.*"gpt-9"/],
    ["a bench beyond the context", ["bench", "--shape", "stories15m", "--tokens", "300"], /256/],
  ])("%s: exit code 2", (_, args, says) => oneLine(cli(args), 2, says));

  it.each([
    ["no such model", ["--model", "/no/such.gguf"], /\/no\/such\.gguf.*no such file/],
    ["a folder without a model", ["--model", folder], /config\.json/],
    ["a model that is none", ["--model", "package.json"], /package\.json/],
    ["a tokenizer that GGUF does not take", ["--tokenizer", "package.json"], /tokenizer/],
    ["an id beyond the vocabulary", ["--tokens", "1,99999"], /99999/],
    ["a prompt beyond the context", ["--prompt", "cat ".repeat(2000)], /prompt: expected fewer than \d+ tokens.*found \d+/],
    ["a context beyond the model's", ["--context", "1000000"], /context: expected.*1000000/],
    ["a trace that can't be written", ["--trace", "/no/such/folder/t.json"], /\/no\/such\/folder\/t\.json: cannot write/],
    ["a prompt file that is missing", ["--prompt-file", "/no/such.txt"], /\/no\/such\.txt/],
  ])("%s: exit code 1", (_, args, says) => oneLine(cli(args), 1, says));

  it("a prompt file that is not UTF-8: exit code 1", () => {
    const file = join(folder, "bytes.txt");
    writeFileSync(file, new Uint8Array([0x41, 0xff, 0x42]));
    oneLine(cli(["--prompt-file", file]), 1, /bytes\.txt: expected UTF-8/);
  });

  it.skipIf(!existsSync("/dev/full"))("a full disk leaves no trace behind: exit code 1", () => {
    const { code, err } = cli([...greedy, "--no-breakdown", "--trace", "/dev/full"]);
    expect(err).toMatch(/^memwall: \/dev\/full: cannot write: no space left on the device\n$/);
    expect(code).toBe(1);
  });

  it("a reader that closes the pipe: one line, exit code 1", () => {
    const root = fileURLToPath(new URL("../../..", import.meta.url));
    const script = `"${process.execPath}" node_modules/tsx/dist/cli.mjs run.ts --seed 1 --max-tokens 200; echo "code $?" >&2`;
    const { stderr } = spawnSync("bash", ["-c", `{ ${script}; } | head -c 1 > /dev/null`], { cwd: root, encoding: "utf8" });
    expect(stderr).toBe("memwall: standard output: closed by its reader\ncode 1\n");
  });
});
