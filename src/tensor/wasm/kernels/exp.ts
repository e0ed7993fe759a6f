import type { Expr } from "../assembler.ts";
import { f32x4, i32x4, local, v128 } from "../assembler.ts";
import type { KernelOptions } from "./common.ts";
import { madd } from "./common.ts";
import { constant as inMemory, VECTORS } from "./constants.ts";

/** What `expOf` asks for. */
const EXP_CONSTANTS = ["lowest", "highest", "log2e", "magic", "minusLn2Low", "minusLn2High", "p7", "p6", "p5", "p4", "p3", "p2", "one", "bias"] as const;

/** tanh(x) = x + x z P(z), z = x^2, for |x| below TANH_SMALL: coefficients of P as published in Cephes (Moshier 1992, tanhf). */
const TANH = [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1];
const TANH_SMALL = 0.625;

/** `tanh` of four floats, relative error below 5e-7; NaN stays NaN. */
export function tanhOf(options: KernelOptions, argument: Expr<"v128">): Expr<"v128"> {
  const x = local("v128", argument);
  const z = local("v128", f32x4.mul(x, x));
  const small = local("v128", f32x4.const(TANH[0]));
  for (const coefficient of TANH.slice(1)) small.set(f32x4.add(f32x4.mul(small, z), f32x4.const(coefficient)));
  small.set(f32x4.add(f32x4.mul(f32x4.mul(small, z), x), x));
  const large = f32x4.sub(f32x4.const(1), f32x4.div(f32x4.const(2), f32x4.add(f32x4.const(1), expOf(options, f32x4.add(x, x)))));
  return v128.bitselect(small, large, f32x4.lt(f32x4.abs(x), f32x4.const(TANH_SMALL)));
}

/** Where `expOf` takes its constants from. */
type Constants = (name: keyof typeof VECTORS) => Expr<"v128">;

/** Constants in locals, for loops that wide vectors go through: what is loaded in the loop would be widened anew each time. */
export function heldConstants(): Constants {
  const held = new Map<keyof typeof VECTORS, Expr<"v128">>();
  for (const name of EXP_CONSTANTS) held.set(name, local("v128", v128.const(VECTORS[name])));
  return (name) => held.get(name)!;
}

/** `exp` of four floats, relative error below 2e-7; 0 below -87.33 (so for -Infinity), about 2.4e38 from 88.37 on; NaN stays NaN. */
export function expOf(options: KernelOptions, argument: Expr<"v128">, constant: Constants = inMemory): Expr<"v128"> {
  const x = local("v128", argument);
  // In this order of operands both keep a NaN, which then goes through everything below.
  const clamped = local("v128", f32x4.pmin(f32x4.pmax(x, constant("lowest")), constant("highest")));
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const shifted = local("v128", madd(options, clamped, constant("log2e"), constant("magic")));
  const n = local("v128", f32x4.sub(shifted, constant("magic")));
  // ln 2 in two parts, the first exact in few bits, so that n * ln2High is exact (Cody and Waite 1980).
  const r = local("v128", madd(options, n, constant("minusLn2Low"), madd(options, n, constant("minusLn2High"), clamped)));
  // e^r on [-ln2 / 2, ln2 / 2]: minimax coefficients of r^2 .. r^7 as published in Cephes (Moshier 1992, expf).
  const y = local("v128", constant("p7"));
  for (const coefficient of ["p6", "p5", "p4", "p3", "p2"] as const) y.set(madd(options, y, r, constant(coefficient)));
  y.set(f32x4.add(madd(options, f32x4.mul(y, r), r, r), constant("one")));
  const power = i32x4.shl(i32x4.add(shifted, constant("bias")), 23);
  return v128.andnot(f32x4.mul(y, power), f32x4.lt(x, constant("lowest")));
}
