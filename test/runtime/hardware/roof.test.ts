import { describe, expect, it } from "vitest";
import { energyOf, HOROWITZ_2014, parseEnergy } from "../../../src/runtime/hardware/energy.ts";
import { peakOf } from "../../../src/runtime/hardware/hardware.ts";
import { arithmeticOf, opTime, stepTime, sumTimes } from "../../../src/runtime/hardware/roof.ts";
import { op, ROUND } from "./support.ts";

// A GEMV of 1 GB at 2 flops a byte, a GEMM of 1 MB and 40 GFLOP in fp16, a norm of 1 kB.
const gemv = op("gemv", "int8", 2e9, 1e9);
const gemm = op("gemm", "f16", 40e9, 1e6);
const norm = op("norm", "f32", 1e3, 0, 1e3);

describe("a hand-computed trace of three ops", () => {
  it("takes max(flops / peak, bytes / bandwidth) for each", () => {
    expect(opTime(gemv, ROUND)).toEqual({ seconds: 0.01, bound: "memory" });
    expect(opTime(gemm, ROUND)).toEqual({ seconds: 0.002, bound: "compute" });
    expect(opTime(norm, ROUND).seconds).toBeCloseTo(1e-8, 15);
  });

  it("adds up to the step, bound by what binds most of it", () => {
    const { seconds, flops, bytes, by, bound } = stepTime([gemv, gemm, norm], ROUND);
    expect(seconds).toBeCloseTo(0.01200001, 12);
    expect([flops, bytes, bound]).toEqual([42e9 + 1e3, 1e9 + 1e6 + 1e3, "memory"]);
    expect(by.compute).toBeCloseTo(0.002, 12);
    expect(by.memory).toBeCloseTo(0.01000001, 12);
  });

  it("pays a launch for each op when asked, which binds the small ones", () => {
    const { seconds, by } = stepTime([gemv, gemm, norm], ROUND, { launch: true });
    expect(seconds).toBeCloseTo(0.01200001 + 30e-6, 12);
    expect(by.launch).toBeCloseTo(10.01e-6, 12);
    expect(opTime(norm, ROUND, { launch: true }).bound).toBe("launch");
  });

  it("sums steps by their counts", () => {
    const twice = sumTimes([{ time: stepTime([gemv], ROUND), count: 1.5 }, { time: stepTime([gemm], ROUND), count: 10 }]);
    expect(twice.seconds).toBeCloseTo(0.015 + 0.02, 12);
    expect(twice.bound).toBe("compute");
  });
});

describe("arithmetic", () => {
  it("follows the operands' formats", () => {
    expect(arithmeticOf(op("gemv", "f32", 0, 0))).toBe("fp32");
    expect(arithmeticOf(op("gemm", "bf16", 0, 0))).toBe("fp16");
    expect(arithmeticOf(op("gemv", "int4", 0, 0))).toBe("int8");
    expect(arithmeticOf(op("gemv", "int4", 0, 0), "int4")).toBe("int4");
    expect(arithmeticOf(op("attention", "int8", 0, 0))).toBe("fp16");
    expect(arithmeticOf(op("attention", "f32", 0, 0))).toBe("fp32");
    expect(arithmeticOf(op("attention", "f16", 0, 0, 0, "softmax"))).toBe("fp32");
    expect(arithmeticOf(op("norm", "f32", 0, 0), "int8")).toBe("fp32");
  });

  it("runs in the next wider format where a device lacks one", () => {
    expect(peakOf(ROUND, "int4")).toBe(40e12);
    expect(peakOf({ ...ROUND, peaks: { fp32: 1 } }, "int4")).toBe(1e12);
  });
});

describe("energy", () => {
  it("is arithmetic, cache and DRAM by hand", () => {
    const { arithmetic, cache, dram, total } = energyOf([gemv, gemm], ROUND);
    expect(arithmetic).toBeCloseTo(2e9 * 0.15e-12 + 40e9 * 0.75e-12, 9);
    expect(cache).toBeCloseTo((1e9 + 1e6) * 12.5e-12, 9);
    expect(dram).toBeCloseTo((1e9 + 1e6) * 243.75e-12, 9);
    expect(total).toBeCloseTo(arithmetic + cache + dram, 12);
  });

  it("keeps activations that fit the cache out of DRAM", () => {
    expect(energyOf([op("norm", "f32", 0, 0, 1e6)], ROUND).dram).toBe(0);
    expect(energyOf([op("norm", "f32", 0, 0, 1e6 + 1)], ROUND).dram).toBeGreaterThan(0);
    expect(energyOf([op("norm", "f32", 0, 0, 1)], { ...ROUND, cacheMB: undefined }).dram).toBeGreaterThan(0);
  });

  it("takes a user's table over Horowitz's, and names what is wrong in it", () => {
    const table = parseEnergy("e.json", `{"flop": {"int8": 1}, "dramByte": 31}`);
    expect(table).toMatchObject({ flop: { ...HOROWITZ_2014.flop, int8: 1 }, cacheByte: 12.5, dramByte: 31 });
    expect(() => parseEnergy("e.json", "{")).toThrow(/^e\.json: expected JSON/);
    expect(() => parseEnergy("e.json", "[]")).toThrow("e.json: expected an object, found []");
    expect(() => parseEnergy("e.json", `{"flop": {"fp64": 1}}`)).toThrow("e.json: flop.fp64: unknown field, expected fp32, fp16, int8, int4");
    expect(() => parseEnergy("e.json", `{"dramByte": -1}`)).toThrow("e.json: dramByte: expected picojoules, 0 or more, found -1");
    expect(() => parseEnergy("e.json", `{"dram": 1}`)).toThrow("e.json: dram: unknown field");
  });
});
