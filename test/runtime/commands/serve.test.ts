import { spawn } from "node:child_process";
import { createServer } from "node:http";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { cli } from "../../support/cli.ts";
import { until } from "../../support/http.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** `run.ts serve` in a process of its own. */
function start(args: readonly string[]) {
  const child = spawn(process.execPath, ["--import", "tsx", "run.ts", "serve", "--port", "0", "--threads", "1", ...args], { cwd: root });
  let [err, end] = ["", undefined as { code: number | null; signal: string | null } | undefined];
  child.stderr.setEncoding("utf8");
  child.stderr.on("data", (text: string) => (err += text));
  child.on("exit", (code, signal) => (end = { code, signal }));
  const url = async () => {
    await until(() => /http:\S+/.test(err) || end !== undefined, "the server's address", 40_000);
    return /http:\S+(?=\/v1)/.exec(err)![0];
  };
  const ended = async () => {
    await until(() => end !== undefined, "the process to end", 40_000);
    return end!;
  };
  return { child, url, ended, err: () => err };
}

const story = (url: string, body: object) => fetch(`${url}/v1/completions`, { method: "POST", body: JSON.stringify({ prompt: "Once upon a time", temperature: 2, seed: 1, max_tokens: 300, ...body }) });

describe("serve", () => {
  it("answers on loopback, and finishes what runs when it is told to stop", async () => {
    for (const signal of ["SIGTERM", "SIGINT"]) {
      const server = start(["--name", "little"]);
      const url = await server.url();
      expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
      expect(await (await fetch(`${url}/v1/models`)).json()).toMatchObject({ data: [{ id: "little" }] });
      const streamed = await story(url, { stream: true });
      server.child.kill(signal);
      expect((await streamed.text()).endsWith("data: [DONE]\n\n")).toBe(true);
      expect(await server.ended()).toEqual({ code: 0, signal: null });
      expect(server.err()).toMatch(/finishing what runs/);
    }
  });

  it("ends at once when it is told twice", async () => {
    const server = start(["--window", "64", "--max-tokens", "100000000"]);
    const streamed = await story(await server.url(), { stream: true, max_tokens: 100_000_000 });
    server.child.kill("SIGTERM");
    await until(() => /finishing/.test(server.err()), "the first signal's effect");
    server.child.kill("SIGINT");
    expect(await server.ended()).toEqual({ code: null, signal: "SIGINT" });
    await expect(streamed.text()).rejects.toThrow();
  });

  it("ends without a word of error when it is told to while it loads", async () => {
    const busy = createServer();
    await new Promise<void>((resolve) => void busy.listen(0, "127.0.0.1", resolve));
    const { port } = busy.address() as { port: number };
    await new Promise<void>((resolve) => void busy.close(() => resolve()));
    const server = start(["--port", `${port}`]);
    let taken = false;
    // The address is taken before the model is loaded.
    const knock = () => void fetch(`http://127.0.0.1:${port}/health`).then(() => (taken = true), () => setTimeout(knock, 2));
    knock();
    await until(() => taken, "the port");
    server.child.kill("SIGTERM");
    expect(await server.ended()).toEqual({ code: 0, signal: null });
    expect(server.err()).not.toMatch(/memwall:/);
  });

  it("says in one line why it cannot start", async () => {
    const busy = createServer();
    await new Promise<void>((resolve) => void busy.listen(0, "127.0.0.1", resolve));
    const { port } = busy.address() as { port: number };
    expect(cli(["serve", "--port", `${port}`])).toEqual({ code: 1, out: "", err: `memwall: serve: cannot listen on 127.0.0.1:${port}: the port is in use\n` });
    await new Promise<void>((resolve) => void busy.close(() => resolve()));
    const wrong = [
      [["--port", "70000"], /^memwall: --port: expected a whole number from 0 to 65535, found "70000"/],
      [["--host", ""], /^memwall: --host: expected an address/],
      [["--token", ""], /^memwall: --token: expected a secret/],
    ] as const;
    for (const [args, message] of wrong) {
      const { code, err } = cli(["serve", ...args]);
      expect([code, err.trimEnd().split("\n").length]).toEqual([2, 1]);
      expect(err).toMatch(message);
    }
    const { code, err } = cli(["serve", "--port", "0", "--model", "no-such-file.gguf"]);
    expect([code, err.trimEnd().split("\n").length]).toEqual([1, 1]);
  });
});
