import { describeType, GGML_TYPES, ggmlBytes, typeName } from "../../quant/ggml.ts";
import { openCursor, type Cursor } from "./cursor.ts";
import { FormatError, quote } from "./errors.ts";
import { readValue } from "./gguf-read-value.ts";
import { describeValue, isAlignment, type GgufValue } from "./gguf-values.ts";
import type { ByteSource, TensorInfo } from "./source.ts";

export type GgufTensor = TensorInfo;

/** What a GGUF file says about itself; the tensors' bytes stay in the file. */
export interface GgufFile {
  /** The source's name. */
  readonly name: string;
  readonly version: 2 | 3;
  /** All its numbers, those of the tensors too, have their bytes in the other order. */
  readonly bigEndian: boolean;
  /** Every tensor's offset is a multiple of this many bytes from `dataOffset`. */
  readonly alignment: number;
  /** In the file's order. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** In the file's order. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** The byte where tensor data starts. */
  readonly dataOffset: number;
}

/** The least bytes of a key with its value, and of a tensor's entry: what their counts are checked against. */
const LEAST_KEY = 13;
const LEAST_TENSOR = 32;

/**
 * Reads the header of a GGUF file, version 2 or 3, little-endian or big-endian
 * (specification: github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 *
 * Every tensor is checked to be of a known type and to lie within the file.
 * @throws FormatError for anything that is not a valid file: cut off, an impossible count, a name twice, and so on.
 */
export function readGguf(source: ByteSource): GgufFile {
  const cursor = openCursor(source);
  const { version, bigEndian } = readVersion(cursor);
  const tensorCount = cursor.count("the tensor count", LEAST_TENSOR);
  const keyCount = cursor.count("the key count", LEAST_KEY);

  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    const at = cursor.position();
    const key = cursor.text(cursor.count(`the length of key ${i + 1} of ${keyCount}`, 1), `key ${i + 1} of ${keyCount}`);
    if (metadata.has(key)) cursor.fail(`key ${quote(key)}: expected every key once, found it twice`, at);
    metadata.set(key, readValue(cursor, `key ${quote(key)}`));
  }
  const alignment = alignmentOf(source.name, metadata);

  const entries: Entry[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const at = cursor.position();
    const entry = readEntry(cursor, `tensor ${i + 1} of ${tensorCount}`);
    if (names.has(entry.name)) cursor.fail(`tensor ${quote(entry.name)}: expected every tensor once, found it twice`, at);
    names.add(entry.name);
    entries.push(entry);
  }

  const dataOffset = Math.ceil(cursor.position() / alignment) * alignment;
  const tensors = new Map(entries.map((entry) => [entry.name, locate(source, entry, dataOffset, alignment)]));
  return { name: source.name, version, bigEndian, alignment, metadata, tensors, dataOffset };
}

/** The magic is four letters in either byte order; the version, a small number, shows which it is. */
function readVersion(cursor: Cursor): { version: 2 | 3; bigEndian: boolean } {
  if (cursor.remaining() < 4) cursor.fail(`expected a GGUF file, found only ${cursor.remaining()} bytes`);
  const magic = cursor.text(4, "the magic");
  if (magic !== "GGUF") cursor.fail(`expected a GGUF file, which begins with "GGUF", found ${quote(magic)}`, 0);
  const stored = cursor.u32("the version");
  const bigEndian = stored !== 0 && (stored & 0xffff) === 0;
  if (bigEndian) cursor.turnBigEndian();
  const version = bigEndian ? ((stored >>> 24) | ((stored >>> 8) & 0xff00)) : stored;
  if (version === 2 || version === 3) return { version, bigEndian };
  const hint = version > 3 && version < 100 ? ": this file is newer than memwall" : "";
  return cursor.fail(`expected GGUF version 2 or 3, found version ${version}${hint}`, 4);
}

function alignmentOf(file: string, metadata: ReadonlyMap<string, GgufValue>): number {
  const found = metadata.get("general.alignment");
  if (!found) return 32;
  if (isAlignment(found)) return found.value;
  const value = found.type === "uint32" ? ` ${found.value}` : "";
  throw new FormatError(file, `key "general.alignment": expected a uint32 power of two, found ${describeValue(found)}${value}`);
}

/** A tensor as the header describes it. */
interface Entry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: string;
  /** From `dataOffset`. */
  readonly offset: bigint;
}

function readEntry(cursor: Cursor, which: string): Entry {
  const name = cursor.text(cursor.count(`the name length of ${which}`, 1), `the name of ${which}`);
  const what = `tensor ${quote(name)}`;
  const start = cursor.position();
  const dimensions = cursor.u32(`${what}: the number of dimensions`);
  if (dimensions < 1 || dimensions > 4) cursor.fail(`${what}: expected 1 to 4 dimensions, found ${dimensions}`, start);
  const shape: number[] = [];
  let values = 1;
  for (let i = 0; i < dimensions; i++) {
    const at = cursor.position();
    const n = cursor.u64(`${what}: dimension ${i}`);
    // Number(n) of a huge n is inexact but still huge.
    values *= Number(n);
    if (n === 0n || values > Number.MAX_SAFE_INTEGER) {
      cursor.fail(`${what}: expected dimensions from 1 whose product is below 2^53, found ${n} for dimension ${i}`, at);
    }
    shape.unshift(Number(n));
  }
  const typeAt = cursor.position();
  const id = cursor.u32(`${what}: the type`);
  const type = typeName(id);
  if (type === undefined) return cursor.fail(`${what}: expected a GGML type, found ${describeType(id)}`, typeAt);
  const { blockSize } = GGML_TYPES[type];
  const cols = shape[shape.length - 1];
  if (cols % blockSize !== 0) {
    cursor.fail(`${what}: expected ${type} rows in multiples of ${blockSize} columns, found ${cols} columns`, start);
  }
  return { name, shape, type, offset: cursor.u64(`${what}: the offset`) };
}

function locate(source: ByteSource, entry: Entry, dataOffset: number, alignment: number): GgufTensor {
  const { name, shape, type } = entry;
  const cols = shape[shape.length - 1];
  const bytes = ggmlBytes(type, shape.reduce((a, b) => a * b, 1) / cols, cols);
  const offset = dataOffset + Number(entry.offset);
  const what = `tensor ${quote(name)} [${shape.join(", ")}] ${type}`;
  if (entry.offset % BigInt(alignment) !== 0n) {
    throw new FormatError(source.name, `${what}: expected an offset in multiples of ${alignment}, found ${entry.offset}`);
  }
  if (offset + bytes > source.size) {
    throw new FormatError(source.name, `${what}: expected ${bytes} bytes at byte ${offset}, found the end of the file at byte ${source.size} (truncated?)`);
  }
  return { name, shape, type, offset, bytes };
}
