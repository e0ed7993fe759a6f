import type { Expr, Local, Operand } from "../assembler.ts";
import { br_if, f32x4, i32, i8x16, local, loop, if_, f32, select, v128 } from "../assembler.ts";
import type { Global } from "../assembler.ts";
import { type ColumnOrder, PARAMS } from "../layout.ts";
import type { ModuleBuilder } from "../module.ts";
import type { BlockOrder } from "./quantise.ts";

type I32 = Expr<"i32">;
type F32 = Expr<"f32">;
type V128 = Expr<"v128">;

/** What the emitted kernels may rely on, and how they shall compute. */
export interface KernelOptions {
  /** How linears multiply: `pairs` of int16 (baseline SIMD), or the relaxed byte dot with unsigned or signed weights. */
  readonly dot: "pairs" | "u8s8" | "s8s8";
  /** Bits of an activation. The relaxed dot takes 16-bit activations as two bytes. */
  readonly activations: "int8" | "int16";
  /** Fused multiply-add (relaxed SIMD). */
  readonly madd: boolean;
  /** The compiler joins operations on neighbouring vectors into one on 256 bits: what is held in registers counts half, and goes further. */
  readonly wide: boolean;
}

/** How tiles of a weight format have their columns. */
export const columnOrder = ({ dot }: KernelOptions, format: "int8" | "int4"): ColumnOrder => (format === "int8" && dot === "pairs" ? "pairs" : "fours");

/** Order of the values in activation blocks that the tiles of a weight format want. */
export function blockOrder({ dot, activations }: KernelOptions, format: "int8" | "int4"): BlockOrder {
  if (dot !== "pairs") return activations === "int8" ? "bytes" : "limbs";
  return format === "int8" ? "natural" : "nibbles";
}

/** What the kernel emitters share. */
export interface Emitter extends KernelOptions {
  readonly module: ModuleBuilder;
  /** Address of the running thread's scratch area. */
  readonly scratch: Global<"i32">;
  /** The running thread's number. */
  readonly threadIndex: Global<"i32">;
}

/** Parameter `index` of the job. */
export const param = (index: number): I32 => i32.load(0, PARAMS + 4 * index);
export const paramF32 = (index: number): F32 => f32.load(0, PARAMS + 4 * index);

/** a * b + c, in one rounding where the options allow it. All kernels of one module agree, so a result never depends on the path. */
export function madd({ madd }: KernelOptions, a: V128, b: V128, c: V128): V128 {
  return madd ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}

/** Smaller of two integers, signed. */
export const minI32 = (a: I32, b: I32): I32 => select(a, b, i32.lt_s(a, b));
/** Larger of two integers, signed. */
export const maxI32 = (a: I32, b: I32): I32 => select(a, b, i32.gt_s(a, b));

/** Stores two vectors side by side; the upper one first, for V8 joins what follows the lower one with one store less. */
export function storeBoth(address: Expr<"i32">, low: V128, high: V128, offset = 0): void {
  v128.store(address, high, offset + 16);
  v128.store(address, low, offset);
}

/** for (i = from; i < to; i += step); counts are signed. */
export function range(from: Operand<"i32">, to: Operand<"i32">, step: number, body: (i: Local<"i32">) => void): void {
  const i = local("i32", from);
  if_(i32.lt_s(i, to), () => {
    loop((again) => {
      body(i);
      i.add(step);
      br_if(again, i32.lt_s(i, to));
    });
  });
}

/** Runs `body` `count` times (at least once) with a counter that nobody reads. */
export function repeat(count: Operand<"i32">, body: () => void): void {
  const left = local("i32", count);
  loop((again) => {
    body();
    left.add(-1);
    br_if(again, left);
  });
}

const bytesOf = (lanes: readonly number[]): number[] => lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte));

/** Four 32-bit lanes out of the eight of a and b. */
export const pick = (a: V128, b: V128, ...lanes: [number, number, number, number]): V128 => i8x16.shuffle(bytesOf(lanes), a, b);

/** ((a0 + a1) + (a2 + a3)). */
export const sumF32 = (a: V128): F32 =>
  f32.add(
    f32.add(f32x4.extract_lane(0, a), f32x4.extract_lane(1, a)),
    f32.add(f32x4.extract_lane(2, a), f32x4.extract_lane(3, a)),
  );

export const maxF32 = (a: V128): F32 =>
  f32.max(
    f32.max(f32x4.extract_lane(0, a), f32x4.extract_lane(1, a)),
    f32.max(f32x4.extract_lane(2, a), f32x4.extract_lane(3, a)),
  );

/**
 * Visits n consecutive floats: `four` for whole vectors, `one` for the rest. Both receive the byte offset of their first float.
 * The offset is a multiple of 16 in `four`.
 */
export function floats(n: Operand<"i32">, four: (offset: Local<"i32">) => void, one: (offset: Local<"i32">) => void): void {
  const at = local("i32", 0);
  const whole = local("i32", i32.shl(i32.and(n, -4), 2));
  const end = local("i32", i32.shl(n, 2));
  if_(i32.lt_u(at, whole), () => {
    loop((again) => {
      four(at);
      at.add(16);
      br_if(again, i32.lt_u(at, whole));
    });
  });
  if_(i32.lt_u(at, end), () => {
    loop((again) => {
      one(at);
      at.add(4);
      br_if(again, i32.lt_u(at, end));
    });
  });
}
