import type { OpRecord, Traffic } from "../../tensor/ledger.ts";
import { type Arithmetic, type Hardware, peakOf } from "./hardware.ts";

/** What keeps an op from being faster. */
export type Bound = "memory" | "compute" | "launch";

/** An op's time on a device at best, and what keeps it from being shorter. */
export interface OpTime {
  readonly seconds: number;
  readonly bound: Bound;
}

export interface RoofOptions {
  /** What products are computed in; without it what the operands' formats ask for. */
  readonly arithmetic?: Arithmetic;
  /** Add the device's launchUs to every op. */
  readonly launch?: boolean;
}

/** The part of an op's record that its time depends on. */
export type OpWork = Pick<OpRecord, "kind" | "name" | "dtype" | "flops" | "read" | "written">;

const totalBytes = ({ weights, kv, activations }: Traffic) => weights + kv + activations;

/** Every byte that an op reads or writes. */
export const bytesMoved = ({ read, written }: Pick<OpRecord, "read" | "written">) => totalBytes(read) + totalBytes(written);

/**
 * The format of an op's multiplications. Linears multiply in their weights' format: quantised weights as integers of 8 bits, as memwall's
 * own kernels do (4-bit weights too). Attention multiplies 16-bit floats, or 32-bit ones if the KV cache holds those.
 * Everything else is element by element, outside the matrix units, in fp32.
 */
export function arithmeticOf({ kind, name, dtype }: Pick<OpWork, "kind" | "name" | "dtype">, chosen?: Arithmetic): Arithmetic {
  const linear = kind === "gemv" || kind === "gemm";
  if (linear) return chosen ?? (dtype === "f32" ? "fp32" : dtype.endsWith("f16") ? "fp16" : "int8");
  if (kind === "attention" && name !== "softmax") return dtype === "f32" ? "fp32" : "fp16";
  return "fp32";
}

/** max(flops / peak, bytes / bandwidth), plus what a launch costs if asked for. Seconds. */
export function opTime(op: OpWork, hardware: Hardware, { arithmetic, launch = false }: RoofOptions = {}): OpTime {
  const compute = op.flops / peakOf(hardware, arithmeticOf(op, arithmetic));
  const memory = bytesMoved(op) / (hardware.bandwidthGBs * 1e9);
  const work = Math.max(compute, memory);
  const overhead = launch ? (hardware.launchUs ?? 0) * 1e-6 : 0;
  return { seconds: work + overhead, bound: overhead > work ? "launch" : compute > memory ? "compute" : "memory" };
}

export interface StepTime {
  readonly seconds: number;
  readonly flops: number;
  readonly bytes: number;
  /** Seconds by what binds the op. */
  readonly by: Readonly<Record<Bound, number>>;
  /** What binds most of the time. */
  readonly bound: Bound;
}

/** Ops one after another. */
export function stepTime(ops: readonly OpWork[], hardware: Hardware, options: RoofOptions = {}): StepTime {
  const by = { memory: 0, compute: 0, launch: 0 };
  let [flops, bytes] = [0, 0];
  for (const op of ops) {
    const { seconds, bound } = opTime(op, hardware, options);
    by[bound] += seconds;
    flops += op.flops;
    bytes += bytesMoved(op);
  }
  return { seconds: by.memory + by.compute + by.launch, flops, bytes, by, bound: mostOf(by) };
}

/** Sum of steps, each as often as it counts. */
export function sumTimes(parts: readonly { readonly time: StepTime; readonly count: number }[]): StepTime {
  const by = { memory: 0, compute: 0, launch: 0 };
  let [flops, bytes] = [0, 0];
  for (const { time, count } of parts) {
    for (const bound of ["memory", "compute", "launch"] as const) by[bound] += time.by[bound] * count;
    flops += time.flops * count;
    bytes += time.bytes * count;
  }
  return { seconds: by.memory + by.compute + by.launch, flops, bytes, by, bound: mostOf(by) };
}

function mostOf(by: Readonly<Record<Bound, number>>): Bound {
  if (by.launch > by.memory && by.launch > by.compute) return "launch";
  return by.compute > by.memory ? "compute" : "memory";
}
