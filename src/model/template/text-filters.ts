import { TemplateError } from "./errors.ts";
import { fixed, numeric } from "./numbers.ts";
import { isDict, iterate, kindOf, limited, show, splitLines, type Value } from "./values.ts";

const ESCAPED: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" };
const NAMED: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

export const escape = (text: string): string => text.replace(/[&<>"']/g, (c) => ESCAPED[c]);

/** Without tags and comments, white space as single spaces, entities as what they stand for (numbers, and the names of markup itself). */
export function stripTags(text: string): string {
  const bare = text.replace(/<!--[^]*?-->/g, "").replace(/<[^>]*>/g, "").trim().split(/\s+/).join(" ");
  return bare.replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(\w+));/g, (all, decimal?: string, hex?: string, name?: string) => {
    if (name !== undefined) return Object.hasOwn(NAMED, name) ? NAMED[name] : all;
    const code = decimal === undefined ? Number.parseInt(hex!, 16) : Number(decimal);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
  });
}

/** Attributes of a tag from a dict: those that have a value. @throws TemplateError for a name that would end the attribute. */
export function xmlAttributes(value: Value, spaced: boolean): string {
  if (!isDict(value)) throw new TemplateError(`xmlattr: expected a dict, found ${kindOf(value)}`);
  const parts = [...value].filter(([, item]) => item !== null && item !== undefined).map(([key, item]) => {
    const name = show(key);
    if (/[\s/>=]/.test(name)) throw new TemplateError(`xmlattr: expected a name without white space, /, > and =, found ${name.slice(0, 40)}`);
    return `${escape(name)}="${escape(show(item))}"`;
  });
  return (spaced && parts.length > 0 ? " " : "") + parts.join(" ");
}

/** A text, or pairs as a query, with all but letters, digits and `_.-~` (in a text also `/`) as %XX. */
export function urlEncode(value: Value): string {
  const quote = (text: Value) => encodeURIComponent(show(text).replace(/\p{Surrogate}/gu, "\ufffd")).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  if (typeof value === "string" || numeric(value) || value === null || value === undefined) return quote(value).replaceAll("%2F", "/");
  const pairs = isDict(value) ? [...value] : iterate(value).map(iterate);
  return pairs.map((pair) => pair.map((part) => quote(part).replaceAll("%20", "+")).join("=")).join("&");
}

/** Python's `str.center`. */
export function center(text: string, width: number): string {
  const space = Math.min(1000, width) - [...text].length;
  if (space <= 0) return text;
  const left = Math.floor(space / 2) + (space & width & 1);
  return " ".repeat(left) + text + " ".repeat(space - left);
}

/** At most `length` characters, the end's among them, cut at a space unless `killWords`; a little more stays whole. */
export function truncate(text: string, length: number, killWords: boolean, end: string, leeway: number): string {
  const characters = [...text];
  if (characters.length <= length + leeway) return text;
  const kept = characters.slice(0, Math.max(0, length - [...end].length)).join("");
  const space = killWords ? -1 : kept.lastIndexOf(" ");
  return (space < 0 ? kept : kept.slice(0, space)) + end;
}

/** Bytes in decimal or binary units, one digit behind the point. */
export function fileSize(bytes: number, binary: boolean): string {
  const base = binary ? 1024 : 1000;
  if (bytes === 1) return "1 Byte";
  if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
  const larger = [..."kMGTPEZY"].findIndex((_, i) => bytes < base ** (i + 2));
  const power = larger < 0 ? 8 : larger + 1;
  const prefix = "kMGTPEZY"[power - 1];
  return `${fixed((base * bytes) / base ** (power + 1), 1)} ${binary ? `${prefix.toUpperCase()}i` : prefix}B`;
}

/** Where a word may be cut: behind a hyphen that has two letters before it (or one, a hyphen and one) and letters after, and around dashes. */
const CUT = /(?<=\p{L}{2}-|\p{L}-\p{L}-)(?=\p{L}-?\p{L})|(?<=[\p{L}\p{N}_!"'&.,?])(?=-{2,}[\p{L}\p{N}_])|(?<=[\p{L}\p{N}_!"'&.,?]-{2,})(?=[\p{L}\p{N}_])/u;

/** Lines of at most `width` characters (Python's `textwrap`, each line of the text by itself), joined by `newline`. */
export function wordWrap(text: string, width: number, breakLong: boolean, newline: string, atHyphens: boolean): string {
  if (width < 1) throw new TemplateError(`wordwrap: expected a width of at least 1, found ${width}`);
  return limited(splitLines(text).map((line) => wrapLine(line, width, breakLong, atHyphens).join(newline)).join(newline));
}

function wrapLine(line: string, width: number, breakLong: boolean, atHyphens: boolean): string[] {
  const lines: string[] = [];
  let current = "";
  const flush = (trims = true): void => {
    const text = trims ? current.replace(/[\t\v\f ]+$/, "") : current;
    if (text !== "") lines.push(text);
    current = "";
  };
  for (const part of line.split(/([\t\v\f ]+)/)) {
    for (let rest of atHyphens ? part.split(CUT) : [part]) {
      // Spaces begin no line but the first.
      while (rest !== "" && !(current === "" && lines.length > 0 && rest.trim() === "")) {
        const room = width - current.length;
        let taken = rest.length <= room ? rest.length : 0;
        if (rest.length > width && breakLong) taken = cutAt(rest, room, atHyphens);
        else if (rest.length > width && current === "") taken = rest.length;
        current += rest.slice(0, taken);
        rest = rest.slice(taken);
        // textwrap keeps the spaces before a long word for which the line has no room left.
        if (rest !== "") flush(!(breakLong && room === 0 && rest.length > width));
      }
    }
  }
  flush();
  return lines;
}

/** How much of a long word goes into the room that is left: up to its last hyphen there, if it has one behind something else. */
function cutAt(word: string, room: number, atHyphens: boolean): number {
  const hyphen = atHyphens && room > 0 ? word.lastIndexOf("-", room - 1) : -1;
  return hyphen > 0 && /[^-]/.test(word.slice(0, hyphen)) ? hyphen + 1 : room;
}
