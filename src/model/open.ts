import { configFromGguf } from "./architectures.ts";
import { type ModelConfig, validateConfig } from "./config.ts";
import { FormatError } from "./formats/errors.ts";
import { isFolder, type ModelFolder } from "./formats/folder.ts";
import { readGguf } from "./formats/gguf.ts";
import { joinSplit } from "./formats/gguf-split.ts";
import type { GgufValue } from "./formats/gguf-values.ts";
import { openHuggingFace } from "./formats/huggingface.ts";
import { readLlama2c, readLlama2cTokenizer } from "./formats/llama2c.ts";
import type { ByteSource, TensorInfo } from "./formats/source.ts";
import { specialTokenMetadata, tokenizerFromFolder } from "./tokenizer/from-folder.ts";
import { tokenizerFromGguf } from "./tokenizer/from-gguf.ts";
import { tokenizerFromLlama2c } from "./tokenizer/spm.ts";
import type { Tokenizer } from "./tokenizer/tokenizer.ts";

/** A model file that has been looked at but not yet loaded: what it is, and where its weights lie. */
export interface ModelFile {
  readonly source: ByteSource;
  readonly format: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly config: ModelConfig;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly tokenizer: Tokenizer;
}

/** "GGUF" */
const GGUF_MAGIC = [0x47, 0x47, 0x55, 0x46];

/**
 * Reads the header of a GGUF file (the first, where a model is split into several), of a Hugging Face folder's files, or of a llama2.c checkpoint, whose tokenizer is a file of its own.
 * @throws FormatError when it is none of these, is damaged, or its tokenizer does not fit it.
 */
export function openModel(source: ByteSource, tokenizerSource?: ByteSource): ModelFile {
  if (isFolder(source)) return openFolder(source, tokenizerSource);
  const magic = new Uint8Array(Math.min(4, source.size));
  source.read(0, magic);
  const isGguf = magic.length === 4 && GGUF_MAGIC.every((byte, i) => byte === magic[i]);
  return isGguf ? openGguf(source, tokenizerSource) : openLlama2c(source, tokenizerSource);
}

function openGguf(first: ByteSource, tokenizerSource?: ByteSource): ModelFile {
  if (tokenizerSource) throw new FormatError(first.name, `a GGUF file brings its own tokenizer, found another in ${tokenizerSource.name}`);
  const { source, file } = joinSplit(first, readGguf(first));
  const config = configFromGguf(file);
  const tokenizer = fitting(source.name, tokenizerFromGguf(file), config.vocabSize);
  return { source, format: `GGUF v${file.version}${file.bigEndian ? ", big-endian" : ""}`, metadata: file.metadata, config, tensors: file.tensors, tokenizer };
}

function openFolder(folder: ModelFolder, tokenizerSource?: ByteSource): ModelFile {
  if (tokenizerSource) throw new FormatError(folder.name, `a Hugging Face folder brings its own tokenizer, found another in ${tokenizerSource.name}`);
  const model = openHuggingFace(folder);
  try {
    const config = configFromGguf(model);
    const own = tokenizerFromFolder(folder, model);
    const metadata = new Map([...model.metadata, ...specialTokenMetadata(own)]);
    return { source: model.source, format: "Hugging Face folder", metadata, config, tensors: model.tensors, tokenizer: own.tokenizer };
  } catch (error) {
    model.source.close();
    throw error;
  }
}

function openLlama2c(source: ByteSource, tokenizerSource?: ByteSource): ModelFile {
  const { header, tensors } = readLlama2c(source);
  if (!tokenizerSource) throw new FormatError(source.name, "a llama2.c checkpoint needs its tokenizer file: expected --tokenizer, found none");
  const config = llama2cConfig(source.name, header);
  const tokenizer = tokenizerFromLlama2c(readLlama2cTokenizer(tokenizerSource, config.vocabSize));
  return { source, format: "llama2.c", metadata: new Map(), config, tensors, tokenizer: fitting(tokenizerSource.name, tokenizer, config.vocabSize) };
}

function llama2cConfig(file: string, header: ReturnType<typeof readLlama2c>["header"]): ModelConfig {
  const headDim = header.dim / header.nHeads;
  const rope = { style: "interleaved", base: 10000, dims: headDim, scaling: { type: "none" } } as const;
  try {
    return validateConfig({ ...header, architecture: "llama", name: "llama2.c", headDim, norm: "rms", normEps: 1e-5, rope, ffn: "gated", activation: "silu" });
  } catch (error) {
    throw new FormatError(file, (error as Error).message);
  }
}

function fitting(file: string, tokenizer: Tokenizer, vocabSize: number): Tokenizer {
  if (tokenizer.vocabSize === vocabSize) return tokenizer;
  throw new FormatError(file, `tokenizer: expected ${vocabSize} tokens, the rows of the embedding, found ${tokenizer.vocabSize}`);
}
