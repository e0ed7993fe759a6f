import { FormatError, quote } from "../formats/errors.ts";

/** Token types as GGUF numbers them (`tokenizer.ggml.token_type`; SentencePiece's ModelProto.SentencePiece.Type). */
export const TokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** What every kind of tokenizer is built from. */
export interface VocabularyInit {
  /** The tokens' names, by id. An empty name stands for nothing and is never produced. */
  tokens: readonly string[];
  /** A `TokenType` for each token. Without it, types follow from the names and special ids. */
  types?: ArrayLike<number>;
  /** Begins a sequence. */
  bos?: number;
  /** Ids that end a generation, or the one. */
  eos?: number | readonly number[];
  /** Stands for what the vocabulary cannot spell. */
  unk?: number;
  /** Whether prompts start with `bos`. Default: whether there is a `bos`. */
  addBos?: boolean;
  /** The file's name, for error messages. */
  source?: string;
}

/** A vocabulary that has been checked. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: Uint8Array;
  /** Token ids by name. */
  readonly ids: ReadonlyMap<string, number>;
  readonly bos: number | undefined;
  readonly eos: readonly number[];
  readonly unk: number | undefined;
  readonly addBos: boolean;
  readonly source: string;
}

/**
 * Checks a vocabulary and indexes it by name.
 * @throws FormatError when it is empty, a name occurs twice, a list has the wrong length or a special id is out of range.
 */
export function vocabulary(init: VocabularyInit): Vocabulary {
  const { tokens, bos, unk, source = "tokenizer" } = init;
  const eos = [...new Set(typeof init.eos === "number" ? [init.eos] : (init.eos ?? []))].sort((a, b) => a - b);
  if (tokens.length === 0) throw new FormatError(source, "the vocabulary is empty");
  const named: [string, number | undefined][] = [["bos", bos], ["unk", unk], ...eos.map((id): [string, number] => ["eos", id])];
  for (const [name, id] of named) {
    if (id === undefined || (Number.isInteger(id) && id >= 0 && id < tokens.length)) continue;
    throw new FormatError(source, `${name} token id: expected 0 to ${tokens.length - 1}, found ${id}`);
  }
  if (init.addBos === true && bos === undefined) throw new FormatError(source, "prompts should start with a bos token, but none is given");
  if (init.types !== undefined && init.types.length !== tokens.length) {
    throw new FormatError(source, `token types: expected ${tokens.length}, one for each token, found ${init.types.length}`);
  }
  const ids = new Map<string, number>();
  for (let id = 0, named = 0; id < tokens.length; id++) {
    const text = tokens[id];
    if (text === "") continue;
    ids.set(text, id);
    if (ids.size === ++named) continue;
    throw new FormatError(source, `token ${quote(text)} occurs twice, as ids ${tokens.indexOf(text)} and ${id}`);
  }
  const types = init.types === undefined ? guessTypes(tokens, bos, eos, unk) : new Uint8Array(init.types);
  return { tokens, types, ids, bos, eos, unk, addBos: init.addBos ?? bos !== undefined, source };
}

function guessTypes(tokens: readonly string[], bos: number | undefined, eos: readonly number[], unk: number | undefined): Uint8Array {
  const types = Uint8Array.from(tokens, (text) => (byteOf(text) === undefined ? TokenType.normal : TokenType.byte));
  if (bos !== undefined) types[bos] = TokenType.control;
  for (const id of eos) types[id] = TokenType.control;
  if (unk !== undefined) types[unk] = TokenType.unknown;
  return types;
}

/** The byte that a byte token's name stands for: 10 for "<0x0A>"; undefined for any other name. */
export function byteOf(text: string): number | undefined {
  return /^<0x[0-9A-Fa-f]{2}>$/.test(text) ? Number.parseInt(text.slice(3, 5), 16) : undefined;
}

/** The name of the byte token for a byte: "<0x0A>" for 10. */
export function byteName(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

/** @throws RangeError when the id is not an integer from 0 to `size - 1`. */
export function checkId(id: number, size: number): void {
  if (Number.isInteger(id) && id >= 0 && id < size) return;
  throw new RangeError(`token id ${id} is not in the vocabulary: expected an integer from 0 to ${size - 1}`);
}

/** The text with each lone surrogate replaced by U+FFFD, so that it has a UTF-8 form. */
export function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\uFFFD");
}
