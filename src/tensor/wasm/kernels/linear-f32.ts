import type { Func } from "../assembler.ts";
import { f32x4, i32, if_, local, v128 } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { madd, repeat } from "./common.ts";
import type { TileFamily } from "./linear.ts";
import { storeRows } from "./linear-store.ts";

/** Tokens that share each loaded weight vector. */
const TOKENS = [3, 1];

/** Products with f32 weights packed 8 rows side by side. Even and odd columns have a sum each, whatever the number of tokens is. */
export function f32Tiles(emitter: Emitter): TileFamily {
  return {
    tiles: TOKENS.map((tokens) => ({ tokens, func: emitTile(emitter, tokens) })),
    rowBytes: (k) => i32.shl(k, 2),
    tileBytes: (k) => i32.shl(k, 5),
  };
}

function emitTile(emitter: Emitter, tokens: number): Func {
  return emitter.module.func(`linear_f32_${tokens}`, ["i32", "i32", "i32", "i32", "i32", "i32", "i32"], undefined, (out, x, w, bias, k, stride, rows) => {
    const xs = Array.from({ length: tokens }, (_, t) => (t === 0 ? x : local("i32", i32.add(x, i32.mul(k, 4 * t)))));
    // sums[token][even or odd column][rows 0..3 or 4..7]
    const sums = xs.map(() => [0, 1].map(() => [local("v128"), local("v128")]));
    const columns = (count: number): void => {
      for (let column = 0; column < count; column++) {
        const weights = [0, 1].map((half) => local("v128", v128.load(w, 32 * column + 16 * half)));
        xs.forEach((pointer, t) => {
          const value = local("v128", v128.load32_splat(pointer, 4 * column));
          weights.forEach((weight, half) => {
            const sum = sums[t][column & 1][half];
            sum.set(madd(emitter, weight, value, sum));
          });
        });
      }
      w.add(32 * count);
      for (const pointer of xs) pointer.add(4 * count);
    };
    if_(i32.ge_s(k, 4), () => repeat(i32.shr_u(k, 2), () => columns(4)));
    if_(i32.and(k, 2), () => columns(2));
    if_(i32.and(k, 1), () => columns(1));
    for (const [even, odd] of sums) [0, 1].forEach((half) => even[half].set(f32x4.add(even[half], odd[half])));
    if_(bias, () => {
      for (const [even] of sums) even.forEach((sum, half) => sum.set(f32x4.add(sum, v128.load(bias, 16 * half))));
    });
    for (const [[low, high]] of sums) {
      storeRows(emitter, out, low, high, rows);
      out.add(i32.shl(stride, 2));
    }
  });
}
