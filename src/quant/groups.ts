import { type Tensor, zeros } from "../tensor/tensor.ts";

/** Shares of the largest magnitude that the search tries as a group's range. */
const RANGES: readonly number[] = Array.from({ length: 16 }, (_, i) => 1 - i * 0.03);

/** Integers from `low` to `high`, and how far the value of largest magnitude may lie: `ends`, in steps. */
interface Levels {
  readonly low: number;
  readonly high: number;
  readonly ends: readonly number[];
}

const INT8_SEARCH: Levels = { low: -127, high: 127, ends: [127] };
/** -8 is a level too: a scale of either sign can lay the largest value there. */
export const INT4_SEARCH: Levels = { low: -8, high: 7, ends: [7, -8] };

/**
 * Symmetric quantisation of f32 rows [rows, cols] to int8 (-127 .. 127) or int4 (-7 .. 7) in groups of columns, each scale the
 * group's largest magnitude over 127 or 7, values rounded to nearest. The error is at most half a scale, denormals included; a group
 * of zeros has scale 0; the last group of a row may be shorter. Sources must be finite: loading checks that.
 *
 * With `importance` [cols], the mean square of each column's input, every group's scale is searched instead: the one whose rounding and
 * clipping changes the outputs least (as AWQ's clipping, Lin et al. 2023, and llama.cpp's importance matrices do).
 * @param group Columns per scale: a free choice for int8, 0 for the whole row; 32 for int4.
 * @throws RangeError for int4 columns that are no multiple of 32.
 */
export function quantiseRows(source: Tensor, dtype: "int8" | "int4", group = 32, importance?: Float32Array): Tensor {
  const [rows, cols] = [source.rows, source.cols];
  const width = group === 0 ? cols : group;
  const result = zeros(dtype, source.shape, width, source.name);
  const most = dtype === "int8" ? 127 : 7;
  const levels = dtype === "int8" ? INT8_SEARCH : INT4_SEARCH;
  const low = importance ? levels.low : -most;
  const values = source.f32;
  const scales = result.scales!;
  let s = 0;
  for (let row = 0; row < rows; row++) {
    for (let start = 0; start < cols; start += width, s++) {
      const from = row * cols + start;
      const count = Math.min(width, cols - start);
      scales[s] = importance ? searchScale(values, from, count, levels, importance, start) : groupScale(values, from, count, most);
      const inverse = scales[s] !== 0 ? 1 / scales[s] : 0;
      for (let i = 0; i < count; i++) {
        const value = Math.max(low, Math.min(most, Math.round(values[from + i] * inverse)));
        if (dtype === "int8") result.data[from + i] = value;
        else result.data[from / 2 + (i % 16)] |= (value + 8) << (i < 16 ? 0 : 4);
      }
    }
  }
  return result;
}

const LEAST_NORMAL = 2 ** -126;
const LEAST_DENORMAL = 2 ** -149;

/** The largest of `count` magnitudes over `most`, as f32; among denormals rounded up, where rounding down could lose a whole step. */
export function groupScale(values: Float32Array, from: number, count: number, most: number): number {
  let max = 0;
  for (let i = from; i < from + count; i++) max = Math.max(max, Math.abs(values[i]));
  const scale = Math.fround(max / most);
  return scale < LEAST_NORMAL && scale * most < max ? scale + LEAST_DENORMAL : scale;
}

/** The value of largest magnitude; of equals the first. */
export function furthestOf(values: Float32Array, from: number, count: number): number {
  let furthest = 0;
  for (let i = from; i < from + count; i++) if (Math.abs(values[i]) > Math.abs(furthest)) furthest = values[i];
  return furthest;
}

/** The scale (0 for zeros, negative where that fits better) that rounds `count` values to levels with the least weighted square error. */
export function searchScale(values: Float32Array, from: number, count: number, { low, high, ends }: Levels, importance: Float32Array, column: number): number {
  const furthest = furthestOf(values, from, count);
  let best = 0;
  let least = Infinity;
  for (const end of ends) {
    for (const range of RANGES) {
      const scale = Math.fround((furthest * range) / end);
      if (scale === 0) continue;
      const inverse = 1 / scale;
      let error = 0;
      for (let i = 0; i < count; i++) {
        const value = values[from + i];
        const rounded = Math.max(low, Math.min(high, Math.round(value * inverse)));
        error += importance[column + i] * (value - rounded * scale) ** 2;
      }
      if (error < least) [least, best] = [error, scale];
    }
  }
  return best;
}
