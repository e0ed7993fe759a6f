import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { cli, cliJson } from "../../support/cli.ts";
import type { Projection } from "../../../src/runtime/hardware/projection.ts";
import { SHARE_KINDS, type Share } from "../../../src/runtime/hardware/shares.ts";

const folder = mkdtempSync(join(tmpdir(), "memwall-hw-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const MINE = file("mine.json", `{"name": "mine", "bandwidthGBs": 50, "capacityGB": 16, "peaks": {"fp32": 1, "int8": 4}}`);
const SMALL = ["--prompt-tokens", "16", "--tokens", "4"];

describe("run.ts project", () => {
  it("meets the known ceilings, and refuses to dream", () => {
    const args = ["project", "--shape", "llama-2-7b", "--weights", "int8", "--hw", `rtx-4090,tesla-fsd-hw3,orin,${MINE}`];
    const { projections } = cliJson<{ projections: Projection[] }>(args);
    expect(projections.map(({ hw }) => hw)).toEqual(["rtx-4090", "tesla-fsd-hw3", "orin", "mine"]);
    [7, 110, 34].forEach((ms, i) => expect(Math.abs(projections[i].tpotMs! / ms - 1)).toBeLessThan(0.03));
    const keys = ["hw", "fits", "tpotMs", "tokensPerSecond", "ttftMs", "bound", "mbu", "mfu", "joulesPerToken"];
    expect(Object.keys(projections[0])).toEqual(expect.arrayContaining(keys));

    const { out } = cli(["project", "--shape", "llama-2-7b", "--weights", "f32", "--hw", "orin,tesla-fsd-hw3", ...SMALL]);
    expect(out).toMatch(/^tesla-fsd-hw3 +does not fit: needs 27\.0 GB, has 8\.00 GB, 19\.0 GB too little$/m);
    expect(out).toMatch(/^orin .* memory /m);
  });

  it("sweeps over bits", () => {
    const swept = cliJson<{ rows: { value: string; projections: Projection[] }[] }>(["project", "--shape", "stories15m", "--hw", "orin", "--sweep", "bits", ...SMALL]);
    expect(swept.rows.map(({ value }) => value)).toEqual(["f16", "int8", "int6", "int5", "int4", "int3", "int2"]);
  });

  it("finds the largest batches", () => {
    expect(cli(["project", "--shape", "stories260k", "--hw", "orin", "--sweep", "capacity"]).out).toMatch(/^orin +int8 +128 .* \d[\d,]* +\d/m);
  });

  it("shows the published figures", () => {
    const { out } = cli(["project", "--published"]);
    expect(out).toMatch(/^ {2}decode speed-up +10\.41 x +\d\.\d+ x +-\d+\.\d %$/m);
    expect(out).toMatch(/^SARATHI, table 4 .*:\n {2}decode speed-up, sequences of 1024 +5\.450 x/m);
  });

  it("shows its profiles", () => {
    const { out } = cli(["project", "--profiles"]);
    expect(out).toMatch(/^rtx-4090\n {2}peaks .*waredb/m);
    expect(out).toMatch(/^ {2}bandwidthGBs +204\.8 +UNVERIFIED: /m);
  });

  it("says which figures of a projection no source was found for", () => {
    const args = ["project", "--shape", "stories260k", "--hw", "orin,a100-80g", ...SMALL];
    expect(cli(args).out).toMatch(/^Unverified: orin's bandwidthGBs \(.+\)\.$/m);
    expect(cliJson<{ unverified: Record<string, string[]> }>(args).unverified).toEqual({ orin: ["bandwidthGBs"] });
  });
});

describe("run.ts breakdown", () => {
  it("measures the shipped model", () => {
    const { shares, backend } = cliJson<{ shares: Share[]; backend: string }>(["breakdown", ...SMALL]);
    expect(backend).toBe("auto");
    expect(shares.map(({ kind }) => kind)).toEqual(SHARE_KINDS);
    for (const what of ["calls", "flops", "bytes", "time"] as const) expect(shares.reduce((sum, share) => sum + share[what], 0)).toBeCloseTo(1, 6);
  });

  it("predicts GPT-3's shares on hardware, and no time without", () => {
    const args = ["breakdown", "--shape", "gpt-3-175b", "--backend", "shapes", ...SMALL];
    const { shares } = cliJson<{ shares: Share[] }>([...args, "--hw", "a100-80g"]);
    expect(shares[0]).toMatchObject({ kind: "gemv" });
    expect(shares[0].time).toBeGreaterThan(0.7);
    expect(cliJson<{ shares: { time: null }[] }>(args).shares.every(({ time }) => time === null)).toBe(true);
    expect(cli([...args, "--hw", "a100-80g"]).out).toMatch(/^gemv .* 86\.53 % of operations, 82\.27 % of latency$/m);
  });
});

describe("run.ts plan", () => {
  it("divides a model and says why the others lose", () => {
    const { code, out } = cli(["plan", "--shape", "llama-2-70b", "--devices", "4", "--hw", "h100-sxm", "--link-gbs", "450", "--batch", "4", ...SMALL]);
    expect(code).toBe(0);
    expect(out).toMatch(/^tp 4 .* the best$/m);
    expect(out).toMatch(/^dp 4 .* does not fit: needs \d+ GB a device, has 80\.0 GB$/m);
  });

  it("keeps to the pools that it is given", () => {
    const args = ["plan", "--shape", "llama-3-8b", "--devices", "4", "--hw", "h100-sxm", "--batch", "4", ...SMALL, "--prefill-pool", "1", "--decode-pool", "3"];
    const { best } = cliJson<{ best: { pools: object; ttftMs: number; tpotMs: number; tokensPerSecond: number } }>(args);
    expect(best.pools).toEqual({ prefill: 1, decode: 3 });
    expect(Math.min(best.ttftMs, best.tpotMs, best.tokensPerSecond)).toBeGreaterThan(0);
  });
});

describe("bad input", () => {
  const shape = ["--shape", "llama-2-7b"];
  const broken = file("broken.json", `{"name": "x", "bandwidthGBs": "fast"}`);
  it.each<[string, string[], number, RegExp]>([
    ["unknown hardware", ["project", ...shape, "--hw", "rtx4090"], 2, /--hw: expected one of h100-sxm, .* found "rtx4090" \(did you mean rtx-4090\?\)/],
    ["an unknown shape", ["project", "--shape", "llama-2-7", "--hw", "orin"], 2, /--shape: expected one of .* \(did you mean llama-2-7b\?\)/],
    ["no hardware", ["project", ...shape], 2, /--hw: expected one or more of/],
    ["an unknown format", ["project", ...shape, "--hw", "orin", "--weights", "int1"], 2, /--weights: expected f32, f16, .* found "int1"/],
    ["hardware with a wrong field", ["project", ...shape, "--hw", broken], 1, /broken\.json: bandwidthGBs: expected a positive number, found "fast"/],
    ["a missing file", ["project", ...shape, "--hw", "./none.json"], 1, /none\.json: cannot open: no such file/],
    ["an unknown sweep", ["project", ...shape, "--hw", "orin", "--sweep", "time"], 2, /--sweep: expected one of batch, context, bits, kv, capacity/],
    ["too many positions", ["project", "--shape", "gpt2", "--hw", "orin", "--prompt-tokens", "2000"], 2, /expected at most 1024 positions/],
    ["pools that do not add up", ["plan", ...shape, "--hw", "h100-sxm", "--prefill-pool", "5", "--decode-pool", "5"], 2, /expected 8 devices together, at least one in each, found 5 and 5/],
    ["a split of no device", ["plan", ...shape, "--hw", "h100-sxm", "--tp", "3"], 2, /expected a product that divides 8 devices, found 3/],
    ["an impossible split", ["plan", ...shape, "--hw", "h100-sxm", "--devices", "3", "--tp", "3"], 1, /tp 3: 32 heads do not divide by 3/],
    ["two kinds of devices", ["plan", ...shape, "--hw", "h100-sxm,orin"], 2, /--hw: expected one device, found 2/],
    ["no link", ["plan", ...shape, "--hw", "orin"], 2, /--link-gbs: expected GB\/s between devices/],
    ["what fits nowhere", ["plan", "--shape", "llama-3.1-405b", "--hw", "l40s", "--devices", "2", ...SMALL], 1, /does not fit on 2 devices: .* needs least, \d+ GB a device, has 48\.0 GB/],
    ["lengths beyond reason", ["breakdown", "--tokens", "1e9", "--hw", "orin"], 2, /--tokens: expected a whole number from 1 to 1048576, found "1e9"/],
    ["predictions' options for a measurement", ["breakdown", "--launch"], 2, /--launch: expected only with --hw/],
    ["formats for a measurement of a file", ["breakdown", "--weights", "int4"], 2, /--weights: expected only with --shape, --hw or --backend shapes/],
    ["threads where nothing runs", ["breakdown", "--backend", "shapes", "--threads", "2"], 2, /--threads: expected none where nothing is computed/],
    ["a workload for a search for one", ["breakdown", "--search", "--batch", "2"], 2, /--batch: expected none with --search/],
    ["a prediction for a measurement", ["breakdown", "--backend", "scalar", "--hw", "orin"], 2, /predicts times for --backend shapes/],
  ])("%s: one line", (_, args, code, message) => {
    const result = cli(args);
    expect(result.err).toMatch(message);
    expect(result.err.trimEnd().split("\n")).toHaveLength(1);
    expect([result.code, result.out]).toEqual([code, ""]);
  });
});
