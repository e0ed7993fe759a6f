import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { readGguf } from "../../../src/model/formats/gguf.ts";
import { getBool, getNumber, getNumbers, getString, getStrings, type GgufArray, type GgufValue } from "../../../src/model/formats/gguf-values.ts";
import { ggufBytes } from "../../../src/model/formats/gguf-write.ts";
import { memorySource, type ByteSource } from "../../../src/model/formats/source.ts";
import { GGML_TYPES } from "../../../src/quant/ggml.ts";
import { random } from "../../../src/tensor/random.ts";

const read = (bytes: Uint8Array) => readGguf(memorySource("m.gguf", bytes));

/** Every kind of value, at its limits. */
const everyKind = new Map<string, GgufValue>([
  ["uint8", { type: "uint8", value: 255 }],
  ["int8", { type: "int8", value: -128 }],
  ["uint16", { type: "uint16", value: 65535 }],
  ["int16", { type: "int16", value: -32768 }],
  ["uint32", { type: "uint32", value: 4294967295 }],
  ["int32", { type: "int32", value: -2147483648 }],
  ["float32", { type: "float32", value: Math.fround(0.1) }],
  ["float64", { type: "float64", value: 0.1 }],
  ["uint64", { type: "uint64", value: 2 ** 53 - 1 }],
  ["big uint64", { type: "uint64", value: 2n ** 64n - 1n }],
  ["int64", { type: "int64", value: -5 }],
  ["big int64", { type: "int64", value: -(2n ** 63n) }],
  ["no", { type: "bool", value: false }],
  ["yes", { type: "bool", value: true }],
  ["empty", { type: "string", value: "" }],
  ["text", { type: "string", value: "\uFEFFnaïve ▁ 🧱 \0\n" }],
  ["", { type: "string", value: "an empty key" }],
]);

const everyArray = new Map<string, GgufArray>([
  ["uint8", { type: "array", itemType: "uint8", value: Uint8Array.of(0, 255) }],
  ["int8", { type: "array", itemType: "int8", value: Int8Array.of(-128, 127) }],
  ["uint16", { type: "array", itemType: "uint16", value: Uint16Array.of(0, 65535) }],
  ["int16", { type: "array", itemType: "int16", value: Int16Array.of(-32768, 32767) }],
  ["uint32", { type: "array", itemType: "uint32", value: Uint32Array.of(0, 4294967295) }],
  ["int32", { type: "array", itemType: "int32", value: Int32Array.of(-2147483648, 7) }],
  ["float32", { type: "array", itemType: "float32", value: Float32Array.of(0.1, -0, Infinity) }],
  ["float64", { type: "array", itemType: "float64", value: Float64Array.of(0.1, NaN) }],
  ["uint64", { type: "array", itemType: "uint64", value: [1, 2n ** 63n] }],
  ["int64", { type: "array", itemType: "int64", value: [-1, -(2n ** 60n)] }],
  ["bool", { type: "array", itemType: "bool", value: [true, false] }],
  ["string", { type: "array", itemType: "string", value: ["", "a", "▁b"] }],
  ["none", { type: "array", itemType: "string", value: [] }],
  ["many", { type: "array", itemType: "int32", value: new Int32Array(100_000).map((_, i) => i * i) }],
  [
    "array",
    {
      type: "array",
      itemType: "array",
      value: [
        { type: "array", itemType: "int8", value: Int8Array.of(1) },
        { type: "array", itemType: "array", value: [{ type: "array", itemType: "string", value: ["deep"] }] },
      ],
    },
  ],
]);

describe("readGguf", () => {
  it.each([2, 3])("version %i: reads what was written", (version) => {
    const metadata = new Map<string, GgufValue>([...everyKind, ...[...everyArray].map(([k, v]): [string, GgufValue] => [`${k}[]`, v])]);
    const names = Object.keys(GGML_TYPES);
    const shapes = [[256], [3, 256], [2, 3, 256], [1, 2, 1, 512]];
    const tensors = names.map((type, i) => {
      const shape = shapes[i % 4];
      const { blockSize, blockBytes } = GGML_TYPES[type];
      const count = (shape.reduce((a, b) => a * b, 1) / blockSize) * blockBytes;
      return { name: `t.${type}`, shape, type, data: new Uint8Array(count).fill(i + 1) };
    });
    const bytes = ggufBytes({ metadata, tensors });
    bytes[4] = version;
    const file = read(bytes);
    expect(file).toMatchObject({ name: "m.gguf", version, alignment: 32 });
    expect([...file.metadata]).toEqual([...metadata]);
    expect([...file.tensors.keys()]).toEqual(tensors.map((t) => t.name));
    for (const { name, shape, type, data } of tensors) {
      const info = file.tensors.get(name)!;
      expect(info).toMatchObject({ name, shape, type, bytes: data.length });
      expect(info.offset % 32).toBe(0);
      expect(bytes.subarray(info.offset, info.offset + info.bytes)).toEqual(data);
    }
  });

  it.each([1, 8, 64, 4096])("alignment %i", (alignment) => {
    const metadata = new Map<string, GgufValue>([["general.alignment", { type: "uint32", value: alignment }]]);
    const data = Uint8Array.of(1, 2, 3, 4, 5, 6);
    const tensors = ["a", "b"].map((name) => ({ name, shape: [3], type: "F16", data }));
    const bytes = ggufBytes({ metadata, tensors });
    const file = read(bytes);
    expect(file.alignment).toBe(alignment);
    expect(file.dataOffset % alignment).toBe(0);
    for (const { offset } of file.tensors.values()) expect(bytes.subarray(offset, offset + 6)).toEqual(data);
  });

  it("needs no padding after the last tensor, and no data at all for a vocabulary", () => {
    const bytes = ggufBytes({ metadata: everyKind, tensors: [{ name: "t", shape: [3], type: "F32", data: new Uint8Array(12) }] });
    expect(read(bytes.subarray(0, bytes.length - 20)).tensors.size).toBe(1);
    expect(() => read(bytes.subarray(0, bytes.length - 21))).toThrow(/tensor "t" \[3\] F32: expected 12 bytes at byte \d+, found the end/);
    const empty = ggufBytes({ metadata: new Map(), tensors: [] });
    expect(read(empty.subarray(0, 24))).toMatchObject({ dataOffset: 32, tensors: new Map() });
  });

  it("reads a header through a window, never the tensors", () => {
    const tokens = Array.from({ length: 60_000 }, (_, i) => `token ${i}`);
    const metadata = new Map<string, GgufValue>([["tokens", { type: "array", itemType: "string", value: tokens }]]);
    const header = ggufBytes({ metadata, tensors: [] }).length;
    const bytes = ggufBytes({ metadata, tensors: [{ name: "t", shape: [1 << 20], type: "F32", data: new Uint8Array(4 << 20) }] });
    const whole = memorySource("m.gguf", bytes);
    let reads = 0;
    let most = 0;
    const counting: ByteSource = {
      ...whole,
      read(offset, target) {
        reads++;
        most = Math.max(most, target.length);
        whole.read(offset, target);
      },
    };
    expect(readGguf(counting).metadata.get("tokens")!.value).toEqual(tokens);
    expect(most).toBeLessThanOrEqual(256 * 1024);
    expect(reads).toBeLessThanOrEqual(Math.ceil(header / (200 * 1024)) + 1);
  });
});

describe("an array of strings", () => {
  const mark = [0xff, 0, 0, 0, 0, 0, 0, 0];

  it("holds what each string's bytes say, whatever stands beside it", () => {
    const draw = random(5);
    const below = (n: number) => Math.floor(draw() * n);
    // UTF-8 and its beginnings and ends, what is none, and what marks lengths inside of the reader.
    const pieces = [[0x61], [0xc4, 0xa0], [0xe2, 0x96, 0x81], [0xf0, 0x9f, 0xa7, 0xb1], [0xe2, 0x96], [0x81], [0xf0], [0xff], [0], [0xef, 0xbf, 0xbd], [0xef, 0xbb, 0xbf], [0xef, 0xbf, 0xbd, 0, 0, 0, 0, 0, 0, 0], mark];
    for (let round = 0; round < 200; round++) {
      const used = pieces.slice(0, round % 4 === 0 ? 4 : pieces.length);
      const texts = Array.from({ length: below(20) }, () => {
        if (round % 50 === 1 && below(8) === 0) return new Uint8Array([65_530, 65_536, 262_140, 300_000][below(4)]).fill(0x62);
        return Uint8Array.from(Array.from({ length: below(6) }, () => used[below(used.length)]).flat());
      });
      const places = texts.map((bytes) => "x".repeat(bytes.length));
      const file = ggufBytes({ metadata: new Map([["s", { type: "array", itemType: "string", value: places }]]), tensors: [] });
      // The header, the key's name, its type, the items' type and their number: 24 + 9 + 4 + 4 + 8 bytes.
      let at = 49;
      for (const bytes of texts) {
        file.set(bytes, at + 8);
        at += 8 + bytes.length;
      }
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      expect(read(file).metadata.get("s")!.value).toEqual(texts.map((bytes) => decoder.decode(bytes)));
    }
  });
});

describe("a damaged file", () => {
  /** One uint16 key at byte 24 (its name at 32, type at 33, value at 37), one tensor [2, 32] at byte 39. Data from byte 96. */
  const small = () =>
    ggufBytes({
      metadata: new Map([["a", { type: "uint16", value: 7 }]]),
      tensors: [{ name: "t", shape: [2, 32], type: "Q8_0", data: new Uint8Array(68) }],
    });
  const patched = (patch: (view: DataView, bytes: Uint8Array) => void) => {
    const bytes = small();
    patch(new DataView(bytes.buffer, 0, bytes.length), bytes);
    return () => read(bytes);
  };
  const u32 = (at: number, value: number) => patched((view) => view.setUint32(at, value, true));
  const u64 = (at: number, value: bigint) => patched((view) => view.setBigUint64(at, value, true));

  it("is whole to begin with", () => expect(patched(() => {})().tensors.get("t")).toMatchObject({ offset: 96, bytes: 68, shape: [2, 32] }));

  it.each([
    ["another magic", u32(0, 0x04034b50), 'm.gguf: byte 0: expected a GGUF file, which begins with "GGUF", found "PK\\u0003\\u0004"'],
    ["a future version", u32(4, 4), "m.gguf: byte 4: expected GGUF version 2 or 3, found version 4: this file is newer than memwall"],
    ["version 1", u32(4, 1), "m.gguf: byte 4: expected GGUF version 2 or 3, found version 1"],
    ["a big-endian version 4", u32(4, 0x04000000), "m.gguf: byte 4: expected GGUF version 2 or 3, found version 4: this file is newer than memwall"],
    ["a big-endian version before little-endian counts", u32(4, 0x03000000), "m.gguf: byte 8: the tensor count: expected at most 5, as no more fit into the rest of the file, found 72057594037927936"],
    ["too many tensors", u64(8, 2n ** 60n), "m.gguf: byte 8: the tensor count: expected at most 5, as no more fit into the rest of the file, found 1152921504606846976"],
    ["too many keys", u64(16, 2n ** 64n - 1n), "m.gguf: byte 16: the key count: expected at most 12, as"],
    ["a huge key", u64(24, 2n ** 40n), "m.gguf: byte 24: the length of key 1 of 1: expected at most"],
    ["an unknown value type", u32(33, 13), 'm.gguf: byte 33: key "a": expected a value type from 0 to 12, found 13'],
    ["a bool of 7", u32(33, 7), 'm.gguf: byte 37: key "a": expected a bool of 0 or 1, found 7'],
    ["a huge name", u64(39, 1000n), "m.gguf: byte 39: the name length of tensor 1 of 1: expected at most"],
    ["no dimensions", u32(48, 0), 'm.gguf: byte 48: tensor "t": expected 1 to 4 dimensions, found 0'],
    ["five dimensions", u32(48, 5), 'm.gguf: byte 48: tensor "t": expected 1 to 4 dimensions, found 5'],
    ["a dimension of 0", u64(60, 0n), 'm.gguf: byte 60: tensor "t": expected dimensions from 1 whose product is below 2^53, found 0 for dimension 1'],
    ["an overflowing dimension", u64(60, 2n ** 49n), "found 562949953421312 for dimension 1"],
    ["a negative dimension", u64(52, 2n ** 64n - 32n), "found 18446744073709551584 for dimension 0"],
    ["half a block", u64(52, 48n), 'm.gguf: byte 48: tensor "t": expected Q8_0 rows in multiples of 32 columns, found 48 columns'],
    ["a removed type", u32(68, 5), 'm.gguf: byte 68: tensor "t": expected a GGML type, found Q4_3 (type 5, removed from GGML)'],
    ["an unknown type", u32(68, 1234), "found unknown type 1234"],
    ["a crooked offset", u64(72, 16n), 'm.gguf: tensor "t" [2, 32] Q8_0: expected an offset in multiples of 32, found 16'],
    ["an offset past the end", u64(72, 2n ** 62n), 'm.gguf: tensor "t" [2, 32] Q8_0: expected 68 bytes at byte 4611686018427388000, found the end of the file at byte 192'],
    ["more rows than the file has", u64(60, 4n), 'tensor "t" [4, 32] Q8_0: expected 136 bytes at byte 96, found the end of the file at byte 192 (truncated?)'],
  ])("%s", (_, run, message) => {
    expect(run).toThrow(FormatError);
    expect(run).toThrow(message);
  });

  it("cut off anywhere", () => {
    const metadata = new Map<string, GgufValue>([...everyKind, ...[...everyArray].filter(([k]) => k !== "many").map(([k, v]): [string, GgufValue] => [`${k}[]`, v])]);
    const bytes = ggufBytes({ metadata, tensors: [{ name: "t", shape: [2, 32], type: "Q8_0", data: new Uint8Array(68) }] });
    const needed = read(bytes).dataOffset + 68;
    for (let n = 0; n < needed; n++) {
      const run = () => read(bytes.subarray(0, n));
      expect(run).toThrow(FormatError);
      expect(run).toThrow(/^m\.gguf: [^\n]+$/);
    }
    expect(() => read(bytes.subarray(0, needed))).not.toThrow();
  });

  it("has a name twice", () => {
    const metadata = new Map<string, GgufValue>([
      ["k1", { type: "bool", value: true }],
      ["k2", { type: "bool", value: true }],
    ]);
    const tensors = ["t1", "t2"].map((name) => ({ name, shape: [1], type: "F32", data: new Uint8Array(4) }));
    const doubled = (from: string) => {
      const bytes = ggufBytes({ metadata, tensors });
      const at = [...bytes].findIndex((_, i) => String.fromCharCode(bytes[i], bytes[i + 1]) === from);
      bytes[at + 1] = "1".charCodeAt(0);
      return () => read(bytes);
    };
    expect(doubled("k2")).toThrow('key "k1": expected every key once, found it twice');
    expect(doubled("t2")).toThrow('tensor "t1": expected every tensor once, found it twice');
  });

  it("has an impossible alignment", () => {
    for (const value of [0, 24, 33]) {
      const bytes = ggufBytes({ metadata: new Map([["general.alignmen_", { type: "uint32", value }]]), tensors: [] });
      bytes[bytes.indexOf("_".charCodeAt(0))] = "t".charCodeAt(0);
      expect(() => read(bytes)).toThrow(`m.gguf: key "general.alignment": expected a uint32 power of two, found uint32 ${value}`);
    }
  });

  it("has arrays nested without end, or longer than the file", () => {
    let nested: GgufArray = { type: "array", itemType: "uint8", value: [1] };
    for (let i = 0; i < 5000; i++) nested = { type: "array", itemType: "array", value: [nested] };
    const deep = ggufBytes({ metadata: new Map([["k", nested]]), tensors: [] });
    expect(() => read(deep)).toThrow('key "k": expected arrays nested at most 8 deep');
    const long = ggufBytes({ metadata: new Map([["k", { type: "array", itemType: "float64", value: [1, 2] }]]), tensors: [] });
    new DataView(long.buffer).setBigUint64(24 + 8 + 1 + 8, 2n ** 61n, true);
    expect(() => read(long)).toThrow('byte 41: key "k": the array length: expected at most');
  });
});

describe("the getters", () => {
  const file = { name: "m.gguf", metadata: new Map<string, GgufValue>([...everyKind, ...[...everyArray].map(([k, v]): [string, GgufValue] => [`${k}[]`, v])]) };

  it("get what is there", () => {
    expect(getNumber(file, "int8")).toBe(-128);
    expect(getNumber(file, "uint64")).toBe(2 ** 53 - 1);
    expect(getString(file, "text")).toContain("naïve");
    expect(getBool(file, "yes")).toBe(true);
    expect(getBool(file, "no", true)).toBe(false);
    expect(getStrings(file, "string[]")).toEqual(["", "a", "▁b"]);
    expect(getNumbers(file, "int8[]")).toEqual(Int8Array.of(-128, 127));
  });

  it("fall back only where nothing is there", () => {
    expect(getNumber(file, "absent", 0)).toBe(0);
    expect(getString(file, "absent", "")).toBe("");
    expect(getBool(file, "absent", false)).toBe(false);
    expect(getStrings(file, "absent", [])).toEqual([]);
    expect(getNumbers(file, "absent", [])).toEqual([]);
    expect(() => getNumber(file, "text", 1)).toThrow('m.gguf: key "text": expected a number, found string');
  });

  it("say what is wrong", () => {
    expect(() => getNumber(file, "absent")).toThrow('m.gguf: key "absent": expected a number, found no such key');
    expect(() => getNumber(file, "big uint64")).toThrow('key "big uint64": expected a number below 2^53, found 18446744073709551615');
    expect(() => getNumber(file, "yes")).toThrow("expected a number, found bool");
    expect(() => getNumber(file, "int8[]")).toThrow("expected a number, found array of 2 int8");
    expect(() => getString(file, "int8")).toThrow("expected a string, found int8");
    expect(() => getBool(file, "uint8")).toThrow("expected a bool, found uint8");
    expect(() => getStrings(file, "int8[]")).toThrow("expected an array of strings, found array of 2 int8");
    expect(() => getNumbers(file, "string[]")).toThrow("expected an array of numbers, found array of 3 string");
    expect(() => getNumbers(file, "uint64[]")).toThrow("expected numbers below 2^53, found 9223372036854775808 at index 1");
  });
});
