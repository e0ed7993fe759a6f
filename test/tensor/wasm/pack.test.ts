import { describe, expect, it } from "vitest";
import { f32ToF16 } from "../../../src/tensor/float16.ts";
import { decodeRows } from "../../../src/quant/ggml.ts";
import { quantiseRows } from "../../../src/quant/groups.ts";
import { f32, zeros } from "../../../src/tensor/tensor.ts";
import { Device, Workspace } from "../../../src/tensor/wasm/device.ts";
import { type WasmKernels, wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { encodeHalf } from "../../../src/tensor/wasm/layout.ts";
import { linearPlan } from "../../../src/tensor/wasm/linear-plan.ts";
import { wasmPacker } from "../../../src/tensor/wasm/pack.ts";
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

/** Kernels whose int8 tiles have other orders: `fours` only where this engine compiles the relaxed dot, exact or not. */
function forced(dot: "pairs" | "u8s8" | "s8s8"): Pick<WasmKernels, "packer" | "embed"> | undefined {
  const method = { dot, activations: "int16", madd: false, wide: false } as const;
  try {
    const device = new Device(method, { threads: 1, maxBytes: 2 ** 24 });
    const staging = new Workspace(device, "a piece of the file");
    return { packer: (spec) => wasmPacker(device, staging, method, spec), embed: linearPlan(device, method).rows };
  } catch (error) {
    if (error instanceof WebAssembly.CompileError) return undefined;
    throw error;
  }
}

describe.each(["pairs", "u8s8", "s8s8"] as const)("tiles for the dot of %s", (dot) => {
  const own = forced(dot);

  it.runIf(own)("give rows of Q8_0 and Q4_0 back as the file has them", () => {
    const { int, next } = random(5);
    for (let round = 0; round < 60; round++) {
      const [rows, groups] = [int(1, 40), int(1, 5)];
      const type = round % 2 === 0 ? "Q8_0" : "Q4_0";
      const dtype = type === "Q8_0" ? "int8" : "int4";
      const bytes = blocks(type, rows, groups, round, smallScale);
      const wanted = zeros(dtype, [rows, 32 * groups]);
      decodeRows(type, bytes, wanted);
      const packer = own!.packer({ name: "w", dtype, shape: [rows, 32 * groups], group: 32 });
      if (next() < 0.5) expect(packer.writeBlocks!(type, rows, (target) => target.set(bytes))).toBe(true);
      else packer.write(wanted);
      const table = packer.finish();
      const out = own!.packer({ name: "out", dtype: "f32", shape: [32 * groups], group: 32 });
      out.write(f32([32 * groups]));
      const row = out.finish();
      for (let at = 0; at < rows; at++) {
        own!.embed(row, table, Int32Array.of(at));
        expect(row.f32.every((value, c) => value === wanted.at(at * 32 * groups + c))).toBe(true);
      }
    }
  });
});

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

describe.each(["F32", "F16", "BF16"] as const)("floats of %s, rounded by the kernels", (type) => {
  const width = type === "F32" ? 4 : 2;
  const floatsOf = (bytes: Uint8Array, rows: number, cols: number) => {
    const tensor = zeros("f32", [rows, cols]);
    expect(decodeRows(type, bytes, tensor)).toBe(-1);
    return tensor;
  };
  /** The bits of a value of the type: of any finite one, of one near others of its group, or of one that lies between two levels. */
  const drawBits = ({ next, int }: ReturnType<typeof random>, kind: number): number => {
    const sign = int(0, 1);
    const f32 = new Float32Array(1);
    if (kind === 0) f32[0] = (next() - 0.5) * 2 ** int(-3, 3);
    else if (kind === 1) f32[0] = [0, -0, 127, 7, int(-127, 127) + 0.5, int(-7, 7) + 0.5, int(-127, 127) * 2 ** -24, 65504][int(0, 7)];
    else if (type === "F16") return (sign << 15) | int(0, (31 << 10) - 1);
    else f32[0] = (1 - 2 * sign) * (1 + next()) * 2 ** int(-100, 126);
    const word = new Uint32Array(f32.buffer)[0];
    return type === "F32" ? word : type === "F16" ? f32ToF16(f32[0]) : word >>> 16;
  };
  const draw = (seed: number, rows: number, cols: number): Uint8Array<ArrayBuffer> => {
    const rng = random(seed);
    const count = rows * cols;
    const values = type === "F32" ? new Uint32Array(count) : new Uint16Array(count);
    for (let group = 0; group < count; group += 32) {
      const kind = rng.int(0, 3);
      for (let i = group; i < group + 32; i++) values[i] = kind === 3 ? 0 : drawBits(rng, kind);
    }
    return new Uint8Array(values.buffer);
  };

  it.each(["int8", "int4"] as const)("give the bytes of %s that the plain loops give", (dtype) => {
    for (let round = 0; round < 60; round++) {
      const { int } = random(round);
      const [rows, cols] = [int(1, 40), 32 * int(1, 9)];
      const bytes = draw(round + 1, rows, cols);
      const spec = { name: "w", dtype, shape: [rows, cols], group: 32 };
      const [direct, plain] = [kernels.packer(spec), kernels.packer(spec)];
      const quantised = quantiseRows(floatsOf(bytes, rows, cols), dtype);
      const step = 8 * int(1, 5);
      for (let row = 0; row < rows; row += step) {
        const count = Math.min(step, rows - row);
        expect(direct.writeBlocks!(type, count, (target) => target.set(bytes.subarray(row * cols * width, (row + count) * cols * width)))).toBe(true);
      }
      plain.write(quantised);
      const [a, b] = [direct.finish(), plain.finish()];
      if (a.bytes === b.bytes) expect(sameBits(a, b)).toBe(true);
      else expect(quantised.scales!.every((scale) => encodeHalf(scale) >= 0)).toBe(true);
      const ids = Int32Array.from({ length: rows }, (_, i) => i);
      const [left, right] = [a, b].map((table) => {
        const out = kernels.alloc("f32", [rows, cols]);
        kernels.embed(out, table, ids);
        return out;
      });
      expect(sameBits(left, right)).toBe(true);
      release(kernels, a, b, left, right);
    }
  });

  it("leave what is not finite, and scales below the normal numbers, to the caller", () => {
    for (const [dtype, value, taken] of [
      ...(["int8", "int4"] as const).flatMap((dtype) => [Infinity, -Infinity, NaN].map((value) => [dtype, value, false] as const)),
      ...(type === "F16" ? [] : ([["int8", 2 ** -122, false], ["int4", 2 ** -122, true], ["int4", 2 ** -124, false]] as const)),
    ] as const) {
      const bytes = new Uint8Array(8 * 64 * width);
      const word = new Uint32Array(Float32Array.of(value).buffer)[0];
      const view = new DataView(bytes.buffer);
      if (type === "F32") view.setUint32(4 * 77, word, true);
      else view.setUint16(2 * 77, type === "F16" ? f32ToF16(value) : word >>> 16, true);
      const direct = kernels.packer({ name: "w", dtype, shape: [8, 64], group: 32 });
      expect(direct.writeBlocks!(type, 8, (target) => target.set(bytes))).toBe(taken);
    }
  });
});
