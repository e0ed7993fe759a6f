import type { Expr } from "../assembler.ts";
import { br, f32, f32x4, i32, if_, local, loop, v128 } from "../assembler.ts";
import type { Emitter, KernelOptions } from "./common.ts";
import { floats, maxF32, param, paramF32, range, sumF32 } from "./common.ts";
import { type Activation, type Adjustment, SWIGLU_OAI } from "../../kernels.ts";
import { expOf, tanhOf } from "./exp.ts";

type V128 = Expr<"v128">;

/** 2 * sqrt(2 / pi): gelu's tanh form is x * sigmoid(2u), with u = sqrt(2 / pi) * (x + 0.044715 x^3). */
const GELU = 2 * Math.sqrt(2 / Math.PI);

/** act(gate) * up, by activation, in the order of their numbers. */
export const GATED: Readonly<Record<Activation, (options: KernelOptions, gate: V128, up: V128) => V128>> = {
  silu: (options, gate, up) => f32x4.mul(act(options, "silu", gate), up),
  gelu: (options, gate, up) => f32x4.mul(act(options, "gelu", gate), up),
  relu2: (options, gate, up) => f32x4.mul(act(options, "relu2", gate), up),
  swiglu_oai: (options, gate, up) => {
    const clamped = f32x4.max(f32x4.const(-SWIGLU_OAI.limit), f32x4.min(f32x4.const(SWIGLU_OAI.limit), up));
    return f32x4.mul(act(options, "swiglu_oai", gate), f32x4.add(clamped, f32x4.const(1)));
  },
};

function act(options: KernelOptions, kind: Activation, x: V128): V128 {
  if (kind === "relu2") {
    const positive = local("v128", f32x4.max(x, f32x4.const(0)));
    return f32x4.mul(positive, positive);
  }
  if (kind === "swiglu_oai") {
    const open = local("v128", f32x4.min(x, f32x4.const(SWIGLU_OAI.limit)));
    return f32x4.div(open, f32x4.add(f32x4.const(1), expOf(options, f32x4.mul(open, f32x4.const(-SWIGLU_OAI.alpha)))));
  }
  const inner =
    kind === "silu" ? x : f32x4.mul(f32x4.mul(x, f32x4.const(GELU)), f32x4.add(f32x4.const(1), f32x4.mul(f32x4.mul(x, x), f32x4.const(0.044715))));
  return f32x4.div(x, f32x4.add(f32x4.const(1), expOf(options, f32x4.neg(inner))));
}

/** Visits floats [first * 4, min(last * 4, n)): units are vectors of four, so threads share no vector. */
function vectors(first: Expr<"i32">, last: Expr<"i32">, n: Expr<"i32">, visit: (offset: Expr<"i32">, load: "load" | "load32_zero", store: (address: Expr<"i32">, value: V128) => void) => void): void {
  const count = local("i32", i32.shl(i32.sub(last, first), 2));
  const room = local("i32", i32.sub(n, i32.shl(first, 2)));
  if_(i32.gt_s(count, room), () => count.set(room));
  const base = local("i32", i32.shl(first, 4));
  floats(
    count,
    (at) => visit(i32.add(base, at), "load", (address, value) => v128.store(address, value)),
    (at) => visit(i32.add(base, at), "load32_zero", (address, value) => v128.store32_lane(0, address, value)),
  );
}

/**
 * Kernels gated_ACTIVATION (params out, gate, up, n), ACTIVATION (x, -, -, n), add (x, y, -, n), add_scaled (x, y, factor, n), and scale, cap and clamp (x, by, 1 / by, n);
 * units are 4 floats.
 */
export function emitPointwise(emitter: Emitter): void {
  const { module } = emitter;
  for (const kind of ["silu", "gelu", "relu2", "swiglu_oai"] as const) {
    module.kernel(`gated_${kind}`, (first, last) => {
      const [out, gate, up] = [local("i32", param(0)), local("i32", param(1)), local("i32", param(2))];
      const x = local("v128");
      vectors(first, last, param(3), (at, load, store) => {
        x.set(v128[load](i32.add(gate, at)));
        store(i32.add(out, at), GATED[kind](emitter, x, v128[load](i32.add(up, at))));
      });
    });
    module.kernel(kind, (first, last) => {
      const address = local("i32", param(0));
      const x = local("v128");
      vectors(first, last, param(3), (at, load, store) => {
        x.set(v128[load](i32.add(address, at)));
        store(i32.add(address, at), act(emitter, kind, x));
      });
    });
  }
  const adjustments: Record<Adjustment, (x: V128, by: V128, inverse: V128) => V128> = {
    scale: (x, by) => f32x4.mul(x, by),
    cap: (x, by, inverse) => f32x4.mul(by, tanhOf(emitter, f32x4.mul(x, inverse))),
    clamp: (x, by) => f32x4.min(by, f32x4.max(f32x4.neg(by), x)),
  };
  for (const how of ["scale", "cap", "clamp"] as const) {
    module.kernel(how, (first, last) => {
      const address = local("i32", param(0));
      const [by, inverse] = [local("v128", f32x4.splat(paramF32(1))), local("v128", f32x4.splat(paramF32(2)))];
      vectors(first, last, param(3), (at, load, store) => store(i32.add(address, at), adjustments[how](v128[load](i32.add(address, at)), by, inverse)));
    });
  }
  module.kernel("add", (first, last) => {
    const [x, y] = [local("i32", param(0)), local("i32", param(1))];
    vectors(first, last, param(3), (at, load, store) => store(i32.add(x, at), f32x4.add(v128[load](i32.add(x, at)), v128[load](i32.add(y, at)))));
  });
  module.kernel("add_scaled", (first, last) => {
    const [x, y] = [local("i32", param(0)), local("i32", param(1))];
    const factor = local("v128", f32x4.splat(f32.reinterpret_i32(param(2))));
    vectors(first, last, param(3), (at, load, store) => store(i32.add(x, at), f32x4.add(v128[load](i32.add(x, at)), f32x4.mul(v128[load](i32.add(y, at)), factor))));
  });
}

/** Kernel "softmax": rows [first, last) of x [heads * rows, cols], in place; params x, cols, and for a sink by head their address (else 0) and rows. */
export function emitSoftmax(emitter: Emitter): void {
  emitter.module.kernel("softmax", (first, last) => {
    const cols = local("i32", param(1));
    const row = local("i32", i32.add(param(0), i32.shl(i32.mul(first, cols), 2)));
    const [value, sinks] = [local("v128"), local("i32", param(2))];
    range(first, last, 1, (index) => {
      const sink = local("f32", -Infinity);
      if_(sinks, () => sink.set(f32.load(i32.add(sinks, i32.shl(i32.div_u(index, param(3)), 2)))));
      const max = local("v128", f32x4.splat(sink));
      floats(
        cols,
        (at) => max.set(f32x4.max(max, v128.load(i32.add(row, at)))),
        (at) => max.set(f32x4.max(max, v128.load32_splat(i32.add(row, at)))),
      );
      max.set(f32x4.splat(maxF32(max)));
      const sum = local("v128", f32x4.const(0));
      floats(
        cols,
        (at) => {
          value.set(expOf(emitter, f32x4.sub(v128.load(i32.add(row, at)), max)));
          v128.store(i32.add(row, at), value);
          sum.set(f32x4.add(sum, value));
        },
        (at) => {
          value.set(expOf(emitter, f32x4.sub(v128.load32_splat(i32.add(row, at)), max)));
          v128.store32_lane(0, i32.add(row, at), value);
          sum.set(f32x4.add(sum, f32x4.replace_lane(0, f32x4.const(0), f32x4.extract_lane(0, value))));
        },
      );
      const total = local("f32", sumF32(sum));
      if_(sinks, () => total.set(f32.add(total, f32x4.extract_lane(0, local("v128", expOf(emitter, f32x4.sub(f32x4.splat(sink), max)))))));
      floats(
        cols,
        (at) => v128.store(i32.add(row, at), f32x4.div(v128.load(i32.add(row, at)), f32x4.splat(total))),
        (at) => f32.store(i32.add(row, at), f32.div(f32.load(i32.add(row, at)), total)),
      );
      row.add(i32.shl(cols, 2));
    });
  });
}

/**
 * Kernels of logits, which pass over NaN: "argmax" (params x, n, out): the id of the largest; "maxima" (x, n, out, runs, a multiple of 4): each of out [runs]
 * is the largest of the values of a run, -Infinity where there is none; "collect" (x, n, out, threshold): how many values are at least as large, then their ids.
 */
export function emitLogits({ module }: Emitter): void {
  module.kernel("argmax", () => {
    const [x, n] = [local("i32", param(0)), local("i32", param(1))];
    const maxima = Array.from({ length: 4 }, () => local("v128", f32x4.const(-Infinity)));
    range(0, i32.shl(i32.and(n, -16), 2), 64, (at) => maxima.forEach((max, i) => max.set(f32x4.pmax(max, v128.load(i32.add(x, at), 16 * i)))));
    range(i32.and(n, -16), n, 1, (i) => maxima[0].set(f32x4.pmax(maxima[0], v128.load32_splat(i32.add(x, i32.shl(i, 2))))));
    const best = local("f32", maxF32(local("v128", f32x4.pmax(f32x4.pmax(maxima[0], maxima[1]), f32x4.pmax(maxima[2], maxima[3])))));
    // Four at a time to the first that holds it, then one at a time.
    const [at, wanted] = [local("i32", 0), local("v128", f32x4.splat(best))];
    loop((again) => {
      if_(i32.lt_s(i32.add(at, 4), n), () => {
        if_(i32.eqz(v128.any_true(f32x4.ge(v128.load(i32.add(x, i32.shl(at, 2))), wanted))), () => {
          at.add(4);
          br(again);
        });
      });
    });
    loop((again) => {
      if_(i32.lt_s(i32.add(at, 1), n), () => {
        if_(f32.lt(f32.load(i32.add(x, i32.shl(at, 2))), best), () => {
          at.add(1);
          br(again);
        });
      });
    });
    i32.store(param(2), at);
  });
  module.kernel("maxima", () => {
    const [x, out] = [local("i32", param(0)), local("i32", param(2))];
    const [whole, end, bytes] = [local("i32", i32.shl(i32.and(param(1), -4), 2)), local("i32", i32.shl(param(1), 2)), local("i32", i32.shl(param(3), 2))];
    const place = local("i32");
    range(0, bytes, 16, (at) => v128.store(i32.add(out, at), f32x4.const(-Infinity)));
    range(0, whole, 16, (at) => {
      const [target, value] = [local("i32", i32.add(out, place)), v128.load(i32.add(x, at))];
      v128.store(target, f32x4.pmax(v128.load(target), value));
      place.add(16);
      if_(i32.eq(place, bytes), () => place.set(0));
    });
    // Each of the last few in one run alone: twice the same value would count as two large ones.
    range(whole, end, 4, (at) => {
      const [target, value] = [local("i32", i32.add(out, i32.sub(at, whole))), local("f32", f32.load(i32.add(x, at)))];
      if_(f32.gt(value, f32.load(target)), () => f32.store(target, value));
    });
  });
  module.kernel("collect", () => {
    const [x, out] = [local("i32", param(0)), local("i32", param(2))];
    const threshold = local("f32", f32.reinterpret_i32(param(3)));
    const found = local("i32", 0);
    range(0, param(1), 1, (i) => {
      if_(f32.ge(f32.load(i32.add(x, i32.shl(i, 2))), threshold), () => {
        i32.store(i32.add(out, i32.shl(found, 2)), i, 4);
        found.add(1);
      });
    });
    i32.store(out, found);
  });
}
