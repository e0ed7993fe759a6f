import { describe, expect, it } from "vitest";
import { decodeRows, GGML_TYPES } from "../../src/quant/ggml.ts";
import { zeros } from "../../src/tensor/tensor.ts";
import { dice } from "../support/dice.ts";

/** 0.5 as an f16, little-endian. */
const HALF = [0x00, 0x38];

function decoded(type: string, bytes: Uint8Array): { values: number[]; bad: number } {
  const { blockSize, blockBytes } = GGML_TYPES[type];
  const target = zeros("f32", [1, (bytes.length / blockBytes) * blockSize]);
  const bad = decodeRows(type, bytes, target);
  return { values: [...target.f32], bad };
}

/** llama.cpp's table of 4-bit codes, as its ggml-common.h has it. */
const IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

describe("types of codes", () => {
  it("IQ4_NL: codes for uneven steps, low nibbles before high ones", () => {
    const codes = Array.from({ length: 16 }, (_, i) => i | ((15 - i) << 4));
    expect(decoded("IQ4_NL", Uint8Array.of(...HALF, ...codes))).toEqual({ values: [...IQ4, ...IQ4.toReversed()].map((value) => value / 2), bad: -1 });
  });

  it("IQ4_XS: a 6-bit scale for each group of 32", () => {
    const d = dice(3);
    const scales = Array.from({ length: 8 }, () => d.below(64));
    const codes = Array.from({ length: 256 }, () => d.below(16));
    const bytes = new Uint8Array(136);
    bytes.set(HALF);
    scales.forEach((scale, group) => {
      bytes[2 + (group >> 2)] |= (scale >> 4) << (2 * (group & 3));
      bytes[4 + (group >> 1)] |= (scale & 15) << (4 * (group & 1));
    });
    codes.forEach((code, i) => void (bytes[8 + 16 * (i >> 5) + (i & 15)] |= code << (i & 16 ? 4 : 0)));
    expect(decoded("IQ4_XS", bytes).values).toEqual(codes.map((code, i) => 0.5 * (scales[i >> 5] - 32) * IQ4[code]));
  });

  it("TQ1_0: five ternary digits to a byte, as llama.cpp's quantiser packs them", () => {
    const d = dice(4);
    const digits = Array.from({ length: 256 }, () => d.below(3));
    const bytes = new Uint8Array(54);
    bytes.set(HALF, 52);
    let next = 0;
    for (const [start, count, perByte] of [[0, 32, 5], [32, 16, 5], [48, 4, 4]]) {
      for (let i = 0; i < count; i++) {
        let number = 0;
        for (let digit = 0; digit < 5; digit++) number = number * 3 + (digit < perByte ? digits[next + digit * count + i] : 0);
        bytes[start + i] = Math.ceil((number * 256) / 243);
      }
      next += count * perByte;
    }
    expect(decoded("TQ1_0", bytes).values).toEqual(digits.map((digit) => (digit - 1) / 2));
  });

  it("TQ2_0: four 2-bit codes to a byte", () => {
    const d = dice(5);
    const digits = Array.from({ length: 256 }, () => d.below(3));
    const bytes = new Uint8Array(66);
    bytes.set(HALF, 64);
    digits.forEach((digit, i) => void (bytes[32 * (i >> 7) + (i & 31)] |= digit << (2 * ((i >> 5) & 3))));
    expect(decoded("TQ2_0", bytes).values).toEqual(digits.map((digit) => (digit - 1) / 2));
  });

  it.each([["IQ4_NL", 0], ["IQ4_XS", 0], ["TQ1_0", 52], ["TQ2_0", 64]] as const)("%s: a scale that is not finite is found", (type, at) => {
    const bytes = new Uint8Array(2 * GGML_TYPES[type].blockBytes).fill(1);
    bytes.set([0x00, 0x7c], GGML_TYPES[type].blockBytes + at);
    bytes.set(HALF, at);
    expect(decoded(type, bytes).bad).toBe(GGML_TYPES[type].blockSize);
  });
});
