import { FormatError } from "../formats/errors.ts";
import { buildTokenizer } from "./build.ts";
import { cachedFind, symbolMerger } from "./merge.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { byteName, byteOf, TokenType, vocabulary, type Vocabulary, type VocabularyInit } from "./vocabulary.ts";

/** A SentencePiece-BPE vocabulary: tokens with scores instead of a list of merges. */
export interface SpmInit extends VocabularyInit {
  /** A score for each token; of two possible merges the one into the token of the higher score happens first. */
  scores: ArrayLike<number>;
  /** Whether a space goes before each text, so that its first word looks like any other. Default true. */
  addSpacePrefix?: boolean;
  /** The character that stands for a space in token names. Default "▁" (U+2581); llama2.c's files have " ". */
  space?: string;
}

/**
 * The tokenizer that GGUF calls `llama` and llama2.c implements too: byte-pair encoding over Unicode characters, merged by score, with
 * a token for each byte as fallback (Kudo and Richardson 2018, "SentencePiece"). Ids equal those of llama.cpp, special tokens and
 * space prefix included. A character without a token of its own may still take part in a merge; one that stays alone
 * becomes its bytes' tokens, or `unk` where a byte has none.
 * @throws FormatError when the vocabulary is not consistent, or some text could not be encoded at all (neither byte tokens nor unk).
 */
export function spmTokenizer(init: SpmInit): Tokenizer {
  const words = vocabulary(init);
  const { tokens, types } = words;
  const { addSpacePrefix = true, space = "▁" } = init;
  const utf8 = new TextEncoder();
  return buildTokenizer(words, {
    encodeText: textEncoder(words, init.scores, space),
    bytes: (id) => shownBytes(tokens[id], types[id], space, utf8),
    // llama2.c writes control tokens as "\n<s>\n".
    piece: (id) => (types[id] === TokenType.control ? tokens[id].trim() : tokens[id].replaceAll(space, "▁")),
    spacePrefix: addSpacePrefix,
  });
}

/**
 * The tokenizer of a llama2.c checkpoint (`tok512.bin`): ids 0 to 2 are <unk>, bos and eos, 3 to 258 the bytes, and names have
 * plain spaces. A model trained on separate stories begins each with bos and so also ends one with it: llama2.c's `generate` stops at
 * bos, its `chat` at eos, and here both are in `eos`.
 * @throws FormatError as `spmTokenizer`.
 */
export function tokenizerFromLlama2c(data: { tokens: readonly string[]; scores: ArrayLike<number>; source?: string }): Tokenizer {
  return spmTokenizer({ ...data, bos: 1, eos: [1, 2], unk: 0, addBos: true, addSpacePrefix: true, space: " " });
}

const SPACE = 0x20;

/** Scores as ranks: 0 is the best score, equal scores share a rank. */
function mergeRanks({ source, tokens }: Vocabulary, scores: ArrayLike<number>): Int32Array {
  if (scores.length !== tokens.length) {
    throw new FormatError(source, `token scores: expected ${tokens.length}, one for each token, found ${scores.length}`);
  }
  for (let id = 0; id < scores.length; id++) {
    if (Number.isNaN(scores[id])) throw new FormatError(source, `score of token ${id}: expected a number, found NaN`);
  }
  const best = Int32Array.from(tokens, (_, id) => id).sort((a, b) => scores[b] - scores[a] || 0);
  const ranks = new Int32Array(tokens.length);
  for (let i = 1; i < best.length; i++) ranks[best[i]] = ranks[best[i - 1]] + (scores[best[i]] === scores[best[i - 1]] ? 0 : 1);
  return ranks;
}

/** Encodes text without special tokens; appends the ids. */
function textEncoder(words: Vocabulary, scores: ArrayLike<number>, space: string): (text: string, out: number[]) => void {
  const { tokens, ids } = words;
  // Symbols are token ids, then the characters that only occur inside of tokens.
  const symbols = [...tokens];
  const byCharacter = new Map<number, number>();
  for (const [text, id] of ids) {
    const first = text.codePointAt(0)!;
    if (text.length === (first > 0xffff ? 2 : 1)) byCharacter.set(first, id);
  }
  for (const text of tokens) {
    for (const character of text) {
      const code = character.codePointAt(0)!;
      if (!byCharacter.has(code)) byCharacter.set(code, symbols.push(character) - 1);
    }
  }
  const merge = symbolMerger({
    find: cachedFind((left, right) => ids.get(symbols[left] + symbols[right]) ?? -1),
    rank: mergeRanks(words, scores),
    result: Int32Array.from(tokens, (_, id) => id),
  });
  const spaceSymbol = byCharacter.get(space.codePointAt(0)!);
  const fallback = byteFallback(words);

  return (text, out) => {
    const run = new Int32Array(text.length);
    let length = 0;
    const flush = (): void => {
      const kept = merge(run, length);
      for (let i = 0; i < kept; i++) {
        if (run[i] < tokens.length) out.push(run[i]);
        else fallback(symbols[run[i]].codePointAt(0)!, out);
      }
      length = 0;
    };
    for (let at = 0; at < text.length; ) {
      const code = text.codePointAt(at)!;
      at += code > 0xffff ? 2 : 1;
      const symbol = code === SPACE ? spaceSymbol : byCharacter.get(code);
      if (symbol !== undefined) run[length++] = symbol;
      else {
        // No token has this character in it: nothing merges across it.
        flush();
        fallback(code === SPACE ? space.codePointAt(0)! : code, out);
      }
    }
    flush();
  };
}

/** Encodes a character that is no token: its UTF-8 bytes one by one, or unk if one of them has no token. */
function byteFallback({ ids, unk, source }: Vocabulary): (code: number, out: number[]) => void {
  const byteIds = Array.from({ length: 256 }, (_, byte) => ids.get(byteName(byte)));
  // No UTF-8 text holds the bytes C0, C1 and F5 to FF.
  const missing = byteIds.findIndex((id, byte) => id === undefined && byte !== 0xc0 && byte !== 0xc1 && byte < 0xf5);
  if (missing >= 0 && unk === undefined) {
    throw new FormatError(source, `the vocabulary has neither an unk token nor one for byte ${byteName(missing)}`);
  }
  const utf8 = new TextEncoder();
  const known = new Map<number, readonly number[]>();
  return (code, out) => {
    let found = known.get(code);
    if (found === undefined) {
      const perByte = Array.from(utf8.encode(String.fromCodePoint(code)), (byte) => byteIds[byte]);
      found = perByte.includes(undefined) ? [unk!] : perByte.map((id) => id!);
      known.set(code, found);
    }
    for (const id of found) out.push(id);
  };
}

/** As llama.cpp's `token_to_piece` without special tokens. */
function shownBytes(text: string, type: number, space: string, utf8: TextEncoder): Uint8Array {
  if (type === TokenType.normal) return utf8.encode(text.replaceAll(space, " "));
  if (type === TokenType.userDefined) return utf8.encode(text);
  const byte = type === TokenType.byte ? byteOf(text) : undefined;
  return Uint8Array.from(byte === undefined ? [] : [byte]);
}
