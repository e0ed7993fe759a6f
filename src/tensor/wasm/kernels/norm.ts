import type { Expr } from "../assembler.ts";
import { f32, f32x4, i32, i8x16, if_, local, v128 } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { floats, param, paramF32, range, sumF32 } from "./common.ts";

/** Kernels "rms_norm" and "layer_norm": rows [first, last) of x [rows, n]; params out, x, weight, bias, n, eps, rows of the weight, which take turns. out may be x. */
export function emitNorms({ module }: Emitter): void {
  for (const centred of [false, true]) {
    module.kernel(centred ? "layer_norm" : "rms_norm", (first, last) => {
      const [weight, bias, n, turns] = [local("i32"), local("i32"), local("i32", param(4)), local("i32", param(6))];
      const start = local("i32", i32.shl(i32.mul(first, n), 2));
      const x = local("i32", i32.add(param(1), start));
      const out = local("i32", i32.add(param(0), start));
      const count = local("f32", f32.convert_i32_s(n));
      const mean = local("v128");
      const sum = local("v128");
      const value = local("v128");
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
      const centre = (part: Expr<"v128">) => (centred ? f32x4.sub(part, mean) : part);
      range(first, last, 1, (row) => {
        const turn = local("i32", i32.shl(i32.mul(i32.rem_u(row, turns), n), 2));
        weight.set(i32.add(param(2), turn));
        if (centred) bias.set(param(3));
        if (centred) if_(bias, () => bias.add(turn));
        if (centred) mean.set(f32x4.splat(total((part) => part)));
        const variance = total((part) => f32x4.mul(centre(part), centre(part)));
        const scale = local("v128", f32x4.splat(f32.div(1, f32.sqrt(f32.add(variance, paramF32(5))))));
        const scaled = (at: Expr<"i32">, load: "load" | "load32_zero") =>
          f32x4.mul(f32x4.mul(centre(v128[load](i32.add(x, at))), scale), v128[load](i32.add(weight, at)));
        const write = (shift: (part: Expr<"v128">, at: Expr<"i32">, load: "load" | "load32_zero") => Expr<"v128">) =>
          floats(
            n,
            (at) => v128.store(i32.add(out, at), shift(scaled(at, "load"), at, "load")),
            (at) => v128.store32_lane(0, i32.add(out, at), shift(scaled(at, "load32_zero"), at, "load32_zero")),
          );
        const plain = () => write((part) => part);
        if (centred) if_(bias, () => write((part, at, load) => f32x4.add(part, v128[load](i32.add(bias, at)))), plain);
        else plain();
        x.add(i32.shl(n, 2));
        out.add(i32.shl(n, 2));
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
