import type { Func } from "../assembler.ts";
import { f32x4, i32, if_, local, v128 } from "../assembler.ts";
import { floatTileBytes, type FloatFormat, HALF_SHIFT } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { madd, repeat } from "./common.ts";
import type { TileFamily } from "./linear.ts";
import { storeRows } from "./linear-store.ts";
import { columnLoader } from "./widen.ts";

/** Tokens that share each loaded weight vector; widening takes registers, too. */
const TOKENS = { f32: [3, 1], f16: [2, 1], bf16: [2, 1] } as const;
const WIDE_TOKENS = [4, 2, 1];
/** Columns in the body of the loop: with four of f16 compilers of 2023 (Node 20) run out of registers and lose a third. */
const COLUMNS = { f32: 4, f16: 2, bf16: 4 } as const;

/**
 * Products with float weights packed 8 rows side by side. Even and odd columns have a sum each, whatever the number of tokens and the format
 * are: weights of 16 bits, which are widened first, give the bits that the same weights give in f32. Those of f16 want activations divided by
 * HALF_SHIFT, which makes the same products.
 */
export function floatTiles(emitter: Emitter, format: FloatFormat): TileFamily {
  return {
    tiles: (emitter.wide ? WIDE_TOKENS : TOKENS[format]).map((tokens) => ({ tokens, func: emitTile(emitter, format, tokens) })),
    rowBytes: (k) => i32.shl(k, 2),
    tileBytes: (k) => i32.mul(k, floatTileBytes(format, 1)),
  };
}

/** Function (from, to, k): a tile of 16-bit weights as one of f32. */
export function emitWidenFloats(emitter: Emitter, format: FloatFormat): Func {
  return emitter.module.func(`widen_${format}`, ["i32", "i32", "i32"], undefined, (from, to, k) => {
    const load = columnLoader(emitter, format);
    repeat(k, () => {
      load(from, 0).forEach((four, half) => v128.store(to, format === "f16" ? f32x4.mul(four, f32x4.const(1 / HALF_SHIFT)) : four, 16 * half));
      from.add(floatTileBytes(format, 1));
      to.add(floatTileBytes("f32", 1));
    });
  });
}

function emitTile(emitter: Emitter, format: FloatFormat, tokens: number): Func {
  const column = floatTileBytes(format, 1);
  return emitter.module.func(`tile_${format}_${tokens}`, ["i32", "i32", "i32", "i32", "i32", "i32", "i32"], undefined, (out, x, w, bias, k, stride, rows) => {
    const xs = Array.from({ length: tokens }, (_, t) => (t === 0 ? x : local("i32", i32.add(x, i32.mul(k, 4 * t)))));
    // sums[token][even or odd column][rows 0..3 or 4..7]
    const sums = xs.map(() => [0, 1].map(() => [local("v128"), local("v128")]));
    const load = columnLoader(emitter, format);
    const columns = (count: number): void => {
      for (let c = 0; c < count; c++) {
        const weights = load(w, column * c).map((four) => local("v128", four));
        xs.forEach((pointer, t) => {
          const value = local("v128", v128.load32_splat(pointer, 4 * c));
          weights.forEach((weight, half) => {
            const sum = sums[t][c & 1][half];
            sum.set(madd(emitter, weight, value, sum));
          });
        });
      }
      w.add(column * count);
      for (const pointer of xs) pointer.add(4 * count);
    };
    const most = COLUMNS[format];
    if_(i32.ge_s(k, most), () => repeat(i32.shr_u(k, Math.log2(most)), () => columns(most)));
    for (let count = most / 2; count >= 1; count /= 2) if_(i32.and(k, count), () => columns(count));
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
