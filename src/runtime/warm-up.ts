import { type KvCache, KvCacheFullError, PAGE_SIZE } from "../kvcache/cache.ts";
import { forward, makeBatch, type Model } from "../model/decoder.ts";
import { linears } from "../model/weights.ts";
import type { Ops } from "../tensor/ops.ts";

/** Tokens of a made-up prompt, then tokens one by one: together one page, which every cache has. */
const PROMPT = 9;
const DECODES = PAGE_SIZE - PROMPT;
/** Milliseconds after which even a slow compiler is done. */
const WARM_MS = 80;
/** Bytes of linears that keep one step busy for so long (some 10 milliseconds) that code which is not optimised yet costs next to nothing. */
const LARGE = 1e8;

const warm = new Set<string>();

/** Runs a piece of work, at least once, until its code is optimised. */
export function repeatedly(work: () => void): void {
  const end = performance.now() + WARM_MS;
  do work();
  while (performance.now() < end);
}

/**
 * Runs small steps until the kernels' code is optimised. A WebAssembly engine compiles a module quickly first, and a function well once it
 * has run for a while; without this, the first tokens of a small model pay for that, and measurements of it are of the wrong code. Steps of a
 * large model do it by themselves. Leaves neither records nor keys and values behind.
 */
export function warmUp(model: Model, ops: Ops, cache: KvCache): void {
  if (ops.kernels.name !== "wasm") return;
  // Code is shared by all kernels of a process.
  const weights = linears(model.weights).map(({ weight }) => weight);
  if (weights.reduce((sum, { bytes }) => sum + bytes, 0) > LARGE) return;
  const kind = [...new Set(weights.map(({ format }) => format)), cache.formats.k, cache.formats.v, ops.attentionMethod, ...ops.fusions].join();
  if (warm.has(kind)) return;
  warm.add(kind);
  const { ledger } = ops;
  const { on, step } = ledger;
  ledger.on = false;
  const { contextLength } = model.config;
  const prompt = Math.max(1, Math.min(PROMPT, contextLength >> 1));
  const decodes = Math.min(DECODES, contextLength - prompt);
  let sequence = cache.create();
  const run = (count: number, prompt: boolean) =>
    forward(model, ops, makeBatch(cache, [{ sequence, tokens: Array<number>(count).fill(0), logits: "last", prompt }]));
  try {
    for (const end = performance.now() + WARM_MS; performance.now() < end; ) {
      cache.release(sequence);
      sequence = cache.create();
      run(prompt, true);
      for (let i = 0; i < decodes; i++) run(1, false);
    }
  } catch (error) {
    // Fewer pages than this needs: then it stays cold.
    if (!(error instanceof KvCacheFullError)) throw error;
  } finally {
    cache.release(sequence);
    ledger.on = on;
    ledger.step = step;
  }
}
