import { sparseRowBytes, type Tensor, zeros } from "../tensor/tensor.ts";
import { groupScale } from "./groups.ts";

/**
 * Prunes f32 rows [rows, cols] to two of every four columns and quantises what is left to int8 in groups of columns: 4 bits of values
 * and 1 of places a weight, and the scales. Of each four the two of largest magnitude stay (Mishra et al. 2021); with `importance`
 * [cols], the mean square of each column's input, those of largest |weight| times input norm (Wanda, Sun et al. 2023).
 * @throws RangeError for columns that are no multiple of 4.
 */
export function pruneRows(source: Tensor, group = 32, importance?: Float32Array): Tensor {
  const [rows, cols] = [source.rows, source.cols];
  const width = group === 0 ? cols : group;
  const result = zeros("sparse", source.shape, width, source.name);
  const kept = new Float32Array(cols / 2);
  const bytes = result.data;
  let s = 0;
  for (let row = 0; row < rows; row++) {
    const at = row * sparseRowBytes(cols);
    for (let quad = 0; quad < cols / 4; quad++) {
      const [first, second] = strongest(source.f32, row * cols + 4 * quad, importance, 4 * quad);
      kept[2 * quad] = source.f32[row * cols + 4 * quad + first];
      kept[2 * quad + 1] = source.f32[row * cols + 4 * quad + second];
      bytes[at + cols / 2 + (quad >> 1)] |= (first | (second << 2)) << (4 * (quad & 1));
    }
    for (let start = 0; start < cols / 2; start += width / 2, s++) {
      const count = Math.min(width / 2, cols / 2 - start);
      const scale = groupScale(kept, start, count, 127);
      result.scales![s] = scale;
      const inverse = scale > 0 ? 1 / scale : 0;
      for (let i = start; i < start + count; i++) bytes[at + i] = Math.max(-127, Math.min(127, Math.round(kept[i] * inverse)));
    }
  }
  return result;
}

/** Which two of four columns to keep, in order; of equals the first ones. */
function strongest(values: Float32Array, from: number, importance: Float32Array | undefined, column: number): [number, number] {
  const strength = [0, 1, 2, 3].map((i) => values[from + i] ** 2 * (importance ? importance[column + i] : 1));
  const [a, b] = [0, 1, 2, 3].sort((i, j) => strength[j] - strength[i] || i - j);
  return a < b ? [a, b] : [b, a];
}
