import type { Kernels } from "../tensor/kernels.ts";
import { scalarKernels } from "../tensor/scalar/index.ts";
import { probe, type Spawn, wasmKernels } from "../tensor/wasm/index.ts";

/** `auto` takes wasm where it can do what is asked, else scalar; `wasm` SIMD kernels on all threads; `scalar` the plain loops. */
export const BACKENDS = ["auto", "wasm", "scalar"] as const;
export type Backend = (typeof BACKENDS)[number];

export interface BackendOptions {
  /** Threads that compute, the calling one included; default all that the machine offers. The scalar kernels have one. */
  readonly threads?: number;
  /** The engine needs what only the scalar kernels do (quantised activations, sparse weights). */
  readonly scalarOnly?: string;
}

/**
 * The kernels of a backend, with their threads started.
 * @throws RangeError for a number of threads out of range, Error when `wasm` is asked for and cannot be had.
 */
export async function createKernels(backend: Backend, { threads, scalarOnly }: BackendOptions = {}): Promise<Kernels> {
  if (threads !== undefined && !(Number.isSafeInteger(threads) && threads >= 1 && threads <= MOST_THREADS)) {
    throw new RangeError(`threads: expected a whole number from 1 to ${MOST_THREADS}, found ${threads}`);
  }
  if (backend === "wasm" && scalarOnly) throw new RangeError(`backend: the wasm kernels do not have ${scalarOnly} (the scalar backend has)`);
  if (backend === "scalar" || (backend === "auto" && (scalarOnly || !probe().simd))) return scalarKernels();
  const { spawn, parallelism } = await threading();
  return wasmKernels({ threads: threads ?? parallelism, spawn });
}

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
