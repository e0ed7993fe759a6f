import { closeSync, existsSync, openSync, readFileSync, renameSync, rmSync, statSync, writeSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Io, OutputFile } from "./commands/command.ts";
import { openFile } from "./node-files.ts";

/** The command line's view of the world, by Node's means. */
export function nodeIo(interrupted: AbortSignal): Io {
  const { stdout, stderr, stdin, env } = process;
  return {
    out: (text) => new Promise((resolve, reject) => stdout.write(text, (error) => (error ? reject(error) : resolve()))),
    err: (text) => void stderr.write(text),
    interactive: Boolean(stderr.isTTY),
    color: Boolean(stdout.isTTY) && !env.NO_COLOR && env.TERM !== "dumb",
    columns: stdout.columns ?? 100,
    interrupted,
    openFile,
    readText: async (path) => decode(path, wholeFile(path)),
    readStdin: async () => {
      let text = "";
      stdin.setEncoding("utf8");
      for await (const chunk of stdin) text += String(chunk);
      return text;
    },
    createFile,
    shippedModel: shippedModel(),
  };
}

function wholeFile(path: string): Uint8Array {
  const source = openFile(path);
  const bytes = new Uint8Array(source.size);
  source.read(0, bytes);
  source.close();
  return bytes;
}

function decode(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${path}: expected UTF-8 text, found other bytes`);
  }
}

/** Written beside its final place, and moved there on commit: nobody ever sees half a file. A device such as /dev/stdout is written directly. */
function createFile(path: string): OutputFile {
  const device = existsSync(path) && !statSync(path).isFile();
  const temporary = device ? path : `${path}.${process.pid}.part`;
  const attempt = <T>(action: () => T): T => {
    try {
      return action();
    } catch (error) {
      throw new Error(`${path}: cannot write: ${(error as NodeSystemError).code ?? (error as Error).message}`);
    }
  };
  const fd = attempt(() => openSync(temporary, "w"));
  let open = true;
  const close = () => {
    if (open) closeSync(fd);
    open = false;
  };
  return {
    write: (data) =>
      attempt(() => {
        const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
        for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done);
      }),
    commit: () => {
      close();
      if (!device) attempt(() => renameSync(temporary, path));
    },
    discard: () => {
      if (!open) return;
      close();
      if (!device) rmSync(temporary, { force: true });
    },
  };
}

/** The fixture lies beside the sources, and one folder further up from dist/src/runtime. */
function shippedModel(): string {
  const places = ["../../fixtures/stories.gguf", "../../../fixtures/stories.gguf"].map((path) => fileURLToPath(new URL(path, import.meta.url)));
  return places.find((path) => existsSync(path)) ?? places[0];
}

/** memwall's own version, from its package.json. */
export function packageVersion(): string {
  for (const path of ["../../package.json", "../../../package.json"]) {
    const file = fileURLToPath(new URL(path, import.meta.url));
    if (existsSync(file)) return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
  }
  return "unknown";
}
