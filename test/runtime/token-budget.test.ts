import { describe, expect, it } from "vitest";
import { linears } from "../../src/model/weights.ts";
import { autoBudget, givenSpeeds, LADDER, measuredSpeeds, MIN_AUTO_BUDGET, rowsWithin, turningPoint } from "../../src/runtime/token-budget.ts";
import { SMALL } from "../support/models.ts";
import { smallBench } from "../support/run.ts";

const { model, ops } = smallBench(1, SMALL);
const memoryBound = LADDER.map((rows) => ({ rows, stepMs: Math.max(64, rows) }));

describe("the automatic budget", () => {
  it("is where rows stop getting cheaper", () => {
    expect(turningPoint(memoryBound)).toBe(64);
    expect(turningPoint(LADDER.map((rows) => ({ rows, stepMs: rows })))).toBe(1);
    expect(turningPoint(LADDER.map((rows) => ({ rows, stepMs: 1 })))).toBe(256);
    expect(autoBudget(memoryBound)).toBe(64);
    expect(autoBudget(LADDER.map((rows) => ({ rows, stepMs: rows })))).toBe(MIN_AUTO_BUDGET);
  });

  it("is bounded by a latency target, down to one row", () => {
    expect(rowsWithin(memoryBound, 1000)).toBe(256);
    expect(rowsWithin(memoryBound, 192)).toBe(192);
    expect(rowsWithin(memoryBound, 1)).toBe(1);
    expect(autoBudget(memoryBound, 1000)).toBe(64);
    expect(autoBudget(memoryBound, 64)).toBe(64);
    expect(autoBudget(memoryBound, 10)).toBe(1);
  });

  it("follows a given roofline: the rows at which flops take as long as bytes", () => {
    const weights = linears(model.weights).map(({ weight }) => weight);
    const values = weights.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
    const bytes = weights.reduce((sum, one) => sum + one.bytes, 0);
    const ridge = 64;
    const speeds = givenSpeeds(model, { gbPerSecond: 10, gflops: (10 * 2 * values * ridge) / bytes });
    expect(speeds[0].stepMs).toBeCloseTo(bytes / 1e7, 9);
    expect(turningPoint(speeds)).toBe(ridge);
  });

  it("is measured once for a model", () => {
    const speeds = measuredSpeeds(model, ops.kernels);
    expect(measuredSpeeds(model, ops.kernels)).toBe(speeds);
    expect(speeds[0].rows).toBe(1);
    for (const { stepMs } of speeds) expect(stepMs).toBeGreaterThan(0);
  });
});
