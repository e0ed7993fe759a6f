import { describe, expect, it } from "vitest";
import { GRID_DECODERS } from "../../src/quant/ggml-iquants.ts";
import { decodeRows, GGML_TYPES, nativeDtype } from "../../src/quant/ggml.ts";
import { zeros } from "../../src/tensor/tensor.ts";
import { fnv, lcgBlocks } from "../support/blocks.ts";

interface Known {
  /** Where the f16 numbers stand that are made finite. */
  readonly scales: readonly number[];
  /** Of the values of 1024 blocks, by dequantize_row_* of libggml-base (llama.cpp v0.5.0). */
  readonly hash: number;
  /** Values 0, 17 and 31. */
  readonly values: readonly number[];
  /** How many points the grid has, and how many values each. */
  readonly grid?: readonly [points: number, width: number];
  /** Bytes that make the scale no number. */
  readonly bad?: readonly (readonly [at: number, byte: number])[];
}

const F16_NAN = (at: number) => [[at, 1], [at + 1, 0x7e]] as const;

const KNOWN: Readonly<Record<string, Known>> = {
  IQ1_S: { scales: [0], hash: 0x9509efcf, values: [0.0000023096799850463867, 0.0000023096799850463867, 0.0000023096799850463867], grid: [2048, 8], bad: F16_NAN(0) },
  IQ1_M: { scales: [54], hash: 0x2fb7711b, values: [0.00024756789207458496, -0.00020948052406311035, -0.00016292929649353027], grid: [2048, 8], bad: [[53, 0xff], [55, 0x7f]] },
  IQ2_XXS: { scales: [0], hash: 0xcc968c6c, values: [13.2646484375, -41.4520263671875, -41.4520263671875], grid: [256, 8], bad: F16_NAN(0) },
  IQ2_XS: { scales: [0], hash: 0x93fd529b, values: [-0.005333900451660156, 0.01600170135498047, -0.01600170135498047], grid: [512, 8], bad: F16_NAN(0) },
  IQ2_S: { scales: [0], hash: 0xfea703b1, values: [-0.013822898268699646, 0.0026788562536239624, 0.000857234001159668], grid: [1024, 8], bad: F16_NAN(0) },
  IQ3_XXS: { scales: [0], hash: 0x320379ec, values: [4.443572998046875, 0.86004638671875, 2.00677490234375], grid: [256, 4], bad: F16_NAN(0) },
  IQ3_S: { scales: [0], hash: 0x49832fac, values: [-0.0975341796875, 0.0975341796875, 1.2679443359375], grid: [512, 4], bad: F16_NAN(0) },
  IQ4_NL: { scales: [0], hash: 0x1688cac0, values: [-0.11492729187011719, -0.038898468017578125, 0.022985458374023438], bad: F16_NAN(0) },
  IQ4_XS: { scales: [0], hash: 0x9314519c, values: [1.7917633056640625, -4.5561981201171875, -4.5561981201171875], bad: F16_NAN(0) },
  TQ1_0: { scales: [52], hash: 0x87c4cefb, values: [-0.00010091066360473633, 0.00010091066360473633, -0.00010091066360473633], bad: F16_NAN(52) },
  TQ2_0: { scales: [64], hash: 0x8c638de9, values: [0.001178741455078125, 0.001178741455078125, 0.001178741455078125], bad: F16_NAN(64) },
  Q1_0: { scales: [0], hash: 0xb408c545, values: [1.8125, 1.8125, 1.8125], bad: F16_NAN(0) },
  Q2_0: { scales: [0], hash: 0x82ae5d70, values: [0.0030517578125, -0.00152587890625, 0.0030517578125], bad: F16_NAN(0) },
  Q8_K: { scales: [2], hash: 0x369cbfc1, values: [0.01402745395898819, -0.0007230646442621946, 0.017208939418196678], bad: [[2, 0xc0], [3, 0x7f]] },
  NVFP4: { scales: [], hash: 0x55a6d3cc, values: [-2, 192, 32] },
};

describe.each(Object.entries(KNOWN))("%s", (type, { scales, hash, values, grid, bad }) => {
  const { blockSize, blockBytes } = GGML_TYPES[type];
  const shape = [64, 16 * blockSize];
  const bytes = lcgBlocks(type, scales, 1024);
  const floats = zeros("f32", shape);

  it("decodes as in GGML", () => {
    expect(decodeRows(type, bytes, floats)).toBe(-1);
    expect([0, 17, 31].map((i) => floats.f32[i])).toEqual(values);
    // Adding zero makes -0 a 0.
    expect(fnv(new Uint8Array(floats.f32.map((v) => v + 0).buffer))).toBe(hash);
  });

  it("is kept exactly where a scale serves 32 values", () => {
    decodeRows(type, bytes, floats);
    expect(nativeDtype(type)).toBe(/^(IQ1_M|IQ2_XS|IQ2_S|NVFP4)$/.test(type) ? "f32" : "int8");
    if (nativeDtype(type) === "f32") return expect(() => decodeRows(type, bytes, zeros("int8", shape))).toThrow(`cannot decode ${type} into int8 with groups of 32`);
    const integers = zeros("int8", shape);
    expect(decodeRows(type, bytes, integers)).toBe(-1);
    expect(floats.f32.findIndex((v, i) => v !== Math.fround(integers.at(i)))).toBe(-1);
  });

  if (grid) {
    it("has met every point of the grid in that", () => {
      const [points, width] = grid;
      const { group, split } = GRID_DECODERS[type];
      const whole = new Int8Array(256);
      const met = new Set<string>();
      for (let at = 0; at < bytes.length; at += blockBytes) {
        split(bytes, at, whole, 0, new Float32Array(256 / group), 0);
        for (let i = 0; i < 256; i += width) met.add(Array.from(whole.subarray(i, i + width), (v) => (type.startsWith("IQ1") ? Math.round(v / 8) : Math.abs(v))).join());
      }
      expect(met.size).toBe(points);
    });
  }

  if (bad) {
    it("a scale that is not finite is found", () => {
      const damaged = bytes.slice();
      for (const [at, byte] of bad) damaged[37 * blockBytes + at] = byte;
      expect(decodeRows(type, damaged, floats)).toBe(37 * blockSize);
      if (nativeDtype(type) === "int8") expect(decodeRows(type, damaged, zeros("int8", shape))).toBe(37 * blockSize);
    });
  }
});
