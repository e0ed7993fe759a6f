import { openCursor, type Cursor } from "./cursor.ts";
import { FormatError } from "./errors.ts";
import type { ByteSource, TensorInfo } from "./source.ts";

/** The numbers in front of a llama2.c checkpoint, by memwall's names. */
export interface Llama2cHeader {
  readonly dim: number;
  readonly ffnDim: number;
  readonly nLayers: number;
  readonly nHeads: number;
  readonly nKvHeads: number;
  readonly vocabSize: number;
  readonly contextLength: number;
}

export interface Llama2cFile {
  /** The source's name. */
  readonly name: string;
  /** 0: the original format without a magic number; 1: "ak42", float32. */
  readonly version: 0 | 1;
  readonly header: Llama2cHeader;
  /**
   * By GGUF's names, all F32. There is no `output.weight` when the embedding serves as classifier. llama2.c rotates neighbouring
   * pairs, as GGUF's `llama` does, so queries and keys need no reordering.
   */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** "ak42", read as a little-endian int32. */
const MAGIC = 0x616b3432;
const V1_HEADER_BYTES = 256;

/** The parts of a layer: GGUF's name and the shape. */
const LAYER_PARTS = {
  attnNorm: ["attn_norm", ({ dim }) => [dim]],
  q: ["attn_q", ({ dim }) => [dim, dim]],
  k: ["attn_k", (h) => [kvDim(h), h.dim]],
  v: ["attn_v", (h) => [kvDim(h), h.dim]],
  o: ["attn_output", ({ dim }) => [dim, dim]],
  ffnNorm: ["ffn_norm", ({ dim }) => [dim]],
  w1: ["ffn_gate", ({ dim, ffnDim }) => [ffnDim, dim]],
  w2: ["ffn_down", ({ dim, ffnDim }) => [dim, ffnDim]],
  w3: ["ffn_up", ({ dim, ffnDim }) => [ffnDim, dim]],
} satisfies Record<string, [string, (header: Llama2cHeader) => number[]]>;

type Part = keyof typeof LAYER_PARTS | "embedding" | "finalNorm" | "rope" | "classifier";

/** What follows the header, in order (`legacy_export` and `version1_export` of llama2.c's export.py); layer parts come for all layers at once. */
const ORDER: Readonly<Record<0 | 1, readonly Part[]>> = {
  0: ["embedding", "attnNorm", "q", "k", "v", "o", "ffnNorm", "w1", "w2", "w3", "finalNorm", "rope", "classifier"],
  1: ["attnNorm", "ffnNorm", "finalNorm", "embedding", "q", "k", "v", "o", "w1", "w2", "w3", "classifier"],
};

function kvDim({ dim, nHeads, nKvHeads }: Llama2cHeader): number {
  return (dim / nHeads) * nKvHeads;
}

/**
 * Reads the header of a llama2.c checkpoint (github.com/karpathy/llama2.c), format 0 or 1.
 *
 * Format 0 has no magic number, so the file is recognised by its size: it must be exactly what the header asks for.
 * @throws FormatError when the numbers make no model or do not fit the size, and for format 2 (int8).
 */
export function readLlama2c(source: ByteSource): Llama2cFile {
  const cursor = openCursor(source, 4096);
  if (source.size < 28) cursor.fail(`expected a model (GGUF or a llama2.c checkpoint), found only ${source.size} bytes`);
  const first = cursor.i32("the header");
  const version = first === MAGIC ? readVersion(cursor) : 0;
  const numbers = [version === 0 ? first : cursor.i32("dim")];
  while (numbers.length < 7) numbers.push(cursor.i32("the header"));
  const [dim, ffnDim, nLayers, nHeads, nKvHeads, signedVocab, contextLength] = numbers;
  // In format 0 a negative vocabulary size says that the classifier has weights of its own.
  const vocabSize = version === 0 ? Math.abs(signedVocab) : signedVocab;
  const header = { dim, ffnDim, nLayers, nHeads, nKvHeads, vocabSize, contextLength };
  const tied = version === 0 ? signedVocab > 0 : cursor.u8("the classifier flag") !== 0;
  checkHeader(source.name, header);

  const start = version === 0 ? 28 : V1_HEADER_BYTES;
  const parts = ORDER[version].filter((part) => !(tied && part === "classifier"));
  const size = parts.reduce((sum, part) => sum + partBytes(part, header), start);
  if (source.size !== size) {
    const shape = Object.entries(header).map(([name, n]) => `${name} ${n}`);
    const hint = source.size < size ? "truncated, or no llama2.c checkpoint" : "no llama2.c checkpoint";
    throw new FormatError(source.name, `expected ${size} bytes for a llama2.c model of ${shape.join(", ")}, found ${source.size} bytes (${hint}?)`);
  }
  return { name: source.name, version, header, tensors: locate(parts, header, start) };
}

function readVersion(cursor: Cursor): 1 {
  const version = cursor.i32("the version");
  if (version === 2) cursor.fail("expected a float32 llama2.c checkpoint (format 0 or 1), found format 2 (int8): export it with --version 1", 4);
  if (version !== 1) cursor.fail(`expected llama2.c format 1, found format ${version}`, 4);
  return 1;
}

function checkHeader(file: string, header: Llama2cHeader): void {
  const refuse = (problem: string): never => {
    throw new FormatError(file, `expected a model (GGUF or a llama2.c checkpoint), found neither: as a llama2.c header, ${problem}`);
  };
  for (const [name, n] of Object.entries(header)) if (n < 1) refuse(`${name} is ${n}`);
  const { dim, nHeads, nKvHeads } = header;
  if (dim % (2 * nHeads) !== 0) refuse(`dim ${dim} is no even multiple of nHeads ${nHeads}`);
  if (nHeads % nKvHeads !== 0) refuse(`nHeads ${nHeads} is no multiple of nKvHeads ${nKvHeads}`);
}

/** Bytes of one part, of all layers. Inexact beyond 2^53, where no file fits anyway. */
function partBytes(part: Part, header: Llama2cHeader): number {
  const { dim, nHeads, nLayers, vocabSize, contextLength } = header;
  if (part === "embedding" || part === "classifier") return 4 * vocabSize * dim;
  if (part === "finalNorm") return 4 * dim;
  // Tables of cosines and sines that nobody reads any more: half a head each.
  if (part === "rope") return 4 * contextLength * (dim / nHeads);
  return nLayers * 4 * product(LAYER_PARTS[part][1](header));
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

function locate(parts: readonly Part[], header: Llama2cHeader, start: number): Map<string, TensorInfo> {
  const { dim, vocabSize, nLayers } = header;
  const tensors = new Map<string, TensorInfo>();
  let offset = start;
  const add = (name: string, shape: readonly number[]) => {
    const bytes = 4 * product(shape);
    tensors.set(name, { name, shape, type: "F32", offset, bytes });
    offset += bytes;
  };
  for (const part of parts) {
    if (part === "embedding") add("token_embd.weight", [vocabSize, dim]);
    else if (part === "classifier") add("output.weight", [vocabSize, dim]);
    else if (part === "finalNorm") add("output_norm.weight", [dim]);
    else if (part === "rope") offset += partBytes(part, header);
    else {
      const [name, shape] = LAYER_PARTS[part];
      for (let layer = 0; layer < nLayers; layer++) add(`blk.${layer}.${name}.weight`, shape(header));
    }
  }
  return tensors;
}

/** A llama2.c tokenizer file. */
export interface Llama2cTokenizer {
  /** The file's name, for messages. */
  readonly source: string;
  /** By id. Spaces are plain; bytes are named `<0x00>` to `<0xFF>`; the ids 1 and 2 are bos and eos. */
  readonly tokens: readonly string[];
  readonly scores: Float32Array;
}

/**
 * Reads a llama2.c tokenizer file (tok512.bin): a maximum length, then for every token its score, its length and its bytes.
 * The file does not say how many tokens it has: `vocabSize` is the model's.
 * @throws FormatError when it does not hold exactly `vocabSize` tokens.
 */
export function readLlama2cTokenizer(source: ByteSource, vocabSize: number): Llama2cTokenizer {
  const cursor = openCursor(source);
  const most = cursor.i32("the longest token's length");
  if (most < 1 || most > cursor.remaining()) cursor.fail(`expected a llama2.c tokenizer, which begins with the longest token's length, found ${most}`, 0);
  if (vocabSize * 8 > cursor.remaining()) {
    cursor.fail(`expected ${vocabSize} tokens of the model's vocabulary, found only ${cursor.remaining()} bytes for them`);
  }
  const tokens: string[] = [];
  const scores = new Float32Array(vocabSize);
  for (let id = 0; id < vocabSize; id++) {
    const what = `token ${id} of ${vocabSize}`;
    const at = cursor.position();
    scores[id] = cursor.f32(what);
    const length = cursor.i32(what);
    if (length < 0 || length > most) cursor.fail(`${what}: expected a length from 0 to ${most}, found ${length}`, at + 4);
    tokens.push(cursor.text(length, what));
  }
  if (cursor.remaining() > 0) {
    cursor.fail(`expected the end after ${vocabSize} tokens, found ${cursor.remaining()} more bytes: this is the tokenizer of another model`);
  }
  return { source: source.name, tokens, scores };
}
