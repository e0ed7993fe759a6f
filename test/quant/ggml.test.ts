import { describe, expect, it } from "vitest";
import { encodeRows } from "../../src/quant/ggml-encode.ts";
import { decodeRows, describeType, firstNonFinite, GGML_TYPES, ggmlBytes, nativeDtype, typeName } from "../../src/quant/ggml.ts";
import { f32, Tensor, zeros } from "../../src/tensor/tensor.ts";
import { random } from "../../src/tensor/random.ts";
import { fnv, lcgBlocks, lcgBytes } from "../support/blocks.ts";

/** 64 random blocks of a type, with the f16 numbers at `scales` made finite: their hash and values 0, 17 and 31 by gguf-py 0.19. */
const known: [type: string, scales: number[], hash: number, values: number[]][] = [
  ["Q4_0", [0], 0x840d8a93, [-2.6171875, 0.9814453125, -0.9814453125]],
  ["Q4_1", [0, 2], 0x3c7453c6, [-0.0006369948387145996, -0.003479897975921631, -0.0011538863182067871]],
  ["Q5_0", [0], 0xa4aaa347, [-0.010661125183105469, -0.0015230178833007812, 0.0015230178833007812]],
  ["Q5_1", [0, 2], 0xa5c5e404, [-0.128570556640625, -0.701507568359375, -0.537811279296875]],
  ["Q8_0", [0], 0x14367f65, [0.001435995101928711, -0.0012659430503845215, 0.001095890998840332]],
  ["Q2_K", [80, 82], 0xf5fe35a7, [1.2528197765350342, 0.83349609375, 0.836467981338501]],
  ["Q3_K", [108], 0x7e3ba80b, [0.35410308837890625, -0.24918365478515625, -0.1661224365234375]],
  ["Q4_K", [0, 2], 0xc5d0a56f, [1.7465934753417969, 1.0713462829589844, 0.7337226867675781]],
  ["Q5_K", [0, 2], 0xc9512ff5, [38.499755859375, 18.856201171875, 117.073974609375]],
  ["Q6_K", [208], 0x88ecc18d, [97.6507568359375, -730.8056640625, -871.34521484375]],
];

/** The same bytes, one byte into their buffer. */
function unaligned(bytes: Uint8Array): Uint8Array {
  const moved = new Uint8Array(bytes.length + 1).subarray(1);
  moved.set(bytes);
  return moved;
}

describe("decodeRows", () => {
  it.each(known)("%s as gguf-py does, at any alignment", (type, scales, hash, values) => {
    const bytes = lcgBlocks(type, scales, 64);
    const target = zeros("f32", [4, 16 * GGML_TYPES[type].blockSize]);
    for (const input of [bytes, unaligned(bytes)]) {
      target.f32.fill(NaN);
      expect(decodeRows(type, input, target)).toBe(-1);
      expect([0, 17, 31].map((i) => target.f32[i])).toEqual(values);
      // Adding zero makes -0 a 0.
      expect(fnv(new Uint8Array(target.f32.map((v) => v + 0).buffer))).toBe(hash);
    }
  });

  it.each(known)("%s: finds the first weight that is not finite", (type, scales) => {
    const { blockSize, blockBytes } = GGML_TYPES[type];
    const target = zeros("f32", [4, 16 * blockSize]);
    for (const scale of scales) {
      const bytes = lcgBlocks(type, scales, 64);
      bytes[37 * blockBytes + scale] = 1;
      bytes[37 * blockBytes + scale + 1] = 0x7e;
      expect(decodeRows(type, bytes, target)).toBe(37 * blockSize);
    }
  });

  it("decodes F32, F16 and BF16", () => {
    const values = [1, -2.5, 0, 65504, 2 ** -14, -(2 ** -20)];
    const source = f32([2, 3], values);
    for (const type of ["F32", "F16", "BF16"] as const) {
      const bytes = encodeRows(type, source);
      for (const input of [bytes, unaligned(bytes)]) {
        const target = zeros("f32", [2, 3]);
        expect(decodeRows(type, input, target)).toBe(-1);
        expect([...target.f32]).toEqual(type === "BF16" ? [1, -2.5, 0, 65536, 2 ** -14, -(2 ** -20)] : values);
      }
      for (const bad of [NaN, Infinity, -Infinity]) {
        expect(decodeRows(type, encodeRows(type, f32([2, 3], [1, 2, 3, 4, bad, NaN])), zeros("f32", [2, 3]))).toBe(4);
      }
    }
  });

  it.each([
    ["F64", Float64Array.of(1 / 3, -(2 ** -149), 2 ** 127, -0.5), [Math.fround(1 / 3), -(2 ** -149), 2 ** 127, -0.5]],
    ["I8", Int8Array.of(-128, 127, 0, 5), [-128, 127, 0, 5]],
    ["I16", Int16Array.of(-32768, 32767, 0, 5), [-32768, 32767, 0, 5]],
    ["I32", Int32Array.of(-(2 ** 31), 2 ** 24 + 1, 0, 5), [-(2 ** 31), 2 ** 24, 0, 5]],
    ["I64", BigInt64Array.of(-(2n ** 63n), 2n ** 62n, 0n, 5n), [-(2 ** 63), 2 ** 62, 0, 5]],
  ] as const)("decodes %s to the nearest f32", (type, numbers, values) => {
    const bytes = new Uint8Array(numbers.buffer);
    for (const input of [bytes, unaligned(bytes)]) {
      const target = zeros("f32", [2, 2]);
      expect(decodeRows(type, input, target)).toBe(-1);
      expect([...target.f32]).toEqual(values);
    }
    expect(nativeDtype(type)).toBe("f32");
  });

  it("finds an F64 that f32 cannot hold", () => {
    expect(decodeRows("F64", new Uint8Array(Float64Array.of(1, 1e300, NaN).buffer), zeros("f32", [3]))).toBe(1);
  });

  it("Q8_1: a scale, a sum and 32 values", () => {
    const bytes = new Uint8Array(36).map((_, i) => [0x00, 0x38, 0xff, 0x7f][i] ?? i - 20);
    const floats = zeros("f32", [1, 32]);
    expect(decodeRows("Q8_1", bytes, floats)).toBe(-1);
    expect([...floats.f32]).toEqual(Array.from({ length: 32 }, (_, i) => (i - 16) / 2));
  });

  it.each([
    ["Q8_0", "int8"],
    ["Q4_0", "int4"],
  ] as const)("%s into %s holds what the f32 decoding holds", (type, dtype) => {
    expect(nativeDtype(type)).toBe(dtype);
    const bytes = lcgBlocks(type, [0], 64);
    const floats = zeros("f32", [4, 512]);
    decodeRows(type, bytes, floats);
    for (const input of [bytes, unaligned(bytes)]) {
      const target = zeros(dtype, [4, 512]);
      expect(decodeRows(type, input, target)).toBe(-1);
      for (let i = 0; i < 2048; i++) expect(target.at(i)).toBe(floats.f32[i]);
    }
    // Row by row, into slices, at an odd address.
    const { length } = zeros(dtype, [4, 512]).data;
    const memory = new ArrayBuffer(length + 1);
    const data = dtype === "int8" ? new Int8Array(memory, 1) : new Uint8Array(memory, 1);
    const odd = new Tensor({ dtype, shape: [4, 512], data, scales: new Float32Array(64), group: 32 });
    for (let row = 0; row < 4; row++) {
      const rowBytes = bytes.length / 4;
      expect(decodeRows(type, bytes.subarray(row * rowBytes, (row + 1) * rowBytes), odd.slice(row, row + 1))).toBe(-1);
    }
    for (let i = 0; i < 2048; i++) expect(odd.at(i)).toBe(floats.f32[i]);

    bytes[GGML_TYPES[type].blockBytes * 40 + 1] = 0xfc;
    expect(decodeRows(type, bytes, zeros(dtype, [4, 512]))).toBe(40 * 32);
  });

  it("MXFP4: the OCP table of 4-bit floats times a power of two, exact as doubled integers too", () => {
    // OCP Microscaling Formats 1.0, table 5: E2M1 without infinities; E8M0 127 is 1.
    const table = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6];
    const bytes = new Uint8Array(34);
    for (const [block, exponent] of [127, 120].entries()) {
      bytes[17 * block] = exponent;
      for (let j = 0; j < 16; j++) bytes[17 * block + 1 + j] = j | ((15 - j) << 4);
    }
    const [floats, integers] = [zeros("f32", [1, 64]), zeros("int8", [1, 64])];
    expect([decodeRows("MXFP4", bytes, floats), decodeRows("MXFP4", bytes, integers)]).toEqual([-1, -1]);
    expect(nativeDtype("MXFP4")).toBe("int8");
    for (let i = 0; i < 64; i++) {
      const code = i % 32 < 16 ? i % 16 : 15 - (i % 16);
      expect(floats.at(i)).toBeCloseTo(table[code] * (i < 32 ? 1 : 2 ** -7), 12);
      expect(integers.at(i)).toBeCloseTo(floats.at(i), 12);
    }
    bytes[17] = 255;
    expect([decodeRows("MXFP4", bytes, floats), decodeRows("MXFP4", bytes, integers)]).toEqual([32, 32]);
    // 2 times 2^127 and 4 times 2^126 are beyond f32, 6 times 2^125 is not.
    for (const [exponent, first] of [[254, 32 + 4], [253, 32 + 6], [252, -1]]) {
      bytes[17] = exponent;
      expect(decodeRows("MXFP4", bytes, floats)).toBe(first);
    }
  });

  it("refuses what cannot be", () => {
    const named = zeros("f32", [2, 32], 32, "w");
    expect(() => decodeRows("Q8_0", new Uint8Array(67), named)).toThrow("tensor w [2, 32]: expected 68 bytes of Q8_0, found 67");
    expect(() => decodeRows("IQ2_XS", new Uint8Array(1), named)).toThrow("IQ2_XS: expected columns in multiples of 256, found 32");
    expect(() => decodeRows("toString", new Uint8Array(1), named)).toThrow("expected a GGML type, found toString");
    expect(() => decodeRows("IQ1_M", new Uint8Array(56), zeros("int8", [1, 256]))).toThrow("cannot decode IQ1_M into int8 with groups of 32");
    expect(() => decodeRows("Q4_0", new Uint8Array(36), zeros("int8", [2, 32]))).toThrow("cannot decode Q4_0 into int8");
    expect(() => decodeRows("Q8_0", new Uint8Array(68), zeros("int8", [2, 32], 16))).toThrow("with groups of 16");
    expect(() => decodeRows("F32", new Uint8Array(256), zeros("int4", [2, 32]))).toThrow("cannot decode F32 into int4");
    expect(() => ggmlBytes("Q6_K", 2, 128)).toThrow("Q6_K: expected columns in multiples of 256, found 128");
  });
});

describe("the types", () => {
  it("have names both ways", () => {
    for (const [name, { id }] of Object.entries(GGML_TYPES)) expect(typeName(id)).toBe(name);
    expect(typeName(99)).toBeUndefined();
    expect(describeType(99)).toBe("unknown type 99");
    expect(describeType(4)).toBe("Q4_2 (type 4, removed from GGML)");
    expect(describeType(14)).toBe("Q6_K");
    expect(nativeDtype("Q4_K")).toBe("f32");
    expect(nativeDtype("constructor")).toBe("f32");
  });
});

describe("firstNonFinite", () => {
  it("finds it anywhere", () => {
    for (let n = 0; n < 12; n++) {
      expect(firstNonFinite(new Float32Array(n).fill(-3e38))).toBe(-1);
      for (let i = 0; i < n; i++) {
        const values = new Float32Array(n);
        values[i] = i % 2 ? NaN : -Infinity;
        values[n - 1] = Infinity;
        expect(firstNonFinite(values)).toBe(i);
      }
    }
  });
});

describe("encodeRows", () => {
  /** 64 groups of magnitudes from 2^-10 to 2^9, the first ones special. */
  function samples(): Tensor {
    const words = new Uint32Array(lcgBytes(99, 4 * 2048).buffer);
    const x = Float32Array.from(words, (w) => Math.fround(w / 2 ** 31 - 1) * 3);
    for (let i = 0; i < 2048; i++) x[i] *= 2 ** ((i >> 5) % 20 - 10);
    x.fill(0, 0, 32);
    x.fill(-1.5, 32, 64);
    for (let i = 0; i < 32; i++) x[64 + i] = (i - 16) / 2;
    return f32([8, 256], x);
  }

  it.each([
    ["F16", 0xfd1d8472],
    ["BF16", 0xef66247d],
    ["Q8_0", 0x84b76da7],
    ["Q4_0", 0x005d5d17],
  ] as const)("%s as gguf-py does", (type, hash) => {
    const source = samples();
    const bytes = encodeRows(type, source);
    expect(bytes.length).toBe(ggmlBytes(type, 8, 256));
    expect(fnv(bytes)).toBe(hash);
  });

  it("Q6_K as quantize_row_q6_K_ref of libggml-base does", () => {
    expect(fnv(encodeRows("Q6_K", samples()))).toBe(0x87d54343);
  });

  it("writes a block by hand", () => {
    const x = Float32Array.from({ length: 32 }, (_, i) => (i === 3 ? -127 : i === 4 ? 0.5 : i === 5 ? -0.5 : i === 6 ? 126.4 : 0));
    const q8 = encodeRows("Q8_0", f32([1, 32], x));
    expect([...q8.subarray(0, 10)]).toEqual([0x00, 0x3c, 0, 0, 0, 256 - 127, 1, 255, 126, 0]);
    const y = Float32Array.from({ length: 32 }, (_, i) => (i === 0 ? -8 : i === 1 ? 7.6 : i === 16 ? 7 : i === 17 ? -0.6 : 0));
    const q4 = encodeRows("Q4_0", f32([1, 32], y));
    expect([...q4.subarray(0, 5)]).toEqual([0x00, 0x3c, 0xf0, 0x7f, 0x88]);
  });

  it.each(["Q8_0", "Q4_0", "F16", "BF16", "F32"] as const)("%s: what comes back is close, and closer still the second time", (type) => {
    const next = random(5);
    const source = f32([16, 64], Float32Array.from({ length: 1024 }, () => (next() - 0.5) * 4));
    const once = zeros("f32", [16, 64]);
    decodeRows(type, encodeRows(type, source), once);
    const twice = zeros("f32", [16, 64]);
    decodeRows(type, encodeRows(type, once), twice);
    const slack = { Q8_0: 2 / 127, Q4_0: 2 / 8, F16: 2 ** -10, BF16: 2 ** -7, F32: 0 }[type];
    for (let i = 0; i < 1024; i++) {
      expect(Math.abs(once.f32[i] - source.f32[i])).toBeLessThanOrEqual(slack);
      expect(Math.abs(twice.f32[i] - once.f32[i])).toBeLessThanOrEqual(type.startsWith("Q") ? slack : 0);
    }
  });

  it("has an answer for tiny values and none for values out of range", () => {
    const tiny = zeros("f32", [1, 32]);
    expect(decodeRows("Q8_0", encodeRows("Q8_0", f32([1, 32], new Float32Array(32).fill(1e-44))), tiny)).toBe(-1);
    expect(tiny.f32.every((v) => v === 0)).toBe(true);
    const wide = f32([1, 32], new Float32Array(32).fill(1e9), "w");
    expect(() => encodeRows("Q8_0", wide)).toThrow("tensor w: values 0 to 31 are too large for the f16 scale of Q8_0");
    expect(() => encodeRows("Q4_0", f32([1, 32], new Float32Array(32).fill(NaN), "w"))).toThrow("tensor w: cannot encode NaN (value 0) as Q4_0");
    expect(() => encodeRows("Q8_0", zeros("f32", [2, 16]))).toThrow("multiples of 32");
  });
});
