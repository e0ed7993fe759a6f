import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { ggufBytes } from "../../../src/model/formats/gguf-write.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { openModel } from "../../../src/model/open.ts";
import type { EncodableType } from "../../../src/quant/ggml-encode.ts";
import { Engine } from "../../../src/runtime/engine.ts";
import { range } from "../../support/dice.ts";
import { ggufModel } from "../../support/files.ts";
import { drawModel, type ModelOptions, SMALL } from "../../support/models.ts";

/** Two-byte and four-byte fields of a block, by GGML's type id: block bytes, then offset and size of each. */
const BLOCKS: Readonly<Record<number, { bytes: number; fields: [number, number][] }>> = {
  0: { bytes: 4, fields: [[0, 4]] },
  1: { bytes: 2, fields: [[0, 2]] },
  2: { bytes: 18, fields: [[0, 2]] },
  8: { bytes: 34, fields: [[0, 2]] },
  14: { bytes: 210, fields: [[208, 2]] },
  30: { bytes: 2, fields: [[0, 2]] },
};
const SCALAR_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const VALUES: Readonly<Record<number, number>> = { 0: 1, 1: 1, 2: 32, 8: 32, 14: 256, 30: 1 };

/** Turns every number of a little-endian file: a walk over the format's description that shares nothing with the reader under test. */
function turned(file: Uint8Array): Uint8Array {
  const out = file.slice();
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  let at = 4;
  const turn = (bytes: number) => {
    out.subarray(at, at + bytes).reverse();
    at += bytes;
  };
  const u32 = () => (turn(4), view.getUint32(at - 4, true));
  const u64 = () => (turn(8), Number(view.getBigUint64(at - 8, true)));
  const text = () => {
    const length = u64();
    at += length;
  };
  const value = (type: number): void => {
    if (type === 8) return text();
    if (type !== 9) return turn(SCALAR_BYTES[type]);
    const item = u32();
    for (let left = u64(); left > 0; left--) value(item);
  };
  u32();
  const [tensors, keys] = [u64(), u64()];
  for (let i = 0; i < keys; i++) {
    text();
    value(u32());
  }
  const found = range(tensors).map(() => {
    text();
    const count = range(u32()).reduce((product) => product * u64(), 1);
    return { count, type: u32(), offset: u64() };
  });
  const data = Math.ceil(at / 32) * 32;
  for (const { count, type, offset } of found) {
    const { bytes, fields } = BLOCKS[type];
    for (let block = 0; block < count / VALUES[type]; block++) {
      for (const [field, size] of fields) {
        at = data + offset + block * bytes + field;
        turn(size);
      }
    }
  }
  return out;
}

const SHAPES: [EncodableType, ModelOptions][] = [
  ["F32", SMALL],
  ["F16", SMALL],
  ["BF16", SMALL],
  ["Q8_0", { ...SMALL, ffnDim: 64 }],
  ["Q4_0", { ...SMALL, ffnDim: 64 }],
  ["Q6_K", { ...SMALL, dim: 256, headDim: 64, nHeads: 4, nKvHeads: 2, ffnDim: 256, nLayers: 1, rope: { ...SMALL.rope!, dims: 64 } }],
];

describe("a big-endian GGUF file", () => {
  it.each(SHAPES)("of %s loads as its little-endian twin: metadata, vocabulary, logits bit for bit", async (type, shape) => {
    const little = ggufModel(drawModel(7, shape), { type });
    const big = turned(little);
    expect(big.slice(0, 8)).toEqual(new Uint8Array([0x47, 0x47, 0x55, 0x46, 0, 0, 0, 3]));
    const [own, twin] = [big, little].map((bytes) => openModel(memorySource("m.gguf", bytes)));
    expect([own.format, twin.format]).toEqual(["GGUF v3, big-endian", "GGUF v3"]);
    expect([own.config, own.metadata, own.tensors]).toEqual([twin.config, twin.metadata, twin.tensors]);
    expect(own.source.size).toBe(twin.source.size);
    expect(new Set([...own.tensors.values()].map((info) => info.type)).has(type)).toBe(true);
    for (const { offset, bytes } of own.tensors.values()) {
      // A part that begins and ends in the middle of blocks, and the whole.
      for (const [from, to] of [[0, bytes], [3, bytes - 1], [bytes >> 1, (bytes >> 1) + 5]]) {
        const [a, b] = [own, twin].map(({ source }) => {
          const target = new Uint8Array(to - from);
          source.read(offset + from, target);
          return target;
        });
        expect(a.every((byte, i) => byte === b[i])).toBe(true);
      }
    }
    const logits = await Promise.all([big, little].map(async (bytes) => [...(await Engine.load(memorySource("m.gguf", bytes), { backend: "scalar" })).logits([1, 5, 9, 4])]));
    expect(logits[0]).toEqual(logits[1]);
    expect(logits[0].at(-1)!.every(Number.isFinite)).toBe(true);
  });

  it("in several parts has each part turned", () => {
    const whole = ggufModel(drawModel(7, SMALL), { type: "F16" });
    const { metadata, tensors, source } = openModel(memorySource("m.gguf", whole));
    const all = [...tensors.values()].map(({ name, shape, type, offset, bytes }) => {
      const data = new Uint8Array(bytes);
      source.read(offset, data);
      return { name, shape, type, data };
    });
    const uint16 = (value: number) => ({ type: "uint16" as const, value });
    const files = range(2).map((i) => {
      const keys = [["split.no", uint16(i)], ["split.count", uint16(2)], ["split.tensors.count", { type: "int32", value: all.length }]] as const;
      return turned(ggufBytes({ metadata: new Map([...(i === 0 ? metadata : []), ...keys]), tensors: i === 0 ? all.slice(0, 4) : all.slice(4) }));
    });
    const name = (i: number) => `m-0000${i + 1}-of-00002.gguf`;
    const first = { ...memorySource(name(0), files[0]), sibling: (file: string) => (file === name(1) ? memorySource(file, files[1]) : undefined) };
    const joined = openModel(first);
    for (const { name: key, data } of all) {
      const { offset, bytes } = joined.tensors.get(key)!;
      const target = new Uint8Array(bytes);
      joined.source.read(offset, target);
      expect(target, key).toEqual(data);
    }
  });

  it("of a type whose bytes nobody has laid down is refused in one line", () => {
    const little = ggufModel(drawModel(7, SMALL), { type: "F16" });
    const big = turned(little);
    // The first tensor's type, F16, becomes Q5_0's 6: 40 rows of 32 columns are fewer bytes then.
    const at = new TextDecoder("latin1").decode(big).indexOf("token_embd.weight") + "token_embd.weight".length + 4 + 16;
    expect([...big.slice(at, at + 4)]).toEqual([0, 0, 0, 1]);
    big[at + 3] = 6;
    const open = () => openModel(memorySource("m.gguf", big));
    expect(open).toThrow(FormatError);
    expect(open).toThrow('m.gguf: tensor "token_embd.weight": expected a type that has a big-endian form in a big-endian file, found Q5_0');
  });

  it("cut off anywhere is refused", () => {
    const big = turned(ggufModel(drawModel(7, SMALL)));
    for (let length = 0; length < big.length; length += 97) expect(() => openModel(memorySource("m.gguf", big.subarray(0, length)), undefined)).toThrow(FormatError);
  });
});
