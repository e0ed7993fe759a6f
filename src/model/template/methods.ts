import { TemplateError } from "./errors.ts";
import { format, percent } from "./formatting.ts";
import { arithmetic, numeric } from "./numbers.ts";
import { asKey, type Callable, type Dict, equal, hasKey, isDict, isList, isNamespace, isTuple, kindOf, labelled, labelOf, limited, MAX_ITEMS, MAX_TEXT, represent, show, splitLines, tuple, type Value } from "./values.ts";

type Method<T> = (self: T, args: readonly Value[], named: ReadonlyMap<string, Value>) => Value;

const WHITE = "\\s\\x1c-\\x1f\\x85";

/** Python's `strip` and its halves: white space, or any of the given characters. */
export function strip(text: string, characters: Value, left: boolean, right: boolean): string {
  const white = new RegExp(`[${WHITE}]`);
  const goes = typeof characters === "string" ? (c: string) => characters.includes(c) : (c: string) => white.test(c);
  let [start, end] = [0, text.length];
  while (left && start < end && goes(text[start])) start++;
  while (right && end > start && goes(text[end - 1])) end--;
  return text.slice(start, end);
}

export function title(text: string): string {
  return text.replace(/\p{L}+/gu, (word) => word[0].toUpperCase() + word.slice(1).toLowerCase());
}

export function capitalize(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1).toLowerCase();
}

function textOf(value: Value, what: string): string {
  if (typeof value === "string") return value;
  throw new TemplateError(`${what}: expected a string, found ${kindOf(value)}`);
}

/** Python's `replace`. @throws TemplateError for an empty string to replace, which no template means. */
export function replace(text: string, from: Value, to: Value, count: Value): string {
  const [old, fresh] = [textOf(from, "replace"), textOf(to, "replace")];
  if (old === "") throw new TemplateError("replace: expected something to replace, found an empty string");
  const parts = text.split(old);
  const cuts = Math.min(parts.length - 1, typeof count === "number" && count >= 0 ? count : parts.length);
  if (text.length + cuts * fresh.length > MAX_TEXT) throw new TemplateError(`replace: expected a text of at most ${MAX_TEXT} characters`);
  return [parts.slice(0, cuts + 1).join(fresh), ...parts.slice(cuts + 1)].join(old);
}

/** Python's `split`: at white space without a separator; at most `most` cuts, from the left or from the right. */
function split(text: string, separator: Value, most: Value, fromRight: boolean): string[] {
  const limit = typeof most === "number" && most >= 0 ? most : Infinity;
  const white = separator === undefined || separator === null;
  const all = white ? strip(text, undefined, true, true).split(new RegExp(`[${WHITE}]+`)) : text.split(separatorOf(separator));
  if (white && all.length === 1 && all[0] === "") return [];
  if (all.length - 1 <= limit) return all;
  if (white) {
    // The rest keeps its own white space.
    const found: string[] = [];
    let rest = strip(text, undefined, true, true);
    for (let i = 0; i < limit; i++) {
      const cut = fromRight ? all[all.length - 1 - i] : all[i];
      found.push(cut);
      rest = fromRight ? strip(rest.slice(0, -cut.length), undefined, false, true) : strip(rest.slice(cut.length), undefined, true, false);
    }
    return fromRight ? [rest, ...found.reverse()] : [...found, rest];
  }
  const by = separator as string;
  return fromRight ? [all.slice(0, all.length - limit).join(by), ...all.slice(all.length - limit)] : [...all.slice(0, limit), all.slice(limit).join(by)];
}

function separatorOf(value: Value): string {
  const text = textOf(value, "split");
  if (text === "") throw new TemplateError("split: expected a separator, found an empty string");
  return text;
}

function startsOrEnds(what: Value, test: (part: string) => boolean): boolean {
  return (isList(what) ? what : [what]).some((one) => test(textOf(one, "startswith")));
}

const every = (pattern: RegExp): Method<string> => (text) => pattern.test(text);

const STRING: Readonly<Record<string, Method<string>>> = {
  strip: (text, [characters]) => strip(text, characters, true, true),
  lstrip: (text, [characters]) => strip(text, characters, true, false),
  rstrip: (text, [characters]) => strip(text, characters, false, true),
  split: (text, [separator, most], named) => split(text, separator ?? named.get("sep"), most ?? named.get("maxsplit"), false),
  rsplit: (text, [separator, most], named) => split(text, separator ?? named.get("sep"), most ?? named.get("maxsplit"), true),
  splitlines: (text) => splitLines(text),
  partition: (text, [separator]) => {
    const at = text.indexOf(separatorOf(separator));
    return at < 0 ? tuple(text, "", "") : tuple(text.slice(0, at), separator, text.slice(at + (separator as string).length));
  },
  rpartition: (text, [separator]) => {
    const at = text.lastIndexOf(separatorOf(separator));
    return at < 0 ? tuple("", "", text) : tuple(text.slice(0, at), separator, text.slice(at + (separator as string).length));
  },
  upper: (text) => text.toUpperCase(),
  lower: (text) => text.toLowerCase(),
  title,
  capitalize,
  startswith: (text, [what]) => startsOrEnds(what, (part) => text.startsWith(part)),
  endswith: (text, [what]) => startsOrEnds(what, (part) => text.endsWith(part)),
  removeprefix: (text, [part]) => (text.startsWith(textOf(part, "removeprefix")) ? text.slice((part as string).length) : text),
  removesuffix: (text, [part]) => (part !== "" && text.endsWith(textOf(part, "removesuffix")) ? text.slice(0, -(part as string).length) : text),
  replace: (text, [from, to, count], named) => replace(text, from, to, count ?? named.get("count")),
  join: (text, [items]) => limited((isList(items) ? items : []).map((item) => textOf(item, "join")).join(text)),
  find: (text, [what, start]) => text.indexOf(textOf(what, "find"), typeof start === "number" ? start : 0),
  rfind: (text, [what]) => text.lastIndexOf(textOf(what, "rfind")),
  index: (text, [what]) => {
    const at = text.indexOf(textOf(what, "index"));
    if (at < 0) throw new TemplateError("index: expected the text to occur");
    return at;
  },
  count: (text, [what]) => (what === "" ? text.length + 1 : text.split(textOf(what, "count")).length - 1),
  format: (text, args, named) => format(text, args, named),
  zfill: (text, [width]) => text.padStart(Math.min(Number(width) || 0, 1000), "0"),
  isdigit: every(/^\p{Nd}+$/u),
  isalpha: every(/^\p{L}+$/u),
  isalnum: every(/^[\p{L}\p{N}]+$/u),
  isspace: every(/^\s+$/),
  isupper: (text) => text !== text.toLowerCase() && text === text.toUpperCase(),
  islower: (text) => text !== text.toUpperCase() && text === text.toLowerCase(),
};

/** A dict's keys with their values, as tuples. */
export const pairs = (dict: Dict): (readonly Value[])[] => [...dict].map((pair) => tuple(...pair));

const DICT: Readonly<Record<string, Method<Dict>>> = {
  items: (dict) => labelled(pairs(dict), "dict_items"),
  keys: (dict) => labelled([...dict.keys()], "dict_keys"),
  values: (dict) => labelled([...dict.values()], "dict_values"),
  get: (dict, [key, fallback = null], named) => (hasKey(dict, key) ? dict.get(asKey(key)!) : (named.get("default") ?? fallback)),
  copy: (dict) => new Map(dict),
};

const LIST: Readonly<Record<string, Method<readonly Value[]>>> = {
  index: (list, [item]) => {
    const at = list.findIndex((each) => equal(each, item));
    if (at < 0) throw new TemplateError(`index: expected ${represent(item).slice(0, 40)} in the list`);
    return at;
  },
  count: (list, [item]) => list.filter((each) => equal(each, item)).length,
  copy: (list) => [...list],
};

/** A method of a string, dict or list, bound to it; undefined where it has none of that name. */
export function method(of: Value, name: string): Callable | undefined {
  const bind = <T>(table: Readonly<Record<string, Method<T>>>, self: T): Callable | undefined =>
    Object.hasOwn(table, name) ? (args, named) => table[name](self, args, named) : undefined;
  if (typeof of === "string") return bind(STRING, of);
  if (isDict(of)) return bind(DICT, of);
  return isList(of) ? bind(LIST, of) : undefined;
}

/** `of.name` (the attribute first) or `of[key]` (the item first), as jinja looks them up; undefined where there is none. */
export function member(of: Value, key: Value, dotted: boolean): Value {
  if (of === undefined) throw new TemplateError(`expected something that has ${represent(key).slice(0, 60)}, found undefined`);
  if (dotted && typeof key === "string") {
    const found = method(of, key);
    if (found) return found;
  }
  if (isNamespace(of)) return typeof key === "string" ? of.attributes.get(key) : undefined;
  if (isDict(of) && hasKey(of, key)) return of.get(asKey(key)!);
  if (isList(of) && labelOf(of) === "group" && (key === "grouper" || key === "list")) return of[key === "list" ? 1 : 0];
  if (typeof key === "number" && (isList(of) || typeof of === "string")) {
    const items = typeof of === "string" ? Array.from(of) : of;
    return items[key < 0 ? key + items.length : key];
  }
  return typeof key === "string" ? method(of, key) : undefined;
}

/** Python's `of[start:stop:step]`. @throws TemplateError */
export function slice(of: Value, [start, stop, step]: readonly Value[]): Value {
  if (of === undefined) return [];
  if (!isList(of) && typeof of !== "string") throw new TemplateError(`expected a list or string to slice, found ${kindOf(of)}`);
  const items = typeof of === "string" ? Array.from(of) : of;
  const by = whole(step) ?? 1;
  if (by === 0) throw new TemplateError("slice: expected a step other than 0");
  const clamp = (value: number, least: number, most: number) => Math.max(least, Math.min(most, value < 0 ? value + items.length : value));
  const [from, to] = [whole(start), whole(stop)];
  const out: Value[] = [];
  if (by > 0) {
    const end = to === undefined ? items.length : clamp(to, 0, items.length);
    for (let i = from === undefined ? 0 : clamp(from, 0, items.length); i < end; i += by) out.push(items[i]);
  } else {
    const end = to === undefined ? -1 : clamp(to, -1, items.length - 1);
    for (let i = from === undefined ? items.length - 1 : clamp(from, -1, items.length - 1); i > end; i += by) out.push(items[i]);
  }
  return typeof of === "string" ? out.join("") : isTuple(of) ? tuple(...out) : out;
}

function whole(value: Value): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "number" && Number.isInteger(value)) return value;
  throw new TemplateError(`slice: expected whole numbers, found ${kindOf(value)}`);
}

/** `+ - * / // % **` and `~`. @throws TemplateError for kinds that do not go together. */
export function calculate(operator: string, a: Value, b: Value): Value {
  if (operator === "~") return limited(show(a) + show(b));
  if (operator === "+" && typeof a === "string" && typeof b === "string") return limited(a + b);
  if (operator === "+" && isList(a) && isList(b) && isTuple(a) === isTuple(b)) {
    if (a.length + b.length > MAX_ITEMS) throw new TemplateError(`expected lists of at most ${MAX_ITEMS} items`);
    return isTuple(a) ? tuple(...a, ...b) : [...a, ...b];
  }
  const [x, y] = [numeric(a), numeric(b)];
  if (operator === "*" && y && !y.isFloat && (typeof a === "string" || isList(a))) return repeated(a, y.value);
  if (operator === "*" && x && !x.isFloat && (typeof b === "string" || isList(b))) return repeated(b, x.value);
  if (operator === "%" && typeof a === "string") return percent(a, isTuple(b) ? b : [b]);
  if (x && y) return arithmetic(operator, x, y);
  throw new TemplateError(`${operator}: expected two numbers${operator === "+" ? ", strings or lists" : ""}, found ${kindOf(a)} and ${kindOf(b)}`);
}

function repeated(what: string | readonly Value[], times: number): Value {
  const [count, most] = [Math.max(0, times), typeof what === "string" ? MAX_TEXT : MAX_ITEMS];
  if (what.length * count > most) throw new TemplateError(`expected shorter ${typeof what === "string" ? "texts" : "lists"} than ${what.length} ${typeof what === "string" ? "characters" : "items"} ${times} times`);
  if (typeof what === "string") return what.repeat(count);
  const all = Array.from({ length: count }, () => what).flat();
  return isTuple(what) ? tuple(...all) : all;
}
