import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bench } from "../../../src/runtime/commands/bench.ts";
import { type Command, UsageError } from "../../../src/runtime/commands/command.ts";
import { generate } from "../../../src/runtime/commands/generate.ts";
import { logits } from "../../../src/runtime/commands/logits.ts";
import { nodeIo } from "../../../src/runtime/node-io.ts";
import { cli } from "../../support/cli.ts";
import { ggufModel } from "../../support/files.ts";
import { drawModel, SMALL } from "../../support/models.ts";

interface Json {
  tokens: number[];
  promptTokens: number;
  cachedTokens: number;
  finishReason: string;
  kv: { k: string; v: string; bytesPerToken: number; used: number; pages: number };
}

let folder: string;
const path = (name: string) => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "memwall-kv-"));
  for (const [name, seed] of [["a.gguf", 11], ["b.gguf", 12]] as const) writeFileSync(path(name), ggufModel(drawModel(seed, SMALL)));
});
afterAll(() => rmSync(folder, { recursive: true }));

type Flags = Readonly<Record<string, string>>;

/** What a command prints with --json; throws what it throws. In this process: starting one takes most of a second. */
async function json<T = Json>(command: Command, flags: Flags): Promise<T> {
  let out = "";
  const io = { ...nodeIo(new AbortController().signal), interactive: false, out: async (text: string) => void (out += text) };
  await command.run({ backend: "scalar", ...flags, json: true }, io);
  return JSON.parse(out) as T;
}

const TOKENS = "1,5,9,12,7,3,8";
const run = (flags: Flags, model = "a.gguf") => json(generate, { model: path(model), temperature: "0", ...flags });

describe("--kv", () => {
  it("stores keys and values as asked, and says what a token takes", async () => {
    const rows = 2 * 2 * 2; // keys and values, layers, heads
    for (const [kv, k, v, bytes] of [["f32", "f32", "f32", rows * 32], ["int8", "int8", "int8", rows * 12], ["k=int8,v=int4", "int8", "int4", (rows / 2) * (12 + 8)], ["v=int4", "f32", "int4", (rows / 2) * (32 + 8)]] as const) {
      expect((await run({ tokens: TOKENS, "max-tokens": "3", kv })).kv).toMatchObject({ k, v, bytesPerToken: bytes, used: 0 });
    }
    const benched = await json(bench, { model: path("a.gguf"), backend: "shapes", "prompt-tokens": "8", tokens: "4", kv: "int4" });
    expect(benched.kv).toEqual({ k: "int4", v: "int4", bytesPerToken: rows * 8 });
  });

  it.each(["int3", "k=int8,k=int4", "k=int8,w=int4", "k", "", "k=", "int8,int4", "k=int8,v", "k=int8=int4"])("refuses %j", async (kv) => {
    await expect(run({ tokens: TOKENS, kv })).rejects.toThrow(new UsageError(`--kv: expected one of f32, int8, int4, or k=FORMAT,v=FORMAT, found ${JSON.stringify(kv)}`));
  });
});

describe("--window and --sinks", () => {
  it("go on beyond the context", async () => {
    const { tokens, finishReason } = await run({ tokens: TOKENS, "max-tokens": "300", window: "20", sinks: "2" });
    expect(finishReason === "stop" || tokens.length === 300).toBe(true);
    const long = Array.from({ length: 200 }, (_, i) => 3 + (i % 30)).join(",");
    expect((await json<{ positions: unknown[] }>(logits, { model: path("a.gguf"), window: "8", tokens: long })).positions.length).toBe(200);
  });

  it("say what they can't do", async () => {
    for (const [flags, line] of [
      [{ sinks: "4" }, "--sinks: expected --window with it, found none"],
      [{ window: "0" }, '--window: expected a whole number, 1 or more, found "0"'],
      [{ window: "128" }, "window: expected at most 128 positions (the model's own context) with its 4 sinks, found 128"],
    ] as const) {
      await expect(run({ tokens: TOKENS, ...flags })).rejects.toThrow(line);
    }
  });
});

describe("--save-session and --resume", () => {
  it("go on as if never interrupted", async () => {
    const whole = await run({ tokens: TOKENS, "max-tokens": "12", kv: "int8" });
    const first = await run({ tokens: TOKENS, "max-tokens": "5", kv: "int8", "save-session": path("s") });
    const rest = await run({ "max-tokens": "7", kv: "int8", resume: path("s"), "save-session": path("s") });
    expect([...first.tokens, ...rest.tokens]).toEqual(whole.tokens);
    expect(rest).toMatchObject({ promptTokens: 12, cachedTokens: 11 });
    const more = await run({ tokens: "4,4", "max-tokens": "1", kv: "int8", resume: path("s") });
    expect(more.promptTokens).toBe(7 + 12 + 2);
    expect(readdirSync(folder).sort()).toEqual(["a.gguf", "b.gguf", "s"]);
  });

  it("refuse what does not fit, and leave the old file as it was", async () => {
    await run({ tokens: TOKENS, "max-tokens": "5", "save-session": path("s") });
    const bytes = readFileSync(path("s"));
    writeFileSync(path("torn"), bytes.subarray(0, -7));
    writeFileSync(path("empty"), "");
    for (const [model, file, flags, line] of [
      ["b.gguf", "s", {}, "saved with another model (drawn-11) than this one (drawn-12), or with its weights in other formats"],
      ["a.gguf", "s", { kv: "int8" }, "its keys and values are f32, this KV cache keeps int8"],
      ["a.gguf", "s", { window: "9" }, "saved with no window, this KV cache has a window of 9 and 4 sinks"],
      ["a.gguf", "torn", {}, "its checksum does not fit its contents: the file is cut off or was altered"],
      ["a.gguf", "empty", {}, "expected a saved session, found 0 bytes of something else"],
      ["a.gguf", "nowhere", {}, "cannot open: no such file"],
    ] as const) {
      await expect(run({ resume: path(file), "save-session": path("s"), ...flags }, model)).rejects.toThrow(`${path(file)}: ${line}`);
      expect(readFileSync(path("s"))).toEqual(bytes);
    }
    expect(readdirSync(folder).sort()).toEqual(["a.gguf", "b.gguf", "empty", "s", "torn"]);
  });

  it("say when a session can't be written", async () => {
    await expect(run({ tokens: TOKENS, "max-tokens": "2", "save-session": "/dev/full" })).rejects.toThrow("/dev/full: cannot write: no space left on the device");
    await expect(run({ tokens: TOKENS, "max-tokens": "2", "save-session": path("no/such") })).rejects.toThrow(`${path("no/such")}: cannot write: no such folder`);
  });

  it("fail in one line, with exit code 1", () => {
    const args = ["generate", "--model", path("a.gguf"), "--backend", "scalar"];
    expect(cli([...args, "--resume", path("a.gguf")])).toMatchObject({ code: 1, out: "", err: expect.stringMatching(/^memwall: [^\n]*a\.gguf: expected a saved session, found \d+ bytes of something else\n$/) });
  });
});
