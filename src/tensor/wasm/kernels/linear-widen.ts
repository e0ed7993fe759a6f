import type { Expr, Func, Local } from "../assembler.ts";
import { i16x8, i32, i8x16, local, v128 } from "../assembler.ts";
import { GROUP, tileBytes, TILE_ROWS } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { repeat } from "./common.ts";
import { constant } from "./constants.ts";

/** Two rows' worth of shuffle for each of 4 rows: the given bytes of a row's low nibbles, then of its high ones. */
const evenOrOdd = (odd: 0 | 1): number[] => [0, 4, 8, 12].flatMap((row) => [row + odd, row + 2 + odd, 16 + row + odd, 18 + row + odd]);

/**
 * Function (from, to, groups): a tile of int4 as a tile of int8, for the activations of int4. Prompts multiply each weight by many tokens;
 * so nibbles are taken apart once, and the rest is what int8 does. The order of columns is that of the activations' blocks; nibbles stay 0 to
 * 15 where the blocks carry a correction that the kernels of int8 add, and lose the offset of 8 where those add none.
 */
export function emitWiden({ module, dot }: Emitter, name: string, half: boolean): Func {
  return module.func(name, ["i32", "i32", "i32"], undefined, (from, to, groups) => {
    const low = local("v128", constant("nibbles"));
    const offset = local("v128", i8x16.splat(i32.const(8)));
    /** 4 columns of 4 rows, the first or the last ones. */
    const put = (value: Expr<"v128">, step: number, side: 0 | 1): void => {
      if (dot !== "pairs") return v128.store(to, dot === "u8s8" ? value : i8x16.sub(value, offset), 32 * step + 16 * side);
      const signed = local("v128", i8x16.sub(value, offset));
      for (const pair of [0, 1]) v128.store64_lane(pair, to, signed, 32 * step + 16 * pair + 8 * side);
    };
    const scales = TILE_ROWS * (half ? 2 : 4);
    repeat(groups, () => {
      for (let step = 0; step < GROUP / 8; step++) {
        for (const side of [0, 1] as const) {
          const both = local("v128", v128.load(from, 32 * step + 16 * side));
          const parts: [Local<"v128">, Local<"v128">] = [local("v128", v128.and(both, low)), local("v128", v128.and(i16x8.shr_u(both, 4), low))];
          const inOrder = dot === "pairs" ? ([0, 1] as const).map((odd) => i8x16.shuffle(evenOrOdd(odd), ...parts)) : parts;
          inOrder.forEach((part, i) => put(part, 2 * step + i, side));
        }
      }
      for (let at = 0; at < scales; at += 16) v128.store(to, v128.load(from, tileBytes("int4", half) - scales + at), tileBytes("int8", half) - scales + at);
      from.add(tileBytes("int4", half));
      to.add(tileBytes("int8", half));
    });
  });
}
