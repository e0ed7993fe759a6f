import { TemplateError } from "./errors.ts";
import { capitalize, member, percent, replace, strip } from "./methods.ts";
import { compare, contains, equal, isDict, isList, iterate, kindOf, limited, represent, show, size, toJson, truthy, type Value } from "./values.ts";

/** What a filter may ask of the interpreter: other filters and tests by name, as `map` and `select` do. */
export interface FilterContext {
  filter(name: string, value: Value, args: readonly Value[], named: ReadonlyMap<string, Value>): Value;
  test(name: string, value: Value, args: readonly Value[]): boolean;
}

/** Arguments by position and by name, taken by either. */
export interface FilterArguments {
  readonly args: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
  /** The argument at a position, or of a name. */
  get(index: number, name: string): Value;
}

type Filter = (value: Value, given: FilterArguments, context: FilterContext) => Value;

export function filterArguments(args: readonly Value[], named: ReadonlyMap<string, Value>): FilterArguments {
  return { args, named, get: (index, name) => (index < args.length ? args[index] : named.get(name)) };
}

const items = (value: Value): readonly Value[] => iterate(value);
/** What jinja's generators go through: nothing, for anything false. */
const itemsIfAny = (value: Value): readonly Value[] => (truthy(value) ? iterate(value) : []);
const text = (value: Value): string => show(value);

function numberOf(value: Value, fallback: number): number {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return Number(value);
  const found = typeof value === "string" && value.trim() !== "" ? Number(value.trim()) : NaN;
  return Number.isFinite(found) ? found : fallback;
}

/** An item's attribute along a dotted path, as `map(attribute="a.b")` has it. */
function attribute(item: Value, path: Value): Value {
  let found = item;
  for (const key of String(path).split(".")) found = found === undefined ? undefined : member(found, /^\d+$/.test(key) ? Number(key) : key, false);
  return found;
}

function keyed(given: FilterArguments, index: number): (item: Value) => Value {
  const path = given.get(index, "attribute");
  const fold = given.named.get("case_sensitive") !== true;
  return (item) => {
    const key = path === undefined || path === null ? item : attribute(item, path);
    return fold && typeof key === "string" ? key.toLowerCase() : key;
  };
}

/** `select`, `reject` and their kin: by truth, or by a test, of the item or of one of its attributes. */
function selection(byAttribute: boolean, wanted: boolean): Filter {
  return (value, { args }, context) => {
    const [path, rest] = byAttribute ? [args[0], args.slice(1)] : [undefined, args];
    const [name, ...others] = rest;
    return itemsIfAny(value).filter((item) => {
      const subject = byAttribute ? attribute(item, path) : item;
      return (name === undefined ? truthy(subject) : context.test(show(name), subject, others)) === wanted;
    });
  };
}

function extreme(sign: number): Filter {
  return (value, given) => {
    const key = keyed(given, 1);
    let best: Value;
    items(value).forEach((item, i) => {
      if (i === 0 || sign * compare(key(item), key(best)) > 0) best = item;
    });
    return best;
  };
}

const ESCAPED: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" };

export const FILTERS: Readonly<Record<string, Filter>> = {
  tojson(value, given) {
    const indent = given.get(1, "indent") ?? given.named.get("indent") ?? (typeof given.args[0] === "number" ? given.args[0] : undefined);
    const separators = given.named.get("separators");
    const pair = isList(separators) && separators.length === 2 ? ([show(separators[0]), show(separators[1])] as const) : undefined;
    const spaces = typeof indent === "number" ? Math.min(Math.max(0, Math.trunc(indent)), 64) : undefined;
    const json = toJson(value, spaces, pair, given.named.get("sort_keys") === true);
    return given.named.get("ensure_ascii") === true ? json.replace(/[\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`) : json;
  },
  trim: (value, given) => strip(text(value), given.get(0, "chars"), true, true),
  length: (value) => size(value),
  count: (value) => size(value),
  upper: (value) => text(value).toUpperCase(),
  lower: (value) => text(value).toLowerCase(),
  // jinja's own rule, not that of str.title(): words begin after white space, hyphens and opening brackets.
  title: (value) => text(value).split(/([-\s({[<]+)/).map(capitalize).join(""),
  capitalize: (value) => capitalize(text(value)),
  first: (value) => items(value)[0],
  last: (value) => items(value)[items(value).length - 1],
  default: orElse,
  d: orElse,
  list: (value) => [...items(value)],
  string: (value) => text(value),
  int: (value, given) => Math.trunc(numberOf(value, numberOf(given.get(0, "default"), 0))),
  float: (value, given) => numberOf(value, numberOf(given.get(0, "default"), 0)),
  abs: (value) => Math.abs(numberOf(value, 0)),
  round(value, given) {
    const factor = 10 ** Math.min(20, numberOf(given.get(0, "precision"), 0));
    const method = given.get(1, "method");
    const scaled = numberOf(value, 0) * factor;
    return (method === "floor" ? Math.floor(scaled) : method === "ceil" ? Math.ceil(scaled) : roundHalfEven(scaled)) / factor;
  },
  items: (value) => (value === undefined ? [] : isDict(value) ? [...value] : wrongKind("items", "a dict", value)),
  dictsort(value, given) {
    if (!isDict(value)) return wrongKind("dictsort", "a dict", value);
    const by = given.get(1, "by") === "value" ? 1 : 0;
    const fold = given.get(0, "case_sensitive") !== true;
    const key = (entry: readonly Value[]) => (fold && typeof entry[by] === "string" ? entry[by].toLowerCase() : entry[by]);
    const sorted = [...value].sort((a, b) => compare(key(a), key(b)));
    return given.get(2, "reverse") === true ? sorted.reverse() : sorted;
  },
  join(value, given) {
    const path = given.get(1, "attribute");
    const parts = items(value).map((item) => show(path === undefined ? item : attribute(item, path)));
    return limited(parts.join(show(given.get(0, "d"))));
  },
  map(value, { args, named }, context) {
    const path = named.get("attribute");
    if (path !== undefined) {
      const fallback = named.get("default");
      return itemsIfAny(value).map((item) => attribute(item, path) ?? fallback);
    }
    const [name, ...rest] = args;
    if (typeof name !== "string") throw new TemplateError("map: expected an attribute or the name of a filter");
    return itemsIfAny(value).map((item) => context.filter(name, item, rest, named));
  },
  select: selection(false, true),
  reject: selection(false, false),
  selectattr: selection(true, true),
  rejectattr: selection(true, false),
  sort(value, given) {
    const key = keyed(given, 2);
    const reverse = given.get(0, "reverse") === true;
    const fold = given.get(1, "case_sensitive") !== true;
    const keyOf = (item: Value) => (fold || typeof item !== "string" ? key(item) : item);
    return [...items(value)].sort((a, b) => (reverse ? compare(keyOf(b), keyOf(a)) : compare(keyOf(a), keyOf(b))));
  },
  unique(value, given) {
    const key = keyed(given, 1);
    const seen: Value[] = [];
    return items(value).filter((item) => {
      const mark = key(item);
      if (seen.some((one) => equal(one, mark))) return false;
      if (seen.length > 10_000) throw new TemplateError("unique: expected at most 10000 different items");
      return seen.push(mark) > 0;
    });
  },
  reverse: (value) => (typeof value === "string" ? Array.from(value).reverse().join("") : [...items(value)].reverse()),
  sum(value, given) {
    const path = given.get(0, "attribute");
    return items(value).reduce((sum: number, item) => sum + numberOf(path === undefined ? item : attribute(item, path), 0), numberOf(given.get(1, "start"), 0));
  },
  min: extreme(-1),
  max: extreme(1),
  replace: (value, given) => replace(text(value), given.get(0, "old"), given.get(1, "new"), given.get(2, "count")),
  indent(value, given) {
    const width = given.get(0, "width");
    const pad = typeof width === "string" ? width : " ".repeat(Math.min(1000, Math.max(0, numberOf(width, 4))));
    const [first, blank] = [truthy(given.get(1, "first")), truthy(given.get(2, "blank"))];
    return limited(text(value).split("\n").map((line, i) => (i === 0 ? (first ? pad : "") : line !== "" || blank ? pad : "") + line).join("\n"));
  },
  format: (value, { args }) => percent(text(value), args),
  batch(value, given) {
    const size = Math.max(1, Math.trunc(numberOf(given.get(0, "linecount"), 1)));
    const all = items(value);
    return Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
  },
  groupby(value, given) {
    const groups: [Value, Value[]][] = [];
    const path = given.get(0, "attribute");
    for (const item of [...items(value)].sort((a, b) => compare(attribute(a, path), attribute(b, path)))) {
      const key = attribute(item, path);
      const last = groups[groups.length - 1];
      if (last && equal(last[0], key)) last[1].push(item);
      else groups.push([key, [item]]);
    }
    return groups;
  },
  attr: (value, given) => member(value, given.get(0, "name"), false),
  wordcount: (value) => (text(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length,
  escape: (value) => text(value).replace(/[&<>"']/g, (c) => ESCAPED[c]),
  e: (value) => text(value).replace(/[&<>"']/g, (c) => ESCAPED[c]),
  safe: (value) => value,
  pprint: (value) => represent(value),
};

function orElse(value: Value, given: FilterArguments): Value {
  const fallback = given.args.length > 0 || given.named.has("default_value") ? given.get(0, "default_value") : "";
  return value === undefined || (truthy(given.get(1, "boolean")) && !truthy(value)) ? fallback : value;
}

function wrongKind(filter: string, expected: string, found: Value): never {
  throw new TemplateError(`${filter}: expected ${expected}, found ${kindOf(found)}`);
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

type Test = (value: Value, args: readonly Value[]) => boolean;

const equals: Test = (value, [other]) => equal(value, other);

export const TESTS: Readonly<Record<string, Test>> = {
  defined: (value) => value !== undefined,
  undefined: (value) => value === undefined,
  none: (value) => value === null,
  boolean: (value) => typeof value === "boolean",
  true: (value) => value === true,
  false: (value) => value === false,
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number" || typeof value === "boolean",
  integer: (value) => typeof value === "number" && Number.isInteger(value),
  float: (value) => typeof value === "number" && !Number.isInteger(value),
  mapping: (value) => isDict(value),
  sequence: (value) => isList(value) || typeof value === "string" || isDict(value),
  iterable: (value) => isList(value) || typeof value === "string" || isDict(value) || value === undefined,
  callable: (value) => typeof value === "function",
  even: (value) => numberOf(value, NaN) % 2 === 0,
  odd: (value) => Math.abs(numberOf(value, NaN) % 2) === 1,
  divisibleby: (value, [by]) => numberOf(value, NaN) % numberOf(by, NaN) === 0,
  lower: (value) => typeof value === "string" && value === value.toLowerCase() && value !== value.toUpperCase(),
  upper: (value) => typeof value === "string" && value === value.toUpperCase() && value !== value.toLowerCase(),
  eq: equals,
  equalto: equals,
  "==": equals,
  ne: (value, [other]) => !equal(value, other),
  "!=": (value, [other]) => !equal(value, other),
  lt: (value, [other]) => compare(value, other) < 0,
  lessthan: (value, [other]) => compare(value, other) < 0,
  le: (value, [other]) => compare(value, other) <= 0,
  gt: (value, [other]) => compare(value, other) > 0,
  greaterthan: (value, [other]) => compare(value, other) > 0,
  ge: (value, [other]) => compare(value, other) >= 0,
  in: (value, [container]) => contains(container, value),
  sameas: (value, [other]) => value === other,
};
