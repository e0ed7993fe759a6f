import { describe, expect, it } from "vitest";
import type { ModelConfig } from "../../src/model/config.ts";
import { tensorReader } from "../../src/model/tensor-reader.ts";
import { parseWeights } from "../../src/quant/scheme.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { wasmKernels } from "../../src/tensor/wasm/index.ts";

/** A file of one matrix [2, 4], of which a value has these bits, and (unless 1) the factor beside it. */
function fileOf(type: "F16" | "BF16", bits: number, factor: number) {
  const bytes = new Uint8Array(20);
  new DataView(bytes.buffer).setUint16(6, bits, true);
  new DataView(bytes.buffer).setFloat32(16, factor, true);
  const tensors = [
    { name: "output.weight", type, shape: [2, 4], offset: 0, bytes: 16 },
    ...(factor === 1 ? [] : [{ name: "output.scale", type: "F32", shape: [1], offset: 16, bytes: 4 }]),
  ];
  return {
    source: { name: "file", size: bytes.length, read: (offset: number, target: Uint8Array) => target.set(bytes.subarray(offset, offset + target.length)), close: () => {} },
    tensors: new Map(tensors.map((info) => [info.name, info])),
  };
}

describe.each([scalarKernels(), wasmKernels()])("a matrix of 16 bits, $name", (kernels) => {
  const read = (type: "F16" | "BF16", bits: number, weights = "keep", factor = 1) =>
    tensorReader(fileOf(type, bits, factor), {} as ModelConfig, kernels, { weights: parseWeights(weights) }).matrix("output.weight", [2, 4], "output.scale");
  const valueOf = (matrix: ReturnType<typeof read>) => {
    const out = kernels.alloc("f32", [1, 4]);
    kernels.embed(out, matrix, Int32Array.of(0));
    return out.f32[3];
  };

  it("stays what it is; f32 on request, and where a factor is multiplied in", () => {
    for (const [type, dtype, bits] of [["F16", "f16", 0x3e00], ["BF16", "bf16", 0x3fc0]] as const) {
      const [kept, asked, scaled] = [read(type, bits), read(type, bits, "f32"), read(type, bits, "keep", 3)];
      expect([kept, asked, scaled].map(({ format }) => format)).toEqual([dtype, "f32", "f32"]);
      expect([kept, asked, scaled].map(valueOf)).toEqual([1.5, 1.5, 4.5]);
      expect(asked.bytes).toBe(2 * kept.bytes);
    }
  });

  it.each([["F16", 0x7c00, "Infinity"], ["F16", 0xfc00, "-Infinity"], ["F16", 0x7c01, "NaN"], ["BF16", 0x7f80, "Infinity"], ["BF16", 0xffc0, "NaN"]] as const)(
    "is refused where it is not finite: %s %i",
    (type, bits, value) => {
      for (const weights of ["keep", "f32"]) expect(() => read(type, bits, weights)).toThrow(`file: tensor "output.weight": expected finite weights, found ${value} at index 3`);
    },
  );
});

it("costs two bytes a value where nothing is computed", () => {
  expect(tensorReader(fileOf("F16", 0, 1), {} as ModelConfig, shapeKernels(), {}).matrix("output.weight", [2, 4]).bytes).toBe(16);
});
