import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { KvCache, KvCacheFullError, type KvCacheOptions, type KvSequence } from "../../src/kvcache/cache.ts";
import { hex, sha256 } from "../../src/kvcache/sha256.ts";
import { decodeSnapshot, encodeSnapshot, SnapshotError, type SnapshotModel } from "../../src/kvcache/snapshot.ts";
import { f32 } from "../../src/tensor/tensor.ts";
import { dice, range } from "../support/dice.ts";
import { SMALL } from "../support/models.ts";
import { type Bench, prompt, smallBench, step, token } from "../support/run.ts";

const MODEL: SnapshotModel = { name: "small", fingerprint: "abc", vocabSize: SMALL.vocabSize! };
const OPTIONS: [string, KvCacheOptions][] = [
  ["f32", {}],
  ["int8", { kv: "int8" }],
  ["int4", { kv: "int4" }],
  ["int8 keys, int4 values, a window", { kv: { k: "int8", v: "int4" }, window: { size: 20, sinks: 4 } }],
];

function benchOf(options: KvCacheOptions, maxPages = 32): Bench {
  const on = smallBench(3, SMALL);
  return { ...on, cache: new KvCache(on.ops.kernels, on.model.config, maxPages, options) };
}

const drawTokens = (seed: number, length: number) => range(length).map(() => dice(seed + length).below(SMALL.vocabSize!));

/** A cache with a sequence of `length` computed tokens. */
function computed(options: KvCacheOptions, length: number) {
  const on = benchOf(options);
  const sequence = on.cache.create();
  const tokens = drawTokens(1, length);
  for (let at = 0; at < length; at += 13) {
    const part = tokens.slice(at, at + 13);
    step(on, [prompt(sequence, part)]);
    on.cache.record(sequence, part);
  }
  return { on, sequence, tokens };
}

/** Something else in the two positions after 75. */
function kvNoise({ ops, model }: Bench, { pages, hole }: KvSequence): void {
  const { nKvHeads, headDim } = model.config;
  const noise = f32([2, nKvHeads * headDim], range(2 * nKvHeads * headDim).map((i) => i + 1));
  ops.kernels.kvWrite(noise, noise, [{ pages, hole, row: 0, start: 75, length: 2 }], 0, { nHeads: nKvHeads, nKvHeads, headDim, scale: 1 });
}

const save = ({ on, sequence, tokens }: ReturnType<typeof computed>, more: readonly number[] = []) =>
  encodeSnapshot(on.cache, sequence, MODEL, { tokens: [...tokens, ...more], notes: { draws: 3 } });

describe.each(OPTIONS)("a snapshot in %s", (_, options) => {
  it.each([0, 1, 15, 16, 17, 75])("of %i positions goes on bit for bit, in a cache that others use", (length) => {
    const original = computed(options, length);
    const bytes = save(original, [5, 6]);
    const on = benchOf(options);
    const stranger = on.cache.create();
    step(on, [prompt(stranger, drawTokens(9, 40))]);
    const { sequence, tokens, notes } = decodeSnapshot(on.cache, bytes, MODEL);
    expect([tokens, notes]).toEqual([[...original.tokens, 5, 6], { draws: 3 }]);
    expect(sequence).toMatchObject({ length, hole: original.sequence.hole, tokens: original.tokens });
    for (const id of [5, 6, 7]) expect(step(on, [token(sequence, id)])).toEqual(step(original.on, [token(original.sequence, id)]));
    expect(encodeSnapshot(on.cache, decodeSnapshot(on.cache, bytes, MODEL).sequence, MODEL, { tokens, notes })).toEqual(bytes);
  });

  it("holds the positions that are left, and nothing of what stood on its pages before", () => {
    const { on, sequence, tokens } = computed(options, 75);
    const left = 75 - (sequence.hole?.count ?? 0) * 16;
    const bytes = encodeSnapshot(on.cache, sequence, MODEL, { tokens, notes: {} });
    const header = new DataView(bytes.buffer).getUint32(12, true);
    expect(bytes.length).toBe(16 + header + 4 * 75 + left * on.cache.bytesPerToken + 32);
    on.cache.append(sequence, 2);
    kvNoise(on, sequence);
    on.cache.truncate(sequence, 75);
    expect(encodeSnapshot(on.cache, sequence, MODEL, { tokens, notes: {} })).toEqual(bytes);
  });
});

describe("a snapshot is refused", () => {
  const bytes = save(computed({}, 20));
  const refused = (given: Uint8Array, message: string | RegExp, options: KvCacheOptions = {}, model = MODEL) => {
    const { cache } = benchOf(options);
    expect(() => decodeSnapshot(cache, given, model, "a.session")).toThrow(SnapshotError);
    expect(() => decodeSnapshot(cache, given, model, "a.session")).toThrow(message);
    expect(cache.usedPages).toBe(0);
  };
  /** Another header, with a checksum that fits. */
  const forged = (change: (header: Record<string, unknown>) => unknown) => {
    const length = new DataView(bytes.buffer).getUint32(12, true);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + length))) as Record<string, unknown>;
    const json = new TextEncoder().encode(JSON.stringify(change(header)));
    const head = bytes.slice(0, 16);
    new DataView(head.buffer).setUint32(12, json.length, true);
    const body = [head, json, bytes.subarray(16 + length, -32)];
    return Uint8Array.from([...body, sha256(...body)].flatMap((part) => [...part]));
  };

  it("when it is something else", () => {
    for (const size of [0, 1, 47]) refused(new Uint8Array(size), `a.session: expected a saved session, found ${size} bytes of something else`);
    refused(new Uint8Array(1000), "expected a saved session");
    refused(bytes.with(8, 2), "expected version 1 of saved sessions, found 2");
  });

  it("when it is cut off anywhere, or one byte of it is another", () => {
    const d = dice(1);
    for (let i = 0; i < 60; i++) refused(bytes.slice(0, d.between(0, bytes.length - 1)), /expected a saved session|its checksum does not fit its contents: the file is cut off or was altered/);
    for (let i = 0; i < 60; i++) {
      const at = d.between(12, bytes.length - 1);
      refused(bytes.with(at, bytes[at] ^ (1 << d.below(8))), "its checksum does not fit");
    }
    refused(Uint8Array.from([...bytes, 0]), "its checksum does not fit");
  });

  it("when it is another model's, or of another format or window", () => {
    refused(bytes, "a.session: saved with another model (small) than this one (other), or with its weights in other formats", {}, { ...MODEL, name: "other", fingerprint: "x" });
    refused(bytes, "a.session: its keys and values are f32, this KV cache keeps k=int8,v=f32", { kv: { k: "int8" } });
    refused(bytes, "a.session: saved with no window, this KV cache has a window of 8 and 2 sinks", { window: { size: 8, sinks: 2 } });
    refused(save(computed({ window: { size: 8, sinks: 2 } }, 50)), "saved with a window of 8 and 2 sinks, this KV cache has no window");
  });

  it("when its header says what can't be, though its checksum fits", () => {
    expect(forged((header) => header)).toEqual(bytes);
    const unlike = [
      () => null,
      () => "text",
      () => [],
      ...["model", "fingerprint", "kv", "window", "length", "hole", "tokens", "notes"].map((name) => ({ [name]: _, ...rest }: Record<string, unknown>) => rest),
      ...[-1, 1.5, "20", 2 ** 60].map((length) => (header: object) => ({ ...header, length })),
      ...[{ at: -1, count: 1 }, { at: 0, count: 2 }, { at: 0.5, count: 1 }, {}, 7].map((hole) => (header: object) => ({ ...header, hole })),
      (header: object) => ({ ...header, kv: { k: "f16", v: "f32" } }),
      (header: object) => ({ ...header, kv: null }),
      (header: object) => ({ ...header, window: { size: "8", sinks: 2 } }),
      (header: object) => ({ ...header, notes: { seed: "1" } }),
      (header: object) => ({ ...header, tokens: 19 }),
      (header: object) => ({ ...header, tokens: 21 }),
      (header: object) => ({ ...header, length: 19 }),
    ];
    for (const change of unlike) refused(forged(change as (header: Record<string, unknown>) => unknown), /a\.session: (expected a header|expected \d+ bytes|its keys and values|saved with)/);
    refused(bytes, "expected token ids below 3, found", {}, { ...MODEL, vocabSize: 3 });
  });

  it("when there is no room, and nothing is lost", () => {
    const { cache } = benchOf({}, 1);
    expect(() => decodeSnapshot(cache, bytes, MODEL)).toThrow(KvCacheFullError);
    expect(cache.stats()).toMatchObject({ used: 0, free: 1 });
  });
});

describe("SHA-256", () => {
  it("is what Node's is, in any pieces", () => {
    for (const length of [...range(140), 1000, 4096]) {
      const d = dice(length);
      const bytes = Uint8Array.from({ length }, () => d.below(256));
      const [a, b] = [d.between(0, length), d.between(0, length)].sort((x, y) => x - y);
      expect(hex(sha256(bytes.subarray(0, a), bytes.subarray(a, b), bytes.subarray(b)))).toBe(createHash("sha256").update(bytes).digest("hex"));
    }
  });
});
