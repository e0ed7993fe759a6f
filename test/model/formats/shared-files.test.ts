import { existsSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { readGguf } from "../../../src/model/formats/gguf.ts";
import { readLlama2c, readLlama2cTokenizer } from "../../../src/model/formats/llama2c.ts";
import type { ByteSource, TensorInfo } from "../../../src/model/formats/source.ts";
import { getStrings } from "../../../src/model/formats/gguf-values.ts";
import { encodeRows } from "../../../src/quant/ggml-encode.ts";
import { decodeRows, nativeDtype } from "../../../src/quant/ggml.ts";
import { openFile } from "../../../src/runtime/node-files.ts";
import { zeros, type Tensor } from "../../../src/tensor/tensor.ts";

const shared = fileURLToPath(new URL("../../../../shared/", import.meta.url));
const models = `${shared}models/`;
const ggufs = ["models/", "parity/"]
  .filter((folder) => existsSync(shared + folder))
  .flatMap((folder) => readdirSync(shared + folder).map((file) => folder + file))
  .filter((file) => file.endsWith(".gguf"));

function bytesOf(source: ByteSource, info: TensorInfo): Uint8Array {
  const bytes = new Uint8Array(info.bytes);
  source.read(info.offset, bytes);
  return bytes;
}

function floats(source: ByteSource, info: TensorInfo): Tensor {
  const target = zeros("f32", info.shape);
  expect([info.name, decodeRows(info.type, bytesOf(source, info), target)]).toEqual([info.name, -1]);
  return target;
}

describe.skipIf(ggufs.length === 0)("every shared GGUF file", () => {
  it.each(ggufs)("%s: all weights decode, and to the same values in their native format", (file) => {
    const source = openFile(shared + file);
    const gguf = readGguf(source);
    expect(gguf.tensors.size).toBeGreaterThan(10);
    for (const info of gguf.tensors.values()) {
      const target = floats(source, info);
      const dtype = nativeDtype(info.type);
      if (dtype === "f32") continue;
      const native = zeros(dtype, info.shape);
      expect(decodeRows(info.type, bytesOf(source, info), native)).toBe(-1);
      expect(target.f32.findIndex((v, i) => v !== native.at(i))).toBe(-1);
    }
    source.close();
  });
});

describe.skipIf(!existsSync(`${models}stories260K.bin`))("stories260K", () => {
  const open = () => {
    const source = openFile(`${models}stories260K.bin`);
    return { source, ...readLlama2c(source) };
  };

  it("has the shape that its README tells", () => {
    const { version, header, tensors } = open();
    expect(version).toBe(0);
    expect(header).toEqual({ dim: 64, nLayers: 5, nHeads: 8, nKvHeads: 4, ffnDim: 172, vocabSize: 512, contextLength: 512 });
    expect(tensors.has("output.weight")).toBe(false);
  });

  it("and its tokenizer hold what the GGUF file holds", () => {
    const gguf = readGguf(openFile(`${models}stories260K-F32.gguf`));
    const { tokens, scores } = readLlama2cTokenizer(openFile(`${models}tok512.bin`), 512);
    expect(scores.length).toBe(512);
    // llama2.c writes spaces plain and surrounds bos and eos with line ends.
    const plain = getStrings(gguf, "tokenizer.ggml.tokens").map((t) => t.replaceAll("▁", " "));
    expect(tokens.map((t) => t.replace(/^\n(<.*>)\n$/, "$1"))).toEqual(plain);
  });

  it.each(["F32", "F16", "Q8_0"] as const)("encodes to llama.cpp's %s bit for bit", (type) => {
    const { source, tensors } = open();
    const file = openFile(`${models}stories260K-${type}.gguf`);
    const gguf = readGguf(file);
    expect([...gguf.tensors.keys()].sort()).toEqual([...tensors.keys()].sort());
    let encoded = 0;
    for (const info of gguf.tensors.values()) {
      const original = floats(source, tensors.get(info.name)!);
      expect(info.shape).toEqual(original.shape);
      const bytes = bytesOf(file, info);
      const own = encodeRows(info.type as typeof type, original);
      expect([info.name, own.findIndex((b, i) => b !== bytes[i])]).toEqual([info.name, -1]);
      if (info.type === type) encoded++;
    }
    expect(encoded).toBeGreaterThan(10);
  });
});
