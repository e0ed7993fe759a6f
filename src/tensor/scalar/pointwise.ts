import { type Activation, type Adjustment, type RopeStyle, SWIGLU_OAI } from "../kernels.ts";
import type { Tensor } from "../tensor.ts";

/** Every run of weight.cols values: x / sqrt(mean(x^2) + eps) * weight, its rows in turn. out may be x. */
export function rmsNorm(out: Tensor, x: Tensor, weight: Tensor, eps: number): void {
  const [to, from, factors, n] = [out.f32, x.f32, weight.f32, weight.cols];
  for (let at = 0; at < from.length; at += n) {
    const own = at % factors.length;
    let squares = 0;
    for (let i = at; i < at + n; i++) squares += from[i] * from[i];
    const scale = 1 / Math.sqrt(squares / n + eps);
    for (let i = 0; i < n; i++) to[at + i] = from[at + i] * scale * factors[own + i];
  }
}

/** Every run of weight.cols values: (x - mean) / sqrt(variance + eps) * weight (+ bias). */
export function layerNorm(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | undefined, eps: number): void {
  const n = weight.cols;
  for (let at = 0; at < x.f32.length; at += n) {
    const own = at % weight.f32.length;
    let sum = 0;
    for (let i = at; i < at + n; i++) sum += x.f32[i];
    const mean = sum / n;
    let squares = 0;
    for (let i = at; i < at + n; i++) squares += (x.f32[i] - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / n + eps);
    for (let i = 0; i < n; i++) out.f32[at + i] = (x.f32[at + i] - mean) * scale * weight.f32[own + i] + (bias ? bias.f32[own + i] : 0);
  }
}

/** Cosine and sine of every (position, frequency), interleaved: [tokens, 2 * frequencies.length]. */
export function ropeAngles(out: Tensor, positions: Int32Array, frequencies: Float64Array, magnitude: number): void {
  let to = 0;
  for (const position of positions) {
    for (const frequency of frequencies) {
      out.f32[to++] = Math.cos(position * frequency) * magnitude;
      out.f32[to++] = Math.sin(position * frequency) * magnitude;
    }
  }
}

/** Rotates the first `angles.cols` of every headDim values of x, in place. */
export function rope(x: Tensor, angles: Tensor, headDim: number, style: RopeStyle): void {
  const [values, turns] = [x.f32, angles.f32];
  const pairs = angles.cols / 2;
  const width = values.length / angles.rows;
  const step = style === "interleaved" ? 2 : 1;
  const partner = style === "interleaved" ? 1 : pairs;
  for (let row = 0; row < angles.rows; row++) {
    for (let head = row * width; head < (row + 1) * width; head += headDim) {
      for (let j = 0; j < pairs; j++) {
        const cos = turns[(row * pairs + j) * 2];
        const sin = turns[(row * pairs + j) * 2 + 1];
        const a = head + j * step;
        const b = a + partner;
        const u = values[a];
        const v = values[b];
        values[a] = u * cos - v * sin;
        values[b] = u * sin + v * cos;
      }
    }
  }
}

/** Softmax of every row of x [heads, .., cols], in place; -Infinity entries become 0. A head's sink takes part and is left out. */
export function softmax(x: Tensor, sinkLogits?: Tensor): void {
  const n = x.cols;
  const headSize = x.f32.length / x.rows;
  for (let at = 0; at < x.f32.length; at += n) {
    const sink = sinkLogits ? sinkLogits.f32[Math.floor(at / headSize)] : -Infinity;
    let max = sink;
    for (let i = at; i < at + n; i++) if (x.f32[i] > max) max = x.f32[i];
    let sum = sinkLogits ? Math.exp(sink - max) : 0;
    for (let i = at; i < at + n; i++) sum += Math.exp(x.f32[i] - max);
    for (let i = at; i < at + n; i++) x.f32[i] = Math.exp(x.f32[i] - max) / sum;
  }
}

const silu = (x: number) => x / (1 + Math.exp(-x));
/** The tanh form that GPT-2 and Gemma were trained with (Hendrycks and Gimpel 2016). */
const gelu = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));

const swigluOai = (gate: number) => {
  const g = Math.min(gate, SWIGLU_OAI.limit);
  return g / (1 + Math.exp(-SWIGLU_OAI.alpha * g));
};

const ACTIVATIONS: Readonly<Record<Activation, (x: number) => number>> = { silu, gelu, relu2: (x) => Math.max(0, x) ** 2, swiglu_oai: swigluOai };

/** out = act(gate) * up. */
export function gated(out: Tensor, gate: Tensor, up: Tensor, activation: Activation): void {
  const act = ACTIVATIONS[activation];
  const [to, gates, ups] = [out.f32, gate.f32, up.f32];
  if (activation === "swiglu_oai") {
    const { limit } = SWIGLU_OAI;
    for (let i = 0; i < to.length; i++) to[i] = act(gates[i]) * (Math.min(limit, Math.max(-limit, ups[i])) + 1);
    return;
  }
  for (let i = 0; i < to.length; i++) to[i] = act(gates[i]) * ups[i];
}

/** x = act(x). */
export function activate(x: Tensor, activation: Activation): void {
  const act = ACTIVATIONS[activation];
  const values = x.f32;
  for (let i = 0; i < values.length; i++) values[i] = act(values[i]);
}

/** Every value of x scaled by `by`, bent into (-by, by), or cut off there; in place. */
export function adjust({ f32: values }: Tensor, how: Adjustment, by: number): void {
  const rule = { scale: (x: number) => x * by, cap: (x: number) => by * Math.tanh(x / by), clamp: (x: number) => Math.min(by, Math.max(-by, x)) }[how];
  for (let i = 0; i < values.length; i++) values[i] = rule(values[i]);
}

/** x += y. */
export function add(x: Tensor, y: Tensor): void {
  const [to, from] = [x.f32, y.f32];
  for (let i = 0; i < to.length; i++) to[i] += from[i];
}

/** out[p / used] += weights[p] * x[i] for every p = places[i], rounded down. */
export function scatterAdd(out: Tensor, x: Tensor, weights: Tensor, places: Int32Array): void {
  const [to, from, n] = [out.f32, x.f32, x.cols];
  for (let i = 0; i < places.length; i++) {
    const weight = weights.f32[places[i]];
    const row = Math.floor(places[i] / weights.cols) * n;
    for (let j = 0; j < n; j++) to[row + j] += weight * from[i * n + j];
  }
}
