import { describe, expect, it } from "vitest";
import { ggufBytes, ggufPieces, type GgufOutTensor } from "../../../src/model/formats/gguf-write.ts";
import type { GgufValue } from "../../../src/model/formats/gguf-values.ts";

const none: ReadonlyMap<string, GgufValue> = new Map();
const bytes = (...parts: (string | number[])[]) =>
  Uint8Array.from(parts.flatMap((p) => (typeof p === "string" ? [...new TextEncoder().encode(p)] : p)));
const u64 = (n: number) => [n, 0, 0, 0, 0, 0, 0, 0];
const u32 = (n: number) => [n, 0, 0, 0];

describe("ggufPieces", () => {
  it("writes the bytes of the specification", () => {
    const file = {
      metadata: new Map<string, GgufValue>([["a", { type: "uint16", value: 0x102 }]]),
      tensors: [{ name: "t", shape: [1, 2], type: "F32", data: bytes([1, 2, 3, 4, 5, 6, 7, 8]) }],
    };
    const want = bytes(
      "GGUF", u32(3), u64(1), u64(1), // tensors, keys
      u64(1), "a", u32(2), [2, 1],
      u64(1), "t", u32(2), u64(2), u64(1), u32(0), u64(0), // columns first
    );
    const got = ggufBytes(file);
    expect(got.length).toBe(96 + 32);
    expect([...got.subarray(0, want.length)]).toEqual([...want]);
    expect(got.subarray(want.length, 96).every((b) => b === 0)).toBe(true);
    expect([...got.subarray(96, 104)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(got.subarray(104).every((b) => b === 0)).toBe(true);
  });

  it("streams pieces as they come and pads between tensors", () => {
    const pieces = function* () {
      for (let i = 0; i < 3; i++) yield new Uint8Array(4).fill(i + 1);
    };
    const file = {
      metadata: new Map<string, GgufValue>([["general.alignment", { type: "uint32", value: 8 }]]),
      tensors: [
        { name: "a", shape: [3], type: "F32", data: pieces },
        { name: "b", shape: [4], type: "F16", data: new Uint8Array(8) },
      ],
    };
    const lengths = [...ggufPieces(file)].map(({ length }) => length);
    expect(lengths[0] % 8).toBe(0);
    expect(lengths.slice(1)).toEqual([4, 4, 4, 4, 8, 0]);
  });

  const tensor = (over: Partial<GgufOutTensor>): GgufOutTensor => ({ name: "w", shape: [1, 32], type: "Q8_0", data: new Uint8Array(34), ...over });
  const write = (t: GgufOutTensor[], metadata = none) => () => ggufBytes({ metadata, tensors: t });

  it("says which tensor is wrong, and how", () => {
    expect(write([tensor({})])).not.toThrow();
    expect(write([tensor({ data: new Uint8Array(33) })])).toThrow("tensor w: expected 34 bytes of data, found 33");
    expect(write([tensor({ data: () => [new Uint8Array(34), new Uint8Array(1)] })])).toThrow("tensor w: expected 34 bytes of data, found more");
    expect(write([tensor({ shape: [2, 16] })])).toThrow("tensor w: Q8_0: expected columns in multiples of 32, found 16");
    expect(write([tensor({ type: "Q9" })])).toThrow("tensor w: expected a GGML type, found Q9");
    expect(write([tensor({ shape: [] })])).toThrow("tensor w: expected 1 to 4 positive dimensions, found []");
    expect(write([tensor({}), tensor({})])).toThrow("tensor w: expected every name once");
  });

  it("says which key is wrong, and how", () => {
    const key = (value: GgufValue, name = "k") => write([], new Map([[name, value]]));
    expect(key({ type: "uint8", value: 256 })).toThrow("key k: expected a uint8, found 256");
    expect(key({ type: "int8", value: -129 })).toThrow("key k: expected a int8, found -129");
    expect(key({ type: "uint32", value: 1.5 })).toThrow("key k: expected a uint32, found 1.5");
    expect(key({ type: "uint64", value: -1n })).toThrow("key k: expected a uint64, found -1");
    expect(key({ type: "array", itemType: "int16", value: [1, 40000] })).toThrow("key k: expected a int16, found 40000");
    expect(key({ type: "uint32", value: 24 }, "general.alignment")).toThrow("expected a uint32 power of two, found uint32 24");
    expect(key({ type: "uint64", value: 32 }, "general.alignment")).toThrow("expected a uint32 power of two, found uint64 32");
  });
});
