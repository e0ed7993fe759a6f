import { type Io, type OutputFile, text, UsageError, type Values } from "./command.ts";

/** Options of files, read and written. */
const FILES = ["model", "tokenizer", "draft-model", "calibration", "prompt-file", "text", "requests", "resume", "hw", "out", "trace", "save-session"] as const;
type Output = "out" | "trace" | "save-session";

/** The path of an option whose file is written. @throws UsageError when another option names the same file (a resumed session may be saved again). */
export function outputPath(values: Values, io: Io, name: Output): string | undefined {
  const path = text(values, name);
  if (path === "") throw new UsageError(`--${name}: expected a path, found ""`);
  if (path === undefined) return undefined;
  for (const other of FILES) {
    if (other === name || (name === "save-session" && other === "resume")) continue;
    const named = text(values, other) ?? (other === "model" ? io.shippedModel : "");
    for (const file of other === "hw" ? named.split(",") : partsOf(named)) {
      if (file !== "" && (file === path || io.isSameFile(file, path))) throw new UsageError(`--${name} and --${other}: expected two files, found one, ${path}`);
    }
  }
  return path;
}

/** All files of a model that was split into several, named by its first; else the one that is named. */
function partsOf(path: string): string[] {
  const [, base, count] = /^(.*)-\d{5}-of-(\d{5})\.gguf$/.exec(path) ?? [];
  if (base === undefined) return [path];
  return Array.from({ length: Number(count) }, (_, i) => `${base}-${String(i + 1).padStart(5, "0")}-of-${count}.gguf`);
}

/** The file of such an option, if it is given: opened before anything is computed, so that a path that can't be written costs no time. */
export function outputFile(values: Values, io: Io, name: Output): OutputFile | undefined {
  const path = outputPath(values, io, name);
  return path === undefined ? undefined : io.createFile(path);
}

/** The path of --out, which must be given. @throws UsageError. */
export function neededOut(values: Values, io: Io): string {
  const path = outputPath(values, io, "out");
  if (path === undefined) throw new UsageError("--out: expected the file to write");
  return path;
}

/**
 * Writes a file whose contents are known at last. Call it before they are computed: a path that can't be written costs no time then,
 * and who stops the command meanwhile finds nothing half done.
 */
export function writeLater(io: Io, path: string): (contents: string) => void {
  const first = io.createFile(path);
  if (!first.device) first.discard();
  return (contents) => {
    const file = first.device ? first : io.createFile(path);
    try {
      file.write(contents);
      file.commit();
    } finally {
      file.discard();
    }
  };
}
