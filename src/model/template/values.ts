import { TemplateError } from "./errors.ts";
import { isWholeFloat, numeric, showNumber, type WholeFloat } from "./numbers.ts";

/** What a template computes with: undefined and null are jinja's undefined and none, a Map is a dict, an array a list, or what its label says. */
export type Value = undefined | null | boolean | number | WholeFloat | string | readonly Value[] | Dict | Callable | Namespace;
export type Key = string | number | boolean | null;
export type Dict = ReadonlyMap<Key, Value>;

/** A function or macro: arguments by position and by name. */
export type Callable = (args: readonly Value[], named: ReadonlyMap<string, Value>) => Value;

/** `namespace(...)`: the one thing whose attributes `set` may change. */
export interface Namespace {
  readonly attributes: Map<string, Value>;
}

/** Texts and lists of a template are kept below this many characters and items. */
export const MAX_TEXT = 1 << 25;
export const MAX_ITEMS = 1 << 18;

export const isDict = (value: Value): value is Dict => value instanceof Map;

const LABEL = Symbol("label");

/** A list that Python calls otherwise: `tuple`, `range(0, 3)`, `dict_items`; without a label a list. */
export function labelled(items: readonly Value[], label: string | undefined): readonly Value[] {
  return Object.assign([...items], { [LABEL]: label });
}

export function labelOf(list: readonly Value[]): string | undefined {
  return (list as { readonly [LABEL]?: string })[LABEL];
}

export const tuple = (...items: readonly Value[]): readonly Value[] => labelled(items, "tuple");
/** Pairs of `groupby` are tuples, too, with names for their parts. */
export const isTuple = (value: Value): value is readonly Value[] => isList(value) && /^(tuple|group)$/.test(labelOf(value) ?? "");

/** A value as a dict's key; undefined when it cannot be one. */
export function asKey(value: Value): Key | undefined {
  if (isWholeFloat(value)) return value.float;
  return value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean" ? value : undefined;
}

export const isList = (value: Value): value is readonly Value[] => Array.isArray(value);
export const isNamespace = (value: Value): value is Namespace => typeof value === "object" && value !== null && "attributes" in value;

/** JSON-like data as a template's value, numbers without a fraction as ints; functions and the like become undefined. @throws TemplateError when it is nested too deep. */
export function toValue(data: unknown, depth = 0): Value {
  if (depth > 64) throw new TemplateError("expected data nested at most 64 deep");
  if (data === null || typeof data === "boolean" || typeof data === "string") return data;
  // Numbers that JSON writes with an exponent.
  if (typeof data === "number") return Math.abs(data) >= 1e21 && Number.isFinite(data) ? { float: data } : data;
  if (Array.isArray(data)) return data.map((item) => toValue(item, depth + 1));
  if (typeof data !== "object") return undefined;
  return new Map(Object.entries(data).filter(([, item]) => item !== undefined).map(([key, item]) => [key, toValue(item, depth + 1)]));
}

/** Python's truth. */
export function truthy(value: Value): boolean {
  if (isList(value)) return value.length > 0;
  if (isDict(value)) return value.size > 0;
  if (isWholeFloat(value)) return value.float !== 0;
  return Boolean(value) || Number.isNaN(value);
}

export function kindOf(value: Value): string {
  if (value === undefined) return "undefined";
  if (value === null) return "none";
  if (isWholeFloat(value)) return "a number";
  if (isList(value)) return isTuple(value) ? "a tuple" : "a list";
  if (isDict(value)) return "a dict";
  if (isNamespace(value)) return "a namespace";
  return { boolean: "a boolean", number: "a number", string: "a string", function: "a function" }[typeof value as "boolean"] ?? typeof value;
}

/** As Python's `str`. */
export function show(value: Value): string {
  if (typeof value === "string") return value;
  return value === undefined ? "" : represent(value);
}

/** As Python's `repr`. */
export function represent(value: Value): string {
  if (value === undefined) return "Undefined";
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number" || isWholeFloat(value)) return showNumber(value);
  if (typeof value === "string") return quoted(value);
  if (isList(value)) return representList(value);
  if (isDict(value)) return `{${[...value].map(([key, item]) => `${represent(key)}: ${represent(item)}`).join(", ")}}`;
  return isNamespace(value) ? "<Namespace>" : "<function>";
}

function representList(list: readonly Value[]): string {
  const label = labelOf(list);
  const items = list.map(represent).join(", ");
  if (isTuple(list)) return list.length === 1 ? `(${items},)` : `(${items})`;
  if (label === undefined) return `[${items}]`;
  return label.endsWith(")") ? label : `${label}([${items}])`;
}

function quoted(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\n\r\t\p{Cc}]|['"]/gu, (c) => {
    if (c === "'" || c === '"') return c === mark ? `\\${c}` : c;
    const named = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" }[c];
    return named ?? `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
  return mark + escaped + mark;
}

/** Python's ==. */
export function equal(a: Value, b: Value, depth = 0): boolean {
  if (a === b) return true;
  if (depth > 100) return false;
  const [x, y] = [numeric(a), numeric(b)];
  if (x && y) return x.value === y.value;
  if (isList(a) && isList(b)) return isTuple(a) === isTuple(b) && a.length === b.length && a.every((item, i) => equal(item, b[i], depth + 1));
  if (isDict(a) && isDict(b)) return a.size === b.size && [...a].every(([key, item]) => b.has(key) && equal(item, b.get(key), depth + 1));
  return false;
}

/** Below 0, 0 or above 0, as Python orders numbers, strings and lists. @throws TemplateError for what has no order. */
export function compare(a: Value, b: Value, depth = 0): number {
  const [x, y] = [numeric(a), numeric(b)];
  if (x && y) return x.value - y.value;
  if (typeof a === "string" && typeof b === "string") return a < b ? -1 : a > b ? 1 : 0;
  if (isList(a) && isList(b) && depth < 100) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) if (!equal(a[i], b[i])) return compare(a[i], b[i], depth + 1);
    return a.length - b.length;
  }
  throw new TemplateError(`expected two numbers, strings or lists to compare, found ${kindOf(a)} and ${kindOf(b)}`);
}

/** What a loop goes through: a list's items, a dict's keys, a string's characters; nothing for undefined. @throws TemplateError */
export function iterate(value: Value): readonly Value[] {
  if (value === undefined) return [];
  if (isList(value)) return value;
  if (isDict(value)) return [...value.keys()];
  if (typeof value === "string") return Array.from(value);
  throw new TemplateError(`expected something to go through, found ${kindOf(value)}`);
}

/** Whether something occurs in a list, a dict's keys or a string. */
export function contains(container: Value, item: Value): boolean {
  if (container === undefined) return false;
  if (typeof container === "string") {
    if (typeof item === "string") return container.includes(item);
    throw new TemplateError(`expected a string to look for in a string, found ${kindOf(item)}`);
  }
  if (isDict(container)) return hasKey(container, item);
  return iterate(container).some((each) => equal(each, item));
}

export function hasKey(dict: Dict, key: Value): boolean {
  const found = asKey(key);
  return found !== undefined && dict.has(found);
}

/** Number of items or characters. @throws TemplateError */
export function size(value: Value): number {
  if (typeof value === "string") return value.length < 1000 && /^[\0-\uD7FF]*$/.test(value) ? value.length : [...value].length;
  if (isDict(value)) return value.size;
  return iterate(value).length;
}

/** Python's `splitlines`. */
export function splitLines(text: string): string[] {
  const lines = text.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/);
  return lines[lines.length - 1] === "" ? lines.slice(0, -1) : lines;
}

/** @throws TemplateError for a text that no chat can need. */
export function limited(text: string): string {
  if (text.length > MAX_TEXT) throw new TemplateError(`expected texts of at most ${MAX_TEXT} characters, found ${text.length}`);
  return text;
}

/**
 * JSON as Python's `json.dumps` writes it, characters beyond ASCII as they are.
 * @param indent Spaces per level; undefined for one line with ", " and ": ".
 */
export function toJson(value: Value, indent?: number, separators?: readonly [string, string], sortKeys = false): string {
  const [comma, colon] = separators ?? [indent === undefined ? ", " : ",", ": "];
  const write = (item: Value, level: number): string => {
    if (level > 100) throw new TemplateError("tojson: expected data nested at most 100 deep");
    if (item === null || typeof item === "boolean" || typeof item === "string") return JSON.stringify(item);
    if (isWholeFloat(item)) return showNumber(item);
    if (typeof item === "number") return Number.isFinite(item) ? showNumber(item) : Number.isNaN(item) ? "NaN" : item > 0 ? "Infinity" : "-Infinity";
    const lines = (open: string, parts: string[], end: string) => {
      if (parts.length === 0) return open + end;
      if (indent === undefined) return open + parts.join(comma) + end;
      const pad = `\n${" ".repeat(indent * (level + 1))}`;
      return `${open}${pad}${parts.join(comma + pad)}\n${" ".repeat(indent * level)}${end}`;
    };
    if (isList(item)) return lines("[", item.map((each) => write(each, level + 1)), "]");
    if (!isDict(item)) throw new TemplateError(`tojson: expected data, found ${kindOf(item)}`);
    const entries = sortKeys ? [...item].sort(([a], [b]) => compare(a, b)) : [...item];
    return lines("{", entries.map(([key, each]) => JSON.stringify(typeof key === "string" ? key : write(key, level)) + colon + write(each, level + 1)), "}");
  };
  return limited(write(value, 0));
}
