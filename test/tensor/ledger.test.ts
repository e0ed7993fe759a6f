import { describe, expect, it } from "vitest";
import { randomWeights } from "../../src/model/random-weights.ts";
import { SHAPES } from "../../src/model/shapes.ts";
import { createModel, type Run } from "../../src/model/decoder.ts";
import { linears } from "../../src/model/weights.ts";
import type { Kernels } from "../../src/tensor/kernels.ts";
import { Ledger, type OpRecord, type Total, type Traffic } from "../../src/tensor/ledger.ts";
import { Ops } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { f32, ghost, Tensor, zeros } from "../../src/tensor/tensor.ts";
import { breakdown, groupTotals } from "../../src/tensor/totals.ts";
import { dice, range } from "../support/dice.ts";
import { drawModel, type ModelOptions, packModel, SMALL } from "../support/models.ts";
import { type Bench, bench, type BenchOptions, PAGE_SIZE, prompt, rows, smallBench, step, token } from "../support/run.ts";

const bytesOf = ({ weights, kv, activations }: Traffic) => weights + kv + activations;
const sum = (numbers: Iterable<number>) => [...numbers].reduce((a, b) => a + b, 0);
const recording = () => new Ledger(true, { timing: false, records: true });

/** Kernels that note every tensor that they are handed, by kernel. */
function spied(kernels: Kernels): { kernels: Kernels; calls: { kernel: string; given: Tensor[] }[] } {
  const calls: { kernel: string; given: Tensor[] }[] = [];
  const spy = new Proxy(kernels, {
    get(target, key: keyof Kernels) {
      const member = target[key];
      if (typeof member !== "function" || ["alloc", "free", "packer", "close"].includes(key)) return member;
      return (...args: unknown[]) => {
        calls.push({ kernel: key, given: args.filter((arg) => arg instanceof Tensor) });
        return Reflect.apply(member, target, args) as unknown;
      };
    },
  });
  return { kernels: spy, calls };
}

/** Bytes of a tensor's own views: what there is to read. */
const viewBytes = ({ data, scales }: Tensor) => data.byteLength + (scales?.byteLength ?? 0);

/** The records of the steps that `run` takes. */
function recordsOf({ ledger }: Bench, run: () => void): OpRecord[] {
  const before = ledger.records.length;
  run();
  return ledger.records.slice(before);
}

const linearsOf = (records: readonly OpRecord[]) => records.filter(({ kind }) => kind === "gemv" || kind === "gemm");
const packedBytes = ({ model }: Bench) => sum(linears(model.weights).flatMap(({ weight, bias }) => [weight, ...(bias ? [bias] : [])]).map(viewBytes));

const MODELS: [string, ModelOptions][] = [
  ["f32", SMALL],
  ["int8", { ...SMALL, matrices: "int8", biases: ["attn_q", "output"] }],
  ["int8 in groups of 7", { ...SMALL, matrices: "int8", group: 7, tied: true }],
  ["int4", { ...SMALL, matrices: "int4", dim: 64, ffnDim: 96 }],
  ["GPT-2's parts", { ...SMALL, norm: "layer", normBias: true, rope: undefined, ffn: "plain", activation: "gelu" }],
];

describe("weights", () => {
  it.each(MODELS)("a decode step at batch 1 reads exactly the packed bytes of every linear: %s", (_, shape) => {
    const on = smallBench(1, shape, { ledger: recording() });
    const sequence = on.cache.create();
    step(on, [prompt(sequence, [1, 2, 3])]);
    const decode = linearsOf(recordsOf(on, () => step(on, [token(sequence, 4)])));
    expect(sum(decode.map(({ read }) => read.weights))).toBe(packedBytes(on));
    expect(new Set(decode.map(({ kind }) => kind))).toEqual(new Set(["gemv"]));
    expect(decode.length).toBe(linears(on.model.weights).length);
  });

  it.each(MODELS)("a step over a batch reads the same weight bytes, not once for each row: %s", (_, shape) => {
    for (const size of [2, 5, 9]) {
      const on = smallBench(1, shape, { ledger: recording() });
      const sequences = range(size).map(() => on.cache.create());
      const batch = linearsOf(recordsOf(on, () => step(on, sequences.map((sequence) => token(sequence, 4)))));
      expect(sum(batch.map(({ read }) => read.weights))).toBe(packedBytes(on));
      expect(batch.every(({ kind, m }) => kind === "gemm" && m === size)).toBe(true);
    }
  });

  it("an embedding reads the rows that it is asked for, each once", () => {
    const on = smallBench(1, { ...SMALL, matrices: "int8" }, { ledger: recording() });
    const [record] = recordsOf(on, () => step(on, [prompt(on.cache.create(), [3, 3, 7, 3])]));
    expect(record).toMatchObject({ name: "token_embd", kind: "embedding", m: 4, n: 32, dtype: "int8" });
    expect(record.read.weights).toBe(2 * (32 + 4));
    expect(record.written.activations).toBe(4 * 32 * 4);
  });
});

describe("bytes come from the tensors that a kernel was handed", () => {
  /** Which kernel runs for an op's name. */
  const kernelOf = ({ kind, name }: OpRecord) => {
    if (kind === "gemv" || kind === "gemm") return "linear";
    if (kind === "norm") return /layerNorm|rmsNorm/;
    return { attention: "attention", kv_write: "kvWrite", rope_angles: "ropeAngles", ffn_act: /gated|activate/ }[name] ?? /embed|gather|rope|add/;
  };

  it.each(MODELS)("one kernel for each record, and what it writes is its output: %s", (_, shape) => {
    const { kernels, calls } = spied(scalarKernels());
    const on = smallBench(2, shape, { kernels, ledger: recording() });
    step(on, [prompt(on.cache.create(), [1, 2, 3, 4, 5], "last")]);
    expect(on.ledger.records.length).toBe(calls.length);
    on.ledger.records.forEach((record, i) => {
      expect(calls[i].kernel).toMatch(kernelOf(record));
      const [out] = calls[i].given;
      if (record.kind !== "kv") expect(record.written).toEqual({ weights: 0, kv: 0, activations: viewBytes(out) });
    });
  });

  it.each(MODELS)("linears and norms: %s", (_, shape) => {
    const { kernels, calls } = spied(scalarKernels());
    const on = smallBench(2, shape, { kernels, ledger: recording() });
    step(on, [prompt(on.cache.create(), [1, 2, 3, 4, 5])]);
    on.ledger.records.forEach((record, i) => {
      if (!["gemv", "gemm", "norm"].includes(record.kind)) return;
      const [, x, ...weights] = calls[i].given;
      expect(record.read).toEqual({ weights: sum(weights.map(viewBytes)), kv: 0, activations: viewBytes(x) });
    });
  });

  it("elementwise ops, rope and activations read all their inputs", () => {
    const { kernels, calls } = spied(scalarKernels());
    const on = smallBench(2, SMALL, { kernels, ledger: recording() });
    step(on, [prompt(on.cache.create(), [1, 2, 3, 4, 5])]);
    const inPlace = ["rope", "add"];
    on.ledger.records.forEach((record, i) => {
      if (record.name === "rope_angles" || !["rope", "activation", "elementwise"].includes(record.kind)) return;
      const { kernel, given } = calls[i];
      expect(record.read).toEqual({ weights: 0, kv: 0, activations: sum((inPlace.includes(kernel) ? given : given.slice(1)).map(viewBytes)) });
    });
  });

  it("padding of a packed weight counts, whatever its shape says", () => {
    const ledger = recording();
    const ops = new Ops({ ...scalarKernels(), linear: () => {} }, ledger);
    const weight = new Tensor({ dtype: "packed", format: "int8", shape: [3, 5], data: new Uint8Array(8 * 32 + 8 * 4) });
    ops.linear("padded", f32([1, 5]), { weight, bias: f32([3]) });
    expect(ledger.records[0]).toMatchObject({ dtype: "int8", flops: 2 * 3 * 5, read: { weights: 288 + 12, kv: 0, activations: 20 }, written: { activations: 12 } });
  });
});

describe("flops", () => {
  it("a linear's are 2mnk", () => {
    const { kernels, calls } = spied(scalarKernels());
    const on = smallBench(1, SMALL, { kernels, ledger: recording() });
    step(on, [prompt(on.cache.create(), [1, 2, 3, 4, 5, 6, 7])]);
    on.ledger.records.forEach(({ kind, flops, m, n, k }, i) => {
      if (kind !== "gemm") return;
      const [out, x, w] = calls[i].given;
      expect([m, n, k]).toEqual([out.rows, w.rows, x.cols]);
      expect(flops).toBe(2 * m * n * k);
    });
    expect(linearsOf(on.ledger.records).length).toBe(15);
  });

  it("attention's follow the visible pairs: 4 headDim + 5 for each query, key and head", () => {
    const on = smallBench(1, SMALL, { ledger: recording() });
    const [a, b] = [on.cache.create(), on.cache.create()];
    step(on, [prompt(a, range(10))]);
    const [first] = recordsOf(on, () => step(on, [prompt(a, [1, 2, 3]), token(b, 1)])).filter(({ kind }) => kind === "attention");
    expect(first).toMatchObject({ m: 4, n: 13, k: 8, flops: (11 + 12 + 13 + 1) * 4 * (4 * 8 + 5) });
  });
});

describe("the KV cache's bytes", () => {
  const { nLayers, nKvHeads, headDim } = SMALL as Required<Pick<ModelOptions, "nLayers" | "nKvHeads" | "headDim">>;
  /** Keys and values of one position, all layers. */
  const position = 2 * nLayers * nKvHeads * headDim * 4;
  const kvOf = (records: readonly OpRecord[]) => ({ read: sum(records.map(({ read }) => read.kv)), written: sum(records.map(({ written }) => written.kv)) });

  it("read grows linearly with the context, written is one position for each token", () => {
    const on = smallBench(1, SMALL, { ledger: recording() });
    const sequence = on.cache.create();
    for (const length of range(3 * PAGE_SIZE).map((i) => i + 1)) {
      expect(kvOf(recordsOf(on, () => step(on, [token(sequence, 1)])))).toEqual({ read: length * position, written: position });
    }
  });

  it("a chunk reads its context once, not once for each query", () => {
    const on = smallBench(1, SMALL, { ledger: recording() });
    const sequence = on.cache.create();
    step(on, [prompt(sequence, range(20))]);
    expect(kvOf(recordsOf(on, () => step(on, [prompt(sequence, range(7))])))).toEqual({ read: 27 * position, written: 7 * position });
  });

  it("pages that forked sequences share are read once", () => {
    const on = smallBench(1, SMALL, { ledger: recording() });
    const trunk = on.cache.create();
    step(on, [prompt(trunk, range(2 * PAGE_SIZE + 4))]);
    const forks = range(3).map(() => on.cache.fork(trunk));
    const records = recordsOf(on, () => step(on, [trunk, ...forks].map((sequence) => token(sequence, 1))));
    // Four sequences: two full pages together, and each its own copy of the page that it writes into.
    expect(kvOf(records)).toEqual({ read: (2 * PAGE_SIZE + 4 * 5) * position, written: 4 * position });
  });

  it("a page that two sequences see to different lengths is read as far as the longer one sees", () => {
    const { kernels } = spied(scalarKernels());
    const ledger = recording();
    const ops = new Ops({ ...kernels, attention: () => {} }, ledger);
    const shape = { nHeads: 1, nKvHeads: 1, headDim: 4, scale: 1 };
    const pages = [0, 1].map((id) => ({ id, k: zeros("f32", [1, 1, PAGE_SIZE, 4]), v: zeros("f32", [1, 1, PAGE_SIZE, 4]) }));
    const segment = (row: number, visible: number) => ({ pages, row, start: visible - 1, length: 1 });
    ops.attention(f32([3, 4]), [segment(0, 3), segment(1, PAGE_SIZE + 2), segment(2, 9)], 0, shape);
    expect(ledger.records[0].read.kv).toBe((PAGE_SIZE + 2) * 2 * 4 * 4);
  });

  it("quantised pages are read with their scales, near a quarter of f32", () => {
    const read = (dtype: "f32" | "int8" | "int4") => {
      const ledger = recording();
      const ops = new Ops(shapeKernels(), ledger);
      const page = { id: 0, k: ghost(dtype, [2, 4, PAGE_SIZE, 64], 64), v: ghost(dtype, [2, 4, PAGE_SIZE, 64], 64) };
      ops.attention(f32([1, 256]), [{ pages: [page], row: 0, start: 9, length: 1 }], 0, { nHeads: 4, nKvHeads: 4, headDim: 64, scale: 1 });
      return ledger.records[0];
    };
    expect(read("f32").read.kv).toBe(10 * 2 * 4 * 64 * 4);
    expect(read("int8").read.kv).toBe(10 * 2 * 4 * (64 + 4));
    expect(read("int4").read.kv).toBe(10 * 2 * 4 * (32 + 4));
    expect(read("int8").dtype).toBe("int8");
  });
});

describe("naive attention pays for its scores", () => {
  const attentionBytes = (attention: "tiled" | "naive", context: number) => {
    const on = smallBench(1, { ...SMALL, nLayers: 1 }, { ledger: recording(), attention });
    const records = recordsOf(on, () => step(on, [prompt(on.cache.create(), range(context).map(() => 1))])).filter(({ kind }) => kind === "attention");
    return { moved: sum(records.map(({ read, written }) => bytesOf(read) + bytesOf(written))), records };
  };

  it("writes them, reads and writes them in softmax, and reads them again", () => {
    const { records } = attentionBytes("naive", 12);
    const scores = 4 * 12 * 12 * 4;
    const rowsBytes = 12 * 32 * 4;
    const keys = 12 * 2 * 8 * 4;
    expect(records.map(({ name, read, written }) => [name, read, written])).toEqual([
      ["attention_scores", { weights: 0, kv: keys, activations: rowsBytes }, { weights: 0, kv: 0, activations: scores }],
      ["softmax", { weights: 0, kv: 0, activations: scores }, { weights: 0, kv: 0, activations: scores }],
      ["attention_mix", { weights: 0, kv: keys, activations: scores }, { weights: 0, kv: 0, activations: rowsBytes }],
    ]);
  });

  it("so its bytes grow with the square of the context, tiled attention's in proportion", () => {
    const [c, twice] = [32, 64];
    expect(attentionBytes("tiled", twice).moved).toBe(2 * attentionBytes("tiled", c).moved);
    const scores = (context: number) => attentionBytes("naive", context).moved - attentionBytes("tiled", context).moved;
    expect(scores(twice)).toBe(4 * scores(c));
    expect(scores(c)).toBe(4 * (4 * c * c * 4));
  });

  it("both count the products of the visible pairs only", () => {
    const flops = (attention: "tiled" | "naive", name: string) => attentionBytes(attention, 10).records.find((r) => r.name === name)!.flops;
    expect(flops("naive", "attention_scores")).toBe(55 * 4 * 2 * 8);
    expect(flops("naive", "attention_mix")).toBe(55 * 4 * 2 * 8);
    expect(flops("tiled", "attention")).toBe(55 * 4 * (4 * 8 + 5));
  });
});

/** Some steps of every kind: prompts, chunks, decodes, mixed ones, forks. */
function exercise(on: Bench, seed = 1): void {
  const d = dice(seed);
  const vocabulary = on.model.config.vocabSize;
  const some = (n: number) => range(n).map(() => d.below(vocabulary));
  const sequences = range(3).map(() => on.cache.create());
  step(on, [prompt(sequences[0], some(20), "last")]);
  step(on, [token(sequences[0], 1)]);
  step(on, [prompt(sequences[1], some(5), "none"), token(sequences[0], 2)]);
  sequences.push(on.cache.fork(sequences[0]));
  for (let i = 0; i < 6; i++) {
    const runs: Run[] = sequences.filter(() => d.chance(0.6)).map((s) => (d.chance(0.7) ? token(s, d.below(vocabulary)) : prompt(s, some(d.between(1, 9)), d.pick(["none", "last", "all"]))));
    if (runs.length > 0) step(on, runs);
  }
}

/** Sums over records, one record after the other. */
function recount(records: readonly OpRecord[]): Total[] {
  const totals = new Map<string, Total>();
  for (const { phase, layer, name, kind, flops, read, written, ns } of records) {
    const key = `${phase}/${layer}/${kind}/${name}`;
    const none = (): Traffic => ({ weights: 0, kv: 0, activations: 0 });
    const total = totals.get(key) ?? { phase, layer, name, kind, calls: 0, flops: 0, read: none(), written: none(), ns: 0 };
    totals.set(key, total);
    total.calls++;
    total.flops += flops;
    total.ns += ns;
    for (const what of ["weights", "kv", "activations"] as const) {
      total.read[what] += read[what];
      total.written[what] += written[what];
    }
  }
  return [...totals.values()];
}

describe("sums", () => {
  it("the sum over ops is the step, and totals are a recount of the records", () => {
    for (const seed of range(5)) {
      const on = smallBench(seed, {}, { ledger: recording(), attention: seed % 2 === 0 ? "tiled" : "naive" });
      exercise(on, seed);
      expect(on.ledger.totals()).toEqual(recount(on.ledger.records));
      expect(on.ledger.step).toBe(Math.max(...on.ledger.records.map((r) => r.step)));
    }
  });

  it("whatever the ops, and in whatever order they come", () => {
    const d = dice(1);
    const ledger = recording();
    for (let i = 0; i < 3000; i++) {
      if (i % 7 === 0) ledger.begin(d.pick(["prefill", "decode", "mixed"]));
      ledger.layer = d.between(-1, 1);
      const number = () => d.below(1000);
      const cost = { kind: d.pick(["gemv", "norm"] as const), m: 1, n: 1, k: 1, dtype: "f32", flops: number(), readWeights: number(), readKv: number(), readActivations: number() };
      ledger.write(d.pick(["a", "b"]), { ...cost, writtenKv: number(), writtenActivations: number() }, f32([1]), 0);
    }
    expect(ledger.records.length).toBe(3000);
    expect(ledger.totals()).toEqual(recount(ledger.records));
  });

  it("timed totals add up to the records' own times", () => {
    const on = smallBench(1, SMALL, { ledger: new Ledger(true, { records: true }) });
    exercise(on);
    const { records } = on.ledger;
    expect(sum(on.ledger.totals().map(({ ns }) => ns))).toBeCloseTo(sum(records.map(({ ns }) => ns)), 0);
    expect(records.every(({ ns, startMs }) => ns >= 0 && startMs > 0)).toBe(true);
    for (let i = 1; i < records.length; i++) expect(records[i].startMs).toBeGreaterThanOrEqual(records[i - 1].startMs);
  });

  it("a breakdown's shares sum to 1 in each phase, and its rows to the phase", () => {
    const on = smallBench(1, SMALL, { ledger: new Ledger(true) });
    exercise(on);
    const phases = Object.values(breakdown(on.ledger.totals()));
    expect(phases.length).toBe(3);
    for (const { total, byKind } of phases) {
      const kinds = Object.values(byKind);
      for (const share of ["callShare", "flopShare", "byteShare", "timeShare"] as const) {
        expect(sum(kinds.map((row) => row[share]))).toBeCloseTo(1, 9);
        expect(total[share]).toBe(1);
      }
      for (const field of ["calls", "flops", "bytesRead", "bytesWritten"] as const) expect(sum(kinds.map((row) => row[field]))).toBe(total[field]);
      expect(total.bytesRead).toBe(bytesOf(total.read));
      expect(total.intensity).toBe(total.flops / (total.bytesRead + total.bytesWritten));
      expect(total.gbPerSecond).toBeCloseTo((total.bytesRead + total.bytesWritten) / total.ms / 1e6, 9);
      expect(total.gflops).toBeCloseTo(total.flops / total.ms / 1e6, 9);
      const bytesRead = kinds.map((row) => row.bytesRead);
      expect(bytesRead).toEqual([...bytesRead].sort((a, b) => b - a));
    }
  });

  it("groups totals by any key", () => {
    const on = smallBench(1, { ...SMALL, nLayers: 3 }, { ledger: recording() });
    exercise(on);
    const byLayer = groupTotals(on.ledger.totals(), ({ layer }) => layer);
    expect([...byLayer.keys()]).toEqual([-1, 0, 1, 2]);
    expect(sum([...byLayer.values()].map(({ byteShare }) => byteShare))).toBeCloseTo(1, 9);
    expect(byLayer.get(0)!.flops).toBe(byLayer.get(2)!.flops);
    expect(groupTotals([], ({ kind }) => kind).size).toBe(0);
  });

  it("without timing there are no rates, and nothing is NaN", () => {
    const on = smallBench(1, SMALL, { ledger: recording() });
    exercise(on);
    const { total } = breakdown(on.ledger.totals()).decode!;
    expect(total).toMatchObject({ ms: 0, timeShare: 0, gbPerSecond: 0, gflops: 0 });
  });

  it("are forgotten by clear", () => {
    const on = smallBench(1, SMALL, { ledger: recording() });
    exercise(on);
    const [totals, records] = [on.ledger.totals(), on.ledger.records.map((r) => ({ ...r, step: 0 }))];
    on.ledger.clear();
    expect([on.ledger.totals(), on.ledger.records]).toEqual([[], []]);
    on.cache.reset();
    exercise(on);
    expect(on.ledger.totals()).toEqual(totals);
    expect(on.ledger.records.map((r) => ({ ...r, step: 0 }))).toEqual(records);
  });
});

describe("the cost-only kernels", () => {
  it.each(MODELS)("write exactly the records of the scalar ones: %s", (_, shape) => {
    for (const attention of ["tiled", "naive"] as const) {
      const records = [scalarKernels(), shapeKernels()].map((kernels) => {
        const on = bench(packModel(drawModel(1, shape), kernels), { kernels, ledger: recording(), attention });
        range(3).forEach((seed) => exercise(on, seed));
        return on.ledger.records;
      });
      expect(records[0].length).toBeGreaterThan(500);
      expect(records[1]).toEqual(records[0]);
    }
  });

  it("agree with scalar on a built-in shape's random weights", () => {
    const records = [scalarKernels(), shapeKernels()].map((kernels) => {
      const shape = SHAPES["stories260k"];
      const on = bench(createModel(shape.config, randomWeights(shape, kernels, "int4")), { kernels, ledger: recording() });
      exercise(on);
      return on.ledger.records;
    });
    expect(records[1]).toEqual(records[0]);
  });

  it("trace a 175B model: a decode step reads its weights once", () => {
    const shape = SHAPES["gpt-3-175b"];
    const kernels = shapeKernels();
    const on = bench(createModel(shape.config, randomWeights(shape, kernels, "int8")), { kernels, ledger: recording() });
    const sequence = on.cache.create();
    step(on, [prompt(sequence, range(100), "none")]);
    const decode = linearsOf(recordsOf(on, () => step(on, [token(sequence, 1)])));
    const weights = sum(decode.map(({ read }) => read.weights));
    expect(weights / 174.6e9).toBeCloseTo(36 / 32, 2);
    expect(sum(decode.map(({ flops }) => flops)) / weights).toBeCloseTo((2 * 32) / 36, 2);
  });
});

describe("hooks", () => {
  it("see every op, with its record and its output", () => {
    const { kernels, calls } = spied(scalarKernels());
    const on = smallBench(1, SMALL, { kernels, ledger: new Ledger(true, { timing: false }) });
    const seen: { record: OpRecord; output: Tensor; copy: Float32Array }[] = [];
    const off = on.ledger.onOp((record, output) => seen.push({ record, output, copy: output.f32.slice() }));
    const [logits] = step(on, [prompt(on.cache.create(), [1, 2, 3], "last")]);
    expect(seen.map(({ output }) => output)).toEqual(calls.map(({ given }) => given[0]));
    seen.forEach(({ output }, i) => expect(output).toBe(calls[i].given[0]));
    expect(seen.at(-1)!.record).toMatchObject({ name: "output", layer: -1, phase: "prefill", step: 1 });
    expect(seen.at(-1)!.copy).toEqual(logits);
    expect(seen.filter(({ record }) => record.name === "attn_q").map(({ record }) => record.layer)).toEqual([0, 1]);
    expect(on.ledger.records).toEqual([]);
    off();
    const before = seen.length;
    step(on, [prompt(on.cache.create(), [1])]);
    expect(seen.length).toBe(before);
  });

  it("see the values, not what a later op leaves in their place", () => {
    const on = smallBench(1, SMALL, { ledger: new Ledger(true) });
    const queries: Float32Array[] = [];
    on.ledger.onOp(({ name, layer }, output) => {
      if (name === "attn_norm" && layer === 0) queries.push(...rows(output));
    });
    step(on, [prompt(on.cache.create(), [7])]);
    const embedding = Float64Array.from(range(32), (i) => on.model.weights.tokenEmbedding.at(7 * 32 + i));
    const rms = Math.sqrt(sum(embedding.map((v) => v * v)) / 32 + 1e-5);
    queries[0].forEach((value, i) => expect(value).toBeCloseTo((embedding[i] / rms) * on.model.weights.layers[0].attnNorm!.weight.at(i), 5));
  });

  it("several run in order, and any of them can be taken off", () => {
    const on = smallBench(1, SMALL, { ledger: new Ledger(true) });
    const seen: string[] = [];
    const [offA] = ["a", "b"].map((name) => on.ledger.onOp(({ name: op }) => op === "output" && seen.push(name)));
    step(on, [prompt(on.cache.create(), [1])]);
    offA();
    offA();
    step(on, [prompt(on.cache.create(), [1])]);
    expect(seen).toEqual(["a", "b", "b"]);
  });
});

describe("a ledger that is off", () => {
  it("writes nothing and calls no hook, and the logits are the same", () => {
    const run = (options: BenchOptions) => {
      const on = smallBench(1, SMALL, options);
      let hooked = 0;
      on.ledger.onOp(() => hooked++);
      return { logits: step(on, [prompt(on.cache.create(), [1, 2, 3])]), ledger: on.ledger, hooked };
    };
    const off = run({ ledger: new Ledger(false, { records: true }) });
    expect([off.ledger.records, off.ledger.totals(), off.hooked]).toEqual([[], [], 0]);
    const on = run({ ledger: recording() });
    expect(on.hooked).toBe(on.ledger.records.length);
    expect(off.logits).toEqual(on.logits);
  });

  it("can be turned on between two steps", () => {
    const on = smallBench(1, SMALL, { ledger: new Ledger(false, { records: true, timing: false }) });
    const sequence = on.cache.create();
    step(on, [prompt(sequence, [1])]);
    on.ledger.on = true;
    step(on, [token(sequence, 1)]);
    expect(new Set(on.ledger.records.map((r) => r.step))).toEqual(new Set([2]));
  });
});

describe("a tensor without storage", () => {
  it("has rows and other shapes of its own size", () => {
    const logits = ghost("f32", [6, 10], 0);
    expect([logits.slice(2, 5).shape, logits.slice(2, 5).bytes, logits.as([1, 10]).bytes]).toEqual([[3, 10], 120, 40]);
    const rows = ghost("int8", [8, 64], 32).slice(0, 2);
    expect([rows.shape, rows.bytes]).toEqual([[2, 64], 2 * (64 + 2 * 4)]);
  });
});
