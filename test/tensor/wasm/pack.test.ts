import { describe, expect, it } from "vitest";
import { decodeRows } from "../../../src/quant/ggml.ts";
import { zeros } from "../../../src/tensor/tensor.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { random, release, sameBits } from "./helpers.ts";

const kernels = wasmKernels();

/** Random blocks of a file; `scale` draws the f16 bits of each. */
function blocks(type: "Q8_0" | "Q4_0", rows: number, groups: number, seed: number, scale: (next: () => number) => number): Uint8Array {
  const { next } = random(seed);
  const size = type === "Q8_0" ? 34 : 18;
  const bytes = Uint8Array.from({ length: rows * groups * size }, () => Math.floor(next() * 256));
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += size) view.setUint16(at, scale(next), true);
  return bytes;
}

const smallScale = (next: () => number) => (Math.floor(next() * 2) << 15) | Math.floor(next() * (22 << 10));

describe.each(["Q8_0", "Q4_0"] as const)("blocks of %s, packed as the file has them", (type) => {
  const dtype = type === "Q8_0" ? "int8" : "int4";
  const canonical = (bytes: Uint8Array, rows: number, cols: number) => {
    const tensor = zeros(dtype, [rows, cols]);
    decodeRows(type, bytes, tensor);
    return tensor;
  };
  const packer = (rows: number, cols: number) => kernels.packer({ name: "w", dtype, shape: [rows, cols], group: 32 });

  it("give the bytes that canonical rows give, in pieces of whole tiles", () => {
    for (let round = 0; round < 40; round++) {
      const { int } = random(round);
      const [rows, groups] = [int(1, 70), int(1, 9)];
      const bytes = blocks(type, rows, groups, round, smallScale);
      const [direct, plain] = [packer(rows, groups * 32), packer(rows, groups * 32)];
      plain.write(canonical(bytes, rows, groups * 32));
      const step = 8 * int(1, 5);
      for (let row = 0; row < rows; row += step) {
        const count = Math.min(step, rows - row);
        const perRow = bytes.length / rows;
        expect(direct.writeBlocks!(type, count, (target) => target.set(bytes.subarray(row * perRow, (row + count) * perRow)))).toBe(true);
      }
      const [a, b] = [direct.finish(), plain.finish()];
      expect(sameBits(a, b)).toBe(true);
      release(kernels, a, b);
    }
  });

  it.each([["128 or more, which needs 32 bits", 22 << 10], ["infinity", 31 << 10], ["NaN", (31 << 10) | 1]])("leave a scale of %s to the caller", (_, bits) => {
    const bytes = blocks(type, 8, 2, 3, () => 0x3c00);
    new DataView(bytes.buffer).setUint16(bytes.length / 2, bits, true);
    const direct = packer(8, 64);
    expect(direct.writeBlocks!(type, 8, (target) => target.set(bytes))).toBe(false);
    if (bits >= 31 << 10) return;
    direct.write(canonical(bytes, 8, 64));
    const plain = packer(8, 64);
    plain.write(canonical(bytes, 8, 64));
    const [a, b] = [direct.finish(), plain.finish()];
    expect(sameBits(a, b)).toBe(true);
  });

  it("are not for other types, nor for rows that begin inside a tile", () => {
    const direct = packer(20, 64);
    const never = () => expect.unreachable();
    expect(direct.writeBlocks!(type === "Q8_0" ? "Q4_0" : "Q8_0", 8, never)).toBe(false);
    const bytes = blocks(type, 20, 2, 4, smallScale);
    direct.write(canonical(bytes, 20, 64).slice(0, 3));
    expect(direct.writeBlocks!(type, 8, never)).toBe(false);
    expect(() => packer(4, 64).writeBlocks!(type, 8, never)).toThrow(/at most 4 more rows, found 8/);
  });
});
