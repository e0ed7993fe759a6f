import type { Expr, Func } from "../assembler.ts";
import { br_if, call, f32, f32x4, i16x8, i32, i32x4, i8x16, if_, local, loop, memoryCopy, select, v128 } from "../assembler.ts";
import { ACT16_MAX, ACT8_MAX, GROUP, X_BLOCK, X_SCALE, X_SUM } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { param, paramF32, pick, range } from "./common.ts";

/** Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits. */
const MAGIC = 12582912;
const MAGIC_BITS = 0x4b400000;
/** Below this, a group counts as zero: its largest product with any weight would be lost in a float anyway. */
const TINY = 1e-30;

/**
 * Values of a block: `natural` int16 in order; `nibbles` int16, columns 0 2 1 3 4 6 5 7 of every 8 as the pairs of int4 weights want them,
 * in the order (0, 2) (4, 6) (1, 3) (5, 7); `limbs` for every 4 columns their low bytes, then their high bytes; `bytes` int8.
 */
export type BlockOrder = "natural" | "nibbles" | "limbs" | "bytes";

/** Parameters of the quantise kernels, in order. */
export const QUANTISE_PARAMS = ["x", "blocks", "cols", "groups", "offset", "factor"] as const;

/** Kernel `name`, and the function (from, to, offset, factor) that makes one block: rows [first, last) of x [rows, cols] f32 become blocks of 32 columns, the last one padded with zeros. */
export function emitQuantise({ module, scratch }: Emitter, name: string, order: BlockOrder): Func {
  const group = module.func(`${name}_group`, ["i32", "i32", "i32", "f32"], undefined, (from, to, offset, factor) => {
    const x = Array.from({ length: 8 }, (_, i) => local("v128", v128.load(from, 16 * i)));
    // As integers, the bits of non-negative floats order like the floats, and NaN above all: a NaN shows in the scale.
    const largest = local("v128", v128.and(i32x4.const(0x7fffffff), x.reduce<Expr<"v128">>((a, b) => i32x4.max_s(a, v128.and(b, i32x4.const(0x7fffffff))), i32x4.const(0))));
    largest.set(i32x4.max_s(largest, pick(largest, largest, 2, 3, 0, 1)));
    largest.set(i32x4.max_s(largest, pick(largest, largest, 1, 0, 3, 2)));
    const max = local("f32", f32x4.extract_lane(0, largest));
    const limit = order === "bytes" ? ACT8_MAX : ACT16_MAX;
    const inverse = local("v128", f32x4.splat(select(f32.div(limit, max), f32.const(0), f32.gt(max, TINY))));
    f32.store(to, f32.mul(max, factor), X_SCALE);

    const integer = (part: Expr<"v128">) => i32x4.sub(f32x4.add(f32x4.mul(part, inverse), f32x4.const(MAGIC)), i32x4.const(MAGIC_BITS));
    const words = [0, 1, 2, 3].map((i) => local("v128", i16x8.narrow_i32x4_s(integer(x[2 * i]), integer(x[2 * i + 1]))));
    /** Stores -offset times the sum of one or two lists of int16 vectors. */
    const correct = (...lists: readonly (readonly Expr<"v128">[])[]) => {
      const [first, second] = lists.map((parts) => local("v128", parts.map((part) => i32x4.dot_i16x8_s(part, i16x8.const(1))).reduce((a, b) => i32x4.add(a, b))));
      const pairs = local("v128", i32x4.add(pick(first, second ?? first, 0, 4, 1, 5), pick(first, second ?? first, 2, 6, 3, 7)));
      const all = i32x4.add(pairs, pick(pairs, pairs, 2, 3, 0, 1));
      v128.store64_lane(0, to, i32x4.mul(all, i32x4.splat(i32.sub(0, offset))), X_SUM);
    };
    if (order === "natural" || order === "nibbles") {
      const pairs = [0, 2, 4, 6, 1, 3, 5, 7].flatMap((column) => [2 * column, 2 * column + 1]);
      words.forEach((part, i) => v128.store(to, order === "natural" ? part : i8x16.shuffle(pairs, part, part), 16 * i));
      if (order === "nibbles") correct(words);
    } else if (order === "bytes") {
      for (const i of [0, 1]) v128.store(to, i8x16.narrow_i16x8_s(words[2 * i], words[2 * i + 1]), 16 * i);
      correct(words);
    } else {
      const high = words.map((part) => local("v128", i16x8.shr_s(i16x8.add(part, i16x8.const(128)), 8)));
      const low = words.map((part, i) => local("v128", i16x8.sub(part, i16x8.shl(high[i], 8))));
      for (const i of [0, 1]) {
        const bytes = [low, high].map((part) => local("v128", i8x16.narrow_i16x8_s(part[2 * i], part[2 * i + 1])));
        v128.store(to, pick(bytes[0], bytes[1], 0, 4, 1, 5), 32 * i);
        v128.store(to, pick(bytes[0], bytes[1], 2, 6, 3, 7), 32 * i + 16);
      }
      correct(low, high);
    }
  });

  module.kernel(name, (first, last) => {
    const [cols, groups] = [local("i32", param(2)), local("i32", param(3))];
    const whole = local("i32", i32.shr_u(cols, 5));
    const rest = local("i32", i32.and(cols, GROUP - 1));
    const from = local("i32", i32.add(param(0), i32.shl(i32.mul(first, cols), 2)));
    const to = local("i32", i32.add(param(1), i32.mul(i32.mul(first, groups), X_BLOCK)));
    const left = local("i32");
    range(first, last, 1, () => {
      if_(whole, () => {
        left.set(whole);
        loop((again) => {
          callGroup(from);
          from.add(4 * GROUP);
          left.add(-1);
          br_if(again, left);
        });
      });
      if_(rest, () => {
        for (let i = 0; i < 8; i++) v128.store(scratch, i32x4.const(0), 16 * i);
        memoryCopy(scratch, from, i32.shl(rest, 2));
        callGroup(scratch);
        from.add(i32.shl(rest, 2));
      });
    });
    function callGroup(source: Expr<"i32">): void {
      call(group, source, to, param(4), paramF32(5));
      to.add(X_BLOCK);
    }
  });
  return group;
}

