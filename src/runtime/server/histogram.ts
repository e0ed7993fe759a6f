/** Counts of values by upper bound, as Prometheus wants them: each bucket holds all that is at most its bound. */
export interface Histogram {
  readonly bounds: readonly number[];
  readonly counts: number[];
  count: number;
  sum: number;
}

export function createHistogram(bounds: readonly number[]): Histogram {
  return { bounds, counts: bounds.map(() => 0), count: 0, sum: 0 };
}

export function observe(histogram: Histogram, value: number): void {
  histogram.bounds.forEach((bound, i) => {
    if (value <= bound) histogram.counts[i]++;
  });
  histogram.count++;
  histogram.sum += value;
}
