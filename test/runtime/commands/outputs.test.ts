import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Io } from "../../../src/runtime/commands/command.ts";
import { outputPath } from "../../../src/runtime/commands/output.ts";
import { batch } from "../../../src/runtime/commands/batch.ts";
import { convert } from "../../../src/runtime/commands/convert.ts";
import { generate } from "../../../src/runtime/commands/generate.ts";
import { quantize } from "../../../src/runtime/commands/quantize.ts";
import { nodeIo } from "../../../src/runtime/node-io.ts";
import { until } from "../../support/http.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
let folder: string;
const at = (name: string) => join(folder, name);
const io: Io = nodeIo(new AbortController().signal);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "memwall-out-"));
  for (const name of ["a.gguf", "text.txt", "old.session"]) writeFileSync(at(name), name);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("a file that is written", () => {
  it.each([
    ["out", "model", "a.gguf"],
    ["save-session", "model", "a.gguf"],
    ["trace", "draft-model", "a.gguf"],
    ["out", "text", "text.txt"],
    ["trace", "save-session", "new"],
  ] as const)("--%s is none that --%s names", (name, other, file) => {
    const same = `${folder}/./${file}`;
    expect(() => outputPath({ [name]: existsSync(same) ? same : at(file), [other]: at(file) }, io, name)).toThrow(`--${name} and --${other}: expected two files, found one`);
  });

  it.each(["model", "tokenizer", "draft-model", "calibration", "prompt-file", "text", "requests", "resume", "save-session", "hw"])("a trace is not --%s", (other) => {
    expect(() => outputPath({ trace: at("a.gguf"), [other]: at("a.gguf") }, io, "trace")).toThrow(`--trace and --${other}: expected two files, found one`);
  });

  it("is no part of a model that was split", () => {
    const [first, second] = [1, 2].map((i) => at(`m-0000${i}-of-00002.gguf`));
    writeFileSync(second, "the rest");
    expect(() => outputPath({ model: first, out: `${folder}/./m-00002-of-00002.gguf` }, io, "out")).toThrow("--out and --model: expected two files, found one");
    expect(outputPath({ model: first, out: at("m-00003-of-00003.gguf") }, io, "out")).toBe(at("m-00003-of-00003.gguf"));
  });

  it("that takes long to write is brought to an end, or removed, by the command", () => {
    for (const { stops } of [quantize, convert, batch]) expect(stops).toEqual(["SIGINT"]);
    expect(generate.stops).toBeUndefined(); // It listens from the first token on.
  });

  it("is not the shipped model, and has a name", () => {
    expect(() => outputPath({ trace: io.shippedModel }, io, "trace")).toThrow("--trace and --model: expected two files, found one");
    expect(() => outputPath({ out: "" }, io, "out")).toThrow('--out: expected a path, found ""');
  });

  it("may be the session that was resumed, or a file of its own", () => {
    expect(outputPath({ resume: at("old.session"), "save-session": at("old.session") }, io, "save-session")).toBe(at("old.session"));
    expect(outputPath({ model: at("a.gguf"), out: at("b.gguf") }, io, "out")).toBe(at("b.gguf"));
    expect(outputPath({}, io, "out")).toBeUndefined();
  });
});

describe("an interrupt", () => {
  it("ends a command that computes at once, and leaves no file behind", async () => {
    writeFileSync(at("long.txt"), readFileSync(join(root, "fixtures/heldout.txt")));
    for (const args of [["calibrate", "--text", at("long.txt"), "--out", at("c.json"), "--backend", "scalar"], ["plan", "--devices", "1024", "--shape", "llama-3.1-405b", "--hw", "h100-sxm"]]) {
      const child = spawn(process.execPath, ["--import", "tsx", "run.ts", ...args], { cwd: root, stdio: "ignore" });
      let end: { code: number | null; signal: string | null } | undefined;
      child.on("exit", (code, signal) => (end = { code, signal }));
      await new Promise((resolve) => setTimeout(resolve, 2500));
      expect(end).toBeUndefined();
      child.kill("SIGINT");
      await until(() => end !== undefined, "the process to end", 5000);
      expect(end).toEqual({ code: null, signal: "SIGINT" });
    }
    expect(readdirSync(folder).filter((name) => name.startsWith("c.json"))).toEqual([]);
  });

  it("lets quantize end by itself, with nothing written", async () => {
    const stop = new AbortController();
    stop.abort();
    await expect(quantize.run({ type: "q8_0", out: at("q.gguf") }, { ...nodeIo(stop.signal), out: async () => {} })).rejects.toThrow("q.gguf: interrupted, nothing written");
    expect(readdirSync(folder).filter((name) => name.startsWith("q.gguf"))).toEqual([]);
  });
});
