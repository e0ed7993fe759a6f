import type { Cursor } from "./cursor.ts";
import { GGUF_TYPE_BYTES, GGUF_TYPE_IDS, type GgufArray, type GgufSmallNumber, type GgufType, type GgufValue } from "./gguf-values.ts";

/** The specification sets no limit; real files do not nest at all. */
const MAX_NESTING = 8;

/** Items of an array that are read at most: a claim beyond that is no vocabulary. */
const MAX_ITEMS = 1 << 26;

/** Views over the bytes of a whole array, as little-endian GGUF and every host of a JavaScript engine that runs WebAssembly are little-endian. */
const VIEWS: Readonly<Record<GgufSmallNumber, (bytes: ArrayBuffer) => ArrayLike<number>>> = {
  uint8: (b) => new Uint8Array(b),
  int8: (b) => new Int8Array(b),
  uint16: (b) => new Uint16Array(b),
  int16: (b) => new Int16Array(b),
  uint32: (b) => new Uint32Array(b),
  int32: (b) => new Int32Array(b),
  float32: (b) => new Float32Array(b),
  float64: (b) => new Float64Array(b),
};

/** Reads a value with the type in front of it. @param what Names it in messages. @throws FormatError */
export function readValue(cursor: Cursor, what: string): GgufValue {
  const type = readType(cursor, what);
  switch (type) {
    case "array":
      return readArray(cursor, what, 1);
    case "string":
      return { type, value: readString(cursor, what) };
    case "bool":
      return { type, value: readBool(cursor, what) };
    case "uint64":
    case "int64":
      return { type, value: readBig(cursor, type, what) };
    default:
      return { type, value: VIEWS[type](cursor.numbers(GGUF_TYPE_BYTES[type], GGUF_TYPE_BYTES[type], what).buffer)[0] };
  }
}

function readArray(cursor: Cursor, what: string, depth: number): GgufArray {
  if (depth > MAX_NESTING) cursor.fail(`${what}: expected arrays nested at most ${MAX_NESTING} deep`);
  const type = "array";
  const itemType = readType(cursor, what);
  const start = cursor.position();
  const length = cursor.count(`${what}: the array length`, GGUF_TYPE_BYTES[itemType]);
  if (length > MAX_ITEMS) cursor.fail(`${what}: expected an array of at most ${MAX_ITEMS} items, found ${length}`, start);
  const items = <T>(read: () => T): T[] => {
    const value: T[] = [];
    for (let i = 0; i < length; i++) value.push(read());
    return value;
  };
  switch (itemType) {
    case "array":
      return { type, itemType, value: items(() => readArray(cursor, what, depth + 1)) };
    case "string":
      return stringArray(cursor.texts(length, what));
    case "bool":
      return { type, itemType, value: items(() => readBool(cursor, what)) };
    case "uint64":
    case "int64":
      return { type, itemType, value: items(() => readBig(cursor, itemType, what)) };
    default:
      return { type, itemType, value: VIEWS[itemType](cursor.numbers(length * GGUF_TYPE_BYTES[itemType], GGUF_TYPE_BYTES[itemType], what).buffer) };
  }
}

/** Decoded when somebody first looks: a vocabulary's merges are as many as its tokens, and not all who load a model encode text. */
function stringArray(decode: () => string[]): GgufArray {
  let known: string[] | undefined;
  return {
    type: "array",
    itemType: "string",
    get value() {
      return (known ??= decode());
    },
  };
}

function readType(cursor: Cursor, what: string): GgufType {
  const at = cursor.position();
  const id = cursor.u32(`${what}: the type`);
  return GGUF_TYPE_IDS[id] ?? cursor.fail(`${what}: expected a value type from 0 to ${GGUF_TYPE_IDS.length - 1}, found ${id}`, at);
}

function readString(cursor: Cursor, what: string): string {
  return cursor.text(cursor.count(what, 1), what);
}

function readBool(cursor: Cursor, what: string): boolean {
  const byte = cursor.u8(what);
  if (byte > 1) cursor.fail(`${what}: expected a bool of 0 or 1, found ${byte}`, cursor.position() - 1);
  return byte === 1;
}

function readBig(cursor: Cursor, type: "uint64" | "int64", what: string): number | bigint {
  const raw = cursor.u64(what);
  const value = type === "int64" ? BigInt.asIntN(64, raw) : raw;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
