import { KvCache, PAGE_SIZE } from "../kvcache/cache.ts";
import { createModel, forward, makeBatch } from "../model/decoder.ts";
import type { ModelConfig } from "../model/config.ts";
import type { Weights } from "../model/weights.ts";
import type { Kernels } from "../tensor/kernels.ts";
import { Ledger, type Traffic } from "../tensor/ledger.ts";
import { Ops } from "../tensor/ops.ts";
import { breakdown } from "../tensor/totals.ts";

/** Bytes that one decode step at the end of a context of `context` positions reads: the decoder itself, run on cost-only kernels. */
export function decodeStepReads(config: ModelConfig, weights: Weights, kernels: Kernels, context: number): Traffic {
  const ledger = new Ledger(false, { timing: false });
  const ops = new Ops(kernels, ledger);
  const model = createModel(config, weights);
  const cache = new KvCache(kernels, config, Math.ceil(context / PAGE_SIZE));
  const sequence = cache.create();
  cache.append(sequence, context - 1);
  ledger.on = true;
  forward(model, ops, makeBatch(cache, [{ sequence, tokens: [0], logits: "last", prompt: false }]));
  return breakdown(ledger.totals()).decode!.total.read;
}
