import { KvCache, pagesFor } from "../kvcache/cache.ts";
import type { KvFormats } from "../kvcache/format.ts";
import { forward, makeBatch, type Model } from "../model/decoder.ts";
import type { Kernels } from "../tensor/kernels.ts";
import { Ledger, type OpKind } from "../tensor/ledger.ts";
import { type AttentionMethod, Ops } from "../tensor/ops.ts";
import { groupTotals } from "../tensor/totals.ts";
import { median } from "./bench.ts";
import { repeatedly } from "./warm-up.ts";

/** Decode with so many sequences in a step. */
export interface BatchPoint {
  readonly batch: number;
  /** Generated tokens a second, of all sequences together; null for cost-only kernels. */
  readonly tokensPerSecond: number | null;
  readonly stepMs: number | null;
  /** Bytes read and written for each generated token. */
  readonly bytesPerToken: number;
  readonly weightBytesPerToken: number;
  /** Flops per byte. */
  readonly intensity: number;
  /** Share of the bytes of each kind of op, and of the time where there is a clock. */
  readonly shares: Partial<Record<OpKind, { readonly bytes: number; readonly flops: number; readonly time: number | null }>>;
}

export interface BatchBenchOptions {
  readonly batches: readonly number[];
  /** Positions that every sequence has behind it. */
  readonly promptTokens: number;
  /** Timed steps, of which the median counts. */
  readonly tokens: number;
  readonly attention: AttentionMethod;
  readonly kv?: KvFormats;
  readonly onProgress?: (done: string) => void;
}

/** The curve from memory-bound to compute-bound: decode steps of more and more sequences, which read the same weights. */
export function benchBatch(model: Model, kernels: Kernels, options: BatchBenchOptions): BatchPoint[] {
  const { batches, promptTokens, tokens, attention, kv } = options;
  const costsOnly = kernels.name === "shapes";
  const pages = pagesFor(undefined, promptTokens + 2 * tokens + 1, 1) * Math.max(...batches);
  const cache = new KvCache(kernels, model.config, pages, { kv, prefixIndex: false });
  const ledger = new Ledger(false, { timing: !costsOnly });
  const ops = new Ops(kernels, ledger, { attention });
  const { vocabSize } = model.config;

  return batches.map((batch) => {
    options.onProgress?.(`batch of ${batch}`);
    const sequences = Array.from({ length: batch }, () => cache.create());
    // What stands in the past changes no cost: zeros do as well as a prompt.
    for (const sequence of sequences) cache.append(sequence, promptTokens);
    const step = (): number => {
      const started = performance.now();
      forward(model, ops, makeBatch(cache, sequences.map((sequence, i) => ({ sequence, tokens: [i % vocabSize], logits: "last", prompt: false }))));
      return performance.now() - started;
    };
    if (!costsOnly) {
      repeatedly(() => {
        step();
        for (const sequence of sequences) cache.truncate(sequence, promptTokens);
      });
    }
    const stepMs = costsOnly ? null : median(Array.from({ length: tokens }, step));
    ledger.clear();
    ledger.on = true;
    for (let i = 0; i < tokens; i++) step();
    ledger.on = false;
    for (const sequence of sequences) cache.release(sequence);
    const all = groupTotals(ledger.totals(), () => 0).get(0)!;
    const made = tokens * batch;
    const shares = [...groupTotals(ledger.totals(), ({ kind }) => kind)].map(([kind, row]) => [
      kind,
      { bytes: row.byteShare, flops: row.flopShare, time: costsOnly ? null : row.timeShare },
    ]);
    return {
      ...{ batch, stepMs, tokensPerSecond: stepMs === null ? null : (batch / stepMs) * 1000 },
      bytesPerToken: (all.bytesRead + all.bytesWritten) / made,
      weightBytesPerToken: all.read.weights / made,
      intensity: all.intensity,
      shares: Object.fromEntries(shares) as BatchPoint["shares"],
    };
  });
}
