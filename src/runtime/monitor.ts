import type { KvCacheStats } from "../kvcache/cache.ts";
import type { Phase } from "../tensor/ledger.ts";
import type { GenerationMetrics, Outcome } from "./generation.ts";

/** What happens in an engine, as it happens. `id` counts requests from 1. */
export type EngineEvent =
  | { readonly type: "queued"; readonly id: number; readonly promptTokens: number; readonly waiting: number }
  /** The queue was full. */
  | { readonly type: "refused"; readonly waiting: number }
  /** The first step with some of its tokens begins. */
  | { readonly type: "started"; readonly id: number; readonly queueMs: number; readonly cachedTokens: number }
  /** A token was chosen; `count` with this one. */
  | { readonly type: "token"; readonly id: number; readonly token: number; readonly count: number }
  | { readonly type: "preempted"; readonly id: number }
  | { readonly type: "finished"; readonly id: number; readonly outcome: Outcome; readonly metrics: GenerationMetrics }
  | StepEvent;

/** One pass of the decoder. */
export interface StepEvent {
  readonly type: "step";
  readonly phase: Phase;
  /** Tokens in it: those of running requests, guesses among them, and those of prompts. */
  readonly decodes: number;
  /** Guessed tokens, and those of them that turned out right. */
  readonly guessed: number;
  readonly accepted: number;
  readonly prompts: number;
  readonly ms: number;
  readonly running: number;
  readonly waiting: number;
  /** KV pages that sequences hold. */
  readonly usedPages: number;
}

/** Counts since the engine was loaded, and how things are now. */
export interface EngineStats {
  readonly running: number;
  readonly waiting: number;
  readonly requests: {
    readonly queued: number;
    /** Ended by themselves. */
    readonly finished: number;
    readonly cancelled: number;
    readonly failed: number;
    /** Never taken: the queue was full. */
    readonly refused: number;
  };
  readonly steps: number;
  /** Milliseconds inside of steps. */
  readonly stepMs: number;
  /** Rows of all steps; over `steps` it is the mean batch. */
  readonly rows: number;
  /** Prompt tokens computed, those computed again after a preemption among them. */
  readonly promptTokens: number;
  /** Prompt tokens that needed no computing. */
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  /** Guessed tokens that steps computed, and those of them that became part of a text. */
  readonly guessedTokens: number;
  readonly acceptedTokens: number;
  readonly preemptions: number;
  /** Tokens that one step may take; null as long as `auto` was not needed. */
  readonly tokenBudget: number | null;
  readonly kv: KvCacheStats;
}

type Now = Pick<EngineStats, "running" | "waiting" | "tokenBudget" | "kv">;

/** Counts events and passes them on. */
export class Monitor {
  private readonly listeners = new Set<(event: EngineEvent) => void>();
  private readonly requests = { queued: 0, finished: 0, cancelled: 0, failed: 0, refused: 0 };
  private readonly counts = { steps: 0, stepMs: 0, rows: 0, promptTokens: 0, cachedTokens: 0, generatedTokens: 0, guessedTokens: 0, acceptedTokens: 0, preemptions: 0 };

  /** Calls `listener` with every event; returns the function that takes it off again. */
  listen(listener: (event: EngineEvent) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  emit(event: EngineEvent): void {
    this.count(event);
    for (const listener of this.listeners) listener(event);
  }

  stats(now: Now): EngineStats {
    return { ...now, requests: { ...this.requests }, ...this.counts };
  }

  private count(event: EngineEvent): void {
    const { requests, counts } = this;
    if (event.type === "queued" || event.type === "refused") requests[event.type]++;
    else if (event.type === "started") counts.cachedTokens += event.cachedTokens;
    else if (event.type === "token") counts.generatedTokens++;
    else if (event.type === "preempted") counts.preemptions++;
    else if (event.type === "finished") {
      const { outcome } = event;
      requests[outcome === "failed" || outcome === "cancelled" ? outcome : "finished"]++;
    } else {
      counts.steps++;
      counts.stepMs += event.ms;
      counts.rows += event.decodes + event.prompts;
      counts.promptTokens += event.prompts;
      counts.guessedTokens += event.guessed;
      counts.acceptedTokens += event.accepted;
    }
  }
}
