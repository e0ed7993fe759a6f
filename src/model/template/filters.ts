import { TemplateError } from "./errors.ts";
import { percent } from "./formatting.ts";
import { calculate, capitalize, member, pairs, replace, strip } from "./methods.ts";
import { fixed, float, numeric } from "./numbers.ts";
import { center, escape, fileSize, stripTags, truncate, urlEncode, wordWrap, xmlAttributes } from "./text-filters.ts";
import { compare, contains, equal, isDict, isList, iterate, kindOf, labelled, labelOf, limited, MAX_ITEMS, represent, show, size, toJson, truthy, type Value } from "./values.ts";

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
  const found = numeric(value);
  if (found) return found.value;
  return typeof value === "string" && /^[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(value.trim()) ? Number(value.trim().replaceAll("_", "")) : fallback;
}

/** A whole number from an argument. */
const countOf = (value: Value, fallback: number): number => Math.trunc(numberOf(value, fallback));

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
  int: (value, given) => wholeOf(value) ?? given.get(0, "default") ?? 0,
  float: (value, given) => {
    const found = numberOf(value, NaN);
    return Number.isNaN(found) && !numeric(value) ? (given.get(0, "default") ?? float(0)) : float(found);
  },
  abs: (value) => (numeric(value)?.isFloat ? float(Math.abs(numberOf(value, 0))) : Math.abs(numberOf(value, 0))),
  round(value, given) {
    const places = Math.max(-20, Math.min(20, countOf(given.get(0, "precision"), 0)));
    const method = given.get(1, "method");
    const number = numeric(value) ?? wrongKind("round", "a number", value);
    const factor = 10 ** places;
    if (method === "floor" || method === "ceil") return float((Math[method](number.value * factor) + 0) / factor);
    const rounded = places >= 0 ? Number(fixed(number.value, places)) : Number(fixed(number.value * factor, 0)) / factor;
    return number.isFloat ? float(rounded) : rounded;
  },
  items: (value) => (value === undefined ? [] : isDict(value) ? pairs(value) : wrongKind("items", "a dict", value)),
  dictsort(value, given) {
    if (!isDict(value)) return wrongKind("dictsort", "a dict", value);
    const by = given.get(1, "by") === "value" ? 1 : 0;
    const fold = given.get(0, "case_sensitive") !== true;
    const key = (entry: readonly Value[]) => (fold && typeof entry[by] === "string" ? entry[by].toLowerCase() : entry[by]);
    const sorted = pairs(value).sort((a, b) => compare(key(a), key(b)));
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
    return items(value).reduce<Value>((sum, item) => calculate("+", sum, path === undefined ? item : attribute(item, path)), given.get(1, "start") ?? 0);
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
  format: (value, { args, named }) => percent(text(value), args, named.size > 0 ? new Map(named) : undefined),
  batch(value, given) {
    const size = Math.max(1, Math.trunc(numberOf(given.get(0, "linecount"), 1)));
    const all = items(value);
    const fill = given.get(1, "fill_with");
    const rows = Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
    if (fill === undefined || fill === null) return rows;
    if (size > MAX_ITEMS) throw new TemplateError(`batch: expected at most ${MAX_ITEMS} items to fill up to, found ${size}`);
    return rows.map((row) => [...row, ...Array.from({ length: size - row.length }, () => fill)]);
  },
  slice(value, given) {
    const [all, slices, fill] = [items(value), countOf(given.get(0, "slices"), 0), given.get(1, "fill_with")];
    if (!(slices >= 1 && slices <= MAX_ITEMS)) throw new TemplateError(`slice: expected 1 to ${MAX_ITEMS} slices, found ${slices}`);
    const [each, longer] = [Math.floor(all.length / slices), all.length % slices];
    return Array.from({ length: slices }, (_, i) => {
      const part = all.slice(i * each + Math.min(i, longer), (i + 1) * each + Math.min(i + 1, longer));
      return fill === undefined || fill === null || i < longer ? part : [...part, fill];
    });
  },
  groupby(value, given) {
    const [path, fallback] = [given.get(0, "attribute"), given.get(1, "default")];
    const fold = given.get(2, "case_sensitive") !== true;
    const own = (item: Value) => attribute(item, path) ?? fallback;
    const key = (item: Value) => {
      const found = own(item);
      return fold && typeof found === "string" ? found.toLowerCase() : found;
    };
    const groups: Value[][] = [];
    for (const item of [...items(value)].sort((a, b) => compare(key(a), key(b)))) {
      const last = groups[groups.length - 1];
      if (last && equal(key(last[0]), key(item))) last.push(item);
      else groups.push([item]);
    }
    return groups.map((group) => labelled([own(group[0]), group], "group"));
  },
  attr: (value, given) => member(value, given.get(0, "name"), false),
  wordcount: (value) => (text(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length,
  escape: (value) => escape(text(value)),
  e: (value) => escape(text(value)),
  forceescape: (value) => escape(text(value)),
  safe: (value) => value,
  pprint: (value) => onOneLine(represent(sortedKeys(value))),
  center: (value, given) => center(text(value), countOf(given.get(0, "width"), 80)),
  striptags: (value) => stripTags(text(value)),
  xmlattr: (value, given) => xmlAttributes(value, truthy(given.get(0, "autospace") ?? true)),
  urlencode: (value) => urlEncode(value),
  filesizeformat: (value, given) => fileSize(numberOf(value, 0), truthy(given.get(0, "binary"))),
  truncate: (value, given) =>
    truncate(text(value), countOf(given.get(0, "length"), 255), truthy(given.get(1, "killwords")), show(given.get(2, "end") ?? "..."), countOf(given.get(3, "leeway"), 5)),
  wordwrap: (value, given) =>
    wordWrap(text(value), countOf(given.get(0, "width"), 79), truthy(given.get(1, "break_long_words") ?? true), show(given.get(2, "wrapstring") ?? "\n"), truthy(given.get(3, "break_on_hyphens") ?? true)),
};

/** The int of a number, or of a text that means one; undefined where there is none. */
function wholeOf(value: Value): number | undefined {
  const found = Math.trunc(numberOf(value, NaN));
  return Number.isFinite(found) ? found : undefined;
}

/** Python's `pprint` writes dicts in the order of their keys. */
function sortedKeys(value: Value, depth = 0): Value {
  if (depth > 64) throw new TemplateError("pprint: expected data nested at most 64 deep");
  if (isDict(value)) return new Map([...value].sort(([a], [b]) => compare(a, b)).map(([key, item]) => [key, sortedKeys(item, depth + 1)]));
  return isList(value) ? labelled(value.map((item) => sortedKeys(item, depth + 1)), labelOf(value)) : value;
}

/** `pprint` breaks what is longer into lines, which no chat template asks for. */
function onOneLine(shown: string): string {
  if (shown.length <= 80) return shown;
  throw new TemplateError(`pprint: expected at most the 80 characters of one line, found ${shown.length}`);
}

function orElse(value: Value, given: FilterArguments): Value {
  const fallback = given.args.length > 0 || given.named.has("default_value") ? given.get(0, "default_value") : "";
  return value === undefined || (truthy(given.get(1, "boolean")) && !truthy(value)) ? fallback : value;
}

function wrongKind(filter: string, expected: string, found: Value): never {
  throw new TemplateError(`${filter}: expected ${expected}, found ${kindOf(found)}`);
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
  number: (value) => numeric(value) !== undefined,
  integer: (value) => typeof value === "number" && Number.isInteger(value),
  float: (value) => numeric(value)?.isFloat === true,
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
