import type { OpRecord } from "../../tensor/ledger.ts";
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
