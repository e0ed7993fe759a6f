/** Number formats that hardware multiplies in. A peak that a device lacks is that of the next wider format it has. */
export const ARITHMETICS = ["fp32", "fp16", "int8", "int4"] as const;
/** One of ARITHMETICS. */
export type Arithmetic = (typeof ARITHMETICS)[number];

/** A device as a roofline sees it. All figures are peaks from its maker: ceilings, not measurements. */
export interface Hardware {
  readonly name: string;
  /** Memory bandwidth, 10^9 bytes per second. */
  readonly bandwidthGBs: number;
  /** Memory, 10^9 bytes. */
  readonly capacityGB: number;
  /** Dense peaks in 10^12 operations per second, a multiply-add counting as two. */
  readonly peaks: { readonly fp32: number } & Readonly<Partial<Record<Arithmetic, number>>>;
  /** To another device of the same kind, 10^9 bytes per second in each direction. */
  readonly linkGBs?: number;
  /** Last-level cache, 10^6 bytes: activations that fit cost cache energy, not DRAM energy. */
  readonly cacheMB?: number;
  readonly tdpWatts?: number;
  /** Time that an op takes before it does any work, microseconds. Only counted where a command is asked to. */
  readonly launchUs?: number;
  /** Where each figure comes from, by field name. */
  readonly sources: Readonly<Record<string, string>>;
  /** Fields whose figures were not found in any source that could be read. */
  readonly unverified?: readonly string[];
}

/** Operations per second in a format: the device's own, or that of the next wider format it multiplies. */
export function peakOf({ peaks }: Hardware, arithmetic: Arithmetic): number {
  for (let i = ARITHMETICS.indexOf(arithmetic); i > 0; i--) {
    const peak = peaks[ARITHMETICS[i]];
    if (peak !== undefined) return peak * 1e12;
  }
  return peaks.fp32 * 1e12;
}

const REQUIRED = ["bandwidthGBs", "capacityGB"] as const;
const OPTIONAL = ["linkGBs", "cacheMB", "tdpWatts", "launchUs"] as const;
const FIELDS: readonly string[] = ["name", ...REQUIRED, "peaks", ...OPTIONAL, "sources", "unverified"];

/**
 * Devices from a user's JSON file: one object, or a list of them, with the fields of Hardware (sources may be left out).
 * @throws Error naming the file, the field, what was expected and what was found.
 */
export function parseHardware(file: string, text: string): Hardware[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${file}: expected JSON: ${(error as Error).message}`);
  }
  const list = Array.isArray(json) ? json : [json];
  if (list.length === 0) throw new Error(`${file}: expected at least one device, found an empty list`);
  return list.map((item, i) => device(Array.isArray(json) ? `${file}: [${i}]` : file, item));
}

function device(where: string, item: unknown): Hardware {
  const fields = record(where, item);
  for (const key of Object.keys(fields)) if (!FIELDS.includes(key)) throw new Error(`${where}: ${key}: unknown field, expected ${FIELDS.join(", ")}`);
  const { name } = fields;
  if (typeof name !== "string" || name === "") throw new Error(`${where}: name: expected a text, found ${show(name)}`);
  const numbers: Partial<Record<(typeof REQUIRED)[number] | (typeof OPTIONAL)[number], number>> = {};
  for (const field of REQUIRED) numbers[field] = positive(where, field, fields[field]);
  for (const field of OPTIONAL) if (fields[field] !== undefined) numbers[field] = positive(where, field, fields[field]);

  const given = record(`${where}: peaks`, fields.peaks);
  for (const key of Object.keys(given)) {
    if (!ARITHMETICS.some((known) => known === key)) throw new Error(`${where}: peaks.${key}: unknown field, expected ${ARITHMETICS.join(", ")}`);
  }
  const peaks: Partial<Record<Arithmetic, number>> = {};
  for (const key of ARITHMETICS) if (key === "fp32" || given[key] !== undefined) peaks[key] = positive(where, `peaks.${key}`, given[key]);

  const sources = fields.sources === undefined ? {} : record(`${where}: sources`, fields.sources);
  for (const [key, value] of Object.entries(sources)) if (typeof value !== "string") throw new Error(`${where}: sources.${key}: expected a text, found ${show(value)}`);
  const unverified = fields.unverified === undefined ? {} : { unverified: fieldNames(where, fields.unverified) };
  const { bandwidthGBs = 0, capacityGB = 0, ...rest } = numbers;
  return { name, bandwidthGBs, capacityGB, ...rest, peaks: { ...peaks, fp32: peaks.fp32! }, sources: sources as Record<string, string>, ...unverified };
}

function fieldNames(where: string, value: unknown): string[] {
  const figures: readonly string[] = [...REQUIRED, "peaks", ...OPTIONAL];
  if (Array.isArray(value) && value.every((name) => figures.includes(name))) return value as string[];
  throw new Error(`${where}: unverified: expected a list of ${figures.join(", ")}, found ${show(value)}`);
}

function record(where: string, value: unknown): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new Error(`${where}: expected an object, found ${show(value)}`);
}

function positive(where: string, field: string, value: unknown): number {
  if (typeof value === "number" && value > 0 && Number.isFinite(value)) return value;
  throw new Error(`${where}: ${field}: expected a positive number, found ${show(value)}`);
}

const show = (value: unknown) => (value === undefined ? "nothing" : JSON.stringify(value));
