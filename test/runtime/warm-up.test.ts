import { afterAll, expect, it, vi } from "vitest";
import { KvCache } from "../../src/kvcache/cache.ts";
import { modelFor } from "../../src/runtime/commands/bench.ts";
import { bench } from "../../src/runtime/bench.ts";
import { warmUp } from "../../src/runtime/warm-up.ts";
import { Ledger } from "../../src/tensor/ledger.ts";
import { FUSIONS } from "../../src/tensor/fusion.ts";
import { Ops } from "../../src/tensor/ops.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";
import { drawModel, packModel, SMALL } from "../support/models.ts";

const kernels = wasmKernels();
afterAll(() => kernels.close());

/** Kinds of steps are warmed up once in a process: each test brings fusions that no other has. */
function cold(fusions: Ops["fusions"], contextLength = 128, pages = 1) {
  const model = packModel(drawModel(7, { ...SMALL, contextLength }), kernels);
  const ledger = new Ledger(true, { timing: false, records: true });
  return { model, ledger, ops: new Ops(kernels, ledger, { fusions: [...fusions] }), cache: new KvCache(kernels, model.config, pages) };
}

it("goes on for a while on a cache of one page, however slow the first step is, and leaves nothing behind", () => {
  const { model, ledger, ops, cache } = cold(new Set(["qkv"]));
  const steps = vi.spyOn(ops, "embed");
  // The compiler, or another process, holds the first step up.
  steps.mockImplementationOnce((...args) => {
    for (const end = performance.now() + 15; performance.now() < end; );
    return ops.embed(...args);
  });
  warmUp(model, ops, cache);
  // One round is eight.
  expect(steps.mock.calls.length).toBeGreaterThanOrEqual(8);
  expect([ledger.on, ledger.step, ledger.layer, ledger.records, ledger.totals()]).toEqual([true, 0, -1, [], []]);
  expect(cache.stats()).toMatchObject({ used: 0, cached: 0, free: 1 });
});

it("stays within the shortest contexts", () => {
  for (const [contextLength, fusions] of [[1, ["residual"]], [2, ["norm"]], [3, ["gate-up"]]] as const) {
    const { model, ops, cache } = cold(new Set(fusions), contextLength);
    const positions: number[] = [];
    const append = vi.spyOn(cache, "append").mockImplementation((sequence, count) => {
      positions.push(sequence.length + count);
      return KvCache.prototype.append.call(cache, sequence, count);
    });
    warmUp(model, ops, cache);
    append.mockRestore();
    expect(Math.max(...positions)).toBe(contextLength);
  }
});

it("random weights of a shape run where kernels round activations themselves", async () => {
  const io = {} as Parameters<typeof modelFor>[2];
  const { model, activations } = await modelFor({ shape: "stories260k" }, { weights: "int8", activations: "int8" }, io, kernels);
  expect(activations).toEqual({ dtype: "f32" });
  expect(bench(model, kernels, { promptTokens: 2, tokens: 1, repeat: 1, attention: "tiled", activations, fusions: FUSIONS, chunk: 8 }).decode.tokensPerSecond).toBeGreaterThan(0);
});
