import { FormatError } from "./formats/errors.ts";
import { isFolder } from "./formats/folder.ts";
import type { GgufOut } from "./formats/gguf-write.ts";
import { openHuggingFace } from "./formats/huggingface.ts";
import type { ByteSource } from "./formats/source.ts";
import { configFromGguf } from "./architectures.ts";
import { requantise, type RequantiseOptions } from "./requantise.ts";
import { tokenizerFromFolder } from "./tokenizer/from-folder.ts";
import { tokenizerMetadata } from "./tokenizer/to-gguf.ts";

/** A folder on its way to being a GGUF file. */
export interface Conversion {
  /** For `ggufPieces`, which reads the weights as it writes them. */
  readonly plan: GgufOut;
  /** Bytes of the weights to be read. */
  readonly sourceBytes: number;
  /** The names of the files that are read. */
  readonly sourceFiles: readonly string[];
}

/**
 * A Hugging Face folder as a GGUF file that memwall and llama.cpp load. Without a type matrices stay what they are, and the file computes
 * what the folder computes, bit for bit. Close the folder when the file is written.
 * @throws FormatError for a folder that cannot be loaded, or whose tokenizer GGUF has no name for.
 */
export function convertFolder(folder: ByteSource, options: Pick<RequantiseOptions, "type" | "onProgress"> = {}): Conversion {
  if (!isFolder(folder)) throw new FormatError(folder.name, "expected a Hugging Face folder, found a file (run.ts quantize rewrites GGUF files)");
  const model = openHuggingFace(folder);
  configFromGguf(model);
  const own = tokenizerFromFolder(folder, model);
  const metadata = new Map([...model.metadata, ...tokenizerMetadata(own)]);
  const sourceFiles = [...model.weightFiles, model.files.config.file, own.document.file];
  return { plan: requantise(model, metadata, options), sourceBytes: model.source.size, sourceFiles };
}
