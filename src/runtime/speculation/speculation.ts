import { type Distribution, draw } from "../sampler.ts";
import { lookUp } from "./ngram.ts";
import { type Guess, verify } from "./verify.ts";

/** Where guesses come from: `ngram`, the text so far; `draft`, a small model. */
export const SPECULATIONS = ["off", "ngram", "draft"] as const;
export type Speculating = (typeof SPECULATIONS)[number];

/** Most tokens that may be guessed at once. */
export const MOST_DRAFT_TOKENS = 16;
export const DEFAULT_DRAFT_TOKENS = 8;
/** How many are guessed at first. */
const FIRST = 4;

/** Guesses for one request. */
export interface Guesser {
  readonly method: Exclude<Speculating, "off">;
  /** Whether guesses are drawn at random: only then do they matter for the text that a seed gives. */
  readonly random: boolean;
  /** At most `count` tokens that may follow `tokens`; they depend on nothing else. */
  guess(tokens: readonly number[], count: number): readonly Guess[];
  /** Bytes of its own weights that guessing has read, as far as a ledger counts. */
  readonly weightBytes: number;
  /** Gives up what can be computed again. */
  release(): void;
}

/**
 * One request's guesses from when they are made until they are tested. Their number follows the last outcome: twice as many when all
 * stood, else one more than stood.
 *
 * Guesses come in blocks, and each block ends with a token that was not guessed. Which tokens are tested, and with which random numbers,
 * depends on the text alone: a block may be cut over several steps, when a step had no room or the request had to wait, and the text is
 * the same, bit for bit.
 */
export class Speculation {
  readonly guesser: Guesser;
  /** Milliseconds that guessing took so far. */
  guessMs = 0;
  private readonly most: number;
  private count: number;
  /** Guesses of the block that stood. */
  private stood = 0;
  /** What is still to be tested; undefined between two blocks. */
  private block: readonly Guess[] | undefined;

  constructor(guesser: Guesser, most: number) {
    this.guesser = guesser;
    this.most = most;
    this.count = Math.min(most, FIRST);
  }

  /** Tokens guessed to follow `tokens`. */
  guesses(tokens: () => readonly number[]): readonly number[] {
    if (this.block === undefined) {
      const startedMs = performance.now();
      this.block = this.guesser.guess(tokens(), this.count);
      this.guessMs += performance.now() - startedMs;
    }
    return this.block.map(({ token }) => token);
  }

  /** The next token, by the target's distribution and a uniform number. */
  choose(p: Distribution, u: number, tokens: () => readonly number[]): number {
    if (this.guesser.random) this.guesses(tokens);
    const [guess, ...others] = this.block ?? [];
    const token = guess ? verify(p, guess, u) : draw(p, u);
    if (guess && token === guess.token) {
      this.stood++;
      this.block = others;
      return token;
    }
    if (guess) this.count = Math.min(this.most, this.stood + 1);
    else if (this.stood > 0) this.count = Math.min(this.most, 2 * this.count);
    this.stood = 0;
    this.block = undefined;
    return token;
  }
}

/** Prompt lookup as a guesser. */
export function ngramGuesser(): Guesser {
  return {
    ...{ method: "ngram", random: false, weightBytes: 0 },
    guess: (tokens, count) => lookUp(tokens, count).map((token) => ({ token })),
    release() {},
  };
}
