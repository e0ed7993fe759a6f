import { FormatError, quote } from "./errors.ts";

/** Scalar types whose every value a JavaScript number holds. */
export type GgufSmallNumber = "uint8" | "int8" | "uint16" | "int16" | "uint32" | "int32" | "float32" | "float64";
export type GgufBigNumber = "uint64" | "int64";

/** Metadata arrays; `itemType` is the type of every item. What is read of the small number types is a typed array. */
export type GgufArray =
  | { readonly type: "array"; readonly itemType: GgufSmallNumber; readonly value: ArrayLike<number> }
  | { readonly type: "array"; readonly itemType: "uint64"; readonly value: readonly (number | bigint)[] }
  | { readonly type: "array"; readonly itemType: "int64"; readonly value: readonly (number | bigint)[] }
  | { readonly type: "array"; readonly itemType: "bool"; readonly value: readonly boolean[] }
  | { readonly type: "array"; readonly itemType: "string"; readonly value: readonly string[] }
  | { readonly type: "array"; readonly itemType: "array"; readonly value: readonly GgufArray[] };

/** One metadata value with the type it has in the file. 64-bit integers are bigints only beyond Number.MAX_SAFE_INTEGER. */
export type GgufValue =
  | { readonly type: GgufSmallNumber; readonly value: number }
  | { readonly type: GgufBigNumber; readonly value: number | bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | GgufArray;

export type GgufType = GgufValue["type"];

/** `enum gguf_metadata_value_type` of the GGUF specification: the index is the number in the file. */
export const GGUF_TYPE_IDS: readonly GgufType[] = [
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "float32",
  "bool",
  "string",
  "array",
  "uint64",
  "int64",
  "float64",
];

/** Bytes of one value; of a string or an array, the bytes it takes at least (its length, and for an array its item type). */
export const GGUF_TYPE_BYTES: Readonly<Record<GgufType, number>> = {
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  bool: 1,
  string: 8,
  array: 12,
  uint64: 8,
  int64: 8,
  float64: 8,
};

/** Whether a value of `general.alignment` is one that the specification allows: a uint32 power of two. */
export function isAlignment(value: GgufValue): value is { readonly type: "uint32"; readonly value: number } {
  return value.type === "uint32" && value.value > 0 && Number.isInteger(Math.log2(value.value));
}

/** What the getters need of a GgufFile. */
export interface HasMetadata {
  /** The file's name, for messages. */
  readonly name: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
}

/**
 * A number under `key`, of any number type. When the key is missing: `fallback`.
 * @throws FormatError when it is missing without a fallback, is no number, or is an integer beyond 2^53.
 */
export function getNumber(file: HasMetadata, key: string, fallback?: number): number {
  const found = lookup(file, key, "a number", fallback);
  if (found === undefined) return fallback!;
  if (typeof found.value === "number") return found.value;
  if (typeof found.value === "bigint") throw new FormatError(file.name, `key ${quote(key)}: expected a number below 2^53, found ${found.value}`);
  return wrongType(file, key, "a number", found);
}

/** A string under `key`. @throws FormatError when it is missing without a fallback, or is no string. */
export function getString(file: HasMetadata, key: string, fallback?: string): string {
  const found = lookup(file, key, "a string", fallback);
  if (found === undefined) return fallback!;
  return found.type === "string" ? found.value : wrongType(file, key, "a string", found);
}

/** A boolean under `key`. @throws FormatError when it is missing without a fallback, or is no boolean. */
export function getBool(file: HasMetadata, key: string, fallback?: boolean): boolean {
  const found = lookup(file, key, "a bool", fallback);
  if (found === undefined) return fallback!;
  return found.type === "bool" ? found.value : wrongType(file, key, "a bool", found);
}

/** An array of strings under `key`. @throws FormatError when it is missing without a fallback, or is something else. */
export function getStrings(file: HasMetadata, key: string, fallback?: readonly string[]): readonly string[] {
  return file.metadata.has(key) || fallback === undefined ? laterStrings(file, key).value : fallback;
}

/** The same, not decoded yet. */
export function laterStrings(file: HasMetadata, key: string): { readonly value: readonly string[] } {
  const expected = "an array of strings";
  const found = lookup(file, key, expected, undefined);
  return found?.type === "array" && found.itemType === "string" ? found : wrongType(file, key, expected, found!);
}

/**
 * An array of numbers under `key`: the file's own typed array, except for 64-bit integers.
 * @throws FormatError when it is missing without a fallback, is something else, or holds an integer beyond 2^53.
 */
export function getNumbers(file: HasMetadata, key: string, fallback?: ArrayLike<number>): ArrayLike<number> {
  const found = lookup(file, key, "an array of numbers", fallback);
  if (found === undefined) return fallback!;
  if (found.type !== "array" || found.itemType === "string" || found.itemType === "bool" || found.itemType === "array") {
    return wrongType(file, key, "an array of numbers", found);
  }
  if (found.itemType === "uint64" || found.itemType === "int64") {
    return found.value.map((v, i) => {
      if (typeof v === "number") return v;
      throw new FormatError(file.name, `key ${quote(key)}: expected numbers below 2^53, found ${v} at index ${i}`);
    });
  }
  return found.value;
}

/** A value's type in words: "uint32", "array of 12 string". */
export function describeValue(value: GgufValue): string {
  return value.type === "array" ? `array of ${value.value.length} ${value.itemType}` : value.type;
}

function lookup(file: HasMetadata, key: string, expected: string, fallback: unknown): GgufValue | undefined {
  const found = file.metadata.get(key);
  if (!found && fallback === undefined) throw new FormatError(file.name, `key ${quote(key)}: expected ${expected}, found no such key`);
  return found;
}

function wrongType(file: HasMetadata, key: string, expected: string, found: GgufValue): never {
  throw new FormatError(file.name, `key ${quote(key)}: expected ${expected}, found ${describeValue(found)}`);
}
