import type { Tensor } from "../../tensor/tensor.ts";
import { count, percent } from "../report.ts";
import type { AttentionWeights } from "./attention-weights.ts";

/** Breaks a text into lines of at most `width` characters, at spaces where there are some; later lines are indented. */
export function wrap(text: string, width: number, indent = "  "): string {
  const lines: string[] = [];
  for (let rest = text; ; ) {
    if (rest.length <= width) return [...lines, rest].join("\n");
    const space = rest.lastIndexOf(" ", width);
    const at = space > indent.length ? space : width;
    lines.push(rest.slice(0, at).trimEnd());
    rest = indent + rest.slice(at).trimStart();
  }
}

/** Number, lined up: sign, at most `digits` significant digits. */
export function short(value: number, digits = 4): string {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 2) : value.toPrecision(digits);
}

/** The values [from, to) of one row, as many to a line as fit, each line led by its first column. */
export function sliceLines(row: Float32Array, from: number, to: number, width: number): string[] {
  const lead = String(to).length + 2;
  const perLine = Math.max(1, Math.floor((width - lead) / 11));
  const lines: string[] = [];
  for (let at = from; at < to; at += perLine) {
    const values = Array.from(row.subarray(at, Math.min(to, at + perLine)), (value) => short(value).padStart(10));
    lines.push(`${String(at).padStart(lead - 2)}: ${values.join(" ")}`);
  }
  return lines;
}

export interface Statistics {
  readonly count: number;
  readonly min: number;
  readonly max: number;
  readonly mean: number;
  readonly deviation: number;
  /** Euclidean length. */
  readonly norm: number;
  readonly zeros: number;
  /** Values that are NaN or infinite; the other figures leave them out. */
  readonly notFinite: number;
}

export function statistics(values: Float32Array): Statistics {
  let [min, max, sum, squares, zeros, notFinite] = [Infinity, -Infinity, 0, 0, 0, 0];
  for (const value of values) {
    if (!Number.isFinite(value)) {
      notFinite++;
      continue;
    }
    if (value < min) min = value;
    if (value > max) max = value;
    if (value === 0) zeros++;
    sum += value;
    squares += value * value;
  }
  const n = values.length - notFinite;
  const mean = n === 0 ? 0 : sum / n;
  return { count: values.length, min, max, mean, deviation: n === 0 ? 0 : Math.sqrt(Math.max(0, squares / n - mean * mean)), norm: Math.sqrt(squares), zeros, notFinite };
}

export function statisticsLine({ count: n, min, max, mean, deviation, norm, zeros, notFinite }: Statistics): string {
  const odd = notFinite > 0 ? `, ${count(notFinite)} not finite` : "";
  return `${count(n)} values: min ${short(min)}, max ${short(max)}, mean ${short(mean)}, deviation ${short(deviation)}, norm ${short(norm)}, ${count(zeros)} zero${odd}`;
}

const BINS = 12;

/** How often values fall into each of twelve equal ranges from the least to the greatest. */
export function histogram(values: Float32Array): { from: number; count: number }[] {
  const { min, max } = statistics(values);
  const size = max > min ? (max - min) / BINS : 1;
  const bins = Array.from({ length: max > min ? BINS : 1 }, (_, i) => ({ from: min + i * size, count: 0 }));
  for (const value of values) if (Number.isFinite(value)) bins[Math.min(bins.length - 1, Math.floor((value - min) / size))].count++;
  return bins;
}

export function histogramLines(values: Float32Array, width: number): string[] {
  const bins = histogram(values);
  const most = bins.reduce((max, bin) => Math.max(max, bin.count), 1);
  const room = Math.max(4, Math.min(40, width - 20));
  return bins.map(({ from, count: n }) => `${short(from, 3).padStart(9)} ${count(n).padStart(7)} ${bar(n / most, room)}`);
}

/** Plain characters, so that any terminal shows it. */
export function bar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return "#".repeat(full === 0 && share > 0 ? 1 : full);
}

/** Darker is more; level n stands for a weight of (n / 9)^2, so that small weights show. */
const RAMP = " .:-=+*#%@";

/** A head's attention weights as a picture: a row for each query, a column for each key. The newest keys when there is no room for all. */
export function heatMap(weights: Float32Array, { queries, keys, start }: Pick<AttentionWeights, "queries" | "keys" | "start">, label: (position: number) => string, width: number): string[] {
  const lead = 15;
  const room = Math.max(8, width - lead);
  const firstKey = Math.max(0, keys - room);
  const firstQuery = Math.max(0, queries - 32);
  const cell = Math.max(1, Math.min(2, Math.floor(room / (keys - firstKey))));
  const tens = Array.from({ length: keys - firstKey }, (_, i) => ((firstKey + i) % 10 === 0 ? String(((firstKey + i) / 10) % 10) : ".").repeat(cell));
  const lines = [`${" ".repeat(lead - 1)}|${tens.join("")}`];
  for (let query = firstQuery; query < queries; query++) {
    const cells = Array.from(weights.subarray(query * keys + firstKey, (query + 1) * keys), (weight) => RAMP[Math.round(Math.sqrt(weight) * 9)].repeat(cell));
    const position = start + query;
    lines.push(`${String(position).padStart(4)} ${label(position).slice(0, 8).padEnd(8)} |${cells.join("").trimEnd()}`);
  }
  lines.push("scale: . 1 %  - 11 %  * 44 %  @ 100 %");
  if (firstKey > 0) lines.push(`keys 0 to ${firstKey - 1} are left out`);
  if (firstQuery > 0) lines.push(`queries ${start} to ${start + firstQuery - 1} are left out`);
  return lines;
}

/** One query's strongest keys, in their order, with bars. */
export function keyBars(weights: Float32Array, position: (key: number) => number, label: (position: number) => string, width: number, most = 12): string[] {
  const strongest = Array.from(weights.keys())
    .sort((a, b) => weights[b] - weights[a])
    .slice(0, most)
    .sort((a, b) => a - b);
  const room = Math.max(4, Math.min(40, width - 25));
  const lines = strongest.map((key) => `${String(position(key)).padStart(4)} ${label(position(key)).slice(0, 10).padEnd(10)} ${percent(weights[key]).padStart(7)} ${bar(weights[key], room)}`);
  const rest = weights.length - strongest.length;
  if (rest > 0) lines.push(`the other ${count(rest)} keys: ${percent(1 - strongest.reduce((sum, key) => sum + weights[key], 0))}`);
  return lines;
}

/** A logarithmic axis of intensity with the op (o) and the machine's balance (|) on it. */
export function intensityAxis(intensity: number, balance: number, width: number): string {
  const [low, high] = [0.01, 10_000];
  const room = Math.max(10, Math.min(50, width - 12));
  const at = (value: number) => Math.round((Math.log(Math.min(high, Math.max(low, value)) / low) / Math.log(high / low)) * (room - 1));
  const cells = Array.from({ length: room }, () => "-");
  cells[at(balance)] = "|";
  cells[at(intensity)] = "o";
  return `0.01 ${cells.join("")} 10^4`;
}

/** Shape as text: [1, 64]. */
export const shapeOf = ({ shape }: Pick<Tensor, "shape">): string => `[${shape.join(", ")}]`;
