import { KvCache, PAGE_SIZE } from "../../kvcache/cache.ts";
import type { KvFormats } from "../../kvcache/format.ts";
import { forward, makeBatch, type Model } from "../../model/decoder.ts";
import type { Kernels } from "../../tensor/kernels.ts";
import { Ledger, type OpHook } from "../../tensor/ledger.ts";
import { type AttentionMethod, Ops } from "../../tensor/ops.ts";
import { greedy } from "../sampler.ts";
import { repeatedly } from "../warm-up.ts";
import type { Workload } from "./trace.ts";

/** Prompt tokens in one step. */
const CHUNK = 256;

/** Runs a workload on real kernels, greedily, on a made-up prompt, and calls `hook` after every op with its measured time; every op by itself, as published shares count them. */
export function measure(model: Model, kernels: Kernels, { batch, promptTokens, tokens }: Workload, { attention, kv }: { readonly attention: AttentionMethod; readonly kv?: KvFormats }, hook: OpHook): void {
  const cache = new KvCache(kernels, model.config, batch * Math.ceil((promptTokens + tokens) / PAGE_SIZE), { kv });
  const ledger = new Ledger(false);
  const ops = new Ops(kernels, ledger, { attention, fusions: ["outputs"] });
  const { vocabSize } = model.config;
  const prompt = Array.from({ length: promptTokens }, (_, i) => (i * 7919 + 1) % vocabSize);

  const pass = (decodes: number) => {
    const sequences = Array.from({ length: batch }, () => cache.create());
    const next = sequences.map((sequence) => {
      let last = 0;
      for (let at = 0; at < promptTokens; at += CHUNK) {
        const run = { sequence, tokens: prompt.slice(at, at + CHUNK), logits: at + CHUNK >= promptTokens ? "last" : "none", prompt: true } as const;
        const logits = forward(model, ops, makeBatch(cache, [run]));
        if (logits) last = ops.sample(logits, greedy);
      }
      return last;
    });
    for (let i = 0; i < decodes; i++) {
      const runs = sequences.map((sequence, s) => ({ sequence, tokens: [next[s]], logits: "last", prompt: false }) as const);
      const logits = forward(model, ops, makeBatch(cache, runs))!;
      for (const s of next.keys()) next[s] = ops.sample(logits.slice(s, s + 1), greedy);
    }
    for (const sequence of sequences) cache.release(sequence);
  };
  repeatedly(() => pass(Math.min(tokens, 8))); // Optimises the code and touches every page, unmeasured.
  ledger.on = true;
  ledger.onOp(hook);
  pass(tokens);
}
