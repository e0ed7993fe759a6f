import { describe, expect, it } from "vitest";
import type { Expr } from "../../../src/tensor/wasm/assembler.ts";
import {
  block, br, br_if, buildFunction, call, callValue, constant, drop, f32, f32x4, f64, i16x8, i32, i32x4, i64, i8x16, if_, local, loop, memoryCopy, return_, select, v128,
} from "../../../src/tensor/wasm/assembler.ts";
import { ModuleBuilder } from "../../../src/tensor/wasm/module.ts";
import { encodeOpcode, leb, sleb } from "../../../src/tensor/wasm/opcodes.ts";
import { constantBytes } from "../../../src/tensor/wasm/kernels/constants.ts";
import { CONSTANTS, COUNTERS } from "../../../src/tensor/wasm/layout.ts";
import { assemble } from "../../../src/tensor/wasm/program.ts";
import { probe } from "../../../src/tensor/wasm/probe.ts";

/** Hexadecimal code of an expression over the parameters of a function (i32, f32, v128, f64 as locals 0, 1, 2, 3). */
function hex(make: (i: Expr<"i32">, f: Expr<"f32">, v: Expr<"v128">, d: Expr<"f64">) => Expr | void): string {
  const built = buildFunction("sample", 0, ["i32", "f32", "v128", "f64"], undefined, (i, f, v, d) => {
    const value = make(i, f, v, d);
    if (value) drop(value);
  });
  // Without the empty list of locals and the end.
  return Array.from(built.body.subarray(1, -1), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

const [I, F, V, D] = ["20 00", "20 01", "20 02", "20 03"];

/** Codes as printed in the specification's tables (5.4 Instructions, and the relaxed SIMD and threads proposals). */
const KNOWN: [string, (i: Expr<"i32">, f: Expr<"f32">, v: Expr<"v128">, d: Expr<"f64">) => Expr | void, string][] = [
  ["i32.const", () => i32.const(-128), "41 80 7f 1a"],
  ["i32.const, large", () => i32.const(0x8fffe000 | 0), "41 80 c0 ff ff 78 1a"],
  ["i64.const", () => i64.const(-1), "42 7f 1a"],
  ["f32.const", () => f32.const(1), "43 00 00 80 3f 1a"],
  ["f64.const", () => f64.const(2), "44 00 00 00 00 00 00 00 40 1a"],
  ["i32.eqz", (i) => i32.eqz(i), `${I} 45 1a`],
  ["i32.add", (i) => i32.add(i, 1), `${I} 41 01 6a 1a`],
  ["i32.sub", (i) => i32.sub(0, i), `41 00 ${I} 6b 1a`],
  ["i32.mul", (i) => i32.mul(i, i), `${I} ${I} 6c 1a`],
  ["i32.div_u", (i) => i32.div_u(i, i), `${I} ${I} 6e 1a`],
  ["i32.rem_u", (i) => i32.rem_u(i, i), `${I} ${I} 70 1a`],
  ["i32.shl", (i) => i32.shl(i, 3), `${I} 41 03 74 1a`],
  ["i32.shr_u", (i) => i32.shr_u(i, 3), `${I} 41 03 76 1a`],
  ["i32.lt_s", (i) => i32.lt_s(i, i), `${I} ${I} 48 1a`],
  ["i32.ge_s", (i) => i32.ge_s(i, i), `${I} ${I} 4e 1a`],
  ["f32.sqrt", (_, f) => f32.sqrt(f), `${F} 91 1a`],
  ["f32.div", (_, f) => f32.div(1, f), `43 00 00 80 3f ${F} 95 1a`],
  ["f32.max", (_, f) => f32.max(f, f), `${F} ${F} 97 1a`],
  ["f32.convert_i32_s", (i) => f32.convert_i32_s(i), `${I} b2 1a`],
  ["f32.reinterpret_i32", (i) => f32.reinterpret_i32(i), `${I} be 1a`],
  ["f64.sqrt", (_, __, ___, d) => f64.sqrt(d), `${D} 9f 1a`],
  ["i32.load", (i) => i32.load(i, 300), `${I} 28 02 ac 02 1a`],
  ["i32.load16_u", (i) => i32.load16_u(i), `${I} 2f 01 00 1a`],
  ["f32.store", (i, f) => f32.store(i, f, 8), `${I} ${F} 38 02 08`],
  ["v128.load", (i) => v128.load(i, 16), `${I} fd 00 04 10 1a`],
  ["v128.load8x8_s", (i) => v128.load8x8_s(i), `${I} fd 01 03 00 1a`],
  ["v128.load8x8_u", (i) => v128.load8x8_u(i), `${I} fd 02 03 00 1a`],
  ["v128.load16x4_s", (i) => v128.load16x4_s(i), `${I} fd 03 03 00 1a`],
  ["v128.load32_splat", (i) => v128.load32_splat(i), `${I} fd 09 02 00 1a`],
  ["v128.load64_splat", (i) => v128.load64_splat(i), `${I} fd 0a 03 00 1a`],
  ["v128.load32_zero", (i) => v128.load32_zero(i), `${I} fd 5c 02 00 1a`],
  ["v128.store", (i, _, v) => v128.store(i, v), `${I} ${V} fd 0b 04 00`],
  ["v128.store32_lane", (i, _, v) => v128.store32_lane(2, i, v), `${I} ${V} fd 5a 02 00 02`],
  ["v128.store64_lane", (i, _, v) => v128.store64_lane(0, i, v), `${I} ${V} fd 5b 03 00 00`],
  ["v128.const", () => i32x4.const(1), "fd 0c 01 00 00 00 01 00 00 00 01 00 00 00 01 00 00 00 1a"],
  ["i8x16.shuffle", (_, __, v) => i8x16.shuffle([0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 31], v, v), `${V} ${V} fd 0d 00 01 02 03 04 05 06 07 10 11 12 13 14 15 16 1f 1a`],
  ["v128.and", (_, __, v) => v128.and(v, v), `${V} ${V} fd 4e 1a`],
  ["v128.andnot", (_, __, v) => v128.andnot(v, v), `${V} ${V} fd 4f 1a`],
  ["v128.or", (_, __, v) => v128.or(v, v), `${V} ${V} fd 50 1a`],
  ["v128.xor", (_, __, v) => v128.xor(v, v), `${V} ${V} fd 51 1a`],
  ["v128.any_true", (_, __, v) => v128.any_true(v), `${V} fd 53 1a`],
  ["i8x16.narrow_i16x8_s", (_, __, v) => i8x16.narrow_i16x8_s(v, v), `${V} ${V} fd 65 1a`],
  ["i16x8.narrow_i32x4_s", (_, __, v) => i16x8.narrow_i32x4_s(v, v), `${V} ${V} fd 85 01 1a`],
  ["i16x8.extend_low_i8x16_u", (_, __, v) => i16x8.extend_low_i8x16_u(v), `${V} fd 89 01 1a`],
  ["i16x8.shl", (_, __, v) => i16x8.shl(v, 8), `${V} 41 08 fd 8b 01 1a`],
  ["i16x8.shr_s", (_, __, v) => i16x8.shr_s(v, 8), `${V} 41 08 fd 8c 01 1a`],
  ["i16x8.shr_u", (_, __, v) => i16x8.shr_u(v, 4), `${V} 41 04 fd 8d 01 1a`],
  ["i16x8.add", (_, __, v) => i16x8.add(v, v), `${V} ${V} fd 8e 01 1a`],
  ["i16x8.sub", (_, __, v) => i16x8.sub(v, v), `${V} ${V} fd 91 01 1a`],
  ["i32x4.extend_low_i16x8_u", (_, __, v) => i32x4.extend_low_i16x8_u(v), `${V} fd a9 01 1a`],
  ["i32x4.shl", (_, __, v) => i32x4.shl(v, 13), `${V} 41 0d fd ab 01 1a`],
  ["i32x4.shr_s", (_, __, v) => i32x4.shr_s(v, 4), `${V} 41 04 fd ac 01 1a`],
  ["i32x4.add", (_, __, v) => i32x4.add(v, v), `${V} ${V} fd ae 01 1a`],
  ["i32x4.sub", (_, __, v) => i32x4.sub(v, v), `${V} ${V} fd b1 01 1a`],
  ["i32x4.mul", (_, __, v) => i32x4.mul(v, v), `${V} ${V} fd b5 01 1a`],
  ["i32x4.max_s", (_, __, v) => i32x4.max_s(v, v), `${V} ${V} fd b8 01 1a`],
  ["i32x4.dot_i16x8_s", (_, __, v) => i32x4.dot_i16x8_s(v, v), `${V} ${V} fd ba 01 1a`],
  ["i32x4.splat", (i) => i32x4.splat(i), `${I} fd 11 1a`],
  ["i32x4.extract_lane", (_, __, v) => i32x4.extract_lane(3, v), `${V} fd 1b 03 1a`],
  ["f32x4.splat", (_, f) => f32x4.splat(f), `${F} fd 13 1a`],
  ["f32x4.extract_lane", (_, __, v) => f32x4.extract_lane(1, v), `${V} fd 1f 01 1a`],
  ["f32x4.replace_lane", (_, f, v) => f32x4.replace_lane(1, v, f), `${V} ${F} fd 20 01 1a`],
  ["f32x4.add", (_, __, v) => f32x4.add(v, v), `${V} ${V} fd e4 01 1a`],
  ["f32x4.sub", (_, __, v) => f32x4.sub(v, v), `${V} ${V} fd e5 01 1a`],
  ["f32x4.mul", (_, __, v) => f32x4.mul(v, v), `${V} ${V} fd e6 01 1a`],
  ["f32x4.div", (_, __, v) => f32x4.div(v, v), `${V} ${V} fd e7 01 1a`],
  ["f32x4.max", (_, __, v) => f32x4.max(v, v), `${V} ${V} fd e9 01 1a`],
  ["f32x4.pmin", (_, __, v) => f32x4.pmin(v, v), `${V} ${V} fd ea 01 1a`],
  ["f32x4.pmax", (_, __, v) => f32x4.pmax(v, v), `${V} ${V} fd eb 01 1a`],
  ["f32x4.neg", (_, __, v) => f32x4.neg(v), `${V} fd e1 01 1a`],
  ["f32x4.lt", (_, __, v) => f32x4.lt(v, v), `${V} ${V} fd 43 1a`],
  ["f32x4.ge", (_, __, v) => f32x4.ge(v, v), `${V} ${V} fd 46 1a`],
  ["f32x4.eq", (_, __, v) => f32x4.eq(v, v), `${V} ${V} fd 41 1a`],
  ["f32x4.convert_i32x4_s", (_, __, v) => f32x4.convert_i32x4_s(v), `${V} fd fa 01 1a`],
  ["f32x4.relaxed_madd", (_, __, v) => f32x4.relaxed_madd(v, v, v), `${V} ${V} ${V} fd 85 02 1a`],
  ["i32x4.relaxed_dot_i8x16_i7x16_add_s", (_, __, v) => i32x4.relaxed_dot_i8x16_i7x16_add_s(v, v, v), `${V} ${V} ${V} fd 93 02 1a`],
  ["i32.atomic.load", (i) => i32.atomic.load(i), `${I} fe 10 02 00 1a`],
  ["i32.atomic.store", (i) => i32.atomic.store(i, 1), `${I} 41 01 fe 17 02 00`],
  ["i32.atomic.rmw.add", (i) => i32.atomic.rmw_add(i, 1), `${I} 41 01 fe 1e 02 00 1a`],
  ["i32.atomic.rmw.sub", (i) => i32.atomic.rmw_sub(i, 1), `${I} 41 01 fe 25 02 00 1a`],
  ["i32.atomic.rmw.and", (i) => i32.atomic.rmw_and(i, 1), `${I} 41 01 fe 2c 02 00 1a`],
  ["i32.atomic.rmw.cmpxchg", (i) => i32.atomic.rmw_cmpxchg(i, 1, 2), `${I} 41 01 41 02 fe 48 02 00 1a`],
  ["memory.atomic.notify", (i) => i32.atomic.notify(i, 1), `${I} 41 01 fe 00 02 00 1a`],
  ["memory.atomic.wait32", (i) => i32.atomic.wait(i, 0, -1), `${I} 41 00 42 7f fe 01 02 00 1a`],
  ["memory.copy", (i) => memoryCopy(i, i, 4), `${I} ${I} 41 04 fc 0a 00 00`],
  ["select", (i, f) => select(f, f, i), `${F} ${F} ${I} 1b 1a`],
  ["select, v128", (i, _, v) => select(v, v, i), `${V} ${V} ${I} 1c 01 7b 1a`],
  ["block, br_if", (i) => block((end) => br_if(end, i)), `02 40 ${I} 0d 00 0b`],
  ["loop in block", (i) => block((end) => loop((again) => { br_if(end, i); br(again); })), `02 40 03 40 ${I} 0d 01 0c 00 0b 0b`],
  ["if, else", (i) => if_(i, () => return_(), () => {}), `${I} 04 40 0f 05 0b`],
];

describe("assembler", () => {
  it("keeps the constants of kernels out of the way of what follows them", () => {
    expect(CONSTANTS + constantBytes().length).toBeLessThanOrEqual(COUNTERS);
  });

  it.each(KNOWN)("%s", (_, make, wanted) => expect(hex(make)).toBe(wanted));

  it("encodes LEB128 like the specification", () => {
    expect(leb(624485)).toEqual([0xe5, 0x8e, 0x26]);
    expect(sleb(-123456)).toEqual([0xc0, 0xbb, 0x78]);
    expect([0, 63, 64, 127, 128].map((n) => sleb(n).length)).toEqual([1, 1, 2, 2, 2]);
    expect(encodeOpcode(0xfd0113)).toEqual([0xfd, 0x93, 0x02]);
  });

  it("names the kernel when a type does not fit", () => {
    const build = (body: () => Expr | void, result?: "i32") => () => buildFunction("rms_norm", 0, [], result, body);
    const wrong = f32.const(1) as unknown as Expr<"i32">;
    expect(build(() => drop(i32.add(1, wrong)))).toThrow("wasm kernel rms_norm: i32.add, operand 2, wants i32, found f32");
    expect(build(() => local("v128").set(wrong as unknown as Expr<"v128">))).toThrow(/rms_norm: local.set wants v128, found f32/);
    expect(build(() => i32.const(1))).toThrow(/gives a result, but declares none/);
    expect(build(() => {}, "i32")).toThrow(/the result wants i32, found nothing/);
    expect(build(() => wrong, "i32")).toThrow(/the result wants i32, found f32/);
    expect(build(() => drop(i8x16.shuffle([0], i32x4.const(0), i32x4.const(0))))).toThrow(/16 indices/);
    expect(build(() => drop(f32x4.extract_lane(4, f32x4.const(0))))).toThrow(/has 4 lanes, found 4/);
    expect(build(() => drop(constant("v128", 0)))).toThrow(/v128 constant/);
    let inner: { depth: number } | undefined;
    expect(build(() => { block((label) => void (inner = label)); br(inner!); })).toThrow(/not around it/);
    expect(() => local("i32")).toThrow(/outside of a function/);
  });

  it("checks calls", () => {
    const callee = buildFunction("helper", 3, ["i32"], "f32", () => f32.const(0));
    expect(() => buildFunction("caller", 4, [], undefined, () => drop(callValue(callee)))).toThrow(/caller: call of helper wants 1 operands/);
    expect(() => buildFunction("caller", 4, [], undefined, () => call(callee, 1))).toThrow(/has a result/);
  });

  it("builds modules that run", () => {
    const builder = new ModuleBuilder({ initial: 1, maximum: 1, shared: false });
    builder.export("factorial", ["i32"], "i32", (n) => {
      const product = local("i32", 1);
      loop((again) => {
        product.set(i32.mul(product, n));
        n.add(-1);
        br_if(again, i32.gt_s(n, 1));
      });
      return product;
    });
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
    const { factorial } = new WebAssembly.Instance(new WebAssembly.Module(builder.encode()), { env: { memory } }).exports as { factorial(n: number): number };
    expect(factorial(6)).toBe(720);
  });

  it("emits only valid modules, for every choice of options", () => {
    const relaxed = probe().relaxedDot !== "none";
    for (const shared of [true, false]) {
      for (const dot of ["pairs", "u8s8", "s8s8"] as const) {
        for (const activations of ["int8", "int16"] as const) {
          for (const madd of [true, false]) {
            const { code } = assemble({ dot, activations, madd, wide: shared }, { initial: 2, maximum: 100, shared });
            if (relaxed || (dot === "pairs" && !madd)) expect(WebAssembly.validate(code)).toBe(true);
          }
        }
      }
    }
  });
});
