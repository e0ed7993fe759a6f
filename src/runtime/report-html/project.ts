import type { NamedShape } from "../../model/shapes.ts";
import { HOROWITZ_2014 } from "../hardware/energy.ts";
import type { Hardware } from "../hardware/hardware.ts";
import { project, type Trace, traceWorkload } from "../hardware/projection.ts";
import { type Sweep, sweep } from "../hardware/sweep.ts";
import { type Formats, traced, type Workload } from "../hardware/trace.ts";
import type { CurveRow, ReportData } from "./data.ts";

/** Devices with a curve of their own: more could not be told apart. */
const MOST_CURVES = 4;

/** The parts of a report that are about other hardware: recorded ops under each device's roof. */
export function onHardware(shape: NamedShape, formats: Formats, workload: Workload, hardware: readonly Hardware[]): Pick<ReportData, "curves" | "hardware" | "energySource"> & { trace: Trace } {
  const trace = traceWorkload(traced(shape, formats), workload);
  const drawn = hardware.slice(0, MOST_CURVES);
  const curve = (kind: Sweep): CurveRow[] =>
    sweep(kind, shape, formats, workload, drawn).map(({ value, projections }) => ({
      value,
      tpotMs: projections.map(({ tpotMs }) => tpotMs),
      tokensPerSecond: projections.map(({ tokensPerSecond }) => tokensPerSecond),
    }));
  return {
    trace,
    curves: { devices: drawn.map(({ name }) => name), batch: curve("batch"), context: curve("context"), bits: curve("bits") },
    hardware: hardware.map((device) => {
      const { hw, fits, neededBytes, tpotMs, tokensPerSecond, ttftMs, bound, mbu, mfu, energy } = project(trace, device);
      return { hw, fits, neededBytes, bandwidthGBs: device.bandwidthGBs, tpotMs, tokensPerSecond, ttftMs, bound, mbu, mfu, energy, unverified: device.unverified ?? [] };
    }),
    energySource: HOROWITZ_2014.source,
  };
}
