import { FormatError, quote } from "./errors.ts";
import type { ByteSource } from "./source.ts";

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

/** A value inside a JSON file, with the way to it for messages. An absent member has the value undefined. */
export interface JsonNode {
  /** The file's name. */
  readonly file: string;
  /** `model.vocab`; empty for the whole document. */
  readonly path: string;
  readonly value: Json | undefined;
}

export interface JsonLimits {
  /** Default 256 MiB: the largest published tokenizer.json is a tenth of that. */
  readonly maxBytes?: number;
  /** Arrays and objects inside of each other; default 64. */
  readonly maxDepth?: number;
}

/**
 * Reads a whole file as JSON. Stricter than JSON.parse: a key that stands twice in one object, of which JSON.parse would keep the last
 * in silence, is an error, and so is deep nesting.
 * @throws FormatError
 */
export function readJson(source: ByteSource, limits: JsonLimits = {}): JsonNode {
  const { maxBytes = 1 << 28 } = limits;
  if (source.size > maxBytes) throw new FormatError(source.name, `expected at most ${maxBytes} bytes of JSON, found ${source.size}`);
  const bytes = new Uint8Array(source.size);
  source.read(0, bytes);
  return parseJson(source.name, bytes, limits);
}

/** `readJson` for bytes that are already there. @throws FormatError */
export function parseJson(file: string, bytes: Uint8Array, { maxDepth = 64 }: JsonLimits = {}): JsonNode {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FormatError(file, "expected JSON, found bytes that are not UTF-8");
  }
  const problem = scan(text, maxDepth);
  if (problem !== undefined) throw new FormatError(file, problem);
  try {
    return { file, path: "", value: JSON.parse(text) as Json };
  } catch (error) {
    throw new FormatError(file, `expected JSON: ${(error as Error).message.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ").slice(0, 200)}`);
  }
}

/** What JSON.parse would let pass: nesting beyond `maxDepth`, and keys that occur twice in an object. Syntax is JSON.parse's business. */
function scan(text: string, maxDepth: number): string | undefined {
  const keys: Set<string>[] = [];
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x7b || c === 0x5b) {
      if (++depth > maxDepth) return `character ${i}: expected JSON nested at most ${maxDepth} deep`;
      keys[depth] = new Set();
    } else if (c === 0x7d || c === 0x5d) {
      if (depth > 0) depth--;
    } else if (c === 0x22) {
      const start = i++;
      for (; i < text.length && text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
      let next = i + 1;
      while (next < text.length && text.charCodeAt(next) <= 0x20) next++;
      if (depth === 0 || text.charCodeAt(next) !== 0x3a) continue;
      const key = unescape(text.slice(start, i + 1));
      if (keys[depth].has(key)) return `key ${quote(key)}: expected every key once in its object, found it twice`;
      keys[depth].add(key);
    }
  }
  return undefined;
}

function unescape(literal: string): string {
  if (!literal.includes("\\")) return literal.slice(1, -1);
  try {
    return JSON.parse(literal) as string;
  } catch {
    return literal;
  }
}

/** A member of an object, or an item of an array; undefined where there is none. */
export function at(node: JsonNode, key: string | number): JsonNode {
  const { file, value } = node;
  const path = typeof key === "number" ? `${node.path}[${key}]` : node.path === "" ? key : `${node.path}.${key}`;
  if (typeof key === "number") return { file, path, value: Array.isArray(value) ? (value as Json[])[key] : undefined };
  return { file, path, value: isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined };
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether something other than null stands there. */
export function given({ value }: JsonNode): boolean {
  return value !== undefined && value !== null;
}

/** What `read` makes of the value, or the fallback where it is absent or null. */
export function optional<T, F = undefined>(node: JsonNode, read: (node: JsonNode) => T, fallback?: F): T | F {
  return given(node) ? read(node) : (fallback as F);
}

export function asString(node: JsonNode): string {
  return typeof node.value === "string" ? node.value : wrong(node, "a string");
}

export function asBoolean(node: JsonNode): boolean {
  return typeof node.value === "boolean" ? node.value : wrong(node, "true or false");
}

export function asNumber(node: JsonNode): number {
  return typeof node.value === "number" ? node.value : wrong(node, "a number");
}

/** A whole number from 0 to 2^53 - 1. */
export function asCount(node: JsonNode): number {
  return Number.isSafeInteger(node.value) && (node.value as number) >= 0 ? (node.value as number) : wrong(node, "a whole number, 0 or more");
}

export function asObject(node: JsonNode): JsonObject {
  return isObject(node.value) ? node.value : wrong(node, "an object");
}

export function asItems(node: JsonNode): JsonNode[] {
  if (!Array.isArray(node.value)) return wrong(node, "an array");
  return node.value.map((_, i) => at(node, i));
}

/** @throws FormatError naming the member, what was expected there and what was found. */
export function wrong(node: JsonNode, expected: string): never {
  const { file, path, value } = node;
  const where = path === "" ? "the document" : `key ${quote(path)}`;
  throw new FormatError(file, `${where}: expected ${expected}, found ${describeJson(value)}`);
}

/** A value in a few words: scalars as they are, the rest by kind. */
export function describeJson(value: Json | undefined): string {
  if (value === undefined) return "no such key";
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  return isObject(value) ? "an object" : String(value);
}
