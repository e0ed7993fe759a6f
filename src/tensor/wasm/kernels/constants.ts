import type { Expr } from "../assembler.ts";
import { v128 } from "../assembler.ts";
import { CONSTANTS } from "../layout.ts";

const bytes = (view: Float32Array | Int32Array | Uint16Array) => new Uint8Array(view.buffer);
const f32 = (value: number) => bytes(new Float32Array(4).fill(value));
const i32 = (value: number) => bytes(new Int32Array(4).fill(value));
const i16 = (value: number) => bytes(new Uint16Array(8).fill(value));

/**
 * Vectors that lie in memory. V8 builds a v128.const anew at every use, by three instructions through an integer register; a load is one, and
 * what is loaded into a local before a loop stays in a register.
 */
export const VECTORS = {
  /** The lowest two nibbles of 16 bits. */
  nibble0: i16(0x000f),
  nibble1: i16(0x00f0),
  /** The low nibble of every byte. */
  nibbles: i16(0x0f0f),
  /** Sign, exponent and fraction of a half scale moved to the top of 32 bits: see layout.ts. */
  halfScale: i32(0x8fffe000 | 0),
  /** Sign, exponent and the top of the fraction of a half scale as the upper 16 bits of an f32 have them. */
  halfTop: i16(0x8fff),
  one: f32(1),
  // e^x: see exp.ts.
  log2e: f32(1.4426950408889634),
  magic: f32(12582912),
  lowest: f32(-87.33),
  highest: f32(88.37),
  minusLn2High: f32(-0.693359375),
  minusLn2Low: f32(2.12194440054690583e-4),
  bias: i32(127),
  p7: f32(1.9875691500e-4),
  p6: f32(1.3981999507e-3),
  p5: f32(8.3334519073e-3),
  p4: f32(4.1665795894e-2),
  p3: f32(1.6666665459e-1),
  p2: f32(5.0000001201e-1),
} as const;

const NAMES = Object.keys(VECTORS);

/** Loads a vector of the table. */
export const constant = (name: keyof typeof VECTORS): Expr<"v128"> => v128.load(0, CONSTANTS + 16 * NAMES.indexOf(name));

/** The table, to be put at CONSTANTS. */
export function constantBytes(): Uint8Array {
  const table = new Uint8Array(16 * NAMES.length);
  Object.values(VECTORS).forEach((vector, i) => table.set(vector, 16 * i));
  return table;
}
