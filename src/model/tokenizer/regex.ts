/** A pattern that JavaScript cannot express, or that is no pattern. */
export class PatternError extends Error {
  override readonly name = "PatternError";
}

const SPACE = String.raw`\p{White_Space}`;
/** Oniguruma's \w, which counts the fractions and raised digits of Latin-1 in. */
const WORD = String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}²³¹¼½¾`;

/** What escapes with a letter stand for, outside of a class; inside, the same without brackets. */
const CLASSES: Readonly<Record<string, string>> = {
  ...{ s: `[${SPACE}]`, S: `[^${SPACE}]`, d: String.raw`[\p{Nd}]`, D: String.raw`[^\p{Nd}]` },
  ...{ w: `[${WORD}]`, W: `[^${WORD}]`, h: "[0-9A-Fa-f]", H: "[^0-9A-Fa-f]" },
};
const CONTROLS: Readonly<Record<string, number>> = { n: 10, r: 13, t: 9, f: 12, v: 11, a: 7, e: 27, "0": 0 };
const ANCHORS: Readonly<Record<string, string>> = {
  ...{ A: "^", z: "$", Z: "(?=\\n?$)" },
  b: `(?:(?<=[${WORD}])(?![${WORD}])|(?<![${WORD}])(?=[${WORD}]))`,
  B: `(?:(?<=[${WORD}])(?=[${WORD}])|(?<![${WORD}])(?![${WORD}]))`,
};
const POSIX: Readonly<Record<string, string>> = {
  ...{ alpha: String.raw`\p{Alphabetic}`, digit: String.raw`\p{Nd}`, alnum: String.raw`\p{Alphabetic}\p{Nd}`, space: SPACE },
  ...{ upper: String.raw`\p{Uppercase}`, lower: String.raw`\p{Lowercase}`, punct: String.raw`\p{P}\p{S}`, cntrl: String.raw`\p{Cc}` },
  ...{ word: String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}`, xdigit: "0-9A-Fa-f" },
};

/**
 * A regular expression of a tokenizer.json, which speaks Oniguruma's dialect, as a JavaScript one with the flags g and v: Unicode's white
 * space, case-insensitive groups, possessive quantifiers, atomic groups, literal braces.
 * @throws PatternError for what has no translation.
 */
export function translatePattern(source: string): RegExp {
  if (source.length > 1 << 16) throw new PatternError(`expected a pattern of at most 65536 characters, found ${source.length}`);
  let translated: string;
  try {
    translated = translator(Array.from(source)).all();
    return new RegExp(translated, "gv");
  } catch (error) {
    if (error instanceof PatternError) throw error;
    throw new PatternError((error as Error).message.split("\n")[0].slice(-120));
  }
}

/** A text as a pattern that matches only it. */
export function literalPattern(text: string): RegExp {
  return new RegExp(Array.from(text, literal).join(""), "gv");
}

function literal(character: string): string {
  return /[\p{L}\p{Nd}]/u.test(character) ? character : `\\u{${character.codePointAt(0)!.toString(16)}}`;
}

/** Recursive descent over the characters of a pattern. Groups nest at most this deep. */
const MAX_NESTING = 100;

function translator(text: readonly string[]) {
  let at = 0;
  let groups = 0;

  const fail = (problem: string): never => {
    throw new PatternError(`${problem} at character ${at}`);
  };

  /** The spellings of a letter where case does not count; simple folding, as Oniguruma's. */
  const spellings = (character: string): string[] => {
    const others = [character.toLowerCase(), character.toUpperCase()];
    if (/[sS]/.test(character)) others.push("\u017f");
    if (/[kK]/.test(character)) others.push("\u212a");
    return [...new Set([character, ...others.filter((other) => Array.from(other).length === 1)])];
  };

  function all(): string {
    let fold = false;
    if (text.slice(0, 4).join("") === "(?i)") {
      at = 4;
      fold = true;
    }
    const out = alternatives(fold, 0);
    if (at < text.length) fail('expected no ")"');
    return out;
  }

  /** Up to the end or a closing parenthesis, which stays. */
  function alternatives(fold: boolean, depth: number): string {
    if (depth > MAX_NESTING) fail("expected groups nested less deep");
    let out = "";
    while (at < text.length && text[at] !== ")") out += text[at] === "|" ? text[at++] : quantified(fold, depth);
    return out;
  }

  function quantified(fold: boolean, depth: number): string {
    let atom = primary(fold, depth);
    for (;;) {
      const quantifier = readQuantifier();
      if (quantifier === undefined) return atom;
      const mode = text[at] === "?" || text[at] === "+" ? text[at] : "";
      // After {n,m} Oniguruma reads "+" as another quantifier, not as possessive.
      if (mode === "+" && !quantifier.startsWith("{")) {
        at++;
        atom = atomic(atom + quantifier);
      } else {
        if (mode === "?") at++;
        atom = `(?:${atom}${quantifier}${mode === "?" ? "?" : ""})`;
      }
    }
  }

  /** JavaScript's lookahead never gives back what it matched: what it caught is then matched as it is. */
  function atomic(inner: string): string {
    const name = `atomic${groups++}`;
    return `(?:(?=(?<${name}>${inner}))\\k<${name}>)`;
  }

  function readQuantifier(): string | undefined {
    if (text[at] === "*" || text[at] === "+" || text[at] === "?") return text[at++];
    const braces = text[at] === "{" ? /^\{(\d{0,5})(,?)(\d{0,5})\}/.exec(text.slice(at, at + 16).join("")) : null;
    if (!braces || (braces[1] === "" && braces[3] === "")) return undefined;
    at += braces[0].length;
    return `{${braces[1] || "0"}${braces[2]}${braces[3]}}`;
  }

  function primary(fold: boolean, depth: number): string {
    const c = text[at++];
    if (c === "(") return group(fold, depth);
    if (c === "[") return klass(fold, depth);
    if (c === ".") return "[^\\n]";
    if (c === "^") return "(?<![^\\n])";
    if (c === "$") return "(?![^\\n])";
    if (c === "\\") return escape(fold);
    if (c === "*" || c === "+" || c === "?") fail(`expected something to repeat before "${c}"`);
    return folded(c, fold);
  }

  const folded = (c: string, fold: boolean): string => {
    const all = fold ? spellings(c) : [c];
    return all.length === 1 ? literal(c) : `[${all.map(literal).join("")}]`;
  };

  function group(fold: boolean, depth: number): string {
    const kinds = ["?:", "?=", "?!", "?<=", "?<!", "?>", "?i:", "?-i:"];
    const kind = kinds.find((k) => text.slice(at, at + k.length).join("") === k);
    if (kind === undefined && text[at] === "?") fail("expected (?:, (?=, (?!, (?<=, (?<!, (?> or (?i:");
    at += kind?.length ?? 0;
    const inner = alternatives(kind === "?i:" || (fold && kind !== "?-i:"), depth + 1);
    if (text[at++] !== ")") fail('expected ")"');
    if (kind === "?>") return atomic(inner);
    return `(${kind === undefined || kind === "?i:" || kind === "?-i:" ? "?:" : kind}${inner})`;
  }

  function escape(fold: boolean): string {
    if (at >= text.length) fail('expected something after "\\"');
    const c = text[at];
    if (Object.hasOwn(CLASSES, c)) return CLASSES[text[at++]];
    if (Object.hasOwn(ANCHORS, c)) return ANCHORS[text[at++]];
    if (c === "p" || c === "P") return property();
    if (c === "R") {
      at++;
      return "(?:\\r\\n|[\\n\\v\\f\\r\\x85\\u2028\\u2029])";
    }
    return folded(escapedCharacter(), fold);
  }

  /** After a backslash: the one character that it spells. */
  function escapedCharacter(): string {
    const c = text[at++];
    if (Object.hasOwn(CONTROLS, c)) return String.fromCharCode(CONTROLS[c]);
    if (c === "x" || c === "u") {
      const rest = text.slice(at, at + 10).join("");
      const found = /^\{([0-9A-Fa-f]{1,6})\}/.exec(rest) ?? (c === "x" ? /^([0-9A-Fa-f]{1,2})/ : /^([0-9A-Fa-f]{4})/).exec(rest);
      const code = found ? Number.parseInt(found[1], 16) : NaN;
      if (!found || code > 0x10ffff) return fail("expected a character's number");
      at += found[0].length;
      return String.fromCodePoint(code);
    }
    if (/[A-Za-z0-9]/.test(c)) fail(`expected an escape that memwall knows, found "\\${c}"`);
    return c;
  }

  /** A Unicode property, from its letter on: categories and their short names as they are, else a script. */
  function property(): string {
    const negated = text[at++] === "P";
    const found = /^\{(\^?)([A-Za-z_ ]{1,40})\}/.exec(text.slice(at, at + 44).join(""));
    if (!found) return fail("expected a property such as \\p{L}");
    at += found[0].length;
    const letter = negated !== (found[1] === "^") ? "P" : "p";
    const name = found[2].replaceAll(" ", "_");
    const posix = name.toLowerCase();
    if (Object.hasOwn(POSIX, posix)) return `[${letter === "P" ? "^" : ""}${POSIX[posix]}]`;
    for (const candidate of [name, `Script=${name}`]) {
      try {
        new RegExp(`\\p{${candidate}}`, "v");
        return `\\${letter}{${candidate}}`;
      } catch {
        // Not this one.
      }
    }
    return fail(`expected a Unicode category or script, found "${name}"`);
  }

  /** A class, from after its bracket on. */
  function klass(fold: boolean, depth: number): string {
    if (depth > MAX_NESTING) fail("expected classes nested less deep");
    let out = text[at] === "^" ? "[^" : "[";
    if (text[at] === "^") at++;
    for (let first = true; text[at] !== "]" || first; first = false) {
      if (at >= text.length) fail('expected "]"');
      out += item(fold, depth);
    }
    at++;
    return `${out}]`;
  }

  function item(fold: boolean, depth: number): string {
    if (text[at] === "[") {
      const posix = /^\[:(\^?)([a-z]+):\]/.exec(text.slice(at, at + 12).join(""));
      if (posix && Object.hasOwn(POSIX, posix[2])) {
        at += posix[0].length;
        return `[${posix[1]}${POSIX[posix[2]]}]`;
      }
      at++;
      return klass(fold, depth + 1);
    }
    if (text[at] === "&" && text[at + 1] === "&") fail("expected a class without &&");
    if (text[at] === "\\") {
      const c = text[at + 1];
      if (c !== undefined && Object.hasOwn(CLASSES, c)) {
        at += 2;
        return CLASSES[c];
      }
      if (c === "p" || c === "P") {
        at++;
        return property();
      }
    }
    const from = one();
    if (text[at] !== "-" || text[at + 1] === "]" || at + 1 >= text.length) return (fold ? spellings(from) : [from]).map(literal).join("");
    at++;
    const to = one();
    if (from.codePointAt(0)! > to.codePointAt(0)!) fail("expected a range that ascends");
    const range = `${literal(from)}-${literal(to)}`;
    if (!fold || !/^[a-z]{2}$/i.test(from + to) || (from < "a" && to >= "a")) return range;
    const [small, large] = [from.toLowerCase() + to.toLowerCase(), from.toUpperCase() + to.toUpperCase()];
    const has = (c: string) => small[0] <= c && c <= small[1];
    return `${small[0]}-${small[1]}${large[0]}-${large[1]}${has("s") ? "\u017f" : ""}${has("k") ? "\u212a" : ""}`;
  }

  /** One character of a class. */
  function one(): string {
    if (at >= text.length) fail('expected "]"');
    const c = text[at++];
    if (c !== "\\") return c;
    if (text[at] === "b") {
      at++;
      return "\b";
    }
    return at < text.length ? escapedCharacter() : fail('expected something after "\\"');
  }

  return { all };
}
