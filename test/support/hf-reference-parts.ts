import type { JsonObject } from "./hf-checkpoint.ts";

export type Vector = Float64Array;

/** Values with a shape, row-major. */
export interface Matrix {
  readonly data: Vector;
  readonly shape: readonly number[];
  row(i: number): Vector;
  /** One of those along the first dimension. */
  slab(i: number): Matrix;
  transposed(): Matrix;
}

export function matrix(data: Vector, shape: readonly number[]): Matrix {
  const cols = shape[shape.length - 1];
  return {
    ...{ data, shape },
    row: (i) => data.slice(i * cols, (i + 1) * cols),
    slab(i) {
      const size = data.length / shape[0];
      return matrix(data.slice(i * size, (i + 1) * size), shape.slice(1));
    },
    transposed: () => matrix(Float64Array.from(data, (_, i) => data[(i % shape[0]) * cols + Math.floor(i / shape[0])]), [cols, shape[0]]),
  };
}

export function num(config: JsonObject, key: string): number {
  const value = config[key];
  if (typeof value !== "number") throw new Error(`reference: no number ${key}`);
  return value;
}

/** [outputs, inputs] x. */
export function multiply({ data, shape }: Matrix, x: Vector): Vector {
  if (shape[1] !== x.length) throw new Error(`reference: [${shape.join(", ")}] by ${x.length}`);
  return Float64Array.from({ length: shape[0] }, (_, r) => x.reduce((sum, value, c) => sum + data[r * x.length + c] * value, 0));
}

export const plus = (a: Vector, b: Vector | undefined): Vector => (b ? a.map((value, i) => value + b[i]) : a);
export const concat = (...parts: readonly Vector[]): Vector => Float64Array.from(parts.flatMap((part) => [...part]));
export const clamp = (x: Vector, limit: number): Vector => x.map((value) => Math.max(-limit, Math.min(limit, value)));
export const silu = (x: Vector): Vector => x.map((value) => value / (1 + Math.exp(-value)));
export const gelu = (x: Vector): Vector => x.map((value) => 0.5 * value * (1 + Math.tanh(0.79788456080286536 * (value + 0.044715 * value ** 3))));

/** `view(count, size)`. */
export function reshape(x: Vector, count: number, size: number): Vector[] {
  if (x.length !== count * size) throw new Error(`reference: ${x.length} as [${count}, ${size}]`);
  return Array.from({ length: count }, (_, i) => x.slice(i * size, (i + 1) * size));
}

export const chunk = (x: Vector, parts: number): Vector[] => reshape(x, parts, x.length / parts);
export const headsOf = (x: Vector, headDim: number): Vector[] => reshape(x, x.length / headDim, headDim);

export function rmsNorm(x: Vector, weight: Vector, eps: number): Vector {
  const variance = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value, i) => (weight[i] * value) / Math.sqrt(variance + eps));
}

export function layerNorm(x: Vector, weight: Vector, bias: Vector | undefined, eps: number): Vector {
  const mean = x.reduce((a, b) => a + b, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  return x.map((value, i) => ((value - mean) / Math.sqrt(variance + eps)) * weight[i] + (bias ? bias[i] : 0));
}

/** `1 / base ** (arange(0, dim, 2) / dim)`. */
export function inverseFrequencies(dims: number, base: number): Vector {
  return Float64Array.from({ length: dims / 2 }, (_, i) => 1 / base ** ((2 * i) / dims));
}

/** `x * cos + rotate_half(x) * sin`, cos and sin of the frequencies twice over. */
export function rotateHalf(x: Vector, position: number, frequencies: Vector, factor = 1): Vector {
  const half = x.length / 2;
  const turned = concat(x.slice(half).map((value) => -value), x.slice(0, half));
  return x.map((value, i) => factor * (value * Math.cos(position * frequencies[i % half]) + turned[i] * Math.sin(position * frequencies[i % half])));
}

/** `view_as_complex(x.reshape(-1, 2)) * polar(1, position * frequency)`. */
export function rotatePairs(x: Vector, position: number, frequencies: Vector, factor = 1): Vector {
  return x.map((_, i) => {
    const [re, im] = [x[i & ~1], x[i | 1]];
    const [cos, sin] = [Math.cos(position * frequencies[i >> 1]), Math.sin(position * frequencies[i >> 1])];
    return factor * (i % 2 === 0 ? re * cos - im * sin : re * sin + im * cos);
  });
}

/** Press et al. 2021 as BloomModel and FalconModel build it. */
export function alibiSlopes(n: number): number[] {
  const power = 2 ** Math.floor(Math.log2(n));
  const base = 2 ** -(2 ** -(Math.log2(power) - 3));
  const extra = 2 ** -(2 ** -(Math.log2(2 * power) - 3));
  return [...Array.from({ length: power }, (_, i) => base ** (i + 1)), ...Array.from({ length: n - power }, (_, i) => extra ** (2 * i + 1))];
}

/** MPT's own form of them (`gen_slopes`). */
export function mptSlopes(n: number, most: number): number[] {
  const power = 2 ** Math.ceil(Math.log2(n));
  const slopes = Array.from({ length: power }, (_, i) => 1 / 2 ** ((i + 1) * (most / power)));
  return power === n ? slopes : [...slopes.filter((_, i) => i % 2 === 1), ...slopes.filter((_, i) => i % 2 === 0)].slice(0, n);
}

export interface AttentionOptions {
  /** Added to the score of head's query i and key j. */
  readonly bias?: (head: number, i: number, j: number) => number;
  /** Keys that a query sees, its own among them. */
  readonly window?: number;
  /** By head, the logit of a key without a value. */
  readonly sinks?: Vector;
}

/** Causal attention over [token][head][value]; keys and values of fewer heads are repeated (`repeat_kv`). Heads come out side by side. */
export function attend(q: readonly Vector[][], k: readonly Vector[][], v: readonly Vector[][], scale: number, { bias, window = Infinity, sinks }: AttentionOptions = {}): Vector[] {
  return q.map((heads, i) =>
    concat(
      ...heads.map((query, head) => {
        const group = Math.floor(head / (heads.length / k[0].length));
        const seen = k.map((_, j) => j).filter((j) => j <= i && j > i - window);
        const scores = seen.map((j) => scale * query.reduce((sum, value, d) => sum + value * k[j][group][d], 0) + (bias ? bias(head, i, j) : 0));
        const most = Math.max(...scores, ...(sinks ? [sinks[head]] : []));
        const powers = scores.map((score) => Math.exp(score - most));
        const sum = powers.reduce((a, b) => a + b, 0) + (sinks ? Math.exp(sinks[head] - most) : 0);
        return Float64Array.from(v[0][group], (_, d) => seen.reduce((mixed, j, at) => mixed + (powers[at] / sum) * v[j][group][d], 0));
      }),
    ),
  );
}

const FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

/** `convert_moe_packed_tensors` for one expert: blocks [rows, n, 16], low nibbles at even places, high ones at odd, times 2^(scale - 127). */
export function dequantised(blocks: Matrix, scales: Matrix): Matrix {
  const [rows, n] = scales.shape;
  const value = (nibble: number) => (nibble & 8 ? -1 : 1) * FP4[nibble & 7];
  const data = Float64Array.from({ length: rows * n * 32 }, (_, i) => {
    const byte = blocks.data[i >> 1];
    return value(i % 2 === 0 ? byte & 15 : byte >> 4) * 2 ** (scales.data[i >> 5] - 127);
  });
  return matrix(data, [rows, n * 32]);
}
