import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type Io, UsageError, type Values } from "../../../src/runtime/commands/command.ts";
import { roofline } from "../../../src/runtime/commands/roofline.ts";
import { parseHardware } from "../../../src/runtime/hardware/hardware.ts";
import type { Machine, Twice } from "../../../src/runtime/hardware/measure-machine.ts";
import type { ChosenPhase } from "../../../src/runtime/hardware/roofline.ts";
import type { StepCheck } from "../../../src/runtime/hardware/check-here.ts";
import { cli, cliJson } from "../../support/cli.ts";

const folder = mkdtempSync(join(tmpdir(), "memwall-roofline-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const OUT = join(folder, "machine.json");
const SMALL = ["--shape", "stories260k", "--prompt-tokens", "8", "--tokens", "4"];

/** Above nothing, and a number that JSON can hold. */
function positive(values: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(values)) {
    expect(value, name).toBeGreaterThan(0);
    expect(Number.isFinite(value), name).toBe(true);
  }
}

// They measure: half a minute on a busy machine.
describe("run.ts roofline", { timeout: 60_000 }, () => {
  it("measures the machine and places every op of a prefill and a decode", () => {
    const found = cliJson<{ machine: Machine; phases: Record<"prefill" | "decode", ChosenPhase>; rules: string[]; measuredTwice: Twice[] }>(["roofline", ...SMALL, "--repeat", "2", "--out", OUT]);
    const { machine, phases } = found;
    const counts = [...new Set(machine.read.map(({ threads }) => threads))];
    expect(counts[0]).toBe(1);
    expect(counts.at(-1)).toBe(machine.threads);
    expect(machine.peaks.map(({ format }) => format)).toEqual(counts.flatMap(() => ["int8", "int4", "f32"]));
    for (const { gbPerSecond } of machine.read) positive({ ...gbPerSecond });
    for (const { gops } of machine.peaks) positive({ ...gops });
    expect(found.measuredTwice.map(({ what }) => what)).toEqual(["memory", "int8", "int4", "f32"]);
    for (const { what, before, after } of found.measuredTwice) {
      positive({ before, after });
      const rows = what === "memory" ? machine.read.map(({ threads, gbPerSecond }) => ({ threads, speed: gbPerSecond })) : machine.peaks.filter(({ format }) => format === what).map(({ threads, gops }) => ({ threads, speed: gops }));
      expect(rows.filter(({ threads }) => threads === machine.threads).at(-1)!.speed.highest).toBe(Math.max(before, after));
    }
    positive({ overheadNs: machine.overheadNs, memoryBytes: machine.memoryBytes });
    expect(found.rules.join("\n")).toMatch(/overhead:/);

    expect(phases.prefill.steps).toBe(1);
    expect(phases.decode.steps).toBe(4);
    for (const phase of Object.values(phases)) {
      const { stepMs, roofMs, withOverheadMs, error, mbu, mfu, boundShares, ops } = phase;
      positive({ stepMs, roofMs, withOverheadMs, mbu, mfu });
      expect(error).toBeCloseTo(roofMs / stepMs - 1, 9);
      expect(boundShares.memory + boundShares.arithmetic + boundShares.overhead).toBeCloseTo(1, 9);
      expect(ops.map(({ name }) => name)).toEqual(expect.arrayContaining([expect.stringMatching(/^attn_q/), "attention", "ffn_down", "output", "sample"]));
      expect(phase.above.ops).toEqual(ops.filter(({ share }) => share > 1).map(({ name }) => name));
      for (const { calls, bytes, ms, share, roofGBs, peakGflops } of ops) positive({ calls, bytes, ms, share, roofGBs, peakGflops });
    }
    // Five layers, four steps; decode is matrix times vector.
    expect(phases.decode.ops.find(({ name }) => name === "ffn_down")).toMatchObject({ kind: "gemv", dtype: "int8", calls: 20 });

    const [device] = parseHardware(OUT, readFileSync(OUT, "utf8"));
    expect(device.name).toBe("this");
    const { projections, check } = cliJson<{ projections: { hw: string }[]; check: StepCheck }>(["project", "--hw", `orin,${OUT}`, "--weights", "int8", ...SMALL]);
    expect(projections.map(({ hw }) => hw)).toEqual(["orin", "this"]);
    if (check.measured === null) throw new Error(check.why);
    positive({ ...check.measured, ...check.projected });
    expect(check.error.tpotMs).toBeCloseTo(check.projected.tpotMs / check.measured.tpotMs - 1, 9);
    expect(cli(["project", "--hw", OUT, "--weights", "int8", ...SMALL]).out).toMatch(/decode step measured .* ms, projected .*: error [+-]?[\d.]+ %/);
  });

  it("reads and multiplies by plain loops with the scalar kernels, and prints tables", () => {
    const { code, out, err } = cli(["roofline", ...SMALL, "--repeat", "1", "--backend", "scalar", "--weights", "f32"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^this machine: scalar kernels on 1 of \d+ threads; /);
    expect(out).toMatch(/^decode: 4 steps, measured /m);
    expect(out).toMatch(/projected from the roof [\d.]+ m?s: error [+-]?[\d.]+ %; with /);
    expect(out).toMatch(/^output +gemv +f32 +4 .* (memory|arithmetic|overhead)( {2}above its roof)?$/m);
    expect(out).toMatch(/^best before and after the steps, of which the better counts: memory [\d.]+ and [\d.]+ GB\/s, int8 .* apart$/m);
    expect(/above its roof$/m.test(out)).toBe(/above their own roofs, by up to/.test(out));
  });

  it.each<[Values, RegExp]>([
    [{ threads: "0" }, /--threads: expected a whole number, 1 or more, found "0"/],
    [{ shape: "stories15n" }, /--shape: .*did you mean stories15m\?/],
    [{ shape: "stories260k", model: "x.gguf" }, /--shape and --model: expected one of them/],
    [{ backend: "shapes" }, /--backend: expected one of auto, wasm, scalar, found "shapes"/],
    [{ attention: "flash" }, /--attention: expected one of tiled, naive/],
    [{ shape: "stories260k", weights: "int3" }, /--weights: expected one of f32, int8, int4, found "int3"/],
    [{ shape: "stories260k", "prompt-tokens": "600", backend: "scalar" }, /expected at most 512 together/],
    [{ repeat: "1.5" }, /--repeat: expected a whole number/],
  ])("refuses %j", async (values, message) => {
    const nowhere = {} as Io;
    const refused = roofline.run(values, nowhere);
    await expect(refused).rejects.toThrow(UsageError);
    await expect(refused).rejects.toThrow(message);
  });

  it("exits with 2 for a wrong command line", () => {
    expect(cli(["roofline", "--threads", "none"])).toMatchObject({ code: 2, out: "", err: expect.stringMatching(/--threads: expected a whole number/) as string });
  });

  it("says before it measures that a file can't be written", () => {
    const { code, err } = cli(["roofline", "--out", join(folder, "no", "such.json")]);
    expect(code).toBe(1);
    expect(err).toMatch(/such\.json: cannot write: no such folder/);
  });
});

describe("run.ts bench", { timeout: 60_000 }, () => {
  it("holds its speeds against the machine", () => {
    const args = ["bench", ...SMALL, "--repeat", "3"];
    interface Rate {
      tokensPerSecond: number;
      spread: { lowest: number; highest: number };
    }
    const { machine, prefill, decode } = cliJson<{
      machine: { readBandwidthGBs: number; peakGops: number; simd: boolean; relaxedDot: string; parallelism: number };
      prefill: Rate & { gops: number };
      decode: Rate & { gbPerSecond: number; bandwidthShare: number };
    }>(args);
    positive({ read: machine.readBandwidthGBs, peak: machine.peakGops, parallelism: machine.parallelism, gops: prefill.gops });
    expect(machine.simd).toBe(true);
    expect(machine.relaxedDot).toMatch(/^(none|inexact|u8s8|s8s8)$/);
    expect(decode.bandwidthShare).toBeCloseTo(decode.gbPerSecond / machine.readBandwidthGBs, 9);
    for (const { tokensPerSecond, spread } of [prefill, decode]) {
      expect(spread.lowest).toBeLessThanOrEqual(tokensPerSecond);
      expect(spread.highest).toBeGreaterThanOrEqual(tokensPerSecond);
    }
    const costs = cliJson<{ machine: null; decode: { bandwidthShare: null; spread: null }; prefill: { gops: null } }>(["bench", ...SMALL, "--backend", "shapes"]);
    expect([costs.machine, costs.decode.bandwidthShare, costs.decode.spread, costs.prefill.gops]).toEqual([null, null, null, null]);
  });
});
