import { KvCache, pagesFor } from "../kvcache/cache.ts";
import type { KvFormats } from "../kvcache/format.ts";
import { forward, makeBatch, type Model } from "../model/decoder.ts";
import type { Kernels } from "../tensor/kernels.ts";
import { Ledger } from "../tensor/ledger.ts";
import { type AttentionMethod, Ops } from "../tensor/ops.ts";
import { median } from "./bench.ts";
import { repeatedly } from "./warm-up.ts";

/** What attention did in one prefill of a whole prompt, all layers. */
export interface AttentionCost {
  /** Bytes written: what it makes of the queries, and the [heads, queries, keys] scores if it keeps them. */
  readonly materialised: number;
  /** Bytes read and written. */
  readonly moved: number;
  /** Milliseconds of one layer, the median of what was measured; null for cost-only kernels. */
  readonly ms: number | null;
}

/** Both ways of attention over a prompt of `context` tokens. */
export interface AttentionPoint {
  readonly context: number;
  readonly naive: AttentionCost;
  readonly tiled: AttentionCost;
}

export interface BenchAttentionOptions {
  readonly contexts: readonly number[];
  /** Timed repetitions of both methods, taking turns, of which the median counts. Cost-only kernels run once. */
  readonly repeat: number;
  readonly kv?: KvFormats;
  readonly onProgress?: (done: string) => void;
}

/** Naive and tiled attention over the same prompts: one materialises [queries x keys], the other does not. */
export function benchAttention(model: Model, kernels: Kernels, { contexts, repeat, kv, onProgress }: BenchAttentionOptions): AttentionPoint[] {
  const { nLayers, vocabSize } = model.config;
  const longest = Math.max(...contexts);
  // One layer says all about attention, which costs the same in each; the numbers are those of the whole model.
  const oneLayer: Model = { ...model, weights: { ...model.weights, layers: model.weights.layers.slice(0, 1) } };
  const cache = new KvCache(kernels, { ...model.config, nLayers: 1 }, pagesFor(undefined, longest, 1), { kv, prefixIndex: false });
  const timed = kernels.name !== "shapes";

  const once = (context: number, method: AttentionMethod): AttentionCost => {
    const ledger = new Ledger(true, { timing: timed });
    const ops = new Ops(kernels, ledger, { attention: method });
    const prompt = Array.from({ length: context }, (_, i) => (i * 7919 + 1) % vocabSize);
    const sequence = cache.create();
    forward(oneLayer, ops, makeBatch(cache, [{ sequence, tokens: prompt, logits: "none", prompt: true }]));
    cache.release(sequence);
    const own = ledger.totals().filter(({ kind }) => kind === "attention");
    const sum = (value: (total: (typeof own)[number]) => number) => own.reduce((all, total) => all + value(total), 0) * nLayers;
    const materialised = sum(({ written }) => written.activations);
    const moved = materialised + sum(({ read }) => read.activations + read.kv);
    return { materialised, moved, ms: timed ? own.reduce((all, { ns }) => all + ns, 0) / 1e6 : null };
  };
  /** Both methods, `times` times in turns. */
  const rounds = (context: number, times: number) => {
    onProgress?.(`${context} tokens`);
    return Array.from({ length: times }, () => ({ naive: once(context, "naive"), tiled: once(context, "tiled") }));
  };

  if (timed) repeatedly(() => rounds(Math.min(...contexts), 1));
  return contexts.map((context) => {
    const found = rounds(context, timed ? repeat : 1);
    const cost = (method: AttentionMethod) => ({ ...found[0][method], ms: timed ? median(found.map((round) => round[method].ms ?? 0)) : null });
    return { context, naive: cost("naive"), tiled: cost("tiled") };
  });
}
