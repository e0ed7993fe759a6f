/** Maps values to places along an axis. */
export interface Scale {
  at(value: number): number;
  readonly ticks: readonly { readonly value: number; readonly label: string }[];
}

/** From zero, in round steps. */
export function linear(most: number, from: number, to: number, wanted = 5): Scale {
  const step = niceStep(most / wanted);
  const top = Math.max(step, Math.ceil(most / step - 1e-9) * step);
  const at = (value: number) => from + (value / top) * (to - from);
  const ticks = Array.from({ length: Math.round(top / step) + 1 }, (_, i) => ({ value: i * step, label: short(i * step) }));
  return { at, ticks };
}

/** Whole decades that hold all of `values`, of which only positive ones count; a tick for each, or for every few. */
export function logarithmic(values: readonly number[], from: number, to: number, wanted = 6): Scale {
  const positive = values.filter((value) => value > 0 && Number.isFinite(value));
  const low = positive.length === 0 ? 0 : Math.floor(Math.log10(Math.min(...positive)) + 1e-9);
  const high = positive.length === 0 ? 1 : Math.max(low + 1, Math.ceil(Math.log10(Math.max(...positive)) - 1e-9));
  const at = (value: number) => from + ((Math.log10(value) - low) / (high - low)) * (to - from);
  const every = Math.max(1, Math.ceil((high - low) / wanted));
  const ticks = Array.from({ length: Math.floor((high - low) / every) + 1 }, (_, i) => 10 ** (low + i * every)).map((value) => ({ value, label: short(value) }));
  return { at, ticks };
}

/** Logarithmic to the base two, a tick for each value. */
export function doubling(values: readonly number[], from: number, to: number): Scale {
  const [low, high] = [Math.log2(Math.min(...values)), Math.log2(Math.max(...values))];
  const at = (value: number) => from + (high > low ? (Math.log2(value) - low) / (high - low) : 0.5) * (to - from);
  const every = Math.ceil(values.length / Math.max(2, Math.abs(to - from) / 46));
  return { at, ticks: values.filter((_, i) => i % every === 0).map((value) => ({ value, label: short(value, 1024) })) };
}

function niceStep(rough: number): number {
  if (!(rough > 0)) return 1;
  const decade = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * decade).find((step) => step >= rough * 0.999)!;
}

/** 0.01, 12, 1.5k, 20M. */
export function short(value: number, thousand = 1000): string {
  if (value === 0) return "0";
  const units = ["", "k", "M", "G", "T", "P"];
  let [size, unit] = [Math.abs(value), 0];
  for (; size >= thousand * 0.9999 && unit < units.length - 1; unit++) size /= thousand;
  const digits = size < 0.001 ? size.toExponential(0) : String(Number(size.toPrecision(3)));
  return `${value < 0 ? "-" : ""}${digits}${units[unit]}`;
}
