import { KvCache, PAGE_SIZE } from "../kvcache/cache.ts";
import type { KvFormats } from "../kvcache/format.ts";
import { forward, makeBatch, type Model } from "../model/decoder.ts";
import type { Fusion } from "../tensor/fusion.ts";
import type { Kernels } from "../tensor/kernels.ts";
import { Ledger } from "../tensor/ledger.ts";
import { type ActivationFormat, type AttentionMethod, Ops } from "../tensor/ops.ts";
import { breakdown } from "../tensor/totals.ts";
import { greedy } from "./sampler.ts";
import { warmUp } from "./warm-up.ts";

/** What `bench` runs, and how often. */
export interface BenchOptions {
  readonly promptTokens: number;
  /** Tokens that each sequence decodes. */
  readonly tokens: number;
  /** Timed repetitions, of which the median is reported. Cost-only kernels run once. */
  readonly repeat: number;
  readonly attention: AttentionMethod;
  /** Default f32. */
  readonly activations?: ActivationFormat;
  /** Default all. */
  readonly fusions?: readonly Fusion[];
  /** Default f32. */
  readonly kv?: KvFormats;
  /** Sequences that decode together, each behind a prompt of its own; default 1. */
  readonly batch?: number;
  /** Prompt tokens in one step. */
  readonly chunk: number;
  readonly onProgress?: (done: string) => void;
  /** Called after every timed repetition: what is measured there saw the machine as the repetition did. */
  readonly onRound?: () => void;
}

/** The slowest and the fastest repetition, tokens per second. */
export interface RateSpread {
  readonly lowest: number;
  readonly highest: number;
}

/** What `bench` found: speeds by the clock, costs by the ledger. */
export interface BenchResult {
  /** Null for cost-only kernels; medians over the repetitions. `gops`: operations of the linears, 10^9 per second. */
  prefill: { tokensPerSecond: number | null; gops: number | null; spread: RateSpread | null };
  decode: { tokensPerSecond: number | null; gbPerSecond: number | null; spread: RateSpread | null };
  /** Bytes read by one decode step, averaged over the run. */
  bytesPerDecodeStep: number;
  /** Bytes that a position takes in the KV cache. */
  kvBytesPerToken: number;
  breakdown: ReturnType<typeof breakdown>;
}

/**
 * Feeds made-up prompts and decodes greedily, `batch` sequences at once. Speeds are taken with the ledger off, costs in one more pass with it on.
 */
export function bench(model: Model, kernels: Kernels, options: BenchOptions): BenchResult {
  const { promptTokens, tokens, repeat, batch = 1, onProgress } = options;
  const prefillMs: number[] = [];
  const decodeMs: number[] = [];
  const costsOnly = kernels.name === "shapes";
  const cache = new KvCache(kernels, model.config, batch * Math.ceil((promptTokens + tokens) / PAGE_SIZE), { kv: options.kv });
  const ledger = new Ledger(false, { timing: !costsOnly });
  const ops = new Ops(kernels, ledger, options);
  warmUp(model, ops, cache);
  for (let round = 0; !costsOnly && round < repeat; round++) {
    onProgress?.(`round ${round + 1} of ${repeat}`);
    const times = pass(model, ops, cache, options);
    prefillMs.push(times.prefillMs);
    decodeMs.push(times.decodeMs);
    options.onRound?.();
  }
  onProgress?.("costs");
  ledger.on = true;
  pass(model, ops, cache, options);
  const costs = breakdown(ledger.totals());
  const bytesPerDecodeStep = (costs.decode?.total.bytesRead ?? 0) / tokens;
  const rate = (count: number, ms: number[]) => (costsOnly || ms.length === 0 ? null : (count / median(ms)) * 1000);
  const spread = (count: number, ms: number[]) => (ms.length === 0 ? null : { lowest: (count / Math.max(...ms)) * 1000, highest: (count / Math.min(...ms)) * 1000 });
  const decodeRate = rate(batch * tokens, decodeMs);
  const { gemm, gemv } = costs.prefill?.byKind ?? {};
  const prefillFlops = (gemm?.flops ?? 0) + (gemv?.flops ?? 0);
  return {
    prefill: { tokensPerSecond: rate(batch * promptTokens, prefillMs), gops: prefillMs.length === 0 ? null : prefillFlops / median(prefillMs) / 1e6, spread: spread(batch * promptTokens, prefillMs) },
    decode: { tokensPerSecond: decodeRate, gbPerSecond: decodeRate === null ? null : ((decodeRate / batch) * bytesPerDecodeStep) / 1e9, spread: spread(batch * tokens, decodeMs) },
    bytesPerDecodeStep,
    kvBytesPerToken: cache.bytesPerToken,
    breakdown: costs,
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Feeds made-up prompts, one after the other, and decodes all sequences together; milliseconds of both. */
export function pass(model: Model, ops: Ops, cache: KvCache, { promptTokens, tokens, chunk, batch = 1 }: Pick<BenchOptions, "promptTokens" | "tokens" | "chunk" | "batch">) {
  const { vocabSize } = model.config;
  const sequences = Array.from({ length: batch }, () => ({ sequence: cache.create(), next: 0 }));
  const started = performance.now();
  for (const [index, each] of sequences.entries()) {
    const prompt = Array.from({ length: promptTokens }, (_, i) => (i * 7919 + 31 * index + 1) % vocabSize);
    for (let at = 0; at < promptTokens; at += chunk) {
      const last = at + chunk >= promptTokens;
      const run = { sequence: each.sequence, tokens: prompt.slice(at, at + chunk), logits: last ? "last" : "none", prompt: true } as const;
      const logits = forward(model, ops, makeBatch(cache, [run]));
      if (logits) each.next = ops.sample(logits, greedy);
    }
  }
  const prefilled = performance.now();
  for (let i = 0; i < tokens; i++) {
    const runs = sequences.map(({ sequence, next }) => ({ sequence, tokens: [next], logits: "last", prompt: false }) as const);
    const logits = forward(model, ops, makeBatch(cache, runs))!;
    sequences.forEach((each, row) => void (each.next = ops.sample(logits.slice(row, row + 1), greedy)));
  }
  const ended = performance.now();
  for (const { sequence } of sequences) cache.release(sequence);
  return { prefillMs: prefilled - started, decodeMs: ended - prefilled };
}
