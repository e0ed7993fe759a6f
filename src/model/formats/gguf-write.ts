import { GGML_TYPES, ggmlBytes } from "../../quant/ggml.ts";
import { GGUF_TYPE_BYTES, GGUF_TYPE_IDS, isAlignment, type GgufArray, type GgufType, type GgufValue } from "./gguf-values.ts";

export interface GgufOutTensor {
  readonly name: string;
  /** Row-major: [rows, cols] for a matrix. At most 4 dimensions. */
  readonly shape: readonly number[];
  /** A name of GGML_TYPES. */
  readonly type: string;
  /** Exactly the tensor's bytes (see `ggmlBytes`), whole or in pieces. */
  readonly data: Uint8Array | (() => Iterable<Uint8Array>);
}

export interface GgufOut {
  /** Written in order. `general.alignment` (uint32) sets the alignment of the tensors, else it is 32. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: readonly GgufOutTensor[];
}

/**
 * The bytes of a little-endian GGUF file, version 3 (github.com/ggml-org/ggml/blob/master/docs/gguf.md), piece by piece, each good until the next.
 * @throws RangeError naming the key or tensor: a number that its type cannot hold, a doubled name, a shape that the type cannot
 * have, data of another length than the shape asks for.
 */
export function* ggufPieces(file: GgufOut): Generator<Uint8Array> {
  const alignment = alignmentOf(file.metadata);
  const header = byteWriter();
  header.bytes(new TextEncoder().encode("GGUF"));
  header.number("uint32", 3);
  header.number("uint64", file.tensors.length);
  header.number("uint64", file.metadata.size);
  for (const [key, value] of file.metadata) {
    header.string(key);
    try {
      writeValue(header, value);
    } catch (error) {
      throw new RangeError(`key ${key}: ${(error as Error).message}`);
    }
  }

  const sizes: number[] = [];
  const names = new Set<string>();
  let offset = 0;
  for (const { name, shape, type } of file.tensors) {
    if (names.has(name)) throw new RangeError(`tensor ${name}: expected every name once, found it twice`);
    names.add(name);
    const size = tensorBytes(name, shape, type);
    sizes.push(size);
    header.string(name);
    header.number("uint32", shape.length);
    for (const n of shape.toReversed()) header.number("uint64", n);
    header.number("uint32", GGML_TYPES[type].id);
    header.number("uint64", offset);
    offset += size + padding(size, alignment);
  }
  header.bytes(new Uint8Array(padding(header.length(), alignment)));
  yield header.take();

  for (const [i, { name, data }] of file.tensors.entries()) {
    let written = 0;
    for (const piece of data instanceof Uint8Array ? [data] : data()) {
      written += piece.length;
      if (written > sizes[i]) break;
      yield piece;
    }
    if (written !== sizes[i]) {
      throw new RangeError(`tensor ${name}: expected ${sizes[i]} bytes of data, found ${written > sizes[i] ? "more" : written}`);
    }
    yield new Uint8Array(padding(sizes[i], alignment));
  }
}

/** A GGUF file in memory. @throws RangeError as `ggufPieces` does. */
export function ggufBytes(file: GgufOut): Uint8Array {
  const whole = byteWriter();
  for (const piece of ggufPieces(file)) whole.bytes(piece);
  return whole.take();
}

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>): number {
  const found = metadata.get("general.alignment");
  if (!found) return 32;
  if (isAlignment(found)) return found.value;
  throw new RangeError(`key general.alignment: expected a uint32 power of two, found ${found.type} ${String(found.value)}`);
}

function padding(length: number, alignment: number): number {
  return (alignment - (length % alignment)) % alignment;
}

function tensorBytes(name: string, shape: readonly number[], type: string): number {
  if (shape.length < 1 || shape.length > 4 || !shape.every((n) => Number.isSafeInteger(n) && n > 0)) {
    throw new RangeError(`tensor ${name}: expected 1 to 4 positive dimensions, found [${shape.join(", ")}]`);
  }
  const cols = shape[shape.length - 1];
  try {
    return ggmlBytes(type, shape.reduce((a, b) => a * b, 1) / cols, cols);
  } catch (error) {
    throw new RangeError(`tensor ${name}: ${(error as Error).message}`);
  }
}

type Writer = ReturnType<typeof byteWriter>;

function writeValue(out: Writer, value: GgufValue): void {
  out.number("uint32", GGUF_TYPE_IDS.indexOf(value.type));
  if (value.type === "array") writeArray(out, value);
  else if (value.type === "string") out.string(value.value);
  else out.number(value.type, value.value);
}

function writeArray(out: Writer, array: GgufArray): void {
  out.number("uint32", GGUF_TYPE_IDS.indexOf(array.itemType));
  out.number("uint64", array.value.length);
  if (array.itemType === "string") array.value.forEach(out.string);
  else if (array.itemType === "array") for (const inner of array.value) writeArray(out, inner);
  else for (let i = 0; i < array.value.length; i++) out.number(array.itemType, array.value[i]);
}

/** The least and the greatest value of each integer type. */
const INTEGERS: Readonly<Partial<Record<GgufType, readonly [bigint, bigint]>>> = {
  uint8: [0n, 255n],
  int8: [-128n, 127n],
  uint16: [0n, 65535n],
  int16: [-32768n, 32767n],
  uint32: [0n, 2n ** 32n - 1n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
};

function fits(type: GgufType, value: number | bigint | boolean): boolean {
  if (type === "bool" || typeof value === "boolean") return type === "bool" && typeof value === "boolean";
  const range = INTEGERS[type];
  if (!range) return typeof value === "number";
  return (typeof value === "bigint" || Number.isInteger(value)) && value >= range[0] && value <= range[1];
}

/** A byte buffer that grows. */
function byteWriter() {
  let buffer = new Uint8Array(1 << 16);
  let view = new DataView(buffer.buffer);
  let length = 0;
  const encoder = new TextEncoder();

  function room(bytes: number): number {
    if (length + bytes > buffer.length) {
      const grown = new Uint8Array(Math.max(2 * buffer.length, length + bytes));
      grown.set(buffer.subarray(0, length));
      buffer = grown;
      view = new DataView(buffer.buffer);
    }
    length += bytes;
    return length - bytes;
  }

  function bytes(data: Uint8Array): void {
    const at = room(data.length);
    buffer.set(data, at);
  }

  function number(type: Exclude<GgufType, "string" | "array">, value: number | bigint | boolean): void {
    if (!fits(type, value)) throw new RangeError(`expected a ${type}, found ${value}`);
    const at = room(GGUF_TYPE_BYTES[type]);
    const n = Number(value);
    if (type === "float32") view.setFloat32(at, n, true);
    else if (type === "float64") view.setFloat64(at, n, true);
    else if (type === "uint64" || type === "int64") view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
    else if (type === "uint32" || type === "int32") view.setUint32(at, n, true);
    else if (type === "uint16" || type === "int16") view.setUint16(at, n, true);
    else view.setUint8(at, n);
  }

  function string(text: string): void {
    const encoded = encoder.encode(text);
    number("uint64", encoded.length);
    bytes(encoded);
  }

  return { bytes, number, string, length: () => length, take: () => buffer.subarray(0, length) };
}
