import { count, formatBytes, percent } from "../report.ts";
import { type Cell, figure, words } from "./html.ts";

/** Cells of tables: the exact number, and what people read. */
export const bytesCell = (value: number): Cell => figure(value, formatBytes(value));
export const shareCell = (value: number): Cell => figure(value, `${(value * 100).toFixed(2)} %`);
export const countCell = (value: number): Cell => figure(value, count(value));
export const numberCell = (value: number, unit = ""): Cell => figure(value, withUnit(value, unit));
export const orNone = (value: number | null, cell: (value: number) => Cell, none = "does not fit"): Cell => (value === null ? words(none) : cell(value));

/** Three significant digits, without an exponent where it can be helped. */
export function digits(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  return size < 1e-4 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

const withUnit = (value: number, unit: string): string => (unit === "" ? digits(value) : `${digits(value)} ${unit}`);

/** 10^9 or 10^12 operations per second. */
export const rate = (gflops: number): string => (gflops >= 1000 ? `${digits(gflops / 1000)} TFLOP/s` : `${digits(gflops)} GFLOP/s`);

/** Microseconds or milliseconds or seconds, whichever reads best. */
export function duration(us: number): string {
  if (us >= 1e6) return `${digits(us / 1e6)} s`;
  return us >= 1e3 ? `${digits(us / 1e3)} ms` : `${digits(us)} µs`;
}

/** Joules, millijoules or microjoules. */
export function joules(value: number): string {
  if (value >= 1) return `${digits(value)} J`;
  return value >= 1e-3 ? `${digits(value * 1e3)} mJ` : `${digits(value * 1e6)} µJ`;
}

export { count, formatBytes, percent };
