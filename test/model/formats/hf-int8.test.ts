import { describe, expect, it } from "vitest";
import { convertFolder } from "../../../src/model/convert.ts";
import { createModel } from "../../../src/model/decoder.ts";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { memoryFolder } from "../../../src/model/formats/folder.ts";
import { ggufBytes } from "../../../src/model/formats/gguf-write.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { loadWeights } from "../../../src/model/load.ts";
import { type ModelFile, openModel } from "../../../src/model/open.ts";
import { bf16ToF32, f32ToBf16 } from "../../../src/tensor/float16.ts";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import { folderFiles, type FolderModel, folderModel, safeTensors, type SafeTensorOut } from "../../support/hf-folder.ts";
import { allLogits, bench, relativeError } from "../../support/run.ts";

const PROMPT = [260, 116, 104, 101, 256, 10, 200, 33];

function logitsOf(file: ModelFile): Float32Array[] {
  const kernels = scalarKernels();
  return allLogits(bench(createModel(file.config, loadWeights(file, file.config, kernels)), { kernels }), PROMPT);
}

type Scales = "rows, BF16" | "rows, F32" | "groups of 16" | "one" | "SCB";

const f32 = (values: readonly number[] | Float32Array) => new Uint8Array(Float32Array.from(values).buffer);

/** The layers' matrices as I8 with scales beside them, and the same numbers as plain F32. */
function int8Model(model: FolderModel, scales: Scales): { integers: Record<string, SafeTensorOut>; plain: Record<string, SafeTensorOut> } {
  const [integers, plain] = [{ ...model.tensors }, { ...model.tensors }];
  for (const [name, { shape, data }] of Object.entries(model.tensors)) {
    if (!name.includes("_proj.weight")) continue;
    const values = new Float32Array(data.slice().buffer);
    const [rows, cols] = shape;
    const width = scales === "groups of 16" ? 16 : scales === "one" ? rows * cols : cols;
    const steps = Array.from({ length: values.length / width }, (_, i) => {
      const most = values.subarray(i * width, (i + 1) * width).reduce((max, value) => Math.max(max, Math.abs(value)), 0);
      return scales === "rows, BF16" ? bf16ToF32(f32ToBf16(most / 127)) : Math.fround(Math.fround(most) / 127);
    });
    const q = Int8Array.from(values, (value, i) => Math.max(-128, Math.min(127, Math.round(value / steps[Math.floor(i / width)]))));
    integers[name] = { dtype: "I8", shape, data: new Uint8Array(q.buffer) };
    plain[name] = { dtype: "F32", shape, data: f32(Float32Array.from(q, (integer, i) => integer * steps[Math.floor(i / width)])) };
    const stem = name.slice(0, -".weight".length);
    if (scales === "SCB") {
      integers[`${stem}.SCB`] = { dtype: "F32", shape: [rows], data: f32(Array.from({ length: rows }, (_, row) => values.subarray(row * cols, (row + 1) * cols).reduce((max, value) => Math.max(max, Math.abs(value)), 0))) };
      integers[`${stem}.weight_format`] = { dtype: "U8", shape: [], data: new Uint8Array(1) };
    } else if (scales === "rows, BF16") integers[`${stem}.weight_scale`] = { dtype: "BF16", shape: [rows, 1], data: new Uint8Array(Uint16Array.from(steps, f32ToBf16).buffer) };
    else integers[`${stem}.weight_scale`] = { dtype: "F32", shape: scales === "one" ? [1] : [rows, steps.length / rows], data: f32(steps) };
  }
  return { integers, plain };
}

const CONFIGS: Readonly<Record<"compressed" | "bitsandbytes", object>> = {
  compressed: { quant_method: "compressed-tensors", format: "int-quantized", config_groups: {}, ignore: ["lm_head"] },
  bitsandbytes: { quant_method: "bitsandbytes", load_in_8bit: true },
};

const files = (model: FolderModel, tensors: Record<string, SafeTensorOut>, quantisation: object | undefined) => ({
  ...folderFiles(model),
  "config.json": JSON.stringify({ ...model.config, ...(quantisation && { quantization_config: quantisation }) }),
  "model.safetensors": safeTensors(tensors),
});

describe("I8 weights of a folder", () => {
  it.each<[Scales, keyof typeof CONFIGS, string[]]>([
    ["rows, BF16", "compressed", ["F32", "Q8_0"]],
    ["rows, F32", "compressed", ["F32"]],
    ["groups of 16", "compressed", ["F32"]],
    ["one", "compressed", ["F32"]],
    ["SCB", "bitsandbytes", ["F32"]],
  ])("with scales for %s are the numbers that they stand for", (scales, method, types) => {
    for (const kind of ["llama", "qwen2"] as const) {
      const model = folderModel(kind, "F32", { headDim: 8 });
      const { integers, plain } = int8Model(model, scales);
      const folder = memoryFolder("model", files(model, integers, CONFIGS[method]));
      const file = openModel(folder);
      expect([...new Set([...file.tensors.values()].map(({ type }) => type))].sort()).toEqual(types);
      const found = logitsOf(file);
      const expected = logitsOf(openModel(memoryFolder("model", files(model, plain, undefined))));
      found.forEach((row, i) => expect(relativeError(row, expected[i])).toBeLessThan(2e-6));
      const converted = openModel(memorySource("model.gguf", ggufBytes(convertFolder(folder).plan)));
      expect(logitsOf(converted)).toEqual(found);
    }
  });

  const model = folderModel("llama");
  const { integers } = int8Model(model, "rows, F32");
  const NAME = "model.layers.0.mlp.up_proj";
  const without = (name: string) => Object.fromEntries(Object.entries(integers).filter(([key]) => key !== name));
  it.each<[string, Record<string, SafeTensorOut>, object, string]>([
    ["no scales", without(`${NAME}.weight_scale`), CONFIGS.compressed, `tensor "${NAME}.weight": expected an I8 matrix with a weight_scale or SCB beside it, found neither`],
    ["a zero point", { ...integers, [`${NAME}.weight_zero_point`]: { dtype: "I8", shape: [48, 1], data: new Uint8Array(48) } }, CONFIGS.compressed, `tensor "${NAME}.weight": expected I8 weights around 0, found a weight_zero_point beside them`],
    ["too few scales", { ...integers, [`${NAME}.weight_scale`]: { dtype: "F32", shape: [7], data: new Uint8Array(28) } }, CONFIGS.compressed, `tensor "${NAME}.weight_scale": expected scales for [48, 32], one in all or as many for each row, found [7]`],
    ["scales of integers", { ...integers, [`${NAME}.weight_scale`]: { dtype: "I32", shape: [48], data: new Uint8Array(192) } }, CONFIGS.compressed, "expected scales of F32, F16 or BF16, found I32"],
    ["a scale that is no number", { ...integers, [`${NAME}.weight_scale`]: { dtype: "F32", shape: [48], data: f32(Array(48).fill(NaN)) } }, CONFIGS.compressed, "expected finite scales, found NaN at index 0"],
    ["scales of nothing", { ...integers, "model.layers.0.mlp.ghost.weight_scale": { dtype: "F32", shape: [1], data: new Uint8Array(4) } }, CONFIGS.compressed, 'tensor "model.layers.0.mlp.ghost.weight_scale": expected only tensors of a llama model'],
    ["packed integers", integers, { quant_method: "compressed-tensors", format: "pack-quantized" }, 'found those of "compressed-tensors" (pack-quantized)'],
    ["four bits", integers, { quant_method: "bitsandbytes", load_in_4bit: true }, 'key "quantization_config": expected plain weights, mxfp4, or int8 of compressed-tensors (int-quantized) or bitsandbytes (8 bits), found those of "bitsandbytes"'],
  ])("are refused with %s", (_, tensors, quantisation, message) => {
    const open = () => openModel(memoryFolder("model", files(model, tensors, quantisation)));
    expect(open).toThrow(FormatError);
    expect(open).toThrow(message);
    expect(open).not.toThrow("\n");
  });
});
