import { bestScale, histogram, type Histogram } from "./histogram.ts";

/** The ops whose outputs linears read, as the decoder names them. */
export const LINEAR_INPUTS = ["attn_norm", "attention", "ffn_norm", "ffn_act", "output_norm"] as const;
export type LinearInput = (typeof LINEAR_INPUTS)[number];

/** What a calibration run saw of one op's output. */
export interface OpStatistics {
  /** -1 outside the layers. */
  readonly layer: number;
  readonly name: LinearInput;
  /** Static scales for int8 and int16, chosen by least mean square error. */
  readonly scales: { readonly int8: number; readonly int16: number };
  readonly largest: number;
  /** By channel: largest magnitude, mean magnitude, mean square. */
  readonly channelMax: readonly number[];
  readonly channelMean: readonly number[];
  readonly channelSquare: readonly number[];
  /** Channels whose largest magnitude is beyond `OUTLIER` times the median channel's. */
  readonly outliers: readonly number[];
  /** Counts of magnitudes in equal bins from 0 to `range`. */
  readonly histogram: { readonly range: number; readonly counts: readonly number[] };
}

/** Factors that SmoothQuant moved from an op's output into the weights that read it, one a channel. */
export interface Migration {
  readonly layer: number;
  readonly name: LinearInput;
  readonly factors: readonly number[];
}

/** The result of a calibration run. Statistics are those after the migration, if there was one. */
export interface Calibration {
  readonly format: "memwall-calibration";
  readonly version: 1;
  readonly model: { readonly name: string; readonly dim: number; readonly nLayers: number; readonly ffnDim: number; readonly headDims: number };
  /** Tokens that were fed. */
  readonly tokens: number;
  readonly smooth?: { readonly alpha: number; readonly migrations: readonly Migration[] };
  readonly ops: readonly OpStatistics[];
}

/** A channel stands out at this many times the median channel's largest magnitude. */
export const OUTLIER = 6;

/** Bins that a calibration file keeps of each histogram. */
const FILE_BINS = 64;

/** Collects statistics of one op's output. */
export function statistics(layer: number, name: LinearInput, channels: number): { add(rows: Float32Array): void; read(): OpStatistics } {
  const seen = histogram();
  const max = new Float64Array(channels);
  const sum = new Float64Array(channels);
  const squares = new Float64Array(channels);
  let rows = 0;
  return {
    add(values) {
      seen.add(values);
      for (let i = 0; i < values.length; i += channels, rows++) {
        for (let c = 0; c < channels; c++) {
          const size = Math.abs(values[i + c]);
          if (size > max[c]) max[c] = size;
          sum[c] += size;
          squares[c] += size * size;
        }
      }
    },
    read() {
      const largest = max.reduce((a, b) => Math.max(a, b), 0);
      const full = seen.read();
      const sorted = max.slice().sort();
      const usual = sorted[sorted.length >> 1];
      return {
        ...{ layer, name, largest: short(largest) },
        scales: { int8: short(bestScale(full, largest, 127)), int16: short(largest / 32767) },
        channelMax: Array.from(max, short),
        channelMean: Array.from(sum, (value) => short(value / rows)),
        channelSquare: Array.from(squares, (value) => short(value / rows)),
        outliers: [...max.keys()].filter((c) => max[c] > OUTLIER * usual),
        histogram: coarse(full),
      };
    },
  };
}

/** Six digits are more than a scale needs, and keep the file small. */
const short = (value: number) => Number(value.toPrecision(6));

function coarse({ range, counts }: Histogram) {
  const per = counts.length / FILE_BINS;
  const sums = Array.from({ length: FILE_BINS }, (_, i) => {
    let sum = 0;
    for (let j = i * per; j < (i + 1) * per; j++) sum += counts[j];
    return sum;
  });
  return { range, counts: sums };
}

/** The statistics of one op, if the run saw it. */
export function statisticsOf(calibration: Calibration, layer: number, name: LinearInput): OpStatistics | undefined {
  return calibration.ops.find((op) => op.layer === layer && op.name === name);
}

/**
 * Reads a calibration file.
 * @throws Error naming the file and what is wrong with it.
 */
export function parseCalibration(file: string, text: string): Calibration {
  const fail = (problem: string): never => {
    throw new Error(`${file}: expected a calibration file (run.ts calibrate makes one), found ${problem}`);
  };
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    return fail("no JSON");
  }
  if (!isRecord(found) || found.format !== "memwall-calibration") return fail("other JSON");
  if (found.version !== 1) return fail(`version ${String(found.version)}`);
  if (!isRecord(found.model) || !Array.isArray(found.ops) || found.ops.length === 0) return fail("no statistics in it");
  const bad = found.ops.find((op) => !isStatistics(op));
  if (bad !== undefined) return fail(`damaged statistics of ${isRecord(bad) ? `${String(bad.name)} in layer ${String(bad.layer)}` : "an op"}`);
  const { smooth } = found;
  if (smooth !== undefined && !(isRecord(smooth) && Array.isArray(smooth.migrations) && smooth.migrations.every(isMigration))) return fail("a damaged migration");
  return found as unknown as Calibration;
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);
const isAmount = (value: unknown): boolean => typeof value === "number" && Number.isFinite(value) && value >= 0;
const isAmounts = (value: unknown): value is number[] => Array.isArray(value) && value.length > 0 && value.every(isAmount);
const isPlace = (value: Record<string, unknown>): boolean => Number.isInteger(value.layer) && LINEAR_INPUTS.some((name) => name === value.name);

function isMigration(value: unknown): boolean {
  return isRecord(value) && isPlace(value) && isAmounts(value.factors) && value.factors.every((factor) => factor > 0);
}

function isStatistics(value: unknown): boolean {
  if (!isRecord(value) || !isPlace(value) || !isAmount(value.largest)) return false;
  const { scales, channelMax, channelMean, channelSquare } = value;
  if (!isRecord(scales) || !isAmount(scales.int8) || !isAmount(scales.int16)) return false;
  return isAmounts(channelMax) && isAmounts(channelMean) && isAmounts(channelSquare) && channelMean.length === channelMax.length && channelSquare.length === channelMax.length;
}
