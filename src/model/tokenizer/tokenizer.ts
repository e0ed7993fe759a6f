/** How `Tokenizer.encode` reads a text. */
export interface EncodeOptions {
  /**
   * Whether the names of control tokens ("</s>", "<|im_end|>") inside the text stand for those tokens. False (the default) for text
   * from a user, true for a chat template. User-defined tokens are always recognised, as llama.cpp does.
   */
  special?: boolean;
}

/** Text from token ids, one id at a time: the concatenation of all pushes and the flush is what `decode` gives for all ids. */
export interface TokenStream {
  /**
   * Takes the next id and returns the text that is complete by now: never half a UTF-8 character, so it may be empty.
   * @throws RangeError when the id is not in the vocabulary.
   */
  push(id: number): string;
  /** Ends the text and returns the rest: U+FFFD for a character whose last bytes never came, otherwise the empty string. */
  flush(): string;
}

/** Text to token ids and back. Ids are integers from 0 to `vocabSize - 1`. */
export interface Tokenizer {
  /** Number of token ids. */
  readonly vocabSize: number;
  /** The id that begins a sequence, where the vocabulary has one. */
  readonly bos: number | undefined;
  /** All ids that end a generation, ascending. Empty when the vocabulary has none. */
  readonly eos: readonly number[];
  /** Whether a prompt starts with `bos` by the model's own rule. `encode` itself never adds it. */
  readonly addBos: boolean;
  /** Token ids of a text, without `bos`. A lone surrogate counts as U+FFFD. The empty text has no tokens. */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * The text that ids stand for, read as the start of a text: the inverse of `encode`, with or without a leading `bos`. Control,
   * unknown and unused tokens show nothing; bytes that are not UTF-8 show U+FFFD.
   * @throws RangeError when an id is not in the vocabulary.
   */
  decode(ids: readonly number[]): string;
  /**
   * A token's own name, for display: "▁Once", "<0x0A>", "<s>".
   * @throws RangeError when the id is not in the vocabulary.
   */
  piece(id: number): string;
  /**
   * Text of ids that follow `previous`. Without `previous`, or after `bos` alone, the ids begin a text and a space prefix is dropped;
   * after a prompt they continue it, so a leading space belongs to the text: prompt + pushes + flush reads as `decode` of all ids.
   */
  stream(previous?: readonly number[]): TokenStream;
}
