import { f32, f32x4, i16x8, i32, i32x4, if_, local, loop, br_if, memoryCopy, v128 } from "../assembler.ts";
import { floatTileBytes, type FloatFormat, GROUP, TILE_ROWS, tileBytes } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { columnOrder, param, range } from "./common.ts";
import type { WeightFormat } from "./linear-quantised.ts";
import { placeOf } from "./pack.ts";
import { halfValue, loadFloat } from "./widen.ts";

/** Parameters of the row kernels: one row out of a packed table. `tile` is the address of the row's first tile, `row` its place in it. */
export const ROW_PARAMS = ["out", "tile", "row", "cols", "offset"] as const;

/** Kernel `name`: one row of packed int8 or int4 weights, dequantised to f32; `offset` is what the stored values are too large by. */
export function emitRow({ module, scratch, ...options }: Emitter, name: string, { format, half }: WeightFormat): void {
  const order = columnOrder(options, format);
  module.kernel(name, () => {
    const [out, w, row, cols] = [local("i32", param(0)), local("i32", param(1)), local("i32", param(2)), local("i32", param(3))];
    const offset = local("v128", i32x4.splat(param(4)));
    const place = local("i32", placeOf(row, order));
    const scalesAt = format === "int8" ? 256 : 128;
    const scale = local("f32");
    const byte = local("v128");
    const signed = (part: ReturnType<typeof v128.and>) => {
      const wide = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(part));
      // int8 without an offset is signed: subtracting the offset and keeping 8 bits' sign covers both.
      const value = format === "int8" ? i32x4.shr_s(i32x4.shl(i32x4.sub(wide, offset), 24), 24) : i32x4.sub(wide, offset);
      return f32x4.mul(f32x4.convert_i32x4_s(value), f32x4.splat(scale));
    };
    const at = local("i32");
    range(0, cols, GROUP, (column) => {
      if (half) {
        scale.set(halfValue(i32.load16_u(i32.add(w, i32.shl(row, 1)), scalesAt)));
      } else scale.set(f32.load(i32.add(w, i32.shl(row, 2)), scalesAt));
      at.set(i32.add(w, place));
      const left = local("i32", i32.sub(cols, column));
      const target = local("i32", scratch);
      if_(i32.ge_s(left, GROUP), () => target.set(i32.add(out, i32.shl(column, 2))));
      for (let step = 0; step < (format === "int8" ? 8 : 4); step++) {
        if (order === "pairs") byte.set(i32x4.splat(i32.or(i32.load16_u(at, 32 * step), i32.shl(i32.load16_u(at, 32 * step + 16), 16))));
        else byte.set(v128.load32_zero(at, 32 * step));
        if (format === "int8") v128.store(target, signed(byte), 16 * step);
        else {
          v128.store(target, signed(v128.and(byte, i16x8.const(0x0f0f))), 32 * step);
          v128.store(target, signed(v128.and(i16x8.shr_u(byte, 4), i16x8.const(0x0f0f))), 32 * step + 16);
        }
      }
      if_(i32.lt_s(left, GROUP), () => memoryCopy(i32.add(out, i32.shl(column, 2)), scratch, i32.shl(left, 2)));
      w.add(tileBytes(format, half));
    });
  });
}

/** Kernel "row_FORMAT": row `row` of a tile of float weights packed 8 rows side by side, as f32. */
export function emitRowFloat({ module }: Emitter, format: FloatFormat): void {
  const column = floatTileBytes(format, 1);
  module.kernel(`row_${format}`, () => {
    const out = local("i32", param(0));
    const from = local("i32", i32.add(param(1), i32.mul(param(2), column / TILE_ROWS)));
    const end = local("i32", i32.add(out, i32.shl(param(3), 2)));
    if_(i32.ne(out, end), () => {
      loop((again) => {
        f32.store(out, loadFloat(format, from));
        from.add(column);
        out.add(4);
        br_if(again, i32.ne(out, end));
      });
    });
  });
}

/** Kernel "copy": params out, from, bytes. */
export function emitCopy({ module }: Emitter): void {
  module.kernel("copy", () => memoryCopy(param(0), param(1), param(2)));
}
