import { describe, expect, it } from "vitest";
import { SHAPES } from "../../../src/model/shapes.ts";
import { checkHere } from "../../../src/runtime/hardware/check-here.ts";
import { type Hardware, parseHardware } from "../../../src/runtime/hardware/hardware.ts";
import { asHardware, cacheSize, type Machine, type ReadSpeed, threadCounts, twice, withBest } from "../../../src/runtime/hardware/measure-machine.ts";
import { bandwidthFor, fastestPhases, peakFormat, placeSteps, type Roof, roofOf, roofTimes } from "../../../src/runtime/hardware/roofline.ts";
import { op, ROUND } from "./support.ts";
import type { OpRecord } from "../../../src/tensor/ledger.ts";

/** 10 GB/s from memory, 100 and 50 from caches of 1 kB and 10 kB, 1000, 500 and 200 GOPS, 1 us for an op without work. */
const ROOF: Roof = {
  memoryGBs: 10,
  caches: [
    { bytes: 1000, gbPerSecond: 100 },
    { bytes: 10_000, gbPerSecond: 50 },
  ],
  gops: { int8: 1000, int4: 500, f32: 200 },
  overheadNs: 1000,
};

const flat = (value: number) => ({ median: value, lowest: value * 0.9, highest: value * 1.1 });
const reads = (threads: number, speeds: Readonly<Record<number, number>>): ReadSpeed[] =>
  Object.entries(speeds).map(([bytes, speed]) => ({ threads, bytes: Number(bytes), gbPerSecond: flat(speed) }));

const MACHINE: Machine = {
  ...{ backend: "wasm", threads: 2, parallelism: 4, simd: true, relaxedDot: "none", vectorBits: 128, memoryBytes: 4e9, overheadNs: 2000, cacheBytes: 10_000 },
  read: [...reads(1, { 1000: 60, 10_000: 30, 1_000_000: 10 }), ...reads(2, { 1000: 100, 10_000: 50, 1_000_000: 20 })],
  peaks: [1, 2].flatMap((threads) => (["int8", "int4", "f32"] as const).map((format, i) => ({ threads, format, gops: flat(threads * 100 * (3 - i)) }))),
};

interface Cost {
  readonly kind: OpRecord["kind"];
  readonly dtype: string;
  readonly flops: number;
  readonly weights: number;
  readonly activations?: number;
  readonly name?: string;
}

/** Records one after another, each `ns` long, with nothing in between. */
function records(step: number, phase: OpRecord["phase"], costs: readonly (Cost & { readonly ns: number })[]): OpRecord[] {
  let startMs = 100 * step;
  return costs.map(({ kind, dtype, flops, weights, activations = 0, name = kind, ns }) => {
    const record = { ...op(kind, dtype, flops, weights, activations, name), step, phase, layer: 0, m: 1, n: 1, k: 1, startMs, ns };
    startMs += ns / 1e6;
    return record;
  });
}

describe("a measured roof", () => {
  it("takes the bandwidth of the cache that holds the working set", () => {
    expect([0, 1000, 1001, 10_000, 10_001, 1e12].map((bytes) => bandwidthFor(ROOF, bytes))).toEqual([100, 100, 50, 50, 10, 10]);
    // A larger size that reads faster shows that a smaller one can as well.
    expect(bandwidthFor({ ...ROOF, caches: [{ bytes: 10, gbPerSecond: 20 }, ROOF.caches[1]] }, 5)).toBe(50);
  });

  it("holds an op against the peak of what it multiplies", () => {
    expect(peakFormat({ kind: "gemv", name: "q", dtype: "int8" })).toBe("int8");
    expect(peakFormat({ kind: "gemm", name: "q", dtype: "int4" })).toBe("int4");
    expect(peakFormat({ kind: "gemm", name: "q", dtype: "sparse" })).toBe("int8");
    expect(peakFormat({ kind: "gemm", name: "q", dtype: "f32" })).toBe("f32");
    expect(peakFormat({ kind: "attention", name: "attention", dtype: "int8" })).toBe("f32");
    expect(peakFormat({ kind: "norm", name: "norm", dtype: "f32" })).toBe("f32");
  });

  it("lets weights come from where the step's weights lie, activations from where the op's own do", () => {
    const gemv = op("gemv", "int8", 4000, 500, 200);
    expect(roofTimes(gemv, ROOF, 500)).toEqual({ memory: 500 / 100 + 200 / 100, arithmetic: 4 });
    expect(roofTimes(gemv, ROOF, 100_000)).toEqual({ memory: 500 / 10 + 200 / 100, arithmetic: 4 });
  });

  it("ends the caches before the first size that is read about as slowly as memory", () => {
    expect(cacheSize(reads(1, { 1: 40, 10: 30, 100: 11, 1000: 10 }), 1)).toBe(10);
    expect(cacheSize(reads(1, { 1: 40, 10: 12, 100: 30, 1000: 10 }), 1)).toBe(1);
    expect(cacheSize(reads(1, { 1: 12, 1000: 10 }), 1)).toBe(0);
  });

  it("counts threads", () => {
    expect([1, 2, 3, 4, 6, 16].map(threadCounts)).toEqual([[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 6], [1, 2, 3, 4, 8, 16]]);
  });

  it("is that of all threads, at their fastest", () => {
    const roof = roofOf(MACHINE);
    expect(roof.memoryGBs).toBeCloseTo(22, 9);
    expect(roof.caches.map(({ bytes }) => bytes)).toEqual([1000, 10_000]);
    expect(roof.gops.int8).toBeCloseTo(660, 9);
  });

  it("is the better of two measurements, place by place, and says how far they are apart", () => {
    const faster = reads(2, { 1000: 90, 10_000: 60, 1_000_000: 50 });
    const earlier = { read: faster, peaks: MACHINE.peaks.filter(({ threads }) => threads === 2).map((one) => ({ ...one, gops: flat(one.format === "f32" ? 400 : 1) })) };
    const best = withBest(MACHINE, earlier);
    const of = (threads: number) => best.read.filter((one) => one.threads === threads).map(({ gbPerSecond }) => gbPerSecond.median);
    expect([of(1), of(2)]).toEqual([[60, 30, 10], [100, 60, 50]]);
    expect(best.peaks.map(({ gops }) => gops.median)).toEqual([300, 200, 100, 600, 400, 400]);
    // At 50 GB/s from memory, the second size counts as memory too.
    expect([MACHINE.cacheBytes, best.cacheBytes]).toEqual([10_000, 1000]);
    expect(twice(earlier, MACHINE).map(({ what, before, after }) => [what, Math.round(before), Math.round(after)])).toEqual([
      ["memory", 55, 22],
      ["int8", 1, 660],
      ["int4", 1, 440],
      ["f32", 440, 220],
    ]);
    // Threads that did not start in one of the two.
    const fewer = { read: reads(1, { 1000: 90, 1_000_000: 50 }), peaks: MACHINE.peaks.filter(({ threads }) => threads === 1) };
    expect(twice(fewer, MACHINE)[0]).toMatchObject({ what: "memory", before: expect.closeTo(55, 9) as number, after: expect.closeTo(22, 9) as number });
  });

  it("is a device for --hw that survives its own JSON", () => {
    const device = asHardware(MACHINE);
    expect(device).toMatchObject({ name: "this", capacityGB: 4, cacheMB: 0.01, launchUs: 2 });
    expect(device.bandwidthGBs).toBeCloseTo(22, 9);
    expect(device.peaks.fp32).toBeCloseTo(0.22, 9);
    for (const field of Object.keys(device)) if (field !== "name" && field !== "sources") expect(device.sources[field]).toMatch(/\w/);
    expect(parseHardware("this.json", JSON.stringify(device))).toEqual([device]);
    expect(asHardware({ ...MACHINE, cacheBytes: 0 })).not.toHaveProperty("cacheMB");
  });
});

describe("placed ops", () => {
  // 100 kB of weights in all: from memory. The gemv takes 10 us at the roof (memory), the gemm 20 us (arithmetic), the norm 2 ns.
  const step = [
    { kind: "gemv", dtype: "int8", flops: 200_000, weights: 100_000, ns: 20_000 },
    { kind: "gemm", dtype: "int8", flops: 20_000_000, weights: 100, ns: 40_000 },
    { kind: "norm", dtype: "f32", flops: 100, weights: 0, activations: 200, ns: 3000 },
    { kind: "rope", dtype: "f32", flops: 0, weights: 0, activations: 90_000, ns: 90_000 },
  ] as const;
  const [decode] = placeSteps([...records(1, "decode", step), ...records(2, "decode", step)], ROOF);
  const placed = Object.fromEntries(decode.ops.map((one) => [one.kind, one]));

  it("say what binds them, and which share of their own roof they reached", () => {
    expect(placed.gemv).toMatchObject({ calls: 2, bytes: 200_000, flops: 400_000, intensity: 2, bound: "memory", roofGBs: 10, peakGflops: 1000, roofGflops: 20 });
    expect(placed.gemv.ms).toBeCloseTo(0.04, 12);
    expect(placed.gemv.gbPerSecond).toBeCloseTo(5, 12);
    expect(placed.gemv.gflops).toBeCloseTo(10, 12);
    expect(placed.gemv.share).toBeCloseTo(0.5, 12);
    expect(placed.gemm).toMatchObject({ bound: "arithmetic", roofGflops: 1000, gflops: 500 });
    expect(placed.gemm.share).toBeCloseTo(0.5, 12);
  });

  it("say so where they were faster than their own roof", () => {
    expect(decode.ops.some(({ aboveRoof }) => aboveRoof)).toBe(false);
    expect(decode.above).toEqual({ ops: [], timeShare: 0, most: 0 });
    const [fast] = placeSteps(records(1, "decode", [{ ...step[0], ns: 8000 }, step[1]]), ROOF);
    expect(fast.ops.map(({ kind, aboveRoof }) => [kind, aboveRoof])).toEqual([["gemm", false], ["gemv", true]]);
    // 10 us at the roof, 8 us taken, of 48 us in all.
    expect(fast.above).toEqual({ ops: ["gemv"], timeShare: expect.closeTo(8 / 48, 9) as number, most: expect.closeTo(1.25, 2) as number });
  });

  it("are bound by overhead only where they are small and slow", () => {
    expect(placed.norm.bound).toBe("overhead");
    // Slow, but not small: 9 us at the roof.
    expect(placed.rope).toMatchObject({ bound: "memory", gflops: 0, roofGflops: 0 });
    const [fast] = placeSteps(records(1, "decode", [{ ...step[2], ns: 3 }]), ROOF);
    expect(fast.ops[0].bound).not.toBe("overhead");
  });

  it("add up to the step, its projection and the error", () => {
    expect(decode).toMatchObject({ phase: "decode", steps: 2, bytes: 2 * (100_000 + 100 + 200 + 90_000) });
    expect(decode.stepMs).toBeCloseTo(0.153, 9);
    const roofNs = 10_000 + 20_000 + 2 + 9000;
    expect(decode.roofMs * 1e6).toBeCloseTo(roofNs, 6);
    expect(decode.withOverheadMs * 1e6).toBeCloseTo(roofNs + 4000, 6);
    expect(decode.error).toBeCloseTo(roofNs / 153_000 - 1, 9);
    expect(decode.errorWithOverhead).toBeCloseTo((roofNs + 4000) / 153_000 - 1, 9);
    expect(decode.mbu).toBeCloseTo(190_300 / 153_000 / 10, 9);
    expect(decode.mfu).toBeCloseTo(20_200_000 / 153_000 / 1000, 9);
    expect(decode.boundShares).toEqual({ memory: expect.closeTo(110 / 153, 9) as number, arithmetic: expect.closeTo(40 / 153, 9) as number, overhead: expect.closeTo(3 / 153, 9) as number });
    expect(decode.ops.map(({ kind }) => kind)).toEqual(["rope", "gemm", "gemv", "norm"]);
  });

  it("counts the pauses between ops as part of the step", () => {
    const [first, second] = records(1, "decode", step.slice(0, 2));
    const [paused] = placeSteps([first, { ...second, startMs: second.startMs + 1 }], ROOF);
    expect(paused.stepMs).toBeCloseTo(1.06, 9);
    expect(paused.opsMs).toBeCloseTo(0.06, 9);
  });

  it("keeps phases apart, and takes each from the repetition where it was fastest", () => {
    const round = (factor: number) =>
      placeSteps([...records(1, "prefill", [{ ...step[1], ns: 40_000 * factor }]), ...records(2, "decode", [{ ...step[0], ns: 20_000 / factor }])], ROOF);
    const { prefill, decode: steps, mixed } = fastestPhases([round(1), round(2), round(4)]);
    expect(mixed).toBeUndefined();
    expect([prefill!.stepMs, prefill!.spread.median, prefill!.spread.highest].map((ms) => Math.round(ms * 1e6))).toEqual([40_000, 80_000, 160_000]);
    expect([steps!.stepMs, steps!.spread.highest].map((ms) => Math.round(ms * 1e6))).toEqual([5000, 20_000]);
  });
});

describe("a projection checked on this machine", () => {
  const workload = { batch: 1, promptTokens: 8, tokens: 4 };
  const why = async (weights: string, work = workload, device: Hardware = ROUND) => {
    const check = await checkHere(SHAPES.stories260k, weights, work, device);
    return check.measured === null ? check.why : "measured";
  };

  it("says why it is not", async () => {
    expect(await why("int3")).toBe("memwall computes with f32, int8 and int4 weights, found int3");
    expect(await why("int8", { ...workload, promptTokens: 509 })).toBe("the workload is longer than the model's 512 positions");
    expect(await why("int8", workload, { ...ROUND, capacityGB: 1e-6 })).toBe("it does not fit into its memory");
  });
});
