import type { Kernels } from "../tensor/kernels.ts";
import { scalarKernels } from "../tensor/scalar/index.ts";
import { probe, type RelaxedDot, startProbe, type Spawn, type WasmKernels, wasmKernels } from "../tensor/wasm/index.ts";

/** `auto` takes wasm where it can do what is asked, else scalar; `wasm` SIMD kernels on all threads; `scalar` the plain loops. */
export const BACKENDS = ["auto", "wasm", "scalar"] as const;
export type Backend = (typeof BACKENDS)[number];

export interface BackendOptions {
  /** Threads that compute, the calling one included; default all that the machine offers. The scalar kernels have one. */
  readonly threads?: number;
  /** The engine needs what only the scalar kernels do (quantised activations, sparse weights). */
  readonly scalarOnly?: string;
  /** Bits that the wasm kernels round activations to, in groups of 32; default 16. */
  readonly activations?: "int8" | "int16";
}

/** What the kernels are, and what the probe at start-up found. */
export interface KernelFacts {
  readonly backend: string;
  readonly threads: number;
  readonly simd: boolean;
  /** What the relaxed SIMD dot product does here: `u8s8` and `s8s8` are exact, `inexact` is not used, `none` is not there. */
  readonly relaxedDot: RelaxedDot;
  /** How integer linears multiply: 16-bit pairs (baseline SIMD) or the relaxed dot; null for plain loops. */
  readonly dot: string | null;
  /** What integer linears round their inputs to; null for plain loops. */
  readonly activations: "int8" | "int16" | null;
  readonly fusedMultiplyAdd: boolean;
  readonly sharedMemory: boolean;
}

export function kernelFacts({ name, threads, ...kernels }: Kernels): KernelFacts {
  const found = probe();
  const method = "method" in kernels ? (kernels as Pick<WasmKernels, "method">).method : undefined;
  const how = { dot: method?.dot ?? null, activations: method?.activations ?? null };
  return { backend: name, threads, simd: found.simd, relaxedDot: found.relaxedDot, ...how, fusedMultiplyAdd: found.madd, sharedMemory: found.shared };
}

/**
 * The kernels of a backend, with their threads started.
 * @throws RangeError for a number of threads out of range, Error when `wasm` is asked for and cannot be had.
 */
export async function createKernels(backend: Backend, { threads, scalarOnly, activations }: BackendOptions = {}): Promise<Kernels> {
  if (threads !== undefined && !(Number.isSafeInteger(threads) && threads >= 1 && threads <= MOST_THREADS)) {
    throw new RangeError(`threads: expected a whole number from 1 to ${MOST_THREADS}, found ${threads}`);
  }
  if (backend === "wasm" && scalarOnly) throw new RangeError(`backend: the wasm kernels do not have ${scalarOnly} (the scalar backend has)`);
  if (backend === "scalar" || (backend === "auto" && (scalarOnly || !probe().simd))) return scalarKernels();
  const { spawn, parallelism } = await threading();
  return wasmKernels({ threads: threads ?? parallelism, spawn, activations });
}

export { startProbe };

const MOST_THREADS = 256;

export interface Threading {
  readonly spawn?: Spawn;
  /** Threads that run at once here. */
  readonly parallelism: number;
  /** Memory of the machine, bytes; undefined where nobody tells. */
  readonly memoryBytes?: number;
}

/** Threads are Node's own; where there is no Node, one has to do. */
export async function threading(): Promise<Threading> {
  if (!("process" in globalThis)) return { parallelism: 1 };
  const { spawnThread, availableThreads, memoryBytes } = await import("./node-threads.ts");
  return { spawn: spawnThread, parallelism: availableThreads(), memoryBytes: memoryBytes() };
}
