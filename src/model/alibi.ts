/**
 * By head: how much a score falls for each position between query and key (Press et al. 2021, section 3). For n heads, n a power of two, a
 * geometric series that ends at 2^-most; for other numbers the series of the next lower power, then every second slope of twice that power's.
 */
export function alibiSlopes(nHeads: number, most: number): Float32Array {
  const power = 2 ** Math.floor(Math.log2(nHeads));
  return Float32Array.from({ length: nHeads }, (_, head) => (head < power ? 2 ** ((-most * (head + 1)) / power) : 2 ** ((-most * (2 * (head - power) + 1)) / (2 * power))));
}
