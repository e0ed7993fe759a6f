import type { Expr, Local, Operand } from "../assembler.ts";
import { f32, f32x4, i32, i32x4, if_, local, v128 } from "../assembler.ts";
import type { HalfDType } from "../../tensor.ts";
import { floatTileBytes, GROUP, HALF_SHIFT, type ColumnOrder, TILE_ROWS } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { columnOrder, param, range, repeat } from "./common.ts";
import { constant } from "./constants.ts";

/** Bytes of a column of a tile. */
const HALF_COLUMN = floatTileBytes("f16", 1);

/**
 * Parameters of the packing kernels: rows of a file, packed target, rows, groups, bytes of a tile, what is xored into every word of int8, a word
 * that becomes 1 for what is not for them; and of those of pack-floats.ts, the index of the file's type in FLOAT_TYPES.
 */
export const PACK_PARAMS = ["blocks", "target", "rows", "groups", "stride", "flip", "refused", "type"] as const;

/**
 * Kernels "pack_f16" and "pack_bf16", with the parameters of the others (columns, a multiple of 4, in place of groups; no stride): rows of a
 * file into tiles of 8 rows side by side, see layout.ts. They refuse what is not finite, f16 from 128 on, too.
 */
export function emitPackHalves({ module }: Emitter, format: HalfDType): void {
  module.kernel(`pack_${format}`, (first, last) => {
    const cols = local("i32", param(3));
    const [mask, sign] = [local("v128", constant("halfScale")), local("v128", i32x4.splat(i32.const(0x8000)))];
    const refused = local("v128");
    const [from, to] = [local("i32"), local("i32")];
    range(first, last, 1, (tile) => {
      const row = local("i32", i32.shl(tile, 3));
      const end = local("i32", i32.add(row, TILE_ROWS));
      if_(i32.gt_s(end, param(2)), () => end.set(param(2)));
      range(row, end, 1, (row) => {
        from.set(i32.add(param(0), i32.shl(i32.mul(row, cols), 1)));
        to.set(i32.add(i32.add(param(1), i32.mul(i32.mul(tile, cols), HALF_COLUMN)), i32.shl(i32.and(row, 7), 1)));
        repeat(i32.shr_u(cols, 2), () => {
          const four = local("v128", v128.load16x4_s(from));
          if (format === "f16") {
            // Sign, exponent and fraction in place are the value times 2^-112.
            const shifted = local("v128", f32x4.mul(v128.and(i32x4.shl(four, 13), mask), f32x4.const(HALF_SHIFT * 2 ** 112)));
            refused.set(v128.or(refused, shifted));
            four.set(v128.or(i32x4.shr_u(shifted, 13), v128.and(four, sign)));
          } else {
            // Times 0, infinities and NaNs are NaN, and stay it.
            refused.set(f32x4.add(refused, f32x4.mul(i32x4.shl(four, 16), f32x4.const(0))));
          }
          for (let c = 0; c < 4; c++) v128.store16_lane(2 * c, to, four, HALF_COLUMN * c);
          from.add(8);
          to.add(4 * HALF_COLUMN);
        });
      });
    });
    // These bits of an exponent are those of 2^-95 and more.
    if_(v128.any_true(v128.and(refused, i32x4.splat(i32.const(0x70000000)))), () => i32.store(param(6), 1));
  });
}

/** Bytes from a tile's values to the first columns of a row. */
export const placeOf = (row: Expr<"i32">, order: ColumnOrder): Expr<"i32"> => i32.shl(row, order === "pairs" ? 1 : 2);

/** Stores the columns 4 * index.. of a row whose first ones are at `place`. */
export function storeFour(order: ColumnOrder, place: Expr<"i32">, columns: Expr<"i32">, index = 0): void {
  if (order !== "pairs") return i32.store(place, columns, 32 * index);
  const four = local("i32", columns);
  i32.store16(place, four, 32 * index);
  i32.store16(place, i32.shr_u(four, 16), 32 * index + 16);
}

/** GGML's blocks (ggml-common.h): an f16 scale, then 32 values. */
const FORMATS = { int8: { values: 256, blockBytes: 34 }, int4: { values: 128, blockBytes: 18 } };

/** A group of 32 values of a row: where it lies in the file, its tile, its row there, and where in the tile its first values go. */
type Visit = (from: Local<"i32">, to: Local<"i32">, at: Local<"i32">, place: Expr<"i32">) => void;

/** Visits the groups of the rows of tiles [first, last), of `groupBytes` bytes each in the file. */
export function groupsOfTiles(first: Expr<"i32">, last: Expr<"i32">, groupBytes: Operand<"i32">, order: ColumnOrder, body: Visit): void {
  const [groups, stride] = [local("i32", param(3)), local("i32", param(4))];
  const [from, to, offset] = [local("i32"), local("i32"), local("i32")];
  range(first, last, 1, (tile) => {
    const row = local("i32", i32.shl(tile, 3));
    const end = local("i32", i32.add(row, TILE_ROWS));
    if_(i32.gt_s(end, param(2)), () => end.set(param(2)));
    const at = local("i32", 0);
    range(row, end, 1, (row) => {
      from.set(i32.add(param(0), i32.mul(i32.mul(row, groups), groupBytes)));
      to.set(i32.add(param(1), i32.mul(i32.mul(tile, groups), stride)));
      offset.set(placeOf(at, order));
      range(0, groups, 1, () => {
        body(from, to, at, i32.add(to, offset));
        from.add(groupBytes);
        to.add(stride);
      });
      at.add(1);
    });
  });
}

/** Kernels "pack_int8" and "pack_int4": rows of Q8_0 or Q4_0 blocks into tiles with half scales (layout.ts), but for scales that 16 bits cannot hold; units are tiles down. */
export function emitPack({ module, ...options }: Emitter): void {
  for (const format of ["int8", "int4"] as const) {
    const order = columnOrder(options, format);
    const { values, blockBytes } = FORMATS[format];
    module.kernel(`pack_${format}`, (first, last) => {
      const [flip, scale] = [local("i32", param(5)), local("i32")];
      groupsOfTiles(first, last, blockBytes, order, (from, to, at, target) => {
        halfScale(scale, i32.load16_u(from));
        i32.store16(i32.add(to, i32.shl(at, 1)), scale, values);
        const place = local("i32", target);
        if (format === "int8") for (let word = 0; word < GROUP / 4; word++) storeFour(order, place, i32.xor(i32.load(from, 2 + 4 * word), flip), word);
        else splitNibbles(from, place);
      });
    });
  }

  /** GGML keeps column j of a block in the low nibble of byte j and column j + 16 in the high one; a tile keeps columns 0..3 below 4..7, and so on. */
  function splitNibbles(from: Expr<"i32">, place: Expr<"i32">): void {
    const [a, b, c, d] = [0, 1, 2, 3].map((word) => local("i32", i32.load(from, 2 + 4 * word)));
    const low = (x: Expr<"i32">) => i32.and(x, 0x0f0f0f0f);
    const high = (x: Expr<"i32">) => i32.and(x, 0xf0f0f0f0 | 0);
    [[a, b], [c, d]].forEach(([first, second], pair) => {
      i32.store(place, i32.or(low(first), i32.shl(low(second), 4)), 32 * pair);
      i32.store(place, i32.or(i32.shr_u(high(first), 4), high(second)), 64 + 32 * pair);
    });
  }

  /** The bits of an f16 number in the form of layout.ts: the exponent 10 higher, subnormals as ordinary numbers. */
  function halfScale(scale: Local<"i32">, bits: Expr<"i32">): void {
    scale.set(bits);
    const exponent = local("i32", i32.and(i32.shr_u(scale, 10), 31));
    const sign = local("i32", i32.and(scale, 0x8000));
    const fraction = local("i32", i32.and(scale, 0x3ff));
    if_(
      exponent,
      () => {
        if_(i32.gt_s(exponent, 21), () => i32.store(param(6), 1));
        scale.add(10 << 10);
      },
      () => {
        // fraction * 2^-24 as a float is normal; its bits hold exponent and fraction in place.
        scale.set(0);
        if_(fraction, () => scale.set(i32.or(sign, i32.shr_u(i32.reinterpret_f32(f32.mul(f32.convert_i32_s(fraction), 2 ** -126)), 13))));
      },
    );
  }
}
