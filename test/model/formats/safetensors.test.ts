import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { parseJson } from "../../../src/model/formats/json.ts";
import { composedSource, memoryPart, pickedRows, widened } from "../../../src/model/formats/parts.ts";
import { readSafeTensors } from "../../../src/model/formats/safetensors.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { f32ToBf16 } from "../../../src/tensor/float16.ts";
import { safeTensors, safeTensorsFile } from "../../support/hf-folder.ts";

const read = (bytes: Uint8Array) => readSafeTensors(memorySource("x.safetensors", bytes));
const four = new Uint8Array([1, 2, 3, 4]);
const entry = (dtype: string, shape: unknown, offsets: unknown) => JSON.stringify({ t: { dtype, shape, data_offsets: offsets } });
const withLength = (length: bigint, rest: string) => {
  const bytes = new Uint8Array(8 + rest.length);
  new DataView(bytes.buffer).setBigUint64(0, length, true);
  bytes.set(new TextEncoder().encode(rest), 8);
  return bytes;
};

describe("safetensors", () => {
  it("are listed in the order of their data, with metadata", () => {
    const file = read(safeTensors({ b: { dtype: "I8", shape: [2, 2], data: four }, a: { dtype: "F32", shape: [], data: four }, none: { dtype: "F32", shape: [0, 3], data: new Uint8Array(0) } }, { format: "pt" }));
    expect([...file.tensors.keys()]).toEqual(["b", "none", "a"].sort((x, y) => file.tensors.get(x)!.offset - file.tensors.get(y)!.offset));
    expect(file.tensors.get("b")).toMatchObject({ shape: [2, 2], dtype: "I8", bytes: 4 });
    expect(file.tensors.get("a")!.offset - file.tensors.get("b")!.offset).toBe(4);
    expect(file.metadata).toEqual(new Map([["format", "pt"]]));
  });

  it.each<[string, Uint8Array, string]>([
    ["a file that is too short", new Uint8Array(7), "found only 7 bytes"],
    ["a huge header", withLength(2n ** 40n, "{}"), "expected a header of at most 100000000 bytes, found 1099511627776"],
    ["a header beyond the file", withLength(100n, "{}"), "expected a header of 100 bytes, found 2 before the end of the file"],
    ["an empty header", withLength(0n, ""), 'expected a header that begins with "{", found an empty one'],
    ["a header of another kind", safeTensorsFile("[1]"), 'expected a header that begins with "{", found byte 91'],
    ["no JSON", safeTensorsFile("{nope}"), "expected JSON"],
    ["a header that is not UTF-8", safeTensorsFile('{"é": 1}').map((byte) => (byte === 0xc3 ? 0xff : byte)), "found bytes that are not UTF-8"],
    ["nesting", safeTensorsFile(`{"t":${"[".repeat(100_000)}`), "expected JSON nested at most 8 deep"],
    ["a name twice", safeTensorsFile(`{${entry("I8", [4], [0, 4]).slice(1, -1)},${entry("I8", [4], [0, 4]).slice(1, -1)}}`, four), 'key "t": expected every key once in its object, found it twice'],
    ["a name twice, spelled differently", safeTensorsFile(`{"t":1,"\\u0074":2}`), 'key "t": expected every key once'],
    ["a dtype that is none", safeTensorsFile(entry("F31", [1], [0, 4]), four), 'tensor "t": expected a dtype of'],
    ["a shape that is none", safeTensorsFile(entry("F32", [1.5], [0, 4]), four), 'key "t.shape[0]": expected a whole number'],
    ["a negative shape", safeTensorsFile(entry("F32", [-1], [0, 4]), four), "expected a whole number, 0 or more, found -1"],
    ["a shape beyond numbers", safeTensorsFile(entry("F32", [2 ** 40, 2 ** 40], [0, 4]), four), "expected a size below 2^53 bytes"],
    ["too many dimensions", safeTensorsFile(entry("F32", Array(9).fill(1), [0, 4]), four), "expected at most 8 dimensions, found 9"],
    ["offsets that do not fit the shape", safeTensorsFile(entry("F32", [2], [0, 4]), four), "expected data_offsets 8 bytes apart, found [0, 4]"],
    ["offsets the wrong way", safeTensorsFile(entry("F32", [1], [4, 0]), four), "expected data_offsets 4 bytes apart"],
    ["data beyond the end", safeTensorsFile(entry("F32", [2], [0, 8]), four), "found the end of the file"],
    ["a hole", safeTensorsFile(entry("I8", [2], [2, 4]), four), "it leaves a hole before it"],
    ["a hole at the end", safeTensorsFile(entry("I8", [2], [0, 2]), four), "found 2 more bytes"],
    ["an overlap", safeTensorsFile('{"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"I8","shape":[2],"data_offsets":[2,4]}}', four), "it overlaps the tensor before it"],
    ["metadata that is no text", safeTensorsFile('{"__metadata__":{"a":1}}'), 'key "__metadata__.a": expected a string, found 1'],
    ["an entry that is none", safeTensorsFile('{"t":3}'), 'key "t": expected a tensor\'s dtype, shape and data_offsets, found 3'],
  ])("%s is refused", (_, bytes, message) => {
    expect(() => read(bytes)).toThrow(FormatError);
    expect(() => read(bytes)).toThrow(message);
    expect(() => read(bytes)).not.toThrow(/\n/);
  });
});

describe("JSON", () => {
  it("may carry any names, those of prototypes included", () => {
    const { value } = parseJson("x", new TextEncoder().encode('{"__proto__": {"a": 1}, "constructor": 2}'));
    expect(Object.keys(value as object)).toEqual(["__proto__", "constructor"]);
    expect(({} as { a?: number }).a).toBeUndefined();
  });
});

describe("composed sources", () => {
  it("read across their parts, and put rows in order, from any byte to any other", () => {
    const rows = Uint8Array.from({ length: 24 }, (_, i) => i);
    const ordered = [...[0, 1, 2], ...[6, 7, 8], ...[3, 4, 5], ...[9, 10, 11]].flatMap((v) => v);
    const expected = [...ordered, ...ordered.map((v) => v + 12), 99, 98];
    const source = composedSource("x", [pickedRows(memoryPart(rows), 3, [0, 2, 1, 3]), memoryPart(new Uint8Array(0)), memoryPart(Uint8Array.of(99, 98))]);
    expect(source.size).toBe(26);
    for (let from = 0; from <= 26; from++) {
      for (let to = from; to <= 26; to++) {
        const target = new Uint8Array(to - from);
        source.read(from, target);
        expect([...target]).toEqual(expected.slice(from, to));
      }
    }
    expect(() => source.read(20, new Uint8Array(7))).toThrow(FormatError);
  });

  it("widen vectors exactly", () => {
    const halves = Uint16Array.from([1, -2.5, 0, 3e38], f32ToBf16);
    const source = composedSource("x", [widened(memoryPart(new Uint8Array(halves.buffer)), "BF16")]);
    const target = new Uint8Array(16);
    source.read(0, target);
    expect([...new Float32Array(target.buffer)].slice(0, 3)).toEqual([1, -2.5, 0]);
  });
});
