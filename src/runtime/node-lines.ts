import { closeSync, existsSync, openSync, readFileSync, truncateSync, writeSync } from "node:fs";

/** A file that grows by whole lines. */
export interface LineFile {
  /** The lines that it had when it was opened. */
  readonly lines: string;
  append(line: string): void;
  close(): void;
}

/** Opens a file of lines to go on with it, or makes one. Half a line at its end, where a crash cut it off, is dropped. @throws Error naming the file. */
export function appendLines(path: string): LineFile {
  try {
    const before = existsSync(path) ? readFileSync(path) : new Uint8Array(0);
    const end = before.lastIndexOf(10) + 1;
    if (end < before.length) truncateSync(path, end);
    const fd = openSync(path, "a");
    return {
      lines: new TextDecoder().decode(before.subarray(0, end)),
      append: (line) => {
        const bytes = new TextEncoder().encode(`${line}\n`);
        for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done);
      },
      close: () => closeSync(fd),
    };
  } catch (error) {
    throw new Error(`${path}: cannot write: ${(error as NodeSystemError).code ?? (error as Error).message}`);
  }
}
