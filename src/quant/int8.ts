import { type Tensor, zeros } from "../tensor/tensor.ts";

/**
 * Symmetric quantisation of f32 rows [rows, cols] to int8 (-127 .. 127) or int4 (-7 .. 7) in groups of columns, each scale the
 * group's largest magnitude over 127 or 7, values rounded to nearest. The error is at most half a scale; a group of zeros has scale 0.
 * @param group Columns per scale: any number for int8, 32 for int4. @throws RangeError for int4 columns that are no multiple of 32.
 */
export function quantiseRows(source: Tensor, dtype: "int8" | "int4", group = 32): Tensor {
  const [rows, cols] = [source.rows, source.cols];
  const result = zeros(dtype, source.shape, group, source.name);
  const most = dtype === "int8" ? 127 : 7;
  const scales = result.scales!;
  let s = 0;
  for (let row = 0; row < rows; row++) {
    for (let start = 0; start < cols; start += group, s++) {
      const from = row * cols + start;
      const count = Math.min(group, cols - start);
      let max = 0;
      for (let i = from; i < from + count; i++) max = Math.max(max, Math.abs(source.f32[i]));
      scales[s] = max / most;
      const inverse = scales[s] > 0 ? 1 / scales[s] : 0;
      for (let i = 0; i < count; i++) {
        const value = Math.max(-most, Math.min(most, Math.round(source.f32[from + i] * inverse)));
        if (dtype === "int8") result.data[from + i] = value;
        else result.data[from / 2 + (i % 16)] |= (value + 8) << (i < 16 ? 0 : 4);
      }
    }
  }
  return result;
}
