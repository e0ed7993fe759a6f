import { f32x4, i32, i32x4, local, loop, br_if, v128 } from "./assembler.ts";
import { ModuleBuilder } from "./module.ts";

/**
 * What `i32x4.relaxed_dot_i8x16_i7x16_add_s(a, b, c)` does with 8-bit b, which the relaxed SIMD proposal leaves open:
 * `u8s8`: takes b as unsigned (x86 with VNNI), `s8s8`: as signed (ARM), `inexact`: saturates on the way (x86 without), `none`: not there.
 */
export type RelaxedDot = "none" | "inexact" | "u8s8" | "s8s8";

export interface Probe {
  readonly simd: boolean;
  readonly relaxedDot: RelaxedDot;
  /** `f32x4.relaxed_madd` exists and gives the same bits in every compiler tier. */
  readonly madd: boolean;
  /** Shared memory exists, hence threads. */
  readonly shared: boolean;
}

/** Bytes: each operand is two vectors, which an engine may join to one. */
const A = 0;
const B = 32;
const C = 64;
const OUT = 96;
const SIDES = [0, 16];

/**
 * A module with one function `run(times)` that repeats out = operation(a, b, c) on both vectors. Its bytes differ with `wide`, or the engine would
 * take the code that it has compiled for the other.
 */
function operationModule(operation: (a: ReturnType<typeof v128.load>, b: ReturnType<typeof v128.load>, c: ReturnType<typeof v128.load>) => ReturnType<typeof v128.load>, wide: boolean) {
  const builder = new ModuleBuilder({ initial: 1, maximum: wide ? 2 : 1, shared: false });
  builder.export("run", ["i32"], undefined, (times) => {
    const base = local("i32", 0);
    loop((again) => {
      const results = SIDES.map((side) => local("v128", operation(v128.load(base, A + side), v128.load(base, B + side), v128.load(base, C + side))));
      SIDES.forEach((side, i) => v128.store(base, results[i], OUT + side));
      times.add(-1);
      br_if(again, i32.gt_s(times, 0));
    });
  });
  return builder.encode();
}

/** Milliseconds that the optimising tier has to take over. */
const TIER_LIMIT = 30;

/**
 * Runs `check` in the baseline tier and calls for the optimising one, which compiles on a thread of its own. The result waits for that and
 * runs `check` again: both must agree.
 */
function inBothTiers<T>(code: Uint8Array<ArrayBuffer>, check: (memory: ArrayBuffer, run: (times: number) => void) => T): () => T | undefined {
  if (!WebAssembly.validate(code)) return () => undefined;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const run = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } }).exports.run as (times: number) => void;
  const baseline = check(memory.buffer, run);
  const end = performance.now() + TIER_LIMIT;
  for (let round = 0; round < 4; round++) run(200_000);
  return () => {
    do {
      run(200_000);
      if (check(memory.buffer, run) !== baseline) return undefined;
    } while (performance.now() < end);
    return baseline;
  };
}

/** Byte quadruples at the ends of the ranges, where saturation and sign show. */
const EXTREMES = [
  [-128, -128, -128, -128],
  [127, 127, 127, 127],
  [-128, 127, -128, 127],
  [-127, -1, 1, 0],
  [-1, -1, -1, -1],
  [64, -65, 100, -100],
];

function checkDot(memory: ArrayBuffer, run: (times: number) => void): RelaxedDot {
  const bytes = new Int8Array(memory);
  const words = new Int32Array(memory);
  let unsigned = true;
  let signed = true;
  for (const a of EXTREMES) {
    for (const b of EXTREMES) {
      for (let i = 0; i < 32; i++) {
        bytes[A + i] = a[(i + (i >> 2)) & 3];
        bytes[B + i] = b[(i + (i >> 3)) & 3];
      }
      for (let lane = 0; lane < 8; lane++) words[C / 4 + lane] = 1000 * lane - 7;
      run(1);
      for (let lane = 0; lane < 8; lane++) {
        let [u, s] = [1000 * lane - 7, 1000 * lane - 7];
        for (let i = 4 * lane; i < 4 * lane + 4; i++) {
          s += bytes[A + i] * bytes[B + i];
          u += bytes[A + i] * (bytes[B + i] & 0xff);
        }
        if (words[OUT / 4 + lane] !== u) unsigned = false;
        if (words[OUT / 4 + lane] !== s) signed = false;
      }
    }
  }
  return unsigned ? "u8s8" : signed ? "s8s8" : "inexact";
}

/** (1 + 2^-12)^2 - 1: the two roundings differ in the last bits from the single one. NaN where the two vectors differ. */
function checkMadd(memory: ArrayBuffer, run: (times: number) => void): number {
  const floats = new Float32Array(memory);
  floats.fill(1 + 2 ** -12, A / 4, C / 4);
  floats.fill(-1, C / 4, OUT / 4);
  run(1);
  const [first, ...others] = floats.subarray(OUT / 4, OUT / 4 + 8);
  return others.every((other) => other === first) ? first : NaN;
}

/** Tests under way and what they found, with vectors of 128 bits and of 256. */
const tests = [false, true].map(() => ({ finish: undefined as (() => Probe) | undefined, known: undefined as Probe | undefined }));

/**
 * Tests the machine's bits, not its version. Takes some 30 milliseconds, or what is left of them since `startProbe`; then it is remembered.
 * `wide`: once more for an engine that joins vectors by now.
 */
export function probe(wide = false): Probe {
  startProbe(wide);
  const each = tests[Number(wide)];
  return (each.known ??= each.finish!());
}

/** Lets the engine compile for the probe while something else is done. */
export function startProbe(wide = false): void {
  tests[Number(wide)].finish ??= test(wide);
}

function test(wide: boolean): () => Probe {
  const simd = WebAssembly.validate(operationModule((a, b) => i32x4.dot_i16x8_s(a, b), wide));
  if (!simd) return () => ({ simd, relaxedDot: "none", madd: false, shared: false });
  const code = operationModule((a, b, c) => i32x4.relaxed_dot_i8x16_i7x16_add_s(a, b, c), wide);
  const dot = WebAssembly.validate(code) ? inBothTiers(code, checkDot) : undefined;
  const madd = inBothTiers(operationModule((a, b, c) => f32x4.relaxed_madd(a, b, c), wide), checkMadd);
  return () => ({ simd, relaxedDot: dot ? (dot() ?? "inexact") : "none", madd: madd() !== undefined, shared: typeof SharedArrayBuffer !== "undefined" });
}
