import type { Kernels } from "../../tensor/kernels.ts";
import { Ledger, type OpRecord } from "../../tensor/ledger.ts";
import { Ops } from "../../tensor/ops.ts";
import { zeros } from "../../tensor/tensor.ts";
import { type Hardware, peakOf } from "../hardware/hardware.ts";
import { arithmeticOf, bytesMoved, type OpWork, opTime } from "../hardware/roof.ts";

/** Where one op stands under a machine's roof (Williams et al. 2009). */
export interface Placement {
  /** Flops per byte read or written. */
  readonly intensity: number;
  /** Flops per byte at which the machine's two limits meet, for the op's number format. */
  readonly balance: number;
  readonly binds: "memory" | "arithmetic";
  /** Shortest possible time, in nanoseconds. */
  readonly roofNs: number;
  /** Share of the roof that was reached, 0 to 1 (more for data that came from a cache); undefined without timing. */
  readonly share: number | undefined;
}

export function place(record: OpWork & Pick<OpRecord, "ns">, machine: Hardware): Placement {
  const bytes = bytesMoved(record);
  const { seconds, bound } = opTime(record, machine);
  return {
    intensity: bytes === 0 ? 0 : record.flops / bytes,
    balance: peakOf(machine, arithmeticOf(record)) / (machine.bandwidthGBs * 1e9),
    binds: bound === "compute" ? "arithmetic" : "memory",
    roofNs: seconds * 1e9,
    share: record.ns > 0 ? (seconds * 1e9) / record.ns : undefined,
  };
}

/** Larger than the caches of an ordinary machine; slow kernels, which no cache helps, get a quarter of it. */
const MEMORY_BYTES = 48 << 20;
const COLUMNS = 1024;
const ROWS_SHARING = 64;

/**
 * A quick look at what the kernels in use get out of this machine: bandwidth from matrix times vector over an int8 matrix that no cache
 * holds, arithmetic from matrix times matrix over a small one. Its capacity is not measured. Takes about half a second.
 */
export function measureMachine(kernels: Kernels): Hardware {
  const int8 = time(kernels, "int8", 64, ROWS_SHARING, 6);
  const fp32 = time(kernels, "f32", 64, ROWS_SHARING, 6);
  const rows = (int8.flops / int8.ns > 8 ? MEMORY_BYTES : MEMORY_BYTES >> 2) / COLUMNS;
  const streamed = time(kernels, "int8", rows, 1, 4);
  const name = `this machine with ${kernels.name} kernels`;
  const source = "measured just now, with the kernels in use";
  const peaks = { fp32: fp32.flops / fp32.ns / 1e3, int8: int8.flops / int8.ns / 1e3 };
  return { name, bandwidthGBs: streamed.bytes / streamed.ns, capacityGB: Infinity, peaks, sources: { bandwidthGBs: source, peaks: source } };
}

/** The fastest of some runs of one linear: `shared` rows of activations through a matrix of `rows` rows. */
function time(kernels: Kernels, dtype: "int8" | "f32", rows: number, shared: number, repeat: number) {
  const ops = new Ops(kernels, new Ledger(false));
  const packer = kernels.packer({ name: "probe", dtype, shape: [rows, COLUMNS], group: 32 });
  const part = zeros(dtype, [64, COLUMNS], 32);
  for (let i = 0; i < part.data.length; i++) part.data[i] = (i * 37) & 127;
  part.scales?.fill(0.01);
  for (let row = 0; row < rows; row += 64) packer.write(part.slice(0, Math.min(64, rows - row)));
  const weight = packer.finish();
  const x = kernels.alloc("f32", [shared, COLUMNS]);
  x.f32.fill(0.5);
  let best = Infinity;
  for (let i = 0; i < repeat; i++) {
    ops.arena.release(0);
    const started = performance.now();
    ops.linear("probe", x, { weight });
    best = Math.min(best, performance.now() - started);
  }
  kernels.free(x);
  kernels.free(weight);
  return { ns: best * 1e6, bytes: weight.bytes, flops: 2 * rows * COLUMNS * shared };
}
