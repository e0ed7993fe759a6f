import type { Expr } from "../assembler.ts";
import { f32, i16x8, i32, i32x4, i8x16, local, v128 } from "../assembler.ts";
import type { FloatFormat } from "../layout.ts";
import type { KernelOptions } from "./common.ts";
import { HALF_SHIFT } from "../layout.ts";
import { constant } from "./constants.ts";

type I32 = Expr<"i32">;
type V128 = Expr<"v128">;

/** Words of `low` below those of `high`, beginning with word `from`: four lanes of 32 bits. */
const joined = (low: V128, high: V128, from: 0 | 4): V128 => i8x16.shuffle([0, 1, 2, 3].flatMap((i) => [0, 1, 16, 17].map((byte) => byte + 2 * (from + i))), low, high);

/** Inside a function: what loads the 8 weights of a tile's column as two vectors of f32, those of f16 times HALF_SHIFT. It keeps its constants in locals. */
export function columnLoader({ wide }: KernelOptions, format: FloatFormat): (address: I32, offset: number) => [V128, V128] {
  if (format === "f32") return (address, offset) => [v128.load(address, offset), v128.load(address, offset + 16)];
  if (wide) {
    const mask = local("v128", constant("halfScale"));
    return (address, offset) => {
      const bits = local("v128", v128.load(address, offset));
      const four = [i32x4.extend_low_i16x8_s(bits), i32x4.extend_high_i16x8_s(bits)] as const;
      const [low, high] = four.map((each) => (format === "bf16" ? i32x4.shl(each, 16) : v128.and(i32x4.shl(each, 13), mask)));
      return [low, high];
    };
  }
  const [zero, mask] = [local("v128"), local("v128", constant("halfTop"))];
  return (address, offset) => {
    const bits = local("v128", v128.load(address, offset));
    const low = format === "bf16" ? zero : local("v128", i16x8.shl(bits, 13));
    const high = format === "bf16" ? bits : local("v128", v128.and(i16x8.shr_s(bits, 3), mask));
    return [joined(low, high, 0), joined(low, high, 4)];
  };
}

/** The value of a half scale's 16 bits (layout.ts). */
export function halfValue(bits: I32): Expr<"f32"> {
  const half = local("i32", bits);
  const float = i32.or(i32.shl(i32.and(half, 0x8000), 16), i32.shl(i32.and(half, 0x7fff), 13));
  return f32.mul(f32.reinterpret_i32(float), 1 / HALF_SHIFT);
}

/** One packed weight. */
export function loadFloat(format: FloatFormat, address: I32): Expr<"f32"> {
  if (format === "f32") return f32.load(address);
  return format === "f16" ? halfValue(i32.load16_u(address)) : f32.reinterpret_i32(i32.shl(i32.load16_u(address), 16));
}
