import { FormatError, quote } from "../formats/errors.ts";
import { buildTokenizer } from "./build.ts";
import { BYTE_CHARACTERS, CHARACTER_BYTES } from "./byte-characters.ts";
import { cachedFind, symbolMerger } from "./merge.ts";
import { words as cutWords, type PreTokenizer } from "./pretokenize.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { TokenType, vocabulary, type Vocabulary, type VocabularyInit } from "./vocabulary.ts";

/** A byte-level BPE vocabulary. Token names spell bytes as characters: "Ġ" is a space (Radford et al. 2019, GPT-2's encoder.py). */
export interface BpeInit extends VocabularyInit {
  /** Pairs of symbols that merge, a space between the two; the first of the list merges first. Looked at when text is first encoded. */
  merges: { readonly value: readonly string[] };
  /** How text is cut into words; merges do not cross them. */
  pre: PreTokenizer;
}

/**
 * The tokenizer that GGUF calls `gpt2`: text is cut into words, a word's UTF-8 bytes are merged by the list of merges. Ids equal those of
 * llama.cpp. A merged symbol that is no token is spelled in its bytes' tokens, and a byte without a token is left out, as there.
 * @throws FormatError when the vocabulary is not consistent; its `encode`, when a merge is not a pair.
 */
export function bpeTokenizer(init: BpeInit): Tokenizer {
  const vocab = vocabulary(init);
  const { tokens, types } = vocab;
  const utf8 = new TextEncoder();
  return buildTokenizer(vocab, {
    encodeText: textEncoder(vocab, init.merges, init.pre),
    bytes(id) {
      if (types[id] === TokenType.normal) return spelledBytes(tokens[id], utf8);
      return types[id] === TokenType.userDefined ? utf8.encode(tokens[id]) : new Uint8Array(0);
    },
    piece: (id) => tokens[id],
    spacePrefix: false,
  });
}

/** Words of at most this many UTF-16 units are remembered, up to this many words. */
const WORD_LENGTH = 32;
const WORD_COUNT = 1 << 16;

function textEncoder(vocab: Vocabulary, merges: BpeInit["merges"], pre: PreTokenizer): (text: string, out: number[]) => void {
  let encodeWord: ReturnType<typeof wordEncoder> | undefined;
  const known = new Map<string, readonly number[]>();
  return (text, out) => {
    for (const word of cutWords(text, pre)) {
      let ids = known.get(word);
      if (ids === undefined) {
        encodeWord ??= wordEncoder(vocab, merges.value, pre.wholeWords === true);
        ids = encodeWord(word);
        if (word.length <= WORD_LENGTH) {
          if (known.size >= WORD_COUNT) known.clear();
          known.set(word, ids);
        }
      }
      for (const id of ids) out.push(id);
    }
  };
}

function wordEncoder({ tokens, ids, source }: Vocabulary, lines: readonly string[], wholeWords: boolean): (word: string) => number[] {
  // Symbols are token ids, then what occurs in merges without being a token.
  const symbols = [...tokens];
  const extra = new Map<string, number>();
  const symbolOf = (name: string): number => {
    let symbol = ids.get(name) ?? extra.get(name);
    if (symbol === undefined) extra.set(name, (symbol = symbols.push(name) - 1));
    return symbol;
  };
  const byteSymbols = Int32Array.from(BYTE_CHARACTERS, symbolOf);

  for (let index = 0; index < lines.length; index++) {
    const space = lines[index].indexOf(" ", 1);
    if (space > 0 && space < lines[index].length - 1) continue;
    throw new FormatError(source, `merge ${index}: expected two symbols with a space between them, found ${quote(lines[index])}`);
  }
  const order = new Map<string, number>();
  // From the last on, so that of equal lines the first counts.
  for (let index = lines.length - 1; index >= 0; index--) order.set(lines[index], index);
  const result = new Int32Array(lines.length);
  const merge = symbolMerger({
    find: cachedFind((left, right) => {
      const found = order.get(`${symbols[left]} ${symbols[right]}`);
      if (found === undefined) return -1;
      result[found] = symbolOf(symbols[left] + symbols[right]);
      return found;
    }),
    result,
  });

  const utf8 = new TextEncoder();
  return (word) => {
    const bytes = utf8.encode(word);
    if (wholeWords) {
      const whole = ids.get(Array.from(bytes, (byte) => BYTE_CHARACTERS[byte]).join(""));
      if (whole !== undefined) return [whole];
    }
    const run = new Int32Array(bytes.length);
    for (let i = 0; i < run.length; i++) run[i] = byteSymbols[bytes[i]];
    const kept = merge(run, run.length);
    const out: number[] = [];
    for (let i = 0; i < kept; i++) {
      if (run[i] < tokens.length) out.push(run[i]);
      else for (const character of symbols[run[i]]) out.push(...[ids.get(character)].filter((id) => id !== undefined));
    }
    return out;
  };
}

/** The bytes that a token's name spells; a character that stands for no byte stays itself. */
function spelledBytes(name: string, utf8: TextEncoder): Uint8Array {
  const bytes: number[] = [];
  for (const character of name) {
    const byte = CHARACTER_BYTES.get(character);
    if (byte === undefined) bytes.push(...utf8.encode(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
