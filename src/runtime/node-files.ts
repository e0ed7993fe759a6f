import { closeSync, openSync, readSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { FormatError } from "../model/formats/errors.ts";
import type { SourceWithSiblings } from "../model/formats/gguf-split.ts";
import { modelFolder, type ModelFolder } from "../model/formats/folder.ts";
import { checkRange, type ByteSource } from "../model/formats/source.ts";

const DIRECTORY = "this is a directory, expected a file";
const REASONS: Record<string, string> = {
  ENOENT: "no such file",
  ENOTDIR: "no such file: a part of the path is not a directory",
  EISDIR: DIRECTORY,
  EACCES: "no permission to read it",
  EPERM: "no permission to read it",
  EMFILE: "too many files are open",
  ENAMETOOLONG: "the name is too long",
  ENOSPC: "no space left on the device",
  EROFS: "the file system is read-only",
};

/** One read call takes at most 2 GiB. */
const MAX_READ = 1 << 30;

/** A failed system call in words. */
export function reason(error: unknown): string {
  const { code, message } = error as NodeSystemError;
  return REASONS[code ?? ""] ?? message;
}

/**
 * Opens a file for positioned reads. Close it when done.
 * @throws FormatError naming the path: missing, a directory, not a regular file, or not readable.
 */
export function openFile(path: string): ByteSource {
  const { fd, size } = openRegular(path);
  let open = true;
  const source: ByteSource = {
    name: path,
    size,
    read(offset, target) {
      if (!open) throw new FormatError(path, "the file was closed before this read");
      checkRange(source, offset, target.length);
      for (let done = 0; done < target.length; ) {
        const at = offset + done;
        let count: number;
        try {
          count = readSync(fd, target, done, Math.min(target.length - done, MAX_READ), at);
        } catch (error) {
          throw new FormatError(path, `cannot read at byte ${at}: ${reason(error)}`);
        }
        if (count === 0) throw new FormatError(path, `expected ${size} bytes, found the end at byte ${at}: the file shrank after it was opened`);
        done += count;
      }
    },
    close() {
      if (open) closeSync(fd);
      open = false;
    },
  };
  return source;
}

/** A model's file, or the folder of a Hugging Face model. @throws FormatError as `openFile`. */
export function openFileOrFolder(path: string): ByteSource | ModelFolder {
  const isThere = (at: string) => statSync(at, { throwIfNoEntry: false });
  try {
    if (!isThere(path)?.isDirectory()) return withSiblings(openFile(path), dirname(path));
  } catch (error) {
    if (error instanceof FormatError) throw error;
    return openFile(path);
  }
  return modelFolder(path, (file) => (isThere(join(path, file)) ? openFile(join(path, file)) : undefined));
}

/** A file that knows the folder it lies in: the other files of a split model are opened through it, and closed with it. */
function withSiblings(source: ByteSource, folder: string): SourceWithSiblings {
  const others = modelFolder(folder, (file) => (statSync(join(folder, file), { throwIfNoEntry: false }) ? openFile(join(folder, file)) : undefined));
  return {
    ...source,
    sibling: others.open,
    close() {
      source.close();
      others.close();
    },
  };
}

/** Looks before it opens: opening a pipe would wait for a writer. */
function openRegular(path: string): { fd: number; size: number } {
  let problem: string;
  try {
    const stats = statSync(path);
    if (stats.isFile()) return { fd: openSync(path, "r"), size: stats.size };
    problem = stats.isDirectory() ? DIRECTORY : "expected a regular file, found a device, pipe or socket";
  } catch (error) {
    problem = reason(error);
  }
  throw new FormatError(path, `cannot open: ${problem}`);
}
