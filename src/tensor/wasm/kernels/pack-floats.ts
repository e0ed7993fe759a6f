import type { Expr } from "../assembler.ts";
import { f32, f32x4, f64, f64x2, i16x8, i32, i32x4, i8x16, if_, local, select, v128 } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { columnOrder, param, pick, range } from "./common.ts";
import { groupsOfTiles, storeFour } from "./pack.ts";

/** What a file's floats are, by GGML's names. */
export const FLOAT_TYPES = ["F32", "F16", "BF16"] as const;
const [F16, BF16] = [1, 2];

/** Bits of the least magnitude that is not finite; an f16's infinity is widened to 65536. */
const INFINITE = 0x7f800000;
const INFINITE_F16 = 0x47800000;

/** Adding it to a double rounds to the nearest integer, ties to even, and leaves that in the low bits. */
const MAGIC = 1.5 * 2 ** 52;

/** Vectors that loops keep in registers. */
type Constants = ReturnType<typeof constants>;

function constants() {
  const [integer, double] = [i32x4, f64x2].map((lanes) => (value: number) => local("v128", lanes.const(value)));
  const f16 = { magnitude: integer(0x7fff), sign: integer(0x8000), exponent: integer(112 << 23), normal: integer(0x400), half: integer(0x3f000000) };
  return { ...f16, eights: integer(0x08080808), magic: double(MAGIC), half64: double(0.5) };
}

/**
 * Kernels "round_int8" and "round_int4": rows of floats into tiles with f32 scales (layout.ts), by the same arithmetic, bit for bit, as
 * `quantiseRows` of quant/groups.ts: in f64, halves rounded up. Groups with a value that is not finite, or a scale below f32's normal numbers,
 * are not for them. Units are tiles down; for parameters see pack.ts.
 */
export function emitPackFloats({ module, scratch, ...options }: Emitter): void {
  for (const format of ["int8", "int4"] as const) {
    const order = columnOrder(options, format);
    const { values, most } = format === "int8" ? { values: 256, most: 127 } : { values: 128, most: 7 };
    module.kernel(`round_${format}`, (first, last) => {
      const [flip, type] = [local("i32", param(5)), local("i32", param(7))];
      const floats = local("i32");
      const fixed = constants();
      const limit = local("i32", select(i32.const(INFINITE_F16), i32.const(INFINITE), i32.eq(type, F16)));
      groupsOfTiles(first, last, i32.shl(64, i32.eqz(type)), order, (from, to, at, target) => {
        floats.set(from);
        if_(type, () => {
          widen(from, type, fixed);
          floats.set(scratch);
        });
        const largest = local("v128", i32x4.const(0));
        // As integers, the bits of non-negative floats order like the floats, and those of a NaN above all.
        for (let i = 0; i < 8; i++) largest.set(i32x4.max_s(largest, v128.and(v128.load(floats, 16 * i), i32x4.const(0x7fffffff))));
        largest.set(i32x4.max_s(largest, pick(largest, largest, 2, 3, 0, 1)));
        largest.set(i32x4.max_s(largest, pick(largest, largest, 1, 0, 3, 2)));
        const bits = i32x4.extract_lane(0, largest);
        const scale = local("f32", f32.div(f32x4.extract_lane(0, largest), most));
        if_(i32.or(i32.ge_s(bits, limit), i32.and(i32.gt_s(bits, 0), f32.lt(scale, 2 ** -126))), () => i32.store(param(6), 1));
        const place = local("i32", target);
        f32.store(i32.add(to, i32.shl(at, 2)), scale, values);
        const inverse = local("v128", f64x2.splat(select(f64.div(1, f64.promote_f32(scale)), f64.const(0), f32.gt(scale, 0))));
        if (format === "int8") range(0, 256, 32, (offset) => storeFour(order, i32.add(place, offset), i32.xor(word(rounded(i32.add(floats, i32.shr_u(offset, 1)), inverse, fixed)), flip)));
        else {
          range(0, 128, 32, (offset) => {
            const nibbles = (next: number) => word(i8x16.add(rounded(i32.add(floats, offset), inverse, fixed, next), fixed.eights));
            i32.store(i32.add(place, offset), i32.or(nibbles(0), i32.shl(nibbles(16), 4)));
          });
        }
      });
    });
  }

  /** 32 halves at `from` as f32 into scratch. */
  function widen(from: Expr<"i32">, type: Expr<"i32">, fixed: Constants): void {
    range(0, 64, 8, (offset) => {
      const half = local("v128", i32x4.extend_low_i16x8_u(v128.load64_zero(i32.add(from, offset))));
      const wide = local("v128");
      if_(
        i32.eq(type, BF16),
        () => wide.set(i32x4.shl(half, 16)),
        () => {
          const magnitude = local("v128", v128.and(half, fixed.magnitude));
          const normal = i32x4.add(i32x4.shl(magnitude, 13), fixed.exponent);
          // The last bit of 0.5 counts 2^-24, as that of a subnormal f16 does.
          const subnormal = f32x4.sub(v128.or(magnitude, fixed.half), fixed.half);
          const sign = i32x4.shl(v128.and(half, fixed.sign), 16);
          wide.set(v128.or(v128.bitselect(subnormal, normal, i32x4.lt_s(magnitude, fixed.normal)), sign));
        },
      );
      v128.store(i32.add(scratch, i32.shl(offset, 1)), wide);
    });
  }

  /** Four floats times `inverse`, as bytes 0 to 3. */
  function rounded(address: Expr<"i32">, inverse: Expr<"v128">, { magic, half64 }: Constants, offset = 0): Expr<"v128"> {
    const four = local("v128", v128.load(address, offset));
    const exact = [four, pick(four, four, 2, 3, 2, 3)].map((two) => local("v128", f64x2.mul(f64x2.promote_low_f32x4(two), inverse)));
    const even = exact.map((two) => local("v128", f64x2.add(two, magic)));
    // -1 where a half went down to the even number.
    const down = exact.map((two, i) => f64x2.eq(f64x2.sub(two, f64x2.sub(even[i], magic)), half64));
    const integers = local("v128", i32x4.sub(pick(even[0], even[1], 0, 2, 4, 6), pick(down[0], down[1], 0, 2, 4, 6)));
    const shorts = local("v128", i16x8.narrow_i32x4_s(integers, integers));
    return i8x16.narrow_i16x8_s(shorts, shorts);
  }
}

const word = (bytes: Expr<"v128">): Expr<"i32"> => i32x4.extract_lane(0, bytes);
