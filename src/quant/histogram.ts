/** Bins of a histogram. The range doubles whenever a value lies beyond it, so one pass over the values is enough. */
const BINS = 2048;

/** Magnitudes counted in equal bins from 0 to `range`. */
export interface Histogram {
  readonly range: number;
  readonly counts: ArrayLike<number>;
}

/** A histogram that grows. */
export function histogram(): { add(values: Float32Array): void; read(): Histogram } {
  const counts = new Float64Array(BINS);
  let range = 0;
  const widen = (most: number) => {
    if (range === 0) range = 2 ** Math.ceil(Math.log2(most));
    while (range < most) {
      for (let i = 0; i < BINS / 2; i++) counts[i] = counts[2 * i] + counts[2 * i + 1];
      counts.fill(0, BINS / 2);
      range *= 2;
    }
  };
  return {
    add(values) {
      let most = 0;
      for (const value of values) most = Math.max(most, Math.abs(value));
      if (!Number.isFinite(most)) throw new RangeError("calibration: expected finite activations, found NaN or infinity");
      if (most > range) widen(most);
      const perUnit = range === 0 ? 0 : BINS / range;
      for (const value of values) counts[Math.min(BINS - 1, Math.floor(Math.abs(value) * perUnit))]++;
    },
    read: () => ({ range, counts: counts.slice() }),
  };
}

/** Shares of the largest value that `bestScale` tries as the range. */
const STEPS = 128;

/**
 * The scale at which symmetric integers up to `most` (127 or 32767) round a histogram's values with the least mean square error: a
 * smaller range rounds the many small values finer and clips the few large ones. 0 for a histogram of zeros.
 */
export function bestScale({ range, counts }: Histogram, largest: number, most: number): number {
  const width = range / counts.length;
  let best = 0;
  let least = Infinity;
  for (let step = STEPS; step > STEPS / 8; step--) {
    const scale = (largest * step) / STEPS / most;
    if (scale === 0) return 0;
    let error = 0;
    for (let i = 0; i < counts.length; i++) {
      if (counts[i] === 0) continue;
      const value = (i + 0.5) * width;
      const rounded = Math.min(most, Math.round(value / scale)) * scale;
      // A value spread over a bin much wider than a step is off by a twelfth of a step squared on average, wherever the bin's middle falls.
      const rounding = value > most * scale ? (value - rounded) ** 2 : Math.max((value - rounded) ** 2, Math.min(scale, width) ** 2 / 12);
      error += counts[i] * rounding;
    }
    if (error < least) [least, best] = [error, scale];
  }
  return best;
}
