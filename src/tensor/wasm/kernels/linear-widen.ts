import type { Expr, Func } from "../assembler.ts";
import { i16x8, i32, i8x16, local, v128 } from "../assembler.ts";
import { GROUP, tileBytes, TILE_ROWS } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { repeat } from "./common.ts";
import { constant } from "./constants.ts";

/** Of 4 rows of 4 columns: columns 0 and 2 of each row, then 1 and 3, as the activations' pairs are. */
const EVEN_THEN_ODD = [0, 1].flatMap((odd) => [0, 4, 8, 12].flatMap((row) => [row + odd, row + 2 + odd]));

/**
 * Function (from, to, groups): a tile of int4 as a tile of int8, for the activations of int4. Prompts multiply each weight by many tokens;
 * so nibbles are taken apart once, and the rest is what int8 does. The order of columns is that of the activations' blocks; nibbles stay 0 to
 * 15 where the blocks carry a correction that the kernels of int8 add, and lose the offset of 8 where those add none.
 */
export function emitWiden({ module, dot }: Emitter, name: string, half: boolean): Func {
  return module.func(name, ["i32", "i32", "i32"], undefined, (from, to, groups) => {
    const low = local("v128", constant("nibbles"));
    const offset = local("v128", i8x16.splat(i32.const(8)));
    /** Columns 0 to 3 or (high) 4 to 7 of 8, of the first or the last 4 rows. */
    const put = (value: Expr<"v128">, step: number, high: 0 | 1, side: 0 | 1): void => {
      if (dot !== "pairs") return v128.store(to, dot === "u8s8" ? value : i8x16.sub(value, offset), 64 * step + 32 * high + 16 * side);
      const signed = local("v128", i8x16.sub(value, offset));
      const pairs = local("v128", i8x16.shuffle(EVEN_THEN_ODD, signed, signed));
      for (const odd of [0, 1]) v128.store64_lane(odd, to, pairs, 64 * step + 32 * odd + 16 * high + 8 * side);
    };
    const scales = TILE_ROWS * (half ? 2 : 4);
    repeat(groups, () => {
      for (let step = 0; step < GROUP / 8; step++) {
        for (const side of [0, 1] as const) {
          const both = local("v128", v128.load(from, 32 * step + 16 * side));
          put(v128.and(both, low), step, 0, side);
          put(v128.and(i16x8.shr_u(both, 4), low), step, 1, side);
        }
      }
      for (let at = 0; at < scales; at += 16) v128.store(to, v128.load(from, tileBytes("int4", half) - scales + at), tileBytes("int8", half) - scales + at);
      from.add(tileBytes("int4", half));
      to.add(tileBytes("int8", half));
    });
  });
}
