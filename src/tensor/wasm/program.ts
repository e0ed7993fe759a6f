import type { Activation } from "../kernels.ts";
import { blockOrder, type KernelOptions } from "./kernels/common.ts";
import { emitAttention } from "./kernels/attention.ts";
import { emitBlockSteps } from "./kernels/attention-block.ts";
import { emitNaiveAttention } from "./kernels/attention-naive.ts";
import { emitKvWrite } from "./kernels/kv-write.ts";
import { emitGates, emitLinears } from "./kernels/linear.ts";
import { emitWidenFloats, floatTiles } from "./kernels/linear-float.ts";
import { quantisedTiles } from "./kernels/linear-quantised.ts";
import { emitWiden } from "./kernels/linear-widen.ts";
import { emitNorms, emitQuantisedNorms, emitRope } from "./kernels/norm.ts";
import { emitLogits, emitPointwise, emitSoftmax, GATED } from "./kernels/pointwise.ts";
import { emitPack, emitPackHalves } from "./kernels/pack.ts";
import { emitPackFloats } from "./kernels/pack-floats.ts";
import { emitPool } from "./kernels/pool.ts";
import { emitQuantise } from "./kernels/quantise.ts";
import { emitReadBandwidth } from "./kernels/read.ts";
import { emitCopy, emitRow, emitRowFloat } from "./kernels/rows.ts";
import { ModuleBuilder } from "./module.ts";

export interface Program {
  readonly code: Uint8Array<ArrayBuffer>;
  /** Names of the kernels; a name's index is the number by which `run` calls it. */
  readonly kernels: readonly string[];
}

/** Names of the activations that gate; an index is the number by which kernels know one. */
export const GATED_ACTIVATIONS = Object.keys(GATED) as readonly Activation[];

/**
 * Whether tiles of int4 become tiles of int8 before many tokens are multiplied (measured). In wide vectors, with 8-bit activations, and as pairs
 * under compilers that know relaxed SIMD, nibbles come apart in about the time that takes.
 */
export const widensInt4 = ({ dot, activations, madd, wide }: KernelOptions): boolean => !wide && activations === "int16" && !(dot === "pairs" && madd);

const compiled = new Map<string, Program & { readonly module: WebAssembly.Module }>();

/** The compiled module, shared by all who ask for the same one: later pools start at once, with code that is optimised already. */
export function compile(options: KernelOptions, memory: { initial: number; maximum: number; shared: boolean }): Program & { readonly module: WebAssembly.Module } {
  const key = JSON.stringify([options, memory]);
  let found = compiled.get(key);
  if (!found) {
    const program = assemble(options, memory);
    found = { ...program, module: new WebAssembly.Module(program.code) };
    compiled.set(key, found);
  }
  return found;
}

/** All kernels as one WebAssembly module for the given memory. */
export function assemble(options: KernelOptions, memory: { initial: number; maximum: number; shared: boolean }): Program {
  const module = new ModuleBuilder(memory);
  const scratch = module.global("i32");
  const threadIndex = module.global("i32");
  const emitter = { ...options, module, scratch, threadIndex };

  for (const order of new Set([blockOrder(options, "int8"), blockOrder(options, "int4")])) {
    const group = emitQuantise(emitter, `quantise_${order}`, order);
    emitQuantisedNorms(emitter, order, group);
  }
  const gates = emitGates(emitter);
  for (const half of [true, false]) {
    const scales = half ? "half" : "f32";
    const int8 = quantisedTiles(emitter, `tile_int8_${scales}`, { format: "int8", half });
    emitLinears(emitter, `int8_${scales}`, int8, gates);
    const int4 = quantisedTiles(emitter, `tile_int4_${scales}`, { format: "int4", half });
    emitLinears(emitter, `int4_${scales}`, { ...int4, ...(widensInt4(options) && { widened: { by: emitWiden(emitter, `widen_${scales}`, half), family: int8 } }) }, gates);
    for (const format of ["int8", "int4"] as const) emitRow(emitter, `row_${format}_${scales}`, { format, half });
  }
  const f32 = floatTiles(emitter, "f32");
  emitLinears(emitter, "f32", f32, gates);
  emitRowFloat(emitter, "f32");
  for (const format of ["f16", "bf16"] as const) {
    emitLinears(emitter, format, { ...floatTiles(emitter, format), widened: { by: emitWidenFloats(emitter, format), family: f32 } }, gates);
    emitRowFloat(emitter, format);
    emitPackHalves(emitter, format);
  }
  emitCopy(emitter);
  emitNorms(emitter);
  emitRope(emitter);
  emitPointwise(emitter);
  emitSoftmax(emitter);
  emitLogits(emitter);
  const steps = emitBlockSteps(emitter);
  emitAttention(emitter, steps);
  emitNaiveAttention(emitter, steps);
  emitKvWrite(emitter);
  emitPack(emitter);
  emitPackFloats(emitter);
  emitReadBandwidth(emitter);
  emitPool(emitter, memory.shared);
  return { code: module.encode(), kernels: module.kernelNames };
}
