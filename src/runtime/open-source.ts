import type { ByteSource } from "../model/formats/source.ts";
import { type ModelFile, openModel } from "../model/open.ts";

/** What a path leads to, or the source itself. */
export async function sourceOf(from: string | ByteSource): Promise<ByteSource> {
  if (typeof from !== "string") return from;
  const { openFileOrFolder } = await import("./node-files.ts");
  return openFileOrFolder(from);
}

/** Opens a model with the tokenizer of its own that a llama2.c checkpoint has; the tokenizer's source is closed. @throws FormatError */
export function openWith(source: ByteSource, tokenizer: ByteSource | undefined): ModelFile {
  try {
    return openModel(source, tokenizer);
  } finally {
    tokenizer?.close();
  }
}
