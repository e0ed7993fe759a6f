import { describe, expect, it } from "vitest";
import { parseCalibration, statistics } from "../../src/quant/calibration.ts";
import { bestScale, histogram } from "../../src/quant/histogram.ts";
import { dice } from "../support/dice.ts";

describe("histogram", () => {
  it("counts every value once, however far the range grows", () => {
    const seen = histogram();
    seen.add(Float32Array.from([0, 0, 0]));
    seen.add(Float32Array.from([1e-3, -1e-3]));
    seen.add(Float32Array.from([500, -0.5, 3]));
    const { range, counts } = seen.read();
    expect(range).toBeGreaterThanOrEqual(500);
    expect(Array.from(counts).reduce((a, b) => a + b, 0)).toBe(8);
  });

  it("refuses what is not finite", () => {
    expect(() => histogram().add(Float32Array.from([1, NaN]))).toThrow("expected finite activations");
  });
});

describe("bestScale", () => {
  const errorAt = (values: Float32Array, scale: number) => values.reduce((sum, value) => sum + (value - Math.max(-127, Math.min(127, Math.round(value / scale))) * scale) ** 2, 0);

  it("clips a rare outlier where that pays, and keeps the range where it does not", () => {
    const d = dice(4);
    const values = Float32Array.from({ length: 100_000 }, () => d.normal());
    values[5] = 12;
    const seen = histogram();
    seen.add(values);
    const scale = bestScale(seen.read(), 12, 127);
    expect(scale * 127).toBeLessThan(12);
    expect(errorAt(values, scale)).toBeLessThan(errorAt(values, 12 / 127));
    const flat = histogram();
    const even = Float32Array.from({ length: 100_000 }, (_, i) => (i / 50_000 - 1) * 3);
    flat.add(even);
    expect(bestScale(flat.read(), 3, 127)).toBeCloseTo(3 / 127, 3);
  });

  it("has nothing to offer for zeros", () => {
    const seen = histogram();
    seen.add(new Float32Array(10));
    expect(bestScale(seen.read(), 0, 127)).toBe(0);
  });
});

describe("statistics", () => {
  it("finds outlier channels and what every channel is like", () => {
    const d = dice(9);
    const collector = statistics(2, "ffn_act", 8);
    for (let batch = 0; batch < 5; batch++) collector.add(Float32Array.from({ length: 80 }, (_, i) => d.normal() * (i % 8 === 3 ? 50 : 1)));
    const seen = collector.read();
    expect(seen.outliers).toEqual([3]);
    expect(seen.channelSquare[3] / seen.channelSquare[0]).toBeGreaterThan(100);
    expect(seen.largest).toBe(seen.channelMax[3]);
    expect(seen.histogram.counts.reduce((a, b) => a + b, 0)).toBe(400);
  });
});

describe("parseCalibration", () => {
  const good = () => {
    const collector = statistics(0, "attn_norm", 2);
    collector.add(Float32Array.from([1, -2]));
    return { format: "memwall-calibration", version: 1, model: { name: "m", dim: 2, nLayers: 1, ffnDim: 4, headDims: 2 }, tokens: 1, ops: [collector.read()] };
  };

  it("reads what was written", () => {
    expect(parseCalibration("c.json", JSON.stringify(good()))).toEqual(good());
  });

  it.each([
    ["", "found no JSON"],
    ["{}", "found other JSON"],
    [JSON.stringify({ ...good(), version: 2 }), "found version 2"],
    [JSON.stringify({ ...good(), ops: [] }), "found no statistics in it"],
    [JSON.stringify({ ...good(), ops: [{ ...good().ops[0], channelMax: ["x"] }] }), "found damaged statistics of attn_norm in layer 0"],
    [JSON.stringify({ ...good(), smooth: { alpha: 0.5, migrations: [{ layer: 0, name: "attn_norm", factors: [0] }] } }), "found a damaged migration"],
    [JSON.stringify(good()).slice(0, -5), "found no JSON"],
  ])("names the file and the problem: %s", (text, problem) => {
    expect(() => parseCalibration("c.json", text)).toThrow(`c.json: expected a calibration file (run.ts calibrate makes one), ${problem}`);
  });
});
