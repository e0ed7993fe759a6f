import { describe, expect, it } from "vitest";
import { bf16ToF32, f16Table, f16ToF32, f32ToBf16, f32ToF16 } from "../../src/tensor/float16.ts";
import { random } from "../../src/tensor/random.ts";

describe("f16", () => {
  const known: [string, number, number][] = [
    ["zero", 0x0000, 0],
    ["minus zero", 0x8000, -0],
    ["least subnormal", 0x0001, 2 ** -24],
    ["greatest subnormal", 0x03ff, 1023 * 2 ** -24],
    ["least normal", 0x0400, 2 ** -14],
    ["just below one", 0x3bff, 1 - 2 ** -11],
    ["one", 0x3c00, 1],
    ["just above one", 0x3c01, 1 + 2 ** -10],
    ["minus two", 0xc000, -2],
    ["a third", 0x3555, 0.333251953125],
    ["greatest", 0x7bff, 65504],
    ["infinity", 0x7c00, Infinity],
    ["minus infinity", 0xfc00, -Infinity],
  ];
  it.each(known)("%s", (_, bits, value) => {
    expect(f16ToF32(bits)).toBe(value);
    expect(f32ToF16(value)).toBe(bits);
  });

  it("narrows what it widened to the same bits, for all 65536", () => {
    let wrong = 0;
    for (let bits = 0; bits < 65536; bits++) {
      const value = f16ToF32(bits);
      const isNaN = (bits & 0x7c00) === 0x7c00 && (bits & 0x3ff) !== 0;
      if (isNaN ? !Number.isNaN(value) || (f32ToF16(value) & 0x7fff) !== 0x7e00 : f32ToF16(value) !== bits) wrong++;
    }
    expect(wrong).toBe(0);
    expect(f16Table()).toBe(f16Table());
  });

  it("rounds to nearest, ties to even", () => {
    expect(f32ToF16(1 + 2 ** -11)).toBe(0x3c00);
    expect(f32ToF16(1 + 3 * 2 ** -11)).toBe(0x3c02);
    expect(f32ToF16(1 + 2 ** -11 + 2 ** -23)).toBe(0x3c01);
    expect(f32ToF16(2 ** -25)).toBe(0x0000);
    expect(f32ToF16(2 ** -25 + 2 ** -48)).toBe(0x0001);
    expect(f32ToF16(3 * 2 ** -25)).toBe(0x0002);
    expect(f32ToF16(2 ** -26)).toBe(0x0000);
    expect(f32ToF16(-(2 ** -149))).toBe(0x8000);
    expect(f32ToF16(1023.5 * 2 ** -24)).toBe(0x0400); // a subnormal that rounds up to a normal
    expect(f32ToF16(65519.996)).toBe(0x7bff);
    expect(f32ToF16(65520)).toBe(0x7c00);
    expect(f32ToF16(-1e30)).toBe(0xfc00);
  });

  it("is within half a step of any value, and keeps their order", () => {
    const next = random(1);
    for (let i = 0; i < 20000; i++) {
      const value = Math.fround((next() - 0.5) * 2 ** (next() * 44 - 27));
      const step = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(value)))) - 10);
      expect(Math.abs(f16ToF32(f32ToF16(value)) - value)).toBeLessThanOrEqual(step / 2);
    }
  });
});

describe("bf16", () => {
  it.each([
    [0x0000, 0],
    [0x8000, -0],
    [0x3f80, 1],
    [0xc000, -2],
    [0x3f81, 1 + 2 ** -7],
    [0x0001, 2 ** -133],
    [0x7f7f, 3.3895313892515355e38],
    [0x7f80, Infinity],
    [0xff80, -Infinity],
  ])("%i is %d", (bits, value) => {
    expect(bf16ToF32(bits)).toBe(value);
    expect(f32ToBf16(value)).toBe(bits);
  });

  it("rounds to nearest, ties to even, and keeps NaN", () => {
    expect(f32ToBf16(1 + 2 ** -8)).toBe(0x3f80);
    expect(f32ToBf16(1 + 3 * 2 ** -8)).toBe(0x3f82);
    expect(f32ToBf16(1 + 2 ** -8 + 2 ** -23)).toBe(0x3f81);
    expect(f32ToBf16(3.4e38)).toBe(0x7f80);
    expect(f32ToBf16(NaN) & 0x7fc0).toBe(0x7fc0);
    // A NaN whose only fraction bits would be cut off must not become infinity.
    const bits = new Uint32Array([0x7f800001]);
    expect(Number.isNaN(bf16ToF32(f32ToBf16(new Float32Array(bits.buffer)[0])))).toBe(true);
  });

  it("narrows what it widened to the same bits", () => {
    for (let bits = 0; bits < 65536; bits++) {
      if ((bits & 0x7fff) <= 0x7f80 && f32ToBf16(bf16ToF32(bits)) !== bits) expect.fail(`0x${bits.toString(16)}`);
    }
  });
});
