import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli, cliJson } from "../../support/cli.ts";
import { folderFiles, folderModel } from "../../support/hf-folder.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "memwall-chat-"));
  const shape = { contextLength: 4096 };
  for (const [name, content] of Object.entries(folderFiles(folderModel("llama", "BF16", shape), { "generation_config.json": "{}" }))) writeFileSync(join(folder, name), content);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SHORT = ["--max-tokens", "4", "--temperature", "0", "--backend", "scalar"];

describe("run.ts chat", () => {
  it("follows a script on standard input", () => {
    const lines = ["hello", "/stats", "", "/nonsense", "/reset", "/stats", "/system be brief", "again", "/help", "/bye", "never"];
    const { code, out, err } = cli(["chat", "--model", folder, "--system", "kind", ...SHORT], `${lines.join("\n")}\n`);
    expect(code).toBe(0);
    expect(out).toContain("> hello\n");
    expect(out).toContain("[cut: no more tokens]");
    expect(out).toMatch(/> \/stats\n.*prompt tokens/s);
    expect(out).toContain("decode ");
    expect(out).toMatch(/> \/reset\n> \/stats\nno answer yet\n/);
    expect(out).toContain("/system TEXT");
    expect(out).not.toContain("never");
    expect(err).toContain("its own chat template; /help lists the commands");
    expect(err).toContain('memwall: expected one of /help, /reset, /system, /stats, /bye, found "/nonsense"');
  });

  it("stays when a turn cannot be answered", () => {
    const { code, err, out } = cli(["chat", "--model", folder, "--context", "64", ...SHORT], `${"long ".repeat(100)}\nshort\n/stats\n`);
    expect(code).toBe(0);
    expect(err).toMatch(/memwall: prompt: expected fewer than 64 tokens \(the context\), found \d+/);
    expect(out).toMatch(/> \/stats\n.*prompt tokens/s);
  });

  it("stops the answer, not the program, on an interrupt", async () => {
    const root = fileURLToPath(new URL("../../..", import.meta.url));
    const args = ["--import", "tsx", "run.ts", "chat", "--model", folder, "--temperature", "1", "--max-tokens", "3500", "--backend", "scalar", "--top-k", "0"];
    const child = spawn(process.execPath, args, { cwd: root });
    let out = "";
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", (chunk: string) => (out += chunk));
    const until = async (done: () => boolean) => {
      for (let waited = 0; !done() && waited < 30_000; waited += 20) await new Promise<void>((resolve) => void setTimeout(resolve, 20));
      expect(done(), out).toBe(true);
    };
    child.stdin.write("hello\n");
    await until(() => out.length > "> hello\n".length + 10);
    child.kill("SIGINT");
    await until(() => out.includes("[stopped]"));
    child.stdin.write("/stats\n");
    await until(() => /> \/stats\n.*prompt tokens/s.test(out));
    child.stdin.end("/bye\n");
    const code = await new Promise((resolve) => child.on("exit", resolve));
    expect(code).toBe(0);
  }, 60_000);
});

describe("run.ts convert", () => {
  it("writes what computes the same, and nothing when it fails", () => {
    const out = join(folder, "model.gguf");
    expect(cli(["convert", "--model", folder, "--out", out]).out).toContain("model.gguf: ");
    const positions = (model: string) => cliJson<{ positions: unknown }>(["logits", "--model", model, "--tokens", "260,116,104,101", "--backend", "scalar"]).positions;
    expect(positions(out)).toEqual(positions(folder));
    const q8 = cliJson<{ tensors: { name: string; type: string }[] }>(["convert", "--model", folder, "--out", join(folder, "q8.gguf"), "--type", "q8_0"]);
    expect(q8.tensors.find(({ name }) => name === "blk.0.attn_q.weight")!.type).toBe("Q8_0");
    expect(q8.tensors.find(({ name }) => name === "output_norm.weight")!.type).toBe("F32");

    const before = readFileSync(join(folder, "model.safetensors")).length;
    const same = cli(["convert", "--model", folder, "--out", join(folder, "model.safetensors")]);
    expect([same.code, same.err]).toEqual([1, expect.stringContaining("--out is a file of the model itself")]);
    expect(readFileSync(join(folder, "model.safetensors")).length).toBe(before);
    expect(cli(["convert", "--model", out, "--out", join(folder, "b.gguf")]).err).toContain("expected a Hugging Face folder, found a file");
    expect(cli(["convert", "--model", tmpdir(), "--out", join(folder, "b.gguf")]).err).toContain("expected a Hugging Face model folder with a config.json");
    expect(cli(["convert", "--model", folder]).code).toBe(2);
    expect(readdirSync(folder).filter((name) => name.includes("part") || name === "b.gguf")).toEqual([]);
  }, 120_000);

  it("inspect and tokenize take the folder, too", () => {
    expect(cli(["inspect", "--model", folder]).out).toContain("Hugging Face folder");
    expect(cliJson<{ ids: number[] }>(["tokenize", "--model", folder, "--text", "the<s>", "--special", "--bos"]).ids).toEqual([260, 116, 257, 260]);
  }, 60_000);
});
