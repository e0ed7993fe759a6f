import { FormatError, quote } from "../formats/errors.ts";
import { asBoolean, asString, at, given, optional, wrong, type JsonNode } from "../formats/json.ts";
import { cachedFind, symbolMerger } from "./merge.ts";
import { pairMap } from "./trie.ts";
import { byteName } from "./vocabulary.ts";

/** Appends the ids of one word. */
export type WordEncoder = (word: string, out: number[]) => void;

/**
 * The `BPE` model of a tokenizer.json: characters that are tokens, merged by the list of merges (Sennrich et al. 2016). A character that is no
 * token becomes its bytes' tokens, or the unknown token, or nothing.
 * @throws FormatError when a merge is not a pair of tokens that makes a token.
 */
export function bpeModel(model: JsonNode, ids: ReadonlyMap<string, number>): WordEncoder {
  const text = (key: string) => optional(at(model, key), asString);
  const flag = (key: string) => optional(at(model, key), asBoolean, false);
  const dropout = at(model, "dropout");
  if (given(dropout) && dropout.value !== 0) wrong(dropout, "no dropout");
  const [prefix, suffix] = [text("continuing_subword_prefix") ?? "", text("end_of_word_suffix") ?? ""];
  const [byteFallback, fuseUnknown, wholeWords] = [flag("byte_fallback"), flag("fuse_unk"), flag("ignore_merges")];
  const unknownName = text("unk_token");
  const unknown = unknownName === undefined ? undefined : ids.get(unknownName);
  if (unknownName !== undefined && unknownName !== "" && unknown === undefined) wrong(at(model, "unk_token"), "a token of the vocabulary");

  const merge = readMerges(at(model, "merges"), ids, prefix.length);
  const bytes = Array.from({ length: 256 }, (_, byte) => ids.get(byteName(byte)));
  const utf8 = new TextEncoder();

  /** The ids that a word begins with, before any merge. */
  const symbolsOf = (word: string): Int32Array => {
    const symbols: number[] = [];
    let pending = false;
    const characters = Array.from(word);
    characters.forEach((character, i) => {
      const name = (i > 0 ? prefix : "") + character + (i === characters.length - 1 ? suffix : "");
      const id = ids.get(name);
      if (id !== undefined) {
        if (pending) symbols.push(unknown!);
        pending = false;
        symbols.push(id);
        return;
      }
      const spelling = byteFallback ? Array.from(utf8.encode(name), (byte) => bytes[byte]) : [undefined];
      if (!spelling.includes(undefined)) for (const byte of spelling) symbols.push(byte!);
      else if (unknown !== undefined) {
        // One unknown token for a run of unknown characters, where the model says so.
        if (pending && !fuseUnknown) symbols.push(unknown);
        pending = true;
      }
    });
    if (pending) symbols.push(unknown!);
    return Int32Array.from(symbols);
  };

  return (word, out) => {
    const whole = wholeWords ? ids.get(word) : undefined;
    if (whole !== undefined) {
      out.push(whole);
      return;
    }
    const symbols = symbolsOf(word);
    const kept = merge(symbols, symbols.length);
    for (let i = 0; i < kept; i++) out.push(symbols[i]);
  };
}

/** Merges are lines of two names, or pairs of names. A pair that stands twice counts where it stands last, as in tokenizers. */
function readMerges(node: JsonNode, ids: ReadonlyMap<string, number>, prefix: number): ReturnType<typeof symbolMerger> {
  const list: unknown = node.value;
  if (!Array.isArray(list)) wrong(node, "an array of merges");
  const pairs = pairMap(list.length);
  const result = new Int32Array(list.length);
  list.forEach((entry: unknown, index) => {
    const [left, right] = halves(node, entry, index);
    const id = (name: string): number => {
      const found = ids.get(name);
      if (found !== undefined) return found;
      throw new FormatError(node.file, `merge ${index} of ${quote(left)} and ${quote(right)}: expected tokens that make a token, found no token ${quote(name)}`);
    };
    pairs.set(id(left), id(right), index);
    result[index] = id(left + right.slice(prefix));
  });
  return symbolMerger({ find: cachedFind(pairs.get), result });
}

function halves(node: JsonNode, entry: unknown, index: number): readonly [string, string] {
  if (typeof entry === "string") {
    const space = entry.indexOf(" ");
    if (space > 0 && space < entry.length - 1 && entry.indexOf(" ", space + 1) < 0) return [entry.slice(0, space), entry.slice(space + 1)];
  } else if (Array.isArray(entry) && entry.length === 2 && entry.every((half) => typeof half === "string" && half !== "")) return entry as unknown as [string, string];
  throw new FormatError(node.file, `merge ${index}: expected two tokens, found ${quote(JSON.stringify(entry) ?? "nothing")}`);
}
