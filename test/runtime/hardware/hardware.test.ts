import { describe, expect, it } from "vitest";
import { formatBytes, kvName, parseFormat, parseKvFormats } from "../../../src/runtime/hardware/formats.ts";
import { parseHardware } from "../../../src/runtime/hardware/hardware.ts";
import { editDistance, unknownName } from "../../../src/runtime/hardware/nearest.ts";
import { HARDWARE, HARDWARE_NAMES } from "../../../src/runtime/hardware/profiles.ts";

const FINE = { name: "mine", bandwidthGBs: 50, capacityGB: 16, peaks: { fp32: 1, int8: 4 } };
const parse = (value: unknown) => parseHardware("mine.json", JSON.stringify(value));

describe("a user's hardware", () => {
  it("is one device or a list of them", () => {
    expect(parse(FINE)).toEqual([{ ...FINE, sources: {} }]);
    expect(parse([FINE, { ...FINE, name: "b", linkGBs: 8, cacheMB: 2, tdpWatts: 65, launchUs: 1, sources: { linkGBs: "a book" } }])[1].linkGBs).toBe(8);
  });

  it.each<[string, unknown, string]>([
    ["a text", "x", `mine.json: expected an object, found "x"`],
    ["an empty list", [], "mine.json: expected at least one device, found an empty list"],
    ["no name", { ...FINE, name: undefined }, "mine.json: name: expected a text, found nothing"],
    ["no bandwidth", { ...FINE, bandwidthGBs: undefined }, "mine.json: bandwidthGBs: expected a positive number, found nothing"],
    ["a text as bandwidth", { ...FINE, bandwidthGBs: "50" }, `mine.json: bandwidthGBs: expected a positive number, found "50"`],
    ["negative capacity", { ...FINE, capacityGB: -1 }, "mine.json: capacityGB: expected a positive number, found -1"],
    ["no peaks", { ...FINE, peaks: undefined }, "mine.json: peaks: expected an object, found nothing"],
    ["no fp32 peak", { ...FINE, peaks: { int8: 1 } }, "mine.json: peaks.fp32: expected a positive number, found nothing"],
    ["an unknown peak", { ...FINE, peaks: { fp32: 1, fp64: 1 } }, "mine.json: peaks.fp64: unknown field, expected fp32, fp16, int8, int4"],
    ["an unknown field", { ...FINE, bandwith: 1 }, "mine.json: bandwith: unknown field, expected name, bandwidthGBs"],
    ["a source that is a number", { ...FINE, sources: { name: 1 } }, "mine.json: sources.name: expected a text, found 1"],
    ["an unverified figure that it has not", { ...FINE, unverified: ["speed"] }, `mine.json: unverified: expected a list of bandwidthGBs, capacityGB, peaks, linkGBs, cacheMB, tdpWatts, launchUs, found ["speed"]`],
    ["unverified as a text", { ...FINE, unverified: "peaks" }, `mine.json: unverified: expected a list of`],
    ["the second of a list", [FINE, { ...FINE, linkGBs: 0 }], "mine.json: [1]: linkGBs: expected a positive number, found 0"],
  ])("with %s is refused by the field's name", (_, value, message) => {
    expect(() => parse(value)).toThrow(message);
  });

  it("that is no JSON is refused by the file's name", () => {
    expect(() => parseHardware("mine.json", "{,}")).toThrow(/^mine\.json: expected JSON/);
  });
});

describe("built-in hardware", () => {
  it("has a source for every figure, and unique names", () => {
    expect(new Set(HARDWARE_NAMES).size).toBe(HARDWARE.length);
    for (const { name, sources, unverified = [], ...figures } of HARDWARE) {
      for (const field of Object.keys(figures)) expect(sources[field], `${name}: ${field}`).toMatch(/.{10}/);
      expect(Object.keys(figures), name).toEqual(expect.arrayContaining([...unverified, ...Object.keys(sources)]));
      for (const [field, source] of Object.entries(sources)) {
        if (!unverified.includes(field)) expect(source, `${name}: ${field}`).toMatch(/\.(com|org|net|jp|se|cn|de|ai|blog)\b|definition|assumption/);
      }
    }
  });

  it("is valid by the rules for users' files", () => {
    expect(parseHardware("x", JSON.stringify(HARDWARE))).toEqual(HARDWARE);
  });

  it("narrower formats are never slower", () => {
    for (const { name, peaks } of HARDWARE) {
      const rates = [peaks.fp32, peaks.fp16, peaks.int8, peaks.int4].filter((rate) => rate !== undefined);
      expect([...rates].sort((a, b) => a - b), name).toEqual(rates);
    }
  });
});

describe("unknown names", () => {
  it("are answered with the nearest", () => {
    expect(editDistance("kitten", "sitting")).toBe(3);
    expect(editDistance("", "abc")).toBe(3);
    expect(unknownName("rtx4090", HARDWARE_NAMES)).toMatch(/^expected one of h100-sxm, .*found "rtx4090" \(did you mean rtx-4090\?\)$/);
    expect(unknownName("H100", HARDWARE_NAMES)).toContain("did you mean h100-sxm?");
  });
});

describe("number formats", () => {
  it.each<[string, number[], number]>([
    ["f32", [3, 10], 120],
    ["f16", [3, 10], 60],
    ["bf16", [10], 20],
    ["int8", [3, 10], 3 * (10 + 4)],
    ["int8:row", [3, 10], 3 * (10 + 4)],
    ["int8:32", [2, 64], 2 * (64 + 8)],
    ["int4:32", [2, 64], 2 * (32 + 8)],
    ["int3", [2, 10], 2 * (4 + 4)],
    ["int2:4", [1, 10], 3 + 12],
    ["int8", [2, 3, 16, 8], 2 * 3 * 16 * (8 + 4)],
  ])("%s of %j takes %i bytes", (name, shape, bytes) => {
    expect(formatBytes(parseFormat(name)!, shape)).toBe(bytes);
  });

  it("of keys and values may differ", () => {
    expect(kvName(parseKvFormats("int8")!)).toBe("int8");
    expect(kvName(parseKvFormats("v=int4,k=int8")!)).toBe("k=int8,v=int4");
    expect(kvName(parseKvFormats("k=int8")!)).toBe("k=int8,v=f16");
    for (const text of ["", "k", "k=", "k=x", "k=int8,k=int8", "q=int8", "int8,int4"]) expect(parseKvFormats(text), text).toBeUndefined();
  });

  it("are few", () => {
    for (const name of ["", "f64", "int1", "int9", "int8:", "int8:0", "int8:-1", "INT8", "f16:32", "constructor"]) expect(parseFormat(name), name).toBeUndefined();
  });
});
