import type { TokenStream } from "./tokenizer.ts";

/** What turning ids into text needs to know about a vocabulary. */
export interface TokenTexts {
  /**
   * The UTF-8 bytes, possibly a part of a character, that an id shows in text; empty for a token that shows nothing.
   * @throws RangeError when the id is not in the vocabulary.
   */
  bytes(id: number): Uint8Array;
  /** Whether `encode` puts a space before text that follows this token. Decoding drops that space again. */
  prefixAfter(id: number): boolean;
  /** Whether `encode` puts a space before the start of a text. */
  readonly prefixAtStart: boolean;
}

/** The two ways from ids to text. */
export interface Detokenizer {
  decode(ids: readonly number[]): string;
  stream(previous?: readonly number[]): TokenStream;
}

const SPACE = 0x20;
const NOTHING = new Uint8Array(0);

/** `decode` and `stream` of a tokenizer; see `Tokenizer` for what they promise. */
export function detokenizer(texts: TokenTexts): Detokenizer {
  // A byte order mark inside a model's output is a character like any other.
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

  /** Walks along ids and drops the space prefixes. */
  const walker = (): ((id: number) => Uint8Array) => {
    let prefixed = texts.prefixAtStart;
    return (id) => {
      const bytes = texts.bytes(id);
      const after = texts.prefixAfter(id);
      const shown = prefixed && !after && bytes[0] === SPACE ? bytes.subarray(1) : bytes;
      prefixed = after;
      return shown;
    };
  };

  const stream = (previous: readonly number[] = []): TokenStream => {
    const next = walker();
    let tail: Uint8Array = NOTHING;
    const push = (id: number): string => {
      const bytes = join(tail, next(id));
      const complete = completeLength(bytes);
      tail = bytes.subarray(complete);
      return utf8.decode(bytes.subarray(0, complete));
    };
    // Of what went before, only an unfinished character (at most 3 bytes) and the last token can matter.
    let from = previous.length;
    for (let bytes = 0; from > 0 && bytes < 4; ) bytes += texts.bytes(previous[--from]).length;
    for (const id of previous.slice(from)) push(id);
    return {
      push,
      flush() {
        const rest = utf8.decode(tail);
        tail = NOTHING;
        return rest;
      },
    };
  };

  const decode = (ids: readonly number[]): string => {
    const parts = ids.map(walker());
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return utf8.decode(all);
  };

  return { decode, stream };
}

function join(a: Uint8Array, b: Uint8Array): Uint8Array {
  if (a.length === 0) return b;
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/**
 * How many of the bytes can be decoded now without knowing what follows: all, except a well-formed beginning of a character at the
 * end (the Unicode Standard, table 3-7).
 */
function completeLength(bytes: Uint8Array): number {
  const end = bytes.length;
  for (let back = 1; back <= 3 && back <= end; back++) {
    const lead = bytes[end - back];
    if (lead < 0x80) return end;
    if (lead < 0xc0) continue;
    const length = lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 1;
    if (back >= length) return end;
    if (back > 1 && !mayFollow(lead, bytes[end - back + 1])) return end;
    return end - back;
  }
  return end;
}

/** Whether a continuation byte may be the second byte of a character of three or four (no overlong forms, surrogates, above 10FFFF). */
function mayFollow(lead: number, second: number): boolean {
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second < 0xa0;
  if (lead === 0xf0) return second >= 0x90;
  if (lead === 0xf4) return second < 0x90;
  return true;
}
