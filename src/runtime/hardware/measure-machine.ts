import type { Kernels } from "../../tensor/kernels.ts";
import { Ledger } from "../../tensor/ledger.ts";
import { Ops } from "../../tensor/ops.ts";
import { type RelaxedDot, type WasmKernels } from "../../tensor/wasm/index.ts";
import { peakGemm, readBandwidth, type Spread, spread, times } from "../../tensor/wasm/measure.ts";
import { ADDRESSABLE, type Backend, type BackendOptions, createKernels, threading } from "../backend.ts";
import type { Hardware } from "./hardware.ts";

/** Formats whose products are measured; what the kernels multiply. */
export const PEAK_FORMATS = ["int8", "int4", "f32"] as const;
export type PeakFormat = (typeof PEAK_FORMATS)[number];

/** A buffer read over and over, by so many threads. */
export interface ReadSpeed {
  readonly threads: number;
  readonly bytes: number;
  /** 10^9 bytes per second. */
  readonly gbPerSecond: Spread;
}

/** A linear over many rows, in a matrix that stays in the caches, by so many threads. */
export interface PeakSpeed {
  readonly threads: number;
  readonly format: PeakFormat;
  /** 10^9 operations per second, a multiply-add counting as two. */
  readonly gops: Spread;
}

/** What some threads reach. */
export interface Speeds {
  readonly read: readonly ReadSpeed[];
  readonly peaks: readonly PeakSpeed[];
}

/** What this machine does at best with memwall's kernels: all of it measured. */
export interface Machine extends Speeds {
  readonly backend: string;
  /** Threads of the last rows of `read` and `peaks`: all that were asked for. */
  readonly threads: number;
  /** Threads that run at once here. */
  readonly parallelism: number;
  /** Whether the kernels are SIMD ones, and what their relaxed dot does ("none" where they use the baseline one). */
  readonly simd: boolean;
  readonly relaxedDot: RelaxedDot;
  /** Bits of a vector; null for plain loops. */
  readonly vectorBits: 128 | 256 | null;
  /** Bytes that the kernels can address. */
  readonly memoryBytes: number;
  /** What an op of next to no work takes, nanoseconds: calls, checks, the ledger's clock. */
  readonly overheadNs: number;
  /** The largest size read by all threads at `CACHE_FACTOR` times the memory's speed or faster; 0 if none is. */
  readonly cacheBytes: number;
}

/** Sizes that are read: those of caches, and one that is memory on any machine. */
export const READ_SIZES: readonly number[] = [2 ** 20, 2 ** 22, 2 ** 24, 2 ** 26, 2 ** 29];
/** How much faster than memory a size has to be read to count as cache-resident. */
export const CACHE_FACTOR = 1.5;
/** A plain loop is slower than any memory: it needs less of it, and smaller matrices. */
const PLAIN_BYTES = 2 ** 27;
const PLAIN_GEMM = { m: 16, n: 128, k: 512 };
/** Bytes that a quick measurement of memory reads. */
export const QUICK_BYTES = 2 ** 28;
/** Seconds for each figure. */
const SECONDS = 0.2;

export interface MeasureOptions extends BackendOptions {
  readonly onProgress?: (done: string) => void;
}

/** Measures this machine at 1, 2, 3, 4 threads, then at twice as many each time, and at all of them. A few seconds. */
export async function measureMachine(backend: Backend, { onProgress, ...options }: MeasureOptions = {}): Promise<Machine> {
  const all = await createKernels(backend, options);
  // Fixed here: threads that start late join while the others work.
  const { name: backendName, threads: most } = all;
  const { parallelism, memoryBytes = ADDRESSABLE } = await threading();
  const read: ReadSpeed[] = [];
  const peaks: PeakSpeed[] = [];
  try {
    for (const threads of threadCounts(most)) {
      onProgress?.(`measuring ${threads} of ${most} threads`);
      const kernels = threads === most ? all : await createKernels(backend, { ...options, threads });
      try {
        const speeds = speedsOf(kernels, threads);
        read.push(...speeds.read);
        peaks.push(...speeds.peaks);
      } finally {
        if (kernels !== all) kernels.close();
      }
    }
    const facts = { backend: backendName, threads: most, parallelism, ...methodOf(all) };
    return { ...facts, memoryBytes: facts.simd ? Math.min(memoryBytes, ADDRESSABLE) : memoryBytes, overheadNs: overhead(all), cacheBytes: cacheSize(read, most), read, peaks };
  } finally {
    all.close();
  }
}

/** What all threads reach now, so that a later measurement can be held against it. About two seconds. */
export async function measureSpeeds(backend: Backend, options: BackendOptions = {}): Promise<Speeds> {
  const kernels = await createKernels(backend, options);
  try {
    return speedsOf(kernels, kernels.threads);
  } finally {
    kernels.close();
  }
}

function speedsOf(kernels: Kernels, threads: number): Speeds {
  return {
    read: READ_SIZES.map((bytes) => ({ threads, ...readSpeed(kernels, bytes) })),
    peaks: PEAK_FORMATS.map((format) => ({ threads, format, gops: peakSpeed(kernels, format) })),
  };
}

/** The machine with the faster of two measurements in each place: whatever else runs on it only slows. */
export function withBest(machine: Machine, earlier: Speeds): Machine {
  const read = machine.read.map((one) => {
    const before = earlier.read.find(({ threads, bytes }) => threads === one.threads && bytes === one.bytes);
    return before && before.gbPerSecond.highest > one.gbPerSecond.highest ? before : one;
  });
  const peaks = machine.peaks.map((one) => {
    const before = earlier.peaks.find(({ threads, format }) => threads === one.threads && format === one.format);
    return before && before.gops.highest > one.gops.highest ? before : one;
  });
  return { ...machine, read, peaks, cacheBytes: cacheSize(read, machine.threads) };
}

/** A figure of all threads before and after the steps. */
export interface Twice {
  readonly what: string;
  readonly before: number;
  readonly after: number;
}

/** The ceilings of two measurements side by side: reads from memory in 10^9 bytes per second, products in 10^9 operations per second. */
export function twice(earlier: Speeds, { read, peaks }: Speeds): Twice[] {
  const last = <T extends { readonly threads: number }>(rows: readonly T[]) => {
    const most = Math.max(...rows.map(({ threads }) => threads));
    return rows.filter(({ threads }) => threads === most);
  };
  const memory = (rows: readonly ReadSpeed[]) => last(rows).reduce((most, one) => (one.bytes > most.bytes ? one : most)).gbPerSecond.highest;
  const peak = (rows: readonly PeakSpeed[], format: PeakFormat) => last(rows).find((one) => one.format === format)!.gops.highest;
  return [
    { what: "memory", before: memory(earlier.read), after: memory(read) },
    ...PEAK_FORMATS.map((format) => ({ what: format, before: peak(earlier.peaks, format), after: peak(peaks, format) })),
  ];
}

/** How kernels multiply. */
export function methodOf(kernels: Kernels): Pick<Machine, "simd" | "relaxedDot" | "vectorBits"> {
  if (!isWasm(kernels)) return { simd: false, relaxedDot: "none", vectorBits: null };
  const { dot, wide } = kernels.method;
  return { simd: true, relaxedDot: dot === "pairs" ? "none" : kernels.probe.relaxedDot, vectorBits: wide ? 256 : 128 };
}

export function threadCounts(most: number): number[] {
  const counts: number[] = [];
  for (let count = 1; count < most; count += count < 4 ? 1 : count) counts.push(count);
  return [...counts, most];
}

/** The largest size up to which all are read at least CACHE_FACTOR times as fast as the largest one of all. */
export function cacheSize(read: readonly ReadSpeed[], threads: number): number {
  const own = read.filter((one) => one.threads === threads).sort((a, b) => a.bytes - b.bytes);
  const memory = own[own.length - 1].gbPerSecond.highest;
  const slow = own.findIndex(({ gbPerSecond }) => gbPerSecond.highest < CACHE_FACTOR * memory);
  return slow > 0 ? own[slow - 1].bytes : 0;
}

/** What kernels in use get out of this machine with all their threads, quickly. */
export interface Ceilings {
  /** Reads from memory, 10^9 bytes per second. */
  readonly readGBs: Spread;
  /** 10^9 operations per second. */
  readonly gops: Readonly<Record<PeakFormat, Spread>>;
  readonly overheadNs: number;
}

/** About half a second; the read buffer is taken from the kernels' own memory, and given back. */
export function measureCeilings(kernels: Kernels): Ceilings {
  return {
    readGBs: readSpeed(kernels, QUICK_BYTES).gbPerSecond,
    gops: { int8: peakSpeed(kernels, "int8"), int4: peakSpeed(kernels, "int4"), f32: peakSpeed(kernels, "f32") },
    overheadNs: overhead(kernels),
  };
}

/** Reads of `most` bytes. Kernels in use may have little memory left: then half as much is read, and half of that. */
export function readSpeed(kernels: Kernels, most: number): Omit<ReadSpeed, "threads"> {
  if (!isWasm(kernels)) return plainRead(Math.min(most, PLAIN_BYTES));
  for (let bytes = most; ; bytes /= 2) {
    try {
      return { bytes, gbPerSecond: scaled(readBandwidth(kernels, bytes, SECONDS)) };
    } catch (error) {
      if (!(error instanceof RangeError) || bytes <= READ_SIZES[0]) throw error;
    }
  }
}

/** What a plain loop reads. */
function plainRead(bytes: number): Omit<ReadSpeed, "threads"> {
  const words = new Int32Array(bytes / 4).fill(1);
  let sum = 0;
  const found = times(() => {
    for (let i = 0; i < words.length; i++) sum ^= words[i];
  }, SECONDS);
  // The loop must have a result that someone looks at.
  if (sum > 1) throw new Error("the read loop went wrong");
  return { bytes, gbPerSecond: scaled(spread(found.map((time) => bytes / time))) };
}

/** 10^9 operations per second of linears over many rows in the caches. */
export const peakSpeed = (kernels: Kernels, format: PeakFormat): Spread =>
  scaled(peakGemm(kernels, { format, seconds: SECONDS, ...(!isWasm(kernels) && PLAIN_GEMM) }));

const scaled = ({ median, lowest, highest }: Spread): Spread => ({ median: median / 1e9, lowest: lowest / 1e9, highest: highest / 1e9 });

const isWasm = (kernels: Kernels): kernels is WasmKernels => "device" in kernels && "probe" in kernels;

/** Nanoseconds that the smallest linear takes from call to ledger: the median of many. */
function overhead(kernels: Kernels): number {
  const packer = kernels.packer({ name: "overhead", dtype: "f32", shape: [8, 32], group: 32 });
  const rows = kernels.alloc("f32", [8, 32]);
  packer.write(rows);
  const weight = packer.finish();
  const x = kernels.alloc("f32", [1, 32]);
  const ledger = new Ledger(true);
  const ops = new Ops(kernels, ledger);
  const found: number[] = [];
  ledger.onOp(({ ns }) => found.push(ns));
  for (let i = 0; i < 4000; i++) {
    ops.arena.release(0);
    ops.linear("overhead", x, { weight });
  }
  for (const tensor of [rows, weight, x]) kernels.free(tensor);
  return spread(found.slice(2000)).median;
}

/** The name of the machine that memwall runs on, for --hw. */
export const THIS = "this";

const CACHE_RULE = `the largest size read ${CACHE_FACTOR} times as fast as memory`;
const capacitySource = (simd: boolean) => (simd ? "32-bit WebAssembly memory, or the machine's if that is less" : "the machine's memory");

/** The measured machine, all threads and its memory, in the form of other hardware: the fastest that was measured. */
export function asHardware({ backend, threads, simd, memoryBytes, overheadNs, cacheBytes, read, peaks }: Machine): Hardware {
  const own = read.filter((one) => one.threads === threads);
  const memory = own.reduce((largest, one) => (one.bytes > largest.bytes ? one : largest), own[0]);
  const source = `measured: ${backend} kernels, ${threads} thread${threads === 1 ? "" : "s"}`;
  const tera = (format: PeakFormat) => peaks.find((one) => one.threads === threads && one.format === format)!.gops.highest / 1e3;
  return {
    ...{ name: THIS, bandwidthGBs: memory.gbPerSecond.highest, capacityGB: memoryBytes / 1e9, peaks: { fp32: tera("f32"), int8: tera("int8"), int4: tera("int4") } },
    ...(cacheBytes > 0 && { cacheMB: cacheBytes / 1e6 }),
    launchUs: overheadNs / 1e3,
    sources: {
      bandwidthGBs: `${source}, reads of ${memory.bytes / 2 ** 20} MiB`,
      capacityGB: capacitySource(simd),
      peaks: `${source}, linears in the caches`,
      ...(cacheBytes > 0 && { cacheMB: `${source}, ${CACHE_RULE}` }),
      launchUs: `${source}, the smallest linear`,
    },
  };
}

/** What kernels in use get out of this machine, in the form of other hardware; about half a second. Its capacity is not looked at. */
export function quickHardware(kernels: Kernels): Hardware {
  const { readGBs, gops, overheadNs } = measureCeilings(kernels);
  const source = `measured just now, with the ${kernels.name} kernels in use`;
  return {
    ...{ name: `this machine with ${kernels.name} kernels`, bandwidthGBs: readGBs.highest, capacityGB: Infinity },
    peaks: { fp32: gops.f32.highest / 1e3, int8: gops.int8.highest / 1e3, int4: gops.int4.highest / 1e3 },
    launchUs: overheadNs / 1e3,
    sources: { bandwidthGBs: source, peaks: source, launchUs: source },
  };
}
