import type { Tensor } from "./tensor.ts";

/** x [tokens, heads * width], columns [from, from + n) of each head -> out [heads * tokens, n], f32: all rows of the first head, then those of the second. */
export function splitHeads(out: Tensor, x: Tensor, heads: number, from: number): void {
  const [tokens, n, width] = [x.rows, out.cols, x.cols / heads];
  for (let head = 0, to = 0; head < heads; head++) {
    for (let token = 0; token < tokens; token++, to += n) {
      const at = token * x.cols + head * width + from;
      for (let i = 0; i < n; i++) out.f32[to + i] = x.f32[at + i];
    }
  }
}

/** The way back: parts [heads * tokens, n] -> out [tokens, heads * (sum of n)], f32, a head's parts side by side. */
export function joinHeads(out: Tensor, parts: readonly Tensor[], heads: number): void {
  const [tokens, width] = [out.rows, out.cols / heads];
  let column = 0;
  for (const part of parts) {
    const n = part.cols;
    for (let head = 0, from = 0; head < heads; head++) {
      for (let token = 0; token < tokens; token++, from += n) {
        const at = token * out.cols + head * width + column;
        for (let i = 0; i < n; i++) out.f32[at + i] = part.f32[from + i];
      }
    }
    column += n;
  }
}
