import type { Expr, Func, Local } from "../assembler.ts";
import { f32x4, i16x8, i32, i32x4, if_, local, v128 } from "../assembler.ts";
import { GROUP, TILE_ROWS, tileBytes, X_BLOCK, X_SCALE, X_SUM, X_SUM_HIGH } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { madd, repeat } from "./common.ts";
import { constant } from "./constants.ts";
import type { TileFamily } from "./linear.ts";
import { storeRows } from "./linear-store.ts";

type V128 = Expr<"v128">;

export interface WeightFormat {
  readonly format: "int8" | "int4";
  /** 16-bit scales instead of f32. */
  readonly half: boolean;
}

/**
 * One linear kernel is a family of tile functions, each for so many tokens at once; all sum in the same order. Measured: compilers that do
 * not know relaxed SIMD yet (Node 20) run out of registers with four tokens of int4 and are 1.2 to 1.5 times as fast with two; int8 in wide
 * vectors gains a twentieth by eight.
 */
function tokensAtOnce(path: "pairs" | "limbs" | "bytes", { format }: WeightFormat, { madd, wide }: Emitter): readonly number[] {
  if (path === "limbs" && !wide) return [3, 2, 1];
  if (path === "pairs" && format === "int8" && wide) return [8, 4, 2, 1];
  if (path === "pairs" && format === "int4" && !madd) return [2, 1];
  return [4, 2, 1];
}

/**
 * Products with packed int8 or int4 weights. Within a group of 32 columns sums are exact integers; groups add up in order, in f32, one
 * accumulator for each (row, token). So neither the number of tokens nor the path changes a bit.
 */
export function quantisedTiles(emitter: Emitter, name: string, weight: WeightFormat): TileFamily {
  const { dot, activations } = emitter;
  const path = dot === "pairs" ? "pairs" : activations === "int8" ? "bytes" : "limbs";
  return {
    tiles: tokensAtOnce(path, weight, emitter).map((tokens) => ({ tokens, func: emitTile(emitter, `${name}_${tokens}`, weight, tokens) })),
    rowBytes: (groups) => i32.mul(groups, X_BLOCK),
    tileBytes: (groups) => i32.mul(groups, tileBytes(weight.format, weight.half)),
  };
}

/** One tile of 8 rows times `tokens` tokens over all groups. */
function emitTile(emitter: Emitter, name: string, weight: WeightFormat, tokens: number): Func {
  const { module, dot } = emitter;
  return module.func(name, ["i32", "i32", "i32", "i32", "i32", "i32", "i32"], undefined, (out, x, w, bias, groups, stride, rows) => {
    const xs = Array.from({ length: tokens }, (_, t) => (t === 0 ? x : local("i32", i32.add(x, i32.mul(groups, X_BLOCK * t)))));
    const sums = Array.from({ length: tokens }, () => [local("v128"), local("v128")] as const);
    const masks: Masks = { nibble0: local("v128", constant("nibble0")), nibble1: local("v128", constant("nibble1")), nibbles: local("v128", constant("nibbles")), half: local("v128", constant("halfScale")) };
    repeat(groups, () => {
      const integers = dot === "pairs" ? (weight.format === "int8" ? pairDots : nibbleDots)(emitter, xs, w, masks) : byteDots(emitter, weight, xs, w, masks);
      // w now points at the scales, the activations' pointers at theirs.
      for (const half of HALVES) {
        const scales = local("v128", weightScales(weight, w, half, masks));
        for (let t = 0; t < tokens; t++) {
          const scale = f32x4.mul(scales, v128.load32_splat(xs[t]));
          sums[t][half].set(madd(emitter, f32x4.convert_i32x4_s(integers(t, half)), scale, sums[t][half]));
        }
      }
      w.add(TILE_ROWS * (weight.half ? 2 : 4));
      for (const pointer of xs) pointer.add(X_BLOCK - X_SCALE);
    });
    if_(bias, () => {
      for (const pair of sums) pair.forEach((sum, half) => sum.set(f32x4.add(sum, v128.load(bias, 16 * half))));
    });
    for (const [low, high] of sums) {
      storeRows(emitter, out, low, high, rows);
      out.set(i32.add(out, i32.shl(stride, 2)));
    }
  });
}

/** Of a tile's rows, 4 each: the lanes of a vector. */
const HALVES = [0, 1] as const;

/** Constants that the loops over groups keep in registers. */
interface Masks {
  readonly nibble0: Local<"v128">;
  readonly nibble1: Local<"v128">;
  readonly nibbles: Local<"v128">;
  readonly half: Local<"v128">;
}

/** The 4 scales of one half tile, times 2^-102 if they are half scales (the activations' scale carries the inverse). */
function weightScales({ half: sixteen }: WeightFormat, scales: Expr<"i32">, half: number, masks: Masks): V128 {
  if (!sixteen) return v128.load(scales, 16 * half);
  return v128.and(i32x4.shl(v128.load16x4_s(scales, 8 * half), 13), masks.half);
}

/** Integer sums of one group, after the loop over its columns; pointers stand behind the values then. */
type Integers = (token: number, half: number) => V128;

/**
 * Loops over a group's columns, `unroll` (measured) steps of `wBytes` of weights at a time. Pointers move with every step, so that few distinct
 * offsets occur: V8 keeps base + offset in a register for each. Short loops also keep its scheduler from loading a whole group ahead.
 */
function overSteps(steps: number, unroll: number, w: Local<"i32">, xs: readonly Local<"i32">[], wBytes: number, xBytes: number, body: () => void): void {
  const step = () => {
    body();
    w.add(wBytes);
    for (const pointer of xs) pointer.add(xBytes);
  };
  if (unroll >= steps) for (let i = 0; i < steps; i++) step();
  else repeat(steps / unroll, () => { for (let i = 0; i < unroll; i++) step(); });
}

const addTo = (sum: Local<"v128">, value: V128): void => sum.set(i32x4.add(sum, value));
const zeroed = (count: number) => Array.from({ length: count }, () => local("v128", i32x4.const(0)));

/** Baseline SIMD: `i32x4.dot_i16x8_s` of int8 and int16 activations. */
function pairDots({ madd }: Emitter, xs: readonly Local<"i32">[], w: Local<"i32">): Integers {
  // Compilers that know no relaxed SIMD yet (Node 20) lose by long loop bodies, later ones gain a tenth.
  const pairs = madd || xs.length <= 2 ? 2 : 1;
  const sums = xs.map(() => zeroed(2));
  overSteps(GROUP / 2 / pairs, madd ? 8 : xs.length === 1 ? 2 : 1, w, xs, 16 * pairs, 4 * pairs, () => {
    for (let pair = 0; pair < pairs; pair++) {
      const rows = HALVES.map((half) => local("v128", v128.load8x8_s(w, 16 * pair + 8 * half)));
      xs.forEach((pointer, t) => {
        const x = local("v128", v128.load32_splat(pointer, 4 * pair));
        rows.forEach((row, half) => addTo(sums[t][half], i32x4.dot_i16x8_s(row, x)));
      });
    }
  });
  return (t, half) => sums[t][half];
}

/**
 * The same of int4: a 16-bit lane holds the nibbles of four columns, each shifted down and masked. With one token the second ones stay where they are,
 * which saves a shift: their products, multiples of 16, add up apart.
 */
function nibbleDots({ madd }: Emitter, xs: readonly Local<"i32">[], w: Local<"i32">, { nibble0, nibble1 }: Masks): Integers {
  const apart = xs.length === 1;
  const sums = xs.map(() => zeroed(2));
  const sixteens = apart ? zeroed(2) : [];
  const nibble = (v: V128, i: number): V128 => {
    if (i === 1 && apart) return v128.and(v, nibble1);
    const down = i === 0 ? v : i16x8.shr_u(v, 4 * i);
    return i === 3 ? down : v128.and(down, nibble0);
  };
  overSteps(GROUP / 8, madd ? (xs.length <= 2 ? 8 : 4) : 1, w, xs, 32, 16, () => {
    const weights = HALVES.map((half) => local("v128", v128.load(w, 16 * half)));
    for (let i = 0; i < 4; i++) {
      const values = weights.map((v) => local("v128", nibble(v, i)));
      xs.forEach((pointer, t) => {
        const x = local("v128", v128.load32_splat(pointer, 4 * i));
        values.forEach((value, half) => addTo(i === 1 && apart ? sixteens[half] : sums[t][half], i32x4.dot_i16x8_s(value, x)));
      });
    }
  });
  return (t, half) => {
    const sum = i32x4.add(sums[t][half], v128.load32_splat(xs[t], X_SUM - X_SCALE));
    return apart ? i32x4.add(sum, i32x4.shr_s(sixteens[half], 4)) : sum;
  };
}

/** Relaxed SIMD: `i32x4.relaxed_dot_i8x16_i7x16_add_s` on the bytes of activations, sums starting at the offset's correction. */
function byteDots({ activations, dot }: Emitter, { format }: WeightFormat, xs: readonly Local<"i32">[], w: Local<"i32">, { nibbles }: Masks): Integers {
  const limbs = activations === "int8" ? [0] : [0, 1];
  const corrected = format === "int4" || dot === "u8s8";
  const sums = xs.map((pointer) =>
    HALVES.map(() => limbs.map((limb) => local("v128", corrected ? v128.load32_splat(pointer, limb ? X_SUM_HIGH : X_SUM) : i32x4.const(0)))),
  );
  /** One vector of 4 columns for each half. */
  const multiply = (weights: readonly Local<"v128">[], at: number): void => {
    xs.forEach((pointer, t) => {
      for (const limb of limbs) {
        const x = local("v128", v128.load32_splat(pointer, at + 4 * limb));
        weights.forEach((value, half) => sums[t][half][limb].set(i32x4.relaxed_dot_i8x16_i7x16_add_s(x, value, sums[t][half][limb])));
      }
    });
  };
  const load = () => HALVES.map((half) => local("v128", v128.load(w, 16 * half)));
  const width = 4 * limbs.length;
  if (format === "int8") overSteps(GROUP / 4, 8, w, xs, 32, width, () => multiply(load(), 0));
  else {
    overSteps(GROUP / 8, 4, w, xs, 32, 2 * width, () => {
      const both = load();
      multiply(both.map((v) => local("v128", v128.and(v, nibbles))), 0);
      multiply(both.map((v) => local("v128", v128.and(i16x8.shr_u(v, 4), nibbles))), width);
    });
  }
  if (width * 8 !== X_SCALE) for (const pointer of xs) pointer.add(X_SCALE - width * 8);
  return (t, half) => {
    const [lowSum, highSum] = sums[t][half];
    return highSum ? i32x4.add(i32x4.shl(highSum, 8), lowSum) : lowSum;
  };
}
