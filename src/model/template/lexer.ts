import { TemplateError } from "./errors.ts";

/** Kinds: text outside of tags; the ends of tags; inside, names, strings, numbers and operators. */
export interface Token {
  readonly kind: "text" | "statement" | "expression" | "close" | "name" | "string" | "number" | "operator";
  readonly text: string;
  readonly line: number;
}

const MAX_BYTES = 1 << 20;
const OPERATORS = ["**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ":", ".", "|"];
const ESCAPES: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", b: "\b", f: "\f", v: "\v", a: "\x07", "0": "\0" };

/**
 * Cuts a template into tokens, with white space as transformers renders chat templates (jinja's `trim_blocks` and `lstrip_blocks`): a tag's
 * own line break goes, and so do spaces before a tag that begins its line; a "-" at a tag's edge takes all white space there, a "+" keeps it.
 * @throws TemplateError
 */
export function lex(source: string): Token[] {
  if (source.length > MAX_BYTES) throw new TemplateError(`expected at most ${MAX_BYTES} characters, found ${source.length}`);
  const text = source.replace(/\r\n?/g, "\n").replace(/\n$/, "");
  const tokens: Token[] = [];
  const lines = lineCounter(text);
  let at = 0;
  /** What the tag before took of the text that follows it. */
  let trim: "none" | "newline" | "all" = "none";

  const addText = (end: number, next: { kind: string; mark: string } | undefined): void => {
    let part = text.slice(at, end);
    const start = at;
    if (trim === "all") part = part.replace(/^\s+/, "");
    else if (trim === "newline" && part.startsWith("\n")) part = part.slice(1);
    if (next?.mark === "-") part = trimEnd(part);
    else if (next && next.kind !== "{{" && next.mark !== "+") {
      // Only what stands between a line's beginning and the tag: at the template's start, too.
      let before = part.length;
      while (before > 0 && (part[before - 1] === " " || part[before - 1] === "\t")) before--;
      const spaces = part.length - before;
      if (spaces > 0 && (before > 0 ? part[before - 1] === "\n" : atLineStart(text, end - spaces))) part = part.slice(0, before);
    }
    if (part !== "") tokens.push({ kind: "text", text: part, line: lines(start) });
  };

  while (at < text.length) {
    const open = findTag(text, at);
    if (open < 0) {
      addText(text.length, undefined);
      break;
    }
    const kind = text.slice(open, open + 2);
    const mark = text[open + 2] === "-" || text[open + 2] === "+" ? text[open + 2] : "";
    addText(open, { kind, mark });
    at = open + 2 + mark.length;
    if (kind === "{#") at = skipComment(open);
    else if (kind === "{%" && /^\s*raw\s*[-+]?%\}/.test(text.slice(at, at + 64))) at = rawBlock(open);
    else at = tag(kind === "{%" ? "statement" : "expression", open);
  }
  return tokens;

  function skipComment(open: number): number {
    const end = text.indexOf("#}", at);
    if (end < 0) throw new TemplateError('expected "#}" at the end of a comment', lines(open));
    trim = text[end - 1] === "-" && end > at ? "all" : "newline";
    return end + 2;
  }

  function rawBlock(open: number): number {
    const begin = /^\s*raw\s*([-+]?)%\}/.exec(text.slice(at, at + 64))!;
    const from = at + begin[0].length;
    const end = /\{%([-+]?)\s*endraw\s*([-+]?)%\}/.exec(text.slice(from));
    if (!end) throw new TemplateError("expected an endraw for this raw", lines(open));
    let part = text.slice(from, from + end.index);
    if (begin[1] === "-") part = part.replace(/^\s+/, "");
    else if (begin[1] === "" && part.startsWith("\n")) part = part.slice(1);
    if (end[1] === "-") part = trimEnd(part);
    if (part !== "") tokens.push({ kind: "text", text: part, line: lines(from) });
    trim = end[2] === "-" ? "all" : end[2] === "+" ? "none" : "newline";
    return from + end.index + end[0].length;
  }

  function tag(kind: "statement" | "expression", open: number): number {
    tokens.push({ kind, text: text.slice(open, open + 2), line: lines(open) });
    const close = kind === "statement" ? "%}" : "}}";
    // Braces of a dictionary may stand before the tag's own.
    let depth = 0;
    let i = at;
    for (;;) {
      while (i < text.length && /\s/.test(text[i])) i++;
      if (i >= text.length) throw new TemplateError(`expected "${close}" at the end of a tag`, lines(open));
      const marked = (text[i] === "-" || text[i] === "+") && text.startsWith(close, i + 1);
      if (depth === 0 && (marked || text.startsWith(close, i))) {
        const mark = marked ? text[i] : "";
        tokens.push({ kind: "close", text: close, line: lines(i) });
        trim = mark === "-" ? "all" : mark === "+" || kind === "expression" ? "none" : "newline";
        return i + mark.length + 2;
      }
      const token = readToken(i);
      if (token.text === "{" && token.kind === "operator") depth++;
      if (token.text === "}" && token.kind === "operator") depth--;
      tokens.push({ kind: token.kind, text: token.text, line: lines(i) });
      i = token.end;
    }
  }

  function readToken(i: number): { kind: "name" | "string" | "number" | "operator"; text: string; end: number } {
    const rest = text.slice(i, i + 64);
    const name = /^[\p{L}_][\p{L}\p{Nd}_]*/u.exec(rest);
    if (name) return { kind: "name", text: name[0], end: i + name[0].length };
    const number = /^\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?/.exec(rest);
    if (number) return { kind: "number", text: number[0].replaceAll("_", ""), end: i + number[0].length };
    if (text[i] === '"' || text[i] === "'") return readString(i);
    const operator = OPERATORS.find((one) => rest.startsWith(one));
    if (operator) return { kind: "operator", text: operator, end: i + operator.length };
    throw new TemplateError(`unexpected character ${JSON.stringify(rest.slice(0, 1))}`, lines(i));
  }

  function readString(start: number): { kind: "string"; text: string; end: number } {
    const parts: string[] = [];
    let i = start + 1;
    for (;;) {
      const from = i;
      while (i < text.length && text[i] !== text[start] && text[i] !== "\\") i++;
      parts.push(text.slice(from, i));
      if (i >= text.length) throw new TemplateError("expected the end of a string", lines(start));
      if (text[i] === text[start]) return { kind: "string", text: parts.join(""), end: i + 1 };
      const code = /^\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))/.exec(text.slice(i, i + 10));
      const value = code ? Number.parseInt(code[1] ?? code[2] ?? code[3], 16) : 0;
      if (code && value <= 0x10ffff) {
        parts.push(String.fromCodePoint(value));
        i += code[0].length;
        continue;
      }
      const next = text[i + 1] ?? "";
      parts.push(ESCAPES[next] ?? (next === "\\" || next === "'" || next === '"' ? next : next === "\n" ? "" : `\\${next}`));
      i += 2;
    }
  }
}

function findTag(text: string, from: number): number {
  for (let i = text.indexOf("{", from); i >= 0; i = text.indexOf("{", i + 1)) if (text[i + 1] === "%" || text[i + 1] === "{" || text[i + 1] === "#") return i;
  return -1;
}

function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && /\s/.test(text[end - 1])) end--;
  return text.slice(0, end);
}

function atLineStart(text: string, at: number): boolean {
  return at === 0 || text[at - 1] === "\n";
}

/** Line numbers of ascending positions; a step back is counted from the start. */
function lineCounter(text: string): (at: number) => number {
  let [line, seen] = [1, 0];
  return (at) => {
    if (at < seen) [line, seen] = [1, 0];
    for (; seen < at; seen++) if (text[seen] === "\n") line++;
    return line;
  };
}
