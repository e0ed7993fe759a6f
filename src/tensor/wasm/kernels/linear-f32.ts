import type { Func } from "../assembler.ts";
import { br_if, call, f32x4, i32, if_, local, loop, v128 } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { madd, param, range, repeat } from "./common.ts";
import { storeRows } from "./linear-store.ts";

/** Tokens that share each loaded weight vector. */
const TOKENS = [3, 1];

/**
 * Kernel "linear_f32": out[m, n] = x[m, k] . w^T for f32 weights packed 8 rows side by side; units are tiles of 8 rows. Parameters as
 * LINEAR_PARAMS, with k in the place of groups. Even and odd columns have a sum each, whatever m is.
 */
export function emitLinearF32(emitter: Emitter): void {
  const { module } = emitter;
  const tiles = TOKENS.map((tokens) => ({ tokens, func: emitTile(emitter, tokens) }));
  module.kernel("linear_f32", (first, last) => {
    const [m, n, k, stripe] = [local("i32", param(4)), local("i32", param(5)), local("i32", param(6)), local("i32", param(7))];
    const bias = local("i32", param(3));
    const start = local("i32", 0);
    const end = local("i32");
    const token = local("i32");
    const x = local("i32");
    const out = local("i32");
    loop((nextStripe) => {
      end.set(i32.add(start, stripe));
      if_(i32.gt_s(end, m), () => end.set(m));
      range(first, last, 1, (tile) => {
        token.set(start);
        x.set(i32.add(param(1), i32.shl(i32.mul(start, k), 2)));
        out.set(i32.add(param(0), i32.add(i32.shl(i32.mul(start, n), 2), i32.shl(tile, 5))));
        const rows = local("i32", i32.sub(n, i32.shl(tile, 3)));
        const w = i32.add(param(2), i32.shl(i32.mul(tile, k), 5));
        for (const { tokens, func } of tiles) {
          if_(i32.le_s(i32.add(token, tokens), end), () => {
            loop((again) => {
              call(func, out, x, w, i32.add(bias, i32.and(i32.shl(tile, 5), i32.sub(0, i32.ne(bias, 0)))), k, n, rows);
              token.add(tokens);
              x.add(i32.mul(k, 4 * tokens));
              out.add(i32.mul(n, 4 * tokens));
              br_if(again, i32.le_s(i32.add(token, tokens), end));
            });
          });
        }
      });
      start.set(end);
      br_if(nextStripe, i32.lt_s(start, m));
    });
  });
}

function emitTile(emitter: Emitter, tokens: number): Func {
  return emitter.module.func(`linear_f32_${tokens}`, ["i32", "i32", "i32", "i32", "i32", "i32", "i32"], undefined, (out, x, w, bias, k, n, rows) => {
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
      out.add(i32.shl(n, 2));
    }
  });
}
