import { FormatError, quote } from "../formats/errors.ts";
import { asBoolean, asString, at, given, optional, type JsonNode } from "../formats/json.ts";
import { spelled } from "./byte-characters.ts";
import { flatSteps, readPattern, unknownType } from "./json-spec.ts";
import { literalPattern, translatePattern } from "./regex.ts";

export interface JsonPreTokenizer {
  /** The words of a text without added tokens. @param start Whether the text begins at the beginning of all the text. */
  apply(text: string, start: boolean): string[];
  /** Whether a space, or what stands for it, is put before a text: before every one, before the first, or never. */
  readonly prepends: "always" | "first" | "never";
}

type Step = (pieces: string[], start: boolean) => string[];

/** GPT-2's rule, which ByteLevel brings along. */
const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
/** Words and runs of other characters, with the regex crate's \w. */
const WHITESPACE = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gu;
const PUNCTUATION = String.raw`[\p{P}!-/:-@\[-\x60\{-~]`;

const STEPS: Readonly<Record<string, (node: JsonNode) => Step>> = {
  ByteLevel: (node) => {
    const prefix = optional(at(node, "add_prefix_space"), asBoolean, true);
    const split = optional(at(node, "use_regex"), asBoolean, true) ? splitter(translatePattern(GPT2), "Isolated", false) : undefined;
    return (pieces) => {
      const led = prefix ? pieces.map((piece) => (piece.startsWith(" ") ? piece : ` ${piece}`)) : pieces;
      return (split ? led.flatMap(split) : led).map(spelled);
    };
  },
  Split: (node) => {
    const invert = optional(at(node, "invert"), asBoolean, false);
    return each(splitter(readPattern(at(node, "pattern")), readBehaviour(at(node, "behavior")), invert));
  },
  Metaspace: (node) => {
    const space = asString(at(node, "replacement"));
    const scheme = metaspaceScheme(node);
    const split = optional(at(node, "split"), asBoolean, true) ? splitter(literalPattern(space), "MergedWithNext", false) : undefined;
    return (pieces, start) => {
      const led = pieces.map((piece, i) => {
        const marked = piece.replaceAll(" ", space);
        const prefixed = scheme === "always" || (scheme === "first" && start && i === 0);
        return prefixed && !marked.startsWith(space) ? space + marked : marked;
      });
      return split ? led.flatMap(split) : led;
    };
  },
  Digits: (node) => each(splitter(/\p{N}/gu, optional(at(node, "individual_digits"), asBoolean, false) ? "Isolated" : "Contiguous", false)),
  Punctuation: (node) => each(splitter(translatePattern(PUNCTUATION), given(at(node, "behavior")) ? readBehaviour(at(node, "behavior")) : "Isolated", false)),
  Whitespace: () => each(splitter(WHITESPACE, "Removed", true)),
  WhitespaceSplit: () => each(splitter(translatePattern(String.raw`\s`), "Removed", false)),
  CharDelimiterSplit: (node) => each(splitter(literalPattern(asString(at(node, "delimiter"))), "Removed", false)),
  BertPreTokenizer: () => {
    const [spaces, marks] = [splitter(translatePattern(String.raw`\s`), "Removed", false), splitter(translatePattern(PUNCTUATION), "Isolated", false)];
    return (pieces) => pieces.flatMap(spaces).flatMap(marks);
  },
};

/** A tokenizer.json's `pre_tokenizer`. @throws FormatError for one that memwall lacks. */
export function readPreTokenizer(node: JsonNode): JsonPreTokenizer {
  const nodes = flatSteps(node, "pretokenizers");
  const steps = nodes.map((step) => {
    const type = asString(at(step, "type"));
    return Object.hasOwn(STEPS, type) ? STEPS[type](step) : unknownType(step, ["Sequence", ...Object.keys(STEPS)]);
  });
  const metaspace = nodes.find((step) => at(step, "type").value === "Metaspace");
  return {
    apply: (text, start) => steps.reduce((pieces, step) => step(pieces, start), text === "" ? [] : [text]),
    prepends: metaspace ? metaspaceScheme(metaspace) : "never",
  };
}

/** Older files say `add_prefix_space` where newer ones have a scheme. */
export function metaspaceScheme(node: JsonNode): "always" | "first" | "never" {
  const scheme = at(node, "prepend_scheme");
  const plain = optional(at(node, "add_prefix_space"), asBoolean, true) ? "always" : "never";
  const found = optional(scheme, asString, plain);
  if (found === "always" || found === "first" || found === "never") return found;
  throw new FormatError(node.file, `key ${quote(scheme.path)}: expected always, first or never, found ${quote(found)}`);
}

const BEHAVIOURS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] as const;
type Behaviour = (typeof BEHAVIOURS)[number];

function readBehaviour(node: JsonNode): Behaviour {
  const found = asString(node);
  const known = BEHAVIOURS.find((one) => one.toLowerCase() === found.toLowerCase());
  if (known) return known;
  throw new FormatError(node.file, `key ${quote(node.path)}: expected one of ${BEHAVIOURS.join(", ")}, found ${quote(found)}`);
}

const each = (split: (piece: string) => string[]): Step => (pieces) => pieces.flatMap(split);

/** Cuts a text into the pattern's matches and what lies between, and does with the matches what the behaviour says (tokenizers' `split`). */
function splitter(pattern: RegExp, behaviour: Behaviour, invert: boolean): (text: string) => string[] {
  return (text) => {
    const pieces: string[] = [];
    const isMatch: boolean[] = [];
    let last = 0;
    const add = (end: number, matched: boolean) => {
      pieces.push(text.slice(last, end));
      isMatch.push(matched !== invert);
      last = end;
    };
    for (const match of text.matchAll(pattern)) {
      if (match.index > last) add(match.index, false);
      if (match[0] !== "") add(match.index + match[0].length, true);
    }
    if (last < text.length) add(text.length, false);
    return BEHAVE[behaviour](pieces, isMatch);
  };
}

const BEHAVE: Readonly<Record<Behaviour, (pieces: string[], isMatch: readonly boolean[]) => string[]>> = {
  Isolated: (pieces) => pieces,
  Removed: (pieces, isMatch) => pieces.filter((_, i) => !isMatch[i]),
  // The first of several matches in a row belongs to the text before it, or after it; the others stand alone.
  MergedWithPrevious: (pieces, isMatch) => joined(pieces, (i) => isMatch[i] && !isMatch[i - 1]),
  MergedWithNext: (pieces, isMatch) => joined(pieces, (i) => isMatch[i - 1] && !isMatch[i]),
  Contiguous: (pieces, isMatch) => joined(pieces, (i) => isMatch[i] === isMatch[i - 1]),
};

/** The pieces with those that `belongs` to the piece before them joined to it. */
function joined(pieces: readonly string[], belongs: (index: number) => boolean): string[] {
  const out: string[] = [];
  let run: string[] = [];
  pieces.forEach((piece, i) => {
    if (i > 0 && !belongs(i)) {
      out.push(run.length === 1 ? run[0] : run.join(""));
      run = [];
    }
    run.push(piece);
  });
  if (run.length > 0) out.push(run.join(""));
  return out;
}
