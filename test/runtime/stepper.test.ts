import { describe, expect, it } from "vitest";
import { KvCache } from "../../src/kvcache/cache.ts";
import { forward, makeBatch } from "../../src/model/decoder.ts";
import { softmax } from "../../src/runtime/sampler.ts";
import { argmax } from "../../src/tensor/ranking.ts";
import { zeroHead } from "../../src/runtime/stepper/patch.ts";
import type { OpHook } from "../../src/tensor/ledger.ts";
import { SMALL } from "../support/models.ts";
import { drawnStepper, PROMPT } from "./stepper-bench.ts";

/** What the decoder itself gives for the same tokens: every op's name and output, and the logits. */
function plainRun({ model, kernels, plain }: ReturnType<typeof drawnStepper>, feeds: readonly (readonly number[])[], hook?: OpHook) {
  const ops = plain();
  const cache = new KvCache(kernels, model.config, 16);
  const sequence = cache.create();
  let seen: { name: string; layer: number; values: Float32Array }[] = [];
  if (hook) ops.ledger.onOp(hook);
  ops.ledger.onOp(({ name, layer }, output) => seen.push({ name, layer, values: output.f32.slice() }));
  let logits = new Float32Array(0);
  for (const tokens of feeds) {
    seen = [];
    logits = forward(model, ops, makeBatch(cache, [{ sequence, tokens, logits: "last", prompt: true }]))!.f32.slice();
  }
  return { seen, logits };
}

describe("a stepper", () => {
  it("passes every op in the decoder's order, with the decoder's numbers", () => {
    const bench = drawnStepper();
    const { seen, logits } = plainRun(bench, [PROMPT]);
    const { stepper } = bench;
    for (const [index, { name, layer, values }] of seen.entries()) {
      expect(stepper.op.index).toBe(index);
      expect([stepper.op.record.name, stepper.op.record.layer]).toEqual([name, layer]);
      expect(stepper.op.output.f32).toEqual(values);
      stepper.nextOp();
    }
    expect(stepper.op.record.name).toBe("sample");
    expect(stepper.pass.logits).toEqual(logits);
    expect(stepper.pass.phase).toBe("prefill");
  });

  it("goes on with the most probable token, as greedy decoding does", () => {
    const bench = drawnStepper();
    const { stepper } = bench;
    const feeds: number[][] = [PROMPT];
    for (let i = 0; i < 20; i++) {
      const { logits } = plainRun(bench, feeds);
      expect(stepper.pass.choice).toBe(argmax(logits));
      feeds.push([argmax(logits)]);
      stepper.nextToken();
    }
    expect(stepper.tokens).toEqual(feeds.flat());
    expect(stepper.pass.phase).toBe("decode");
  });

  it("takes a token of the caller's choice", () => {
    const bench = drawnStepper();
    bench.stepper.nextToken(11);
    expect(bench.stepper.pass.logits).toEqual(plainRun(bench, [PROMPT, [11]]).logits);
    expect(() => bench.stepper.nextToken(40)).toThrow("token: expected an id below 40, found 40");
  });

  it("moves by layer, by name and across tokens", () => {
    const { stepper } = drawnStepper();
    expect(stepper.nextLayer()!.record).toMatchObject({ name: "attn_norm", layer: 0 });
    expect(stepper.nextLayer()!.record).toMatchObject({ name: "attn_norm", layer: 1 });
    expect(stepper.nextLayer()!.record).toMatchObject({ name: "outputs", layer: -1 });
    expect(stepper.nextLayer()!.record).toMatchObject({ name: "token_embd", phase: "decode" });
    expect(stepper.runTo("ffn_act", 1)!.record).toMatchObject({ name: "ffn_act", layer: 1 });
    expect(stepper.runTo("ffn_act")!.record).toMatchObject({ name: "ffn_act", layer: 0 });
    expect(stepper.passIndex).toBe(2);
    expect(() => stepper.runTo("ffn_act", 9)).toThrow("expected an op of this step, found 9.ffn_act");
  });

  it("goes back, and replays the same numbers bit for bit", () => {
    const { stepper, cache } = drawnStepper();
    const passes = [stepper.pass];
    for (let i = 0; i < 18; i++) {
      stepper.nextToken();
      passes.push(stepper.pass);
    }
    for (let i = passes.length - 2; i >= 0; i--) {
      expect(stepper.backToken()).toBe(true);
      expect(stepper.pass.ops.map(({ output }) => output.f32)).toEqual(passes[i].ops.map(({ output }) => output.f32));
    }
    expect(stepper.backToken()).toBe(false);
    expect(stepper.back()).toBe(false);
    expect(stepper.tokens).toEqual(PROMPT);
    stepper.close();
    expect(cache.usedPages).toBe(0);
  });

  it("only shows what has run", () => {
    const { stepper } = drawnStepper();
    expect(stepper.find("ffn_act")).toBeUndefined();
    expect(() => stepper.attention(0)).toThrow("attention of layer 0: not computed yet");
    expect(stepper.lens()).toHaveLength(1);
    stepper.runTo("ffn_residual", 0);
    expect(stepper.lens().map(({ layer }) => layer)).toEqual([-1, 0]);
    expect(stepper.find("ffn_act")!.record.layer).toBe(0);
  });

  it("stops at the end of the context", () => {
    const { stepper } = drawnStepper(SMALL, { context: 6 });
    stepper.nextToken();
    expect(() => stepper.nextToken()).toThrow("context: all 6 positions are taken");
  });
});

describe("the logit lens", () => {
  it.each([{}, { norm: "layer", normBias: true }, { tied: true }, { matrices: "int8" }] as const)("after the last layer is the model's own answer (%j)", (shape) => {
    const { stepper } = drawnStepper({ ...SMALL, ...shape });
    stepper.runTo("sample");
    const probabilities = softmax(stepper.pass.logits!);
    const last = stepper.lens(4).at(-1)!;
    expect(last.layer).toBe(1);
    expect(last.top).toEqual(stepper.top(4));
    expect(last.entropy).toBeCloseTo(probabilities.reduce((sum, p) => sum - p * Math.log2(p), 0), 10);
  });
});

describe("attention weights", () => {
  it("are the softmax that naive attention writes, in prefill and in decode", () => {
    const [tiled, naive] = [drawnStepper(), drawnStepper(SMALL, { attention: "naive" })].map(({ stepper }) => stepper);
    for (let pass = 0; pass < 3; pass++) {
      for (const stepper of [tiled, naive]) stepper.runTo("sample");
      for (const layer of [0, 1]) {
        const [a, b] = [tiled.attention(layer), naive.attention(layer)];
        expect([a.heads, a.queries, a.keys, a.start]).toEqual([b.heads, b.queries, b.keys, b.start]);
        for (let head = 0; head < a.heads; head++) {
          const weights = a.at(head);
          expect(Math.max(...weights.map((weight, i) => Math.abs(weight - b.at(head)[i])))).toBeLessThan(1e-6);
          for (let query = 0; query < a.queries; query++) {
            const row = weights.subarray(query * a.keys, (query + 1) * a.keys);
            expect(row.reduce((x, y) => x + y, 0)).toBeCloseTo(1, 5);
            expect(row.subarray(a.start + query + 1).every((weight) => weight === 0)).toBe(true);
          }
        }
      }
    }
  });
});

describe("a patch", () => {
  it("does what the same change inside the decoder does, until it is taken off", () => {
    const bench = drawnStepper();
    const { stepper, model } = bench;
    const clean = stepper.pass.logits!;
    const { before, after, divergence } = stepper.patch(zeroHead(model.config, "tiled", 2, 1));
    const { logits } = plainRun(bench, [PROMPT], ({ name, layer }, { f32, cols }) => {
      if (name === "attention" && layer === 1) for (let row = 0; row < f32.length; row += cols) f32.fill(0, row + 16, row + 24);
    });
    expect(stepper.pass.logits).toEqual(logits);
    expect(divergence).toBeGreaterThan(0);
    expect(after).toEqual(stepper.top());
    expect(before).not.toEqual(after);
    expect(stepper.pass.ops.filter(({ patched }) => patched).map(({ record }) => record.layer)).toEqual([1]);
    stepper.unpatch(0);
    expect(stepper.pass.logits).toEqual(clean);
  });

  it("stays for the tokens after it, and reaches earlier ones by going back", () => {
    const bench = drawnStepper();
    const { stepper } = bench;
    const token = stepper.pass.choice!;
    stepper.nextToken();
    stepper.patch({ name: "ffn_down", change: { scale: 0.5 } });
    const halved: OpHook = ({ name }, { f32 }) => void (name === "ffn_down" && f32.forEach((value, i) => (f32[i] = value * 0.5)));
    expect(stepper.pass.logits).not.toEqual(plainRun(bench, [PROMPT, [token]], halved).logits);
    stepper.backToken();
    stepper.nextToken(token);
    expect(stepper.pass.logits).toEqual(plainRun(bench, [PROMPT, [token]], halved).logits);
  });

  it("sets values of single columns, and keeps the cursor where it was", () => {
    const { stepper } = drawnStepper();
    stepper.runTo("ffn_act", 1);
    stepper.patch({ name: "attn_norm", layer: 1, columns: [3, 5], change: { set: 0.25 } });
    expect(stepper.op.record).toMatchObject({ name: "ffn_act", layer: 1 });
    const { output } = stepper.find("attn_norm", 1)!;
    for (let row = 0; row < output.rows; row++) expect([...output.f32.subarray(row * 32 + 3, row * 32 + 5)]).toEqual([0.25, 0.25]);
  });

  it.each([
    ["an op that is none", { name: "attn_w", change: { scale: 0 } }, "patch: expected an op of this step, found attn_w"],
    ["a layer that is none", { name: "attn_q", layer: 7, change: { scale: 0 } }, "patch: expected an op of this step, found 7.attn_q"],
    ["columns that are not there", { name: "attn_q", columns: [30, 40], change: { scale: 0 } }, "patch of attn_q: expected columns within 0:32, found 30:40"],
    ["a value that is none", { name: "attn_q", change: { set: NaN } }, "patch of attn_q: expected a number, found NaN"],
    ["what comes too late", { name: "kv_write", change: { scale: 0 } }, "kv_write: the keys and values are already stored"],
  ] as const)("refuses %s", (_, patch, says) => {
    const { stepper } = drawnStepper();
    const { logits } = stepper.pass;
    expect(() => stepper.patch(patch)).toThrow(says);
    expect(stepper.patches).toEqual([]);
    expect(stepper.pass.logits).toBe(logits);
  });

  it("refuses a head that is none", () => {
    expect(() => zeroHead(drawnStepper().model.config, "tiled", 4, 0)).toThrow("head: expected 0 to 3, found 4");
  });
});
