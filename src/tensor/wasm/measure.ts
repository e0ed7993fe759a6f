import type { Kernels } from "../kernels.ts";
import type { WasmKernels } from "./index.ts";
import { READ_UNIT } from "./kernels/read.ts";
import { TILE_ROWS } from "./layout.ts";

export interface Spread {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

/** Sorts `values`. */
export function spread(values: number[]): Spread {
  const sorted = values.sort((a, b) => a - b);
  return { median: sorted[sorted.length >> 1], lowest: sorted[0], highest: sorted[sorted.length - 1] };
}

/** Runs `step` until `seconds` are over (at least 5 times), after a warm-up in which the optimising compiler takes over; seconds per run. */
export function times(step: () => void, seconds: number): number[] {
  const warm = performance.now();
  for (let i = 0; i < 3 || performance.now() - warm < 100 * Math.min(1, seconds); i++) step();
  const found: number[] = [];
  const started = performance.now();
  while (found.length < 5 || performance.now() - started < 1000 * seconds) {
    const before = performance.now();
    step();
    found.push((performance.now() - before) / 1000);
  }
  return found;
}

/**
 * Bytes per second that 128-bit loads get out of memory, all threads reading: the ceiling of decoding.
 * `bytes` should exceed the last-level cache; they are taken from the kernels' memory and given back.
 */
export function readBandwidth({ device }: WasmKernels, bytes = 2 ** 29, seconds = 0.5): Spread {
  const units = Math.floor(bytes / READ_UNIT);
  const { address, buffer } = device.alloc(units * READ_UNIT, "the read buffer");
  try {
    // Pages that nobody wrote are all the same zeros, and would be read from the cache.
    new Float64Array(buffer, address, (units * READ_UNIT) / 8).fill(1);
    const kernel = device.kernel("read");
    const found = times(() => {
      device.params[0] = address;
      device.runAll(kernel, units, 16);
    }, seconds);
    return spread(found.map((time) => (units * READ_UNIT) / time));
  } finally {
    device.heap.free(address);
  }
}

/** Operations per second (2 m n k over time) of a linear on a matrix that stays in the caches: the ceiling of prompts. */
export function peakGemm(kernels: Kernels, { m = 128, n = 1024, k = 1024, format = "int8" as "int8" | "int4" | "f32", seconds = 0.5 } = {}): Spread {
  const packer = kernels.packer({ name: "peak", dtype: format, shape: [n, k], group: 32 });
  const rows = kernels.alloc(format, [TILE_ROWS, k], 32);
  for (let i = 0; i < rows.data.length; i++) rows.data[i] = (i * 37) % 101;
  rows.scales?.fill(2 ** -7);
  for (let row = 0; row < n; row += TILE_ROWS) packer.write(rows);
  const weight = packer.finish();
  const [x, out] = [kernels.alloc("f32", [m, k]), kernels.alloc("f32", [m, n])];
  for (let i = 0; i < x.data.length; i++) x.data[i] = ((i * 29) % 97) - 48;
  try {
    return spread(times(() => kernels.linear(out, x, weight), seconds).map((time) => (2 * m * n * k) / time));
  } finally {
    for (const tensor of [rows, weight, x, out]) kernels.free(tensor);
  }
}
