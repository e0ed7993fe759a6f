import type { Func } from "../assembler.ts";
import { call, f32, f32x4, i32, i32x4, i8x16, if_, local, select, v128 } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { floats, maxF32, param, range } from "./common.ts";
import { KV_READERS } from "./kv-format.ts";

/**
 * Words of an entry: row of the batch; for keys, then for values: address of the first head's row in the page's first layer, address of its scale; the
 * formats of keys and values.
 */
export const KV_ENTRY_WORDS = 8;

/** Kernel "kv_write": params k, v, entries, nKvHeads, headDim, pageSize, rows of a page before the layer; a unit is one token. Rows are quantised as stated at KvPage. */
export function emitKvWrite(emitter: Emitter): void {
  const writers = KV_READERS.map(({ format }) => (format === "f32" ? emitCopyRow(emitter) : emitQuantiseRow(emitter, format as "int8" | "int4")));
  emitter.module.kernel("kv_write", (first, last) => {
    const [nKvHeads, headDim, pageSize] = [local("i32", param(3)), local("i32", param(4)), local("i32", param(5))];
    const [format, rowBytes] = [local("i32"), local("i32")];
    range(first, last, 1, (unit) => {
      const entry = local("i32", i32.add(param(2), i32.mul(unit, 4 * KV_ENTRY_WORDS)));
      const write = (which: 0 | 1) => {
        const from = local("i32", i32.add(param(which), i32.shl(i32.mul(i32.load(entry), i32.mul(nKvHeads, headDim)), 2)));
        format.set(i32.load(entry, 20 + 4 * which));
        KV_READERS.forEach((reader, index) => if_(i32.eq(format, index), () => rowBytes.set(reader.rowBytes(headDim))));
        const to = local("i32", i32.add(i32.load(entry, 4 + 8 * which), i32.mul(param(6), rowBytes)));
        const scale = local("i32", i32.add(i32.load(entry, 8 + 8 * which), i32.shl(param(6), 2)));
        range(0, nKvHeads, 1, () => {
          writers.forEach((writer, index) => if_(i32.eq(format, index), () => call(writer, from, to, scale, headDim)));
          from.add(i32.shl(headDim, 2));
          to.add(i32.mul(rowBytes, pageSize));
          scale.add(i32.shl(pageSize, 2));
        });
      };
      write(0);
      // Pages without values of their own name the keys twice.
      if_(i32.ne(i32.load(entry, 4), i32.load(entry, 12)), () => write(1));
    });
  });
}

function emitCopyRow({ module }: Emitter): Func {
  return module.func("kv_write_f32", ["i32", "i32", "i32", "i32"], undefined, (from, to, _scale, n) => {
    floats(
      n,
      (at) => v128.store(i32.add(to, at), v128.load(i32.add(from, at))),
      (at) => f32.store(i32.add(to, at), f32.load(i32.add(from, at))),
    );
  });
}

function emitQuantiseRow({ module }: Emitter, format: "int8" | "int4"): Func {
  return module.func(`kv_write_${format}`, ["i32", "i32", "i32", "i32"], undefined, (from, to, scaleAt, n) => {
    const [largest, poison, x] = [local("v128"), local("v128"), local("v128")];
    const look = (load: "load" | "load32_zero") => (at: Parameters<typeof i32.add>[1]) => {
      x.set(v128[load](i32.add(from, at)));
      largest.set(f32x4.max(largest, f32x4.abs(x)));
      // 0 for finite values, else NaN.
      poison.set(f32x4.add(poison, f32x4.mul(x, f32x4.const(0))));
    };
    floats(n, look("load"), look("load32_zero"));
    const amax = local("f32", maxF32(largest));
    const scale = local("f32", f32.max(f32.const(2 ** -126), f32.div(amax, format === "int8" ? 127 : 7)));
    scale.set(select(f32.const(0), scale, f32.eq(amax, 0)));
    poison.set(f32x4.eq(poison, poison));
    if_(i32.eqz(i32.and(i32.and(i32x4.extract_lane(0, poison), i32x4.extract_lane(1, poison)), i32.and(i32x4.extract_lane(2, poison), i32x4.extract_lane(3, poison)))), () => {
      scale.set(f32.const(NaN));
    });
    f32.store(scaleAt, scale);
    const divisor = local("v128", f32x4.splat(scale));
    // With a scale of 0 or NaN the quotients are NaN, which becomes the integer 0.
    const integers = (load: "load" | "load32_zero", at: Parameters<typeof i32.add>[1]) =>
      i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.div(v128[load](i32.add(from, at)), divisor)));
    const lowBytes = (values: typeof x) => i8x16.shuffle([0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12], values, values);
    if (format === "int8") {
      floats(
        n,
        (at) => {
          x.set(integers("load", at));
          v128.store32_lane(0, i32.add(to, i32.shr_u(at, 2)), lowBytes(x));
        },
        (at) => i32.store8(i32.add(to, i32.shr_u(at, 2)), i32x4.extract_lane(0, integers("load32_zero", at))),
      );
      return;
    }
    const pairs = local("i32", i32.shr_u(n, 1));
    const high = local("i32", i32.shl(i32.sub(n, pairs), 2));
    const joined = (load: "load" | "load32_zero", at: Parameters<typeof i32.add>[1]) => {
      const [first, second] = [integers(load, at), integers(load, i32.add(high, at))].map((part) => i32x4.add(part, i32x4.const(8)));
      return v128.or(first, i32x4.shl(second, 4));
    };
    floats(
      pairs,
      (at) => {
        x.set(joined("load", at));
        v128.store32_lane(0, i32.add(to, i32.shr_u(at, 2)), lowBytes(x));
      },
      (at) => i32.store8(i32.add(to, i32.shr_u(at, 2)), i32x4.extract_lane(0, joined("load32_zero", at))),
    );
    if_(i32.and(n, 1), () => {
      i32.store8(i32.add(to, pairs), i32.add(i32x4.extract_lane(0, integers("load32_zero", i32.shl(pairs, 2))), 8 + 128));
    });
  });
}
