import type { TokenStream } from "../model/tokenizer/tokenizer.ts";
import type { KvSequence } from "../kvcache/cache.ts";
import type { Ranking } from "../tensor/ranking.ts";
import { draw, type Shaper } from "./sampler.ts";
import type { Scheduled } from "./scheduler.ts";
import type { Speculating, Speculation } from "./speculation/speculation.ts";
import { stopMatcher } from "./stops.ts";

/** `stop`: an end token or a stop string; `length`: maxTokens or the context was reached; `cancelled`: by the caller. */
export type FinishReason = "stop" | "length" | "cancelled";

/** How a request ended; `failed`: by an error of the engine's. */
export type Outcome = FinishReason | "failed";

/** How fast one request was, by the clock. Requests share steps, so others slow it down. */
export interface GenerationTimings {
  /** Time to the first token, from the call, milliseconds. */
  ttftMs: number;
  /** Time per output token after the first, milliseconds; null with fewer than two tokens. */
  tpotMs: number | null;
  /** Computed prompt tokens per second, from the first step that took some of them to the first generated token. */
  prefillTokensPerSecond: number | null;
  /** Generated tokens per second after the first. */
  decodeTokensPerSecond: number | null;
  /**
   * Bytes of weights read for each token after the first, the draft model's included; where requests share a step, each has its share of it.
   * Null without a ledger, or with fewer than two tokens.
   */
  weightBytesPerToken: number | null;
  /** Only of requests that guess. */
  speculation?: SpeculationTimings;
}

/** What guessing the next tokens came to. */
export interface SpeculationTimings {
  readonly method: Exclude<Speculating, "off">;
  /** Steps of the target model after the prompt. */
  readonly steps: number;
  /** Guessed tokens that these steps computed, and those of them that became part of the text. */
  readonly guessed: number;
  readonly accepted: number;
  /** accepted / guessed; null without guesses. */
  readonly acceptanceRate: number | null;
  /** Tokens after the first for each of the steps; null without steps. */
  readonly tokensPerStep: number | null;
  /** Milliseconds that guessing took. */
  readonly guessMs: number;
}

/** What a request got of the engine. */
export interface GenerationMetrics {
  /** From the call to the first step that took some of its tokens, milliseconds. */
  queueMs: number;
  /** Time to the first token, from the call, milliseconds; null without one. */
  ttftMs: number | null;
  /** Time per output token after the first, milliseconds; null with fewer than two tokens. */
  tpotMs: number | null;
  /** From the call to the end, milliseconds. */
  totalMs: number;
  promptTokens: number;
  tokens: number;
  /** Prompt tokens that needed no computing. */
  cachedTokens: number;
  /** Most KV pages that it held at once, shared ones among them. */
  pages: number;
  /** Times that its pages were taken away and it had to wait again. */
  preemptions: number;
}

/** A generation that has come to its end. */
export interface GenerationResult {
  text: string;
  /** Generated ids, without the end token. */
  tokens: number[];
  promptTokens: number;
  /** Prompt tokens that needed no computing: their keys and values came from the prefix index or from the session. */
  cachedTokens: number;
  finishReason: FinishReason;
  seed: number;
  timings: GenerationTimings;
  metrics: GenerationMetrics;
}

export interface GenerationInit {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  /** Positions of the context. */
  readonly context: number;
  readonly stop: readonly string[];
  readonly eos: readonly number[];
  readonly seed: number;
  readonly shape: Shaper;
  /** Random numbers, one for each token. */
  readonly uniform: () => number;
  readonly speculation?: Speculation;
  readonly stream: TokenStream;
  readonly signal?: AbortSignal;
  /** Default 0. */
  readonly priority?: number;
  /** A generation of the same prompt, with whose pages this one can go on. */
  readonly leader?: Generation;
  /** Holds the prompt's first positions already. */
  readonly sequence?: KvSequence;
  /** Called once, when the generation is over, however it ended. */
  readonly onEnd: (generation: Generation, outcome: Outcome) => void;
}

/**
 * One request from prompt to last token. Iterate it for the pieces of text as they come, or await `result`. Leaving the loop early
 * cancels it; so does its AbortSignal, which also makes the loop and `result` throw the signal's reason.
 */
export class Generation implements AsyncIterable<string>, Scheduled {
  readonly prompt: readonly number[];
  readonly maxLength: number;
  fed = 0;
  cached = 0;
  preemptions = 0;
  readonly priority: number;
  readonly leader: Generation | undefined;
  sequence: KvSequence | undefined;
  /** Settles when the generation is over. */
  readonly result: Promise<GenerationResult>;

  private readonly init: GenerationInit;
  private readonly stops: ReturnType<typeof stopMatcher>;
  private readonly tokens: number[] = [];
  private readonly pieces: string[] = [];
  private text = "";
  private over = false;
  private read = false;
  private failure: unknown;
  private wake = () => {};
  private settle!: { resolve: (result: GenerationResult) => void; reject: (reason: unknown) => void };
  private readonly createdMs = performance.now();
  private startedMs = 0;
  private firstMs = 0;
  private lastMs = 0;
  private endedMs = 0;
  private pages = 0;
  private readonly decode = { steps: 0, weightBytes: 0, guessed: 0, accepted: 0 };

  constructor(init: GenerationInit) {
    this.init = init;
    this.prompt = init.prompt;
    this.maxLength = Math.min(init.prompt.length + init.maxTokens, init.context);
    this.priority = init.priority ?? 0;
    this.leader = init.leader;
    this.sequence = init.sequence;
    this.fed = this.cached = init.sequence?.length ?? 0;
    this.stops = stopMatcher(init.stop);
    this.result = new Promise((resolve, reject) => (this.settle = { resolve, reject }));
    this.result.catch(() => {}); // Whoever iterates sees the failure there; an unread `result` must not end the process.
    init.signal?.addEventListener("abort", this.abort, { once: true });
  }

  /** Ends the generation now, with what it has. */
  cancel(): void {
    this.finish("cancelled");
  }

  /** Ends the generation with an error, which the loop and `result` throw. */
  fail(error: unknown): void {
    if (this.over) return;
    this.failure = error;
    this.finish("cancelled");
  }

  /** What the engine did for it so far. */
  get metrics(): GenerationMetrics {
    const { createdMs, startedMs, firstMs, lastMs } = this;
    const now = this.over ? this.endedMs : performance.now();
    const later = this.tokens.length - 1;
    return {
      queueMs: (startedMs === 0 ? now : startedMs) - createdMs,
      ttftMs: firstMs === 0 ? null : firstMs - createdMs,
      tpotMs: later > 0 ? (lastMs - firstMs) / later : null,
      totalMs: now - createdMs,
      ...{ promptTokens: this.prompt.length, tokens: this.tokens.length, cachedTokens: this.cached, pages: this.pages, preemptions: this.preemptions },
    };
  }

  get isOver(): boolean {
    return this.over;
  }

  /** Ids so far, without the end token. */
  get generated(): readonly number[] {
    return this.tokens;
  }

  /** The engine is about to run some of this request's tokens. */
  began(): void {
    if (this.startedMs === 0) this.startedMs = performance.now();
  }

  /** The engine has run them; `decode` says what a step after the prompt had in it: this request's share of the weights read, and guesses. */
  ran(decode?: { readonly weightBytes: number; readonly guesses: number }): void {
    this.pages = Math.max(this.pages, this.sequence?.pages.length ?? 0);
    if (!decode) return;
    this.decode.steps++;
    this.decode.weightBytes += decode.weightBytes;
    this.decode.guessed += decode.guesses;
  }

  /** Its pages were taken away. */
  paused(): void {
    this.init.speculation?.guesser.release();
  }

  /** Guesses at what follows, no more than there is room for before the last token that it may have. */
  guesses(): readonly number[] {
    const { speculation } = this.init;
    const most = this.maxLength - this.prompt.length - this.tokens.length - 1;
    return speculation && most > 0 ? speculation.guesses(this.known).slice(0, most) : [];
  }

  /** Chooses the next token from a row of logits. */
  pick(logits: Float32Array, ranking?: Ranking): number {
    const { shape, uniform, speculation } = this.init;
    const distribution = shape(logits, this.known, ranking);
    // The first token ends a prompt, which needs no guesses to share a step.
    return speculation && this.tokens.length > 0 ? speculation.choose(distribution, uniform(), this.known) : draw(distribution, uniform());
  }

  /** Takes a chosen token: text goes out, or the generation ends. `guessed` says that the step had computed it already. */
  accept(token: number, guessed = false): void {
    if (this.over) return; // Cancelled by a hook, in the middle of the step.
    if (guessed) this.decode.accepted++;
    this.lastMs = performance.now();
    if (this.firstMs === 0) this.firstMs = this.lastMs;
    if (this.init.eos.includes(token)) return this.finish("stop");
    this.tokens.push(token);
    const { text, stopped } = this.stops.push(this.init.stream.push(token));
    this.emit(text);
    if (stopped) return this.finish("stop", true);
    if (this.tokens.length >= this.init.maxTokens || this.prompt.length + this.tokens.length >= this.init.context) this.finish("length");
  }

  /** @throws Error at a second loop: each piece of text goes to one reader. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    if (this.read) throw new Error("generation: expected one loop over its text, found a second one");
    this.read = true;
    try {
      for (;;) {
        while (this.pieces.length > 0) yield this.pieces.shift()!;
        if (this.over) break;
        await new Promise<void>((resolve) => (this.wake = resolve));
      }
      if (this.failure !== undefined) throw this.failure;
    } finally {
      this.cancel();
    }
  }

  private readonly known = () => [...this.prompt, ...this.tokens];

  private readonly abort = () => this.fail(this.init.signal?.reason);

  private emit(text: string): void {
    if (text === "") return;
    this.text += text;
    this.pieces.push(text);
    this.wake();
  }

  private finish(finishReason: FinishReason, cut = false): void {
    if (this.over) return;
    if (!cut) {
      const { text, stopped } = this.stops.push(this.init.stream.flush());
      this.emit(stopped ? text : text + this.stops.flush());
    }
    this.over = true;
    this.endedMs = performance.now();
    this.init.signal?.removeEventListener("abort", this.abort);
    this.init.speculation?.guesser.release();
    this.init.onEnd(this, this.failure !== undefined && !this.init.signal?.aborted ? "failed" : finishReason);
    if (this.failure !== undefined) this.settle.reject(this.failure);
    else this.settle.resolve({ text: this.text, tokens: this.tokens, promptTokens: this.prompt.length, cachedTokens: this.cached, finishReason, seed: this.init.seed, timings: this.timings(), metrics: this.metrics });
    this.wake();
  }

  private timings(): GenerationTimings {
    const later = this.tokens.length - 1;
    const decodeMs = this.lastMs - this.firstMs;
    const prefillMs = this.firstMs - this.startedMs;
    const { speculation } = this.init;
    const { steps, weightBytes, guessed, accepted } = this.decode;
    const read = weightBytes + (speculation?.guesser.weightBytes ?? 0);
    return {
      ttftMs: this.firstMs === 0 ? 0 : this.firstMs - this.createdMs,
      tpotMs: later > 0 ? decodeMs / later : null,
      prefillTokensPerSecond: prefillMs > 0 ? ((this.prompt.length - this.cached) / prefillMs) * 1000 : null,
      decodeTokensPerSecond: later > 0 && decodeMs > 0 ? (later / decodeMs) * 1000 : null,
      weightBytesPerToken: later > 0 && read > 0 ? read / later : null,
      ...(speculation && {
        speculation: {
          ...{ method: speculation.guesser.method, steps, guessed, accepted, guessMs: speculation.guessMs },
          acceptanceRate: guessed > 0 ? accepted / guessed : null,
          tokensPerStep: steps > 0 ? Math.max(0, later) / steps : null,
        },
      }),
    };
  }
}
