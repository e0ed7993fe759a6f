import { KvCache, PAGE_SIZE } from "../kvcache/cache.ts";
import type { Model } from "../model/decoder.ts";
import { type Fusion, FUSIONS } from "../tensor/fusion.ts";
import type { Kernels } from "../tensor/kernels.ts";
import { Ledger } from "../tensor/ledger.ts";
import { Ops } from "../tensor/ops.ts";
import { breakdown, type PhaseBreakdown } from "../tensor/totals.ts";
import { type BenchOptions, median, pass, type RateSpread } from "./bench.ts";
import { warmUp } from "./warm-up.ts";

/** One phase under some fusions. */
export interface FusedPhase {
  /** Ops that one step runs. */
  readonly ops: number;
  /** Bytes read and written by one step. */
  readonly bytes: number;
  /** Median over the repetitions. */
  readonly msPerStep: number;
  readonly spread: RateSpread;
}

export interface FusionPoint {
  /** `all`, `none`, or the one fusion that is switched off. */
  readonly without: Fusion | "all" | "none";
  readonly fusions: readonly Fusion[];
  readonly prefill: FusedPhase;
  readonly decode: FusedPhase;
}

/**
 * What each fusion saves: the same work with all of them, without any, and without one at a time. Repetitions of all variants take turns, so
 * that whatever else the machine does meets each of them; costs come from one more pass with the ledger on.
 */
export function benchFusion(model: Model, kernels: Kernels, options: Pick<BenchOptions, "promptTokens" | "tokens" | "repeat" | "kv" | "onProgress">): FusionPoint[] {
  const { promptTokens, tokens, repeat, kv, onProgress } = options;
  const cache = new KvCache(kernels, model.config, Math.ceil((promptTokens + tokens) / PAGE_SIZE), { kv, prefixIndex: false });
  const work = { promptTokens, tokens, chunk: promptTokens };
  const variants = [
    { without: "none" as const, fusions: FUSIONS },
    ...FUSIONS.map((off) => ({ without: off, fusions: FUSIONS.filter((fusion) => fusion !== off) })),
    { without: "all" as const, fusions: [] },
  ].map((variant) => {
    const ledger = new Ledger(false, { timing: false });
    return { ...variant, ledger, ops: new Ops(kernels, ledger, { fusions: variant.fusions }), times: [] as { prefillMs: number; decodeMs: number }[] };
  });
  for (const { ops } of variants) {
    warmUp(model, ops, cache);
    pass(model, ops, cache, work);
  }
  for (let round = 0; round < repeat; round++) {
    onProgress?.(`round ${round + 1} of ${repeat}`);
    for (const { ops, times } of variants) times.push(pass(model, ops, cache, work));
  }
  return variants.map(({ without, fusions, ledger, ops, times }) => {
    ledger.on = true;
    pass(model, ops, cache, work);
    const { prefill, decode } = breakdown(ledger.totals());
    return {
      ...{ without, fusions },
      prefill: phase(prefill!, 1, times.map(({ prefillMs }) => prefillMs)),
      decode: phase(decode!, tokens, times.map(({ decodeMs }) => decodeMs / tokens)),
    };
  });
}

function phase({ total }: PhaseBreakdown, steps: number, ms: readonly number[]): FusedPhase {
  const spread = { lowest: Math.min(...ms), highest: Math.max(...ms) };
  return { ops: total.calls / steps, bytes: (total.bytesRead + total.bytesWritten) / steps, msPerStep: median(ms), spread };
}
