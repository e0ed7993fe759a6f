import type { Expr, Func } from "../assembler.ts";
import { call, f32, f32x4, i32, i32x4, i8x16, if_, local, v128 } from "../assembler.ts";
import { GROUP, X_BLOCK } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { floats, param, paramF32, range, sumF32 } from "./common.ts";

/** Statistics of rows of n floats: sets `mean` (if `centred`) and `scale` = 1 / sqrt(mean square + eps) for the row at x. */
function emitStatistics(centred: boolean, x: Expr<"i32">, n: Expr<"i32">, eps: () => Expr<"f32">) {
  const count = local("f32", f32.convert_i32_s(n));
  const [mean, scale, sum, value] = [local("v128"), local("v128"), local("v128"), local("v128")];
  const centre = (part: Expr<"v128">) => (centred ? f32x4.sub(part, mean) : part);
  const total = (visit: (value: Expr<"v128">) => Expr<"v128">) => {
    sum.set(f32x4.const(0));
    floats(
      n,
      (at) => {
        value.set(v128.load(i32.add(x, at)));
        sum.set(f32x4.add(sum, visit(value)));
      },
      (at) => {
        value.set(v128.load32_splat(i32.add(x, at)));
        sum.set(f32x4.add(sum, f32x4.replace_lane(0, f32x4.const(0), f32x4.extract_lane(0, visit(value)))));
      },
    );
    return f32.div(sumF32(sum), count);
  };
  return {
    measure() {
      if (centred) mean.set(f32x4.splat(total((part) => part)));
      const variance = local("f32", total((part) => f32x4.mul(centre(part), centre(part))));
      // Where squares were too large for 32 bits, rows become NaN, which someone notices, not zeros.
      scale.set(f32x4.splat(f32.add(f32.div(1, f32.sqrt(f32.add(variance, eps()))), f32.sub(variance, variance))));
    },
    normal: (part: Expr<"v128">, weight: Expr<"v128">) => f32x4.mul(f32x4.mul(centre(part), scale), weight),
  };
}

type Load = "load" | "load32_zero";

/** Kernels "rms_norm" and "layer_norm": rows [first, last) of x [rows, n]; params out, x, weight, bias, n, eps, rows of the weight, which take turns. out may be x. */
export function emitNorms({ module }: Emitter): void {
  for (const centred of [false, true]) {
    module.kernel(centred ? "layer_norm" : "rms_norm", (first, last) => {
      const [weight, bias, n, turns] = [local("i32"), local("i32"), local("i32", param(4)), local("i32", param(6))];
      const start = local("i32", i32.shl(i32.mul(first, n), 2));
      const x = local("i32", i32.add(param(1), start));
      const out = local("i32", i32.add(param(0), start));
      const { measure, normal } = emitStatistics(centred, x, n, () => paramF32(5));
      range(first, last, 1, (row) => {
        const turn = local("i32", i32.shl(i32.mul(i32.rem_u(row, turns), n), 2));
        weight.set(i32.add(param(2), turn));
        if (centred) bias.set(param(3));
        if (centred) if_(bias, () => bias.add(turn));
        measure();
        const at = (base: Expr<"i32">, offset: Expr<"i32">, load: Load) => v128[load](i32.add(base, offset));
        const write = (shift: (part: Expr<"v128">, offset: Expr<"i32">, load: Load) => Expr<"v128">) => {
          const value = (offset: Expr<"i32">, load: Load) => shift(normal(at(x, offset, load), at(weight, offset, load)), offset, load);
          floats(
            n,
            (offset) => v128.store(i32.add(out, offset), value(offset, "load")),
            (offset) => v128.store32_lane(0, i32.add(out, offset), value(offset, "load32_zero")),
          );
        };
        const plain = () => write((part) => part);
        if (centred) if_(bias, () => write((part, offset, load) => f32x4.add(part, at(bias, offset, load))), plain);
        else plain();
        x.add(i32.shl(n, 2));
        out.add(i32.shl(n, 2));
      });
    });
  }
}

/**
 * Kernels "rms_norm_ORDER" and "layer_norm_ORDER": the same, made into blocks of quantised activations by `group` without being stored
 * in between; params out, x, weight, bias, n, eps, groups, offset, factor.
 */
export function emitQuantisedNorms({ module, scratch }: Emitter, order: string, group: Func): void {
  for (const centred of [false, true]) {
    module.kernel(`${centred ? "layer_norm" : "rms_norm"}_${order}`, (first, last) => {
      const [weight, bias, n] = [local("i32", param(2)), local("i32", param(3)), local("i32", param(4))];
      const x = local("i32", i32.add(param(1), i32.shl(i32.mul(first, n), 2)));
      const to = local("i32", i32.add(param(0), i32.mul(i32.mul(first, param(6)), X_BLOCK)));
      const { measure, normal } = emitStatistics(centred, x, n, () => paramF32(5));
      const count = local("i32");
      range(first, last, 1, () => {
        measure();
        range(0, n, GROUP, (column) => {
          const from = local("i32", i32.shl(column, 2));
          count.set(i32.sub(n, column));
          if_(
            i32.ge_s(count, GROUP),
            () => count.set(GROUP),
            () => range(0, 4 * GROUP, 16, (at) => v128.store(i32.add(scratch, at), i32x4.const(0))),
          );
          const write = (shift: (part: Expr<"v128">, at: Expr<"i32">, load: Load) => Expr<"v128">) => {
            const value = (at: Expr<"i32">, load: Load) => {
              const place = local("i32", i32.add(from, at));
              return shift(normal(v128[load](i32.add(x, place)), v128[load](i32.add(weight, place))), place, load);
            };
            floats(
              count,
              (at) => v128.store(i32.add(scratch, at), value(at, "load")),
              (at) => v128.store32_lane(0, i32.add(scratch, at), value(at, "load32_zero")),
            );
          };
          const plain = () => write((part) => part);
          if (centred) if_(bias, () => write((part, place, load) => f32x4.add(part, v128[load](i32.add(bias, place)))), plain);
          else plain();
          call(group, scratch, to, param(7), paramF32(8));
          to.add(X_BLOCK);
        });
        x.add(i32.shl(n, 2));
      });
    });
  }
}

const lanes = (...order: [number, number, number, number]): number[] => order.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte));

/**
 * Kernels "rope_interleaved" and "rope_halves": rows [first, last) of x [rows, width] in place; params x, angles, width, headDim, pairs.
 * angles [rows, 2 * pairs] holds (cos, sin) for every pair.
 */
export function emitRope({ module }: Emitter): void {
  for (const style of ["interleaved", "halves"] as const) {
    module.kernel(`rope_${style}`, (first, last) => {
      const [width, headDim, pairs] = [local("i32", param(2)), local("i32", param(3)), local("i32", param(4))];
      const row = local("i32", i32.add(param(0), i32.shl(i32.mul(first, width), 2)));
      const angles = local("i32", i32.add(param(1), i32.shl(i32.mul(first, pairs), 3)));
      const head = local("i32");
      const [a, b, x, y] = [local("v128"), local("v128"), local("v128"), local("v128")];
      const [cos, sin, u, v] = [local("f32"), local("f32"), local("f32"), local("f32")];
      range(first, last, 1, () => {
        head.set(row);
        range(0, width, 1, (column) => {
          // `column` strides by headDim: the step below adds what range does not.
          const one = (first: Expr<"i32">, second: Expr<"i32">, at: Expr<"i32">) => {
            cos.set(f32.load(i32.add(angles, i32.shl(at, 1))));
            sin.set(f32.load(i32.add(angles, i32.shl(at, 1)), 4));
            u.set(f32.load(first));
            v.set(f32.load(second));
            f32.store(first, f32.sub(f32.mul(u, cos), f32.mul(v, sin)));
            f32.store(second, f32.add(f32.mul(u, sin), f32.mul(v, cos)));
          };
          const half = i32.shl(pairs, 2);
          floats(
            pairs,
            (at) => {
              const angle = i32.add(angles, i32.shl(at, 1));
              a.set(v128.load(angle));
              b.set(v128.load(angle, 16));
              if (style === "halves") {
                x.set(v128.load(i32.add(head, at)));
                y.set(v128.load(i32.add(i32.add(head, at), half)));
                const [c, s] = [i8x16.shuffle(lanes(0, 2, 4, 6), a, b), i8x16.shuffle(lanes(1, 3, 5, 7), a, b)];
                v128.store(i32.add(head, at), f32x4.sub(f32x4.mul(x, c), f32x4.mul(y, s)));
                v128.store(i32.add(i32.add(head, at), half), f32x4.add(f32x4.mul(x, s), f32x4.mul(y, c)));
                return;
              }
              const place = i32.add(head, i32.shl(at, 1));
              const sign = v128.const(new Uint8Array(Float32Array.of(-1, 1, -1, 1).buffer));
              [a, b].forEach((angle, i) => {
                x.set(v128.load(place, 16 * i));
                const swapped = i8x16.shuffle(lanes(1, 0, 3, 2), x, x);
                const [c, s] = [i8x16.shuffle(lanes(0, 0, 2, 2), angle, angle), i8x16.shuffle(lanes(1, 1, 3, 3), angle, angle)];
                v128.store(place, f32x4.add(f32x4.mul(x, c), f32x4.mul(swapped, f32x4.mul(s, sign))), 16 * i);
              });
            },
            (at) => {
              if (style === "halves") one(i32.add(head, at), i32.add(i32.add(head, at), half), at);
              else one(i32.add(head, i32.shl(at, 1)), i32.add(i32.add(head, i32.shl(at, 1)), 4), at);
            },
          );
          head.add(i32.shl(headDim, 2));
          column.add(i32.sub(headDim, 1));
        });
        row.add(i32.shl(width, 2));
        angles.add(i32.shl(pairs, 3));
      });
    });
  }
}
