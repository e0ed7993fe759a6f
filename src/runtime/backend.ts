import type { Kernels } from "../tensor/kernels.ts";
import { scalarKernels } from "../tensor/scalar/index.ts";
import { MOST_THREADS } from "../tensor/wasm/layout.ts";
import { probe, type RelaxedDot, startProbe, type Spawn, type WasmKernels, wasmKernels } from "../tensor/wasm/index.ts";

/** `auto` takes wasm where it can do what is asked, else scalar; `wasm` SIMD kernels on all threads; `scalar` the plain loops. */
export const BACKENDS = ["auto", "wasm", "scalar"] as const;
/** Which kernels compute: one of BACKENDS. */
export type Backend = (typeof BACKENDS)[number];

/** What `createKernels` is asked for besides the backend. */
export interface BackendOptions {
  /** Threads that compute, the calling one included; default all that the machine offers. The scalar kernels have one. */
  readonly threads?: number;
  /**
   * Bits of a vector: 128 (default), or 256, for which the wasm kernels have V8 join neighbouring vectors, by an experimental flag that holds for
   * the whole process; Node 24 and later, x86 with AVX2.
   */
  readonly vectors?: 128 | 256;
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
  /** Bits of a vector that the kernels are laid out for; null for plain loops. */
  readonly vectorBits: 128 | 256 | null;
  readonly sharedMemory: boolean;
}

export function kernelFacts({ name, threads, ...kernels }: Kernels): KernelFacts {
  const found = "probe" in kernels ? (kernels as Pick<WasmKernels, "probe">).probe : probe();
  const method = "method" in kernels ? (kernels as Pick<WasmKernels, "method">).method : undefined;
  const how = { dot: method?.dot ?? null, activations: method?.activations ?? null };
  return { backend: name, threads, simd: found.simd, relaxedDot: found.relaxedDot, ...how, fusedMultiplyAdd: found.madd, vectorBits: method ? (method.wide ? 256 : 128) : null, sharedMemory: found.shared };
}

/**
 * The kernels of a backend, with their threads started.
 * @throws RangeError for a number of threads out of range or vectors that are not to be had, Error when `wasm` is asked for and cannot be had.
 */
export async function createKernels(backend: Backend, { threads, vectors = 128, scalarOnly, activations }: BackendOptions = {}): Promise<Kernels> {
  if (threads !== undefined && !(Number.isSafeInteger(threads) && threads >= 1 && threads <= MOST_THREADS)) {
    throw new RangeError(`threads: expected a whole number from 1 to ${MOST_THREADS}, found ${threads}`);
  }
  if (!BACKENDS.includes(backend)) throw new RangeError(`backend: expected one of ${BACKENDS.join(", ")}, found ${JSON.stringify(backend)}`);
  if (vectors !== 128 && vectors !== 256) throw new RangeError(`vectors: expected 128 or 256 bits, found ${vectors as number}`);
  if (backend === "wasm" && scalarOnly) throw new RangeError(`backend: the wasm kernels do not have ${scalarOnly} (the scalar backend has)`);
  if (backend === "scalar" || (backend === "auto" && (scalarOnly || !probe().simd))) {
    if (vectors !== 128) throw new RangeError(`vectors: expected the wasm kernels with ${vectors} bits, found the plain loops${scalarOnly ? ` (for ${scalarOnly})` : ""}`);
    return scalarKernels();
  }
  const { spawn, parallelism, widenVectors } = await threading();
  const wide = vectors === 256;
  if (wide && !widenVectors?.()) throw new RangeError("vectors: 256 bits are for Node 24 and later on x86: expected 128 here");
  return wasmKernels({ threads: threads ?? parallelism, spawn, activations, wide });
}

export { startProbe };

/** 32-bit WebAssembly memory ends there. */
export const ADDRESSABLE = 2 ** 32;

export interface Threading {
  readonly spawn?: Spawn;
  /** Threads that run at once here. */
  readonly parallelism: number;
  /** Memory of the machine, bytes; undefined where nobody tells. */
  readonly memoryBytes?: number;
  /** Asks for vectors of 256 bits from now on; false where they are not to be had. */
  readonly widenVectors?: () => boolean;
}

/** Threads are Node's own; where there is no Node, one has to do. */
export async function threading(): Promise<Threading> {
  if (!("process" in globalThis)) return { parallelism: 1 };
  const { spawnThread, availableThreads, memoryBytes } = await import("./node-threads.ts");
  const { widenVectors } = await import("./node-vectors.ts");
  return { spawn: spawnThread, parallelism: availableThreads(), memoryBytes: memoryBytes(), widenVectors };
}
