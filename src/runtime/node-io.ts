import { closeSync, existsSync, openSync, readFileSync, renameSync, rmSync, statSync, writeSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Io, OutputFile } from "./commands/command.ts";
import { openFileOrFolder, reason } from "./node-files.ts";
import { listen } from "./node-server.ts";

/** The command line's view of the world, by Node's means. */
export function nodeIo(interrupted: AbortSignal): Io {
  const { stdout, stderr, stdin, env } = process;
  return {
    out: (text) => new Promise((resolve, reject) => stdout.write(text, (error) => (error ? reject(new Error(`standard output: ${unwritten(error)}`)) : resolve()))),
    err: (text) => void stderr.write(text),
    interactive: Boolean(stderr.isTTY) && env.TERM !== "dumb",
    color: Boolean(stdout.isTTY) && !env.NO_COLOR && env.TERM !== "dumb",
    columns: stdout.columns ?? (Number(env.COLUMNS) || 100),
    interrupted,
    openFile: openFileOrFolder,
    readText: async (path) => decode(path, wholeFile(path)),
    readStdin: async () => {
      let text = "";
      stdin.setEncoding("utf8");
      for await (const chunk of stdin) text += String(chunk);
      return text;
    },
    lines,
    onInterrupt: (callback) => {
      process.on("SIGINT", callback);
      return () => void process.off("SIGINT", callback);
    },
    createFile,
    isSameFile: (a, b) => {
      const [one, other] = [a, b].map((path) => statSync(path, { throwIfNoEntry: false }));
      return one !== undefined && other !== undefined && one.dev === other.dev && one.ino === other.ino;
    },
    serve: listen,
    shippedModel: shippedModel(),
  };
}

/** A terminal shows what is typed; otherwise prompt and line are written out, so that a script's transcript reads like a session. */
async function* lines(prompt: string, onInterrupt?: () => void): AsyncGenerator<string, void, undefined> {
  const { stdin, stdout, env } = process;
  const typed = Boolean(stdin.isTTY);
  const source = createInterface({ input: stdin, ...(typed && { output: stdout, terminal: env.TERM !== "dumb" }), prompt, crlfDelay: Infinity });
  source.on("SIGINT", onInterrupt ?? (() => source.close()));
  if (typed) source.prompt();
  for await (const line of source) {
    if (!typed) stdout.write(`${prompt}${line}\n`);
    yield line;
    if (typed) source.prompt();
  }
  if (typed) stdout.write("\n");
}

/** A text may also come from a device or a pipe. */
function wholeFile(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Error(`${path}: cannot open: ${reason(error)}`);
  }
}

/** Why a write failed, in words. */
function unwritten(error: unknown): string {
  const { code } = error as NodeSystemError;
  if (code === "EPIPE") return "closed by its reader";
  const why = code === "ENOENT" ? "no such folder" : code === "EACCES" || code === "EPERM" ? "no permission" : code === "EISDIR" ? "this is a folder" : reason(error);
  return `cannot write: ${why}`;
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
      throw new Error(`${path}: ${unwritten(error)}`);
    }
  };
  const fd = attempt(() => openSync(temporary, "w"));
  let open = true;
  const close = () => {
    if (open) closeSync(fd);
    open = false;
  };
  return {
    device,
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
