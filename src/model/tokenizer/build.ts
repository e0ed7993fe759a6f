import { detokenizer } from "./detokenize.ts";
import { specialSplitter, type SpecialSplitter } from "./special.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { checkId, TokenType, wellFormed, type Vocabulary } from "./vocabulary.ts";

/** What the kinds of tokenizers differ in. */
export interface TokenizerParts {
  /** Appends the ids of a text that has no special tokens in it. The text is well-formed and not empty. */
  encodeText(text: string, out: number[]): void;
  /** UTF-8 bytes that a token shows in text. */
  bytes(id: number): Uint8Array;
  /** A token's name for display. */
  piece(id: number): string;
  /** Whether `encodeText` gets a space before the text at the start and after each special token; decoding drops it. */
  readonly spacePrefix: boolean;
}

/** Puts a tokenizer together: special tokens and space prefixes around `encodeText`, streaming around `bytes`. */
export function buildTokenizer(words: Vocabulary, parts: TokenizerParts): Tokenizer {
  const { tokens, types } = words;
  const split = splitters(words);
  const shown: Uint8Array[] = [];
  const bytes = (id: number): Uint8Array => {
    checkId(id, tokens.length);
    return (shown[id] ??= parts.bytes(id));
  };
  const { decode, stream } = detokenizer({
    bytes,
    prefixAtStart: parts.spacePrefix,
    prefixAfter: (id) => parts.spacePrefix && (types[id] === TokenType.control || types[id] === TokenType.userDefined),
  });
  return {
    vocabSize: tokens.length,
    bos: words.bos,
    eos: words.eos,
    addBos: words.addBos,
    encode(text, options = {}) {
      const clean = wellFormed(text);
      const out: number[] = [];
      let prefix = parts.spacePrefix;
      for (const part of (options.special === true ? split.special : split.plain)(clean)) {
        if ("id" in part) out.push(part.id);
        else parts.encodeText((prefix ? " " : "") + clean.slice(part.start, part.end), out);
        prefix = parts.spacePrefix && "id" in part;
      }
      return out;
    },
    decode,
    piece(id) {
      checkId(id, tokens.length);
      return parts.piece(id);
    },
    stream,
  };
}

function splitters({ tokens, types }: Vocabulary): { plain: SpecialSplitter; special: SpecialSplitter } {
  const { userDefined, control, unknown } = TokenType;
  const [plain, special] = [new Map<string, number>(), new Map<string, number>()];
  for (let id = 0; id < tokens.length; id++) {
    const type = types[id];
    if ((type !== userDefined && type !== control && type !== unknown) || tokens[id] === "") continue;
    special.set(tokens[id], id);
    if (type === userDefined) plain.set(tokens[id], id);
  }
  return { plain: specialSplitter(plain), special: specialSplitter(special) };
}
