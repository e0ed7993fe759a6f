import { describe, expect, it } from "vitest";
import { SHAPES } from "../../../src/model/shapes.ts";
import { HARDWARE } from "../../../src/runtime/hardware/profiles.ts";
import { project, traceWorkload } from "../../../src/runtime/hardware/projection.ts";
import { checkCeilings, checkSarathi } from "../../../src/runtime/hardware/published.ts";
import { bytesMoved, stepTime } from "../../../src/runtime/hardware/roof.ts";
import { movesFrom, searchShares, sharesOf, traceAll } from "../../../src/runtime/hardware/search.ts";
import { anyBatch, capacities, sweep, SWEEP_VALUES } from "../../../src/runtime/hardware/sweep.ts";
import { kvBytes, traceDecode, traced } from "../../../src/runtime/hardware/trace.ts";
import { formats, ROUND, small } from "./support.ts";

const device = (name: string) => HARDWARE.find((one) => one.name === name)!;
const WORKLOAD = { batch: 1, promptTokens: 32, tokens: 4 };

describe("published figures", () => {
  const sarathi = checkSarathi();

  it("the ceilings of a 7B model at 8 bits are met within 3 %", () => {
    const checks = checkCeilings();
    expect(checks.map(({ published }) => published)).toEqual([7, 110, 34]);
    for (const { what, error } of checks) expect(Math.abs(error), what).toBeLessThan(0.03);
  });

  it("SARATHI's decode speed-ups are met: table 4 within 5 %, table 2's within 20 %, and no ceiling is above a measurement", () => {
    const speedups = sarathi.filter(({ unit }) => unit === "x");
    expect(speedups.map(({ published }) => Number(published.toFixed(2)))).toEqual([10.41, 5.45, 3.26, 2.51]);
    expect(Math.abs(speedups[0].error)).toBeLessThan(0.2);
    for (const { what, error } of speedups.slice(1)) expect(Math.abs(error), what).toBeLessThan(0.05);
    for (const { what, unit, error } of sarathi) if (unit === "ms") expect(error, what).toBeLessThan(0);
  });

  it("SARATHI's parts add up to its whole steps", () => {
    const of = (what: string) => sarathi.find((one) => one.what === what)!;
    for (const side of ["published", "projected"] as const) {
      const mixed = ["linears", "attention", "whole step"].map((part) => of(`1021 prompt tokens and three decodes, ${part}`)[side]);
      expect(mixed[0] + mixed[1]).toBeCloseTo(mixed[2], 9);
      const four = ["linears", "attention", "each token"].map((part) => of(`four decodes alone, ${part}`)[side]);
      expect((four[0] + four[1]) / 4).toBeCloseTo(four[2], 9);
    }
  });

  it("Samsung's shares are met within three points by one workload", { timeout: 60_000 }, () => {
    const shapes = { "gpt-3-6.7b": SHAPES["gpt-3-6.7b"] };
    const [best] = searchShares({ shapes, hardware: [device("a100-80g")], formats: formats(), prompts: [4, 64], ratios: [1, 6] });
    expect(best).toMatchObject({ promptTokens: 4, tokens: 24, launch: true });
    expect(best.distance).toBeLessThan(0.03);
    const moves = movesFrom(best, shapes["gpt-3-6.7b"], formats(), device("a100-80g"));
    const gemv = moves.ratio.map(({ gemvFlops }) => gemvFlops);
    expect([...gemv].sort((a, b) => a - b)).toEqual(gemv);
    expect(moves.batch[1].gemvFlops).toBeLessThan(0.01);
  });
});

describe("a projection", () => {
  it("is bytes over bandwidth for a decode that memory binds", () => {
    const on = traced(small(), formats());
    const { tpotMs, tokensPerSecond, mbu, bound, fits } = project(traceWorkload(on, { ...WORKLOAD, tokens: 1 }), ROUND);
    const bytes = traceDecode(on, 1, 33).reduce((sum, record) => sum + bytesMoved(record), 0);
    expect([fits, bound]).toEqual([true, "memory"]);
    expect(tpotMs).toBeCloseTo((bytes / 100e9) * 1e3, 9);
    expect(tokensPerSecond).toBeCloseTo(1e3 / tpotMs!, 3);
    expect(mbu).toBeCloseTo(1, 9);
  });

  it("gives no figures for what does not fit, but what is missing", () => {
    const trace = traceWorkload(traced(SHAPES["llama-2-13b"], formats()), WORKLOAD);
    const one = project(trace, device("rtx-4090"));
    expect(one).toMatchObject({ fits: false, tpotMs: null, tokensPerSecond: null, ttftMs: null, bound: null, mbu: null, mfu: null, joulesPerToken: null });
    expect(one.neededBytes).toBe(trace.bytes.weights + trace.bytes.kv + trace.bytes.workspace);
    expect(one.neededBytes).toBeGreaterThan(one.capacityBytes);
  });

  it("shares weights among a batch: more tokens, and less energy for each", () => {
    const rows = sweep("batch", SHAPES["llama-3-8b"], formats("int8"), { batch: 1, promptTokens: 64, tokens: 8 }, [device("h100-sxm")]);
    const of = (what: "tokensPerSecond" | "joulesPerToken" | "tpotMs") => rows.map(({ projections }) => projections[0][what]!);
    expect(rows.map(({ value }) => value)).toEqual(SWEEP_VALUES.batch);
    expect(of("tokensPerSecond")).toEqual([...of("tokensPerSecond")].sort((a, b) => a - b));
    expect(of("joulesPerToken")).toEqual([...of("joulesPerToken")].sort((a, b) => b - a));
    expect(of("tpotMs")).toEqual([...of("tpotMs")].sort((a, b) => a - b));
  });

  it("is faster with fewer bits, slower with more context, and says which contexts a model cannot have", () => {
    const hardware = [device("a100-80g")];
    const times = (kind: "bits" | "context" | "kv") => sweep(kind, small(), formats(), WORKLOAD, hardware).flatMap(({ projections }) => projections[0].tpotMs ?? []);
    for (const kind of ["bits", "kv"] as const) expect(times(kind)).toEqual([...times(kind)].sort((a, b) => b - a));
    expect(times("context")).toEqual([...times("context")].sort((a, b) => a - b));
    expect(sweep("context", SHAPES["gpt2-xl"], formats(), WORKLOAD, hardware).map(({ value }) => value)).toEqual(["128", "256", "512", "1024"]);
  });

  it("extends a step to any batch as a straight line", () => {
    for (const attention of ["f16", "int8"]) {
      const on = traced(small(), formats("int8", attention));
      for (const batch of [1, 2, 3, 4, 9]) {
        const [found, expected] = [anyBatch(on, 50)(batch), traceDecode(on, batch, 50)];
        const flops = (ops: readonly { flops: number }[]) => ops.reduce((sum, op) => sum + op.flops, 0);
        const bytes = (ops: Parameters<typeof bytesMoved>[0][]) => ops.reduce((sum, op) => sum + bytesMoved(op), 0);
        expect(flops(found)).toBeCloseTo(flops(expected), 3);
        expect(bytes(found)).toBeCloseTo(bytes(expected), 3);
        expect(stepTime(found, ROUND).seconds).toBeCloseTo(stepTime(expected, ROUND).seconds, 12);
      }
    }
  });

  it("finds the largest batch that fits: one more does not", () => {
    const on = traced(small(), formats("int8"));
    const tiny = { ...ROUND, capacityGB: 0.05 };
    const rows = capacities(small(), formats("int8"), [tiny]);
    const row = rows.find(({ kv, context }) => kv === "f16" && context === 4096)!;
    const needs = (batch: number) => on.weightBytes + batch * kvBytes(on, 4096);
    expect(row.batch).toBeGreaterThan(10);
    expect(needs(row.batch)).toBeLessThan(50e6);
    expect(needs(row.batch + 1)).toBeGreaterThan(50e6 - 1e5);
    expect(row.tokensPerSecond).toBeCloseTo((row.batch * 1e3) / row.tpotMs!, 3);
    expect(rows.find(({ kv, context }) => kv === "f32" && context === 131072)).toMatchObject({ batch: 0, tpotMs: null });
  });
});

describe("shares", () => {
  it("sum to one, and time is none without hardware", () => {
    const steps = traceAll(traced(small(), formats()), WORKLOAD);
    const shares = sharesOf(steps, { counting: "attention", hardware: ROUND });
    for (const what of ["calls", "flops", "bytes", "time"] as const) expect(shares.reduce((sum, share) => sum + share[what], 0)).toBeCloseTo(1, 9);
    expect(sharesOf(steps, { counting: "attention" }).every(({ time }) => time === 0)).toBe(true);
  });

  it("count naive attention's products as products on request", () => {
    const steps = traceAll(traced(small(), formats(), "naive"), WORKLOAD);
    const of = (counting: "attention" | "products", kind: string) => sharesOf(steps, { counting }).find((share) => share.kind === kind)!.calls;
    expect(of("products", "gemv")).toBeGreaterThan(of("attention", "gemv"));
    expect(of("products", "gemm")).toBeGreaterThan(of("attention", "gemm"));
    expect(of("products", "attention")).toBeCloseTo(of("attention", "attention") / 3, 9);
  });
});
