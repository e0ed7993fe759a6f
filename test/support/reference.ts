import type { ModelConfig, RopeConfig } from "../../src/model/config.ts";

/** Reads one weight, dequantised, row-major; undefined where the model has no such tensor. */
export type ReadTensor = (name: string) => ArrayLike<number> | undefined;

type Vector = Float64Array;

/**
 * A decoder in float64, written from the papers and for nothing but clarity: one sequence, whole matrices, no cache. It shares no code
 * with src, so that the two can only agree by both being right.
 * @returns logits after every token, [tokens][vocabSize].
 */
export function referenceLogits(config: ModelConfig, read: ReadTensor, tokens: readonly number[]): Vector[] {
  const need = (name: string): ArrayLike<number> => {
    const found = read(name);
    if (found === undefined) throw new Error(`reference: no tensor ${name}`);
    return found;
  };
  const project = (name: string, x: Vector): Vector => affine(need(`${name}.weight`), read(`${name}.bias`), x);
  const normed = (name: string, x: Vector): Vector => {
    const [weight, bias] = [need(`${name}.weight`), read(`${name}.bias`)];
    return config.norm === "rms" ? rootMeanSquareNorm(x, weight, config.normEps) : layerNorm(x, weight, bias, config.normEps);
  };
  const perHead = (name: string, x: Vector): Vector => (read(`${name}.weight`) ? join(heads(x, config.headDim).map((head) => normed(name, head))) : x);
  const angles = config.rope && ropeAngles(config.rope, read("rope_freqs.weight"));
  const turned = (x: Vector, position: number): Vector =>
    angles ? join(heads(x, config.headDim).map((head) => rotate(head, position, angles, config.rope!.style))) : x;

  let stream = tokens.map((id, position) => {
    const x = rowOf(need("token_embd.weight"), id, config.dim);
    return config.rope ? x : plus(x, rowOf(need("position_embd.weight"), position, config.dim));
  });
  for (let layer = 0; layer < config.nLayers; layer++) {
    const at = (part: string) => `blk.${layer}.${part}`;
    const h = stream.map((x) => normed(at("attn_norm"), x));
    const q = h.map((x, i) => turned(perHead(at("attn_q_norm"), project(at("attn_q"), x)), i));
    const k = h.map((x, i) => turned(perHead(at("attn_k_norm"), project(at("attn_k"), x)), i));
    const v = h.map((x) => project(at("attn_v"), x));
    stream = stream.map((x, i) => plus(x, project(at("attn_output"), attend(config, q[i], k.slice(0, i + 1), v.slice(0, i + 1)))));
    stream = stream.map((x) => plus(x, feedForward(config, (part, y) => project(at(part), y), normed(at("ffn_norm"), x))));
  }
  const head = read("output.weight") ?? need("token_embd.weight");
  return stream.map((x) => affine(head, read("output.bias"), normed("output_norm", x)));
}

/** Softmax of logits. */
export function probabilities(logits: ArrayLike<number>): Vector {
  const values = Float64Array.from(logits);
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = values.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** Attention is all you need, section 3.2.1, with the heads of k and v shared by groups of queries (Ainslie et al. 2023). */
function attend(config: ModelConfig, q: Vector, keys: readonly Vector[], values: readonly Vector[]): Vector {
  const { headDim, nHeads, nKvHeads } = config;
  const outputs = heads(q, headDim).map((query, head) => {
    const group = Math.floor(head / (nHeads / nKvHeads));
    const weights = probabilities(keys.map((key) => inner(query, heads(key, headDim)[group]) / Math.sqrt(headDim)));
    const mixed = new Float64Array(headDim);
    values.forEach((value, j) => heads(value, headDim)[group].forEach((element, e) => (mixed[e] += weights[j] * element)));
    return mixed;
  });
  return join(outputs);
}

function feedForward(config: ModelConfig, project: (part: string, x: Vector) => Vector, x: Vector): Vector {
  const up = project("ffn_up", x);
  const act = config.activation === "silu" ? (t: number) => t * (1 / (1 + Math.exp(-t))) : geluTanh;
  if (config.ffn === "plain") return project("ffn_down", up.map(act));
  const gate = project("ffn_gate", x);
  return project("ffn_down", up.map((u, i) => u * act(gate[i])));
}

/** Hendrycks and Gimpel 2016, section 2, the approximation by tanh. */
function geluTanh(x: number): number {
  return (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

/** Zhang and Sennrich 2019, equation 4. */
function rootMeanSquareNorm(x: Vector, gain: ArrayLike<number>, eps: number): Vector {
  const rms = Math.sqrt(inner(x, x) / x.length + eps);
  return x.map((value, i) => (value / rms) * gain[i]);
}

/** Ba et al. 2016, equation 4. */
function layerNorm(x: Vector, gain: ArrayLike<number>, bias: ArrayLike<number> | undefined, eps: number): Vector {
  const mean = x.reduce((a, b) => a + b, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  return x.map((value, i) => ((value - mean) / Math.sqrt(variance + eps)) * gain[i] + (bias ? bias[i] : 0));
}

/** Su et al. 2021, section 3.2.2: theta_i = base^(-2i/d), and the ways to stretch it. */
function ropeAngles(rope: RopeConfig, factors: ArrayLike<number> | undefined): Vector {
  const { scaling } = rope;
  return Float64Array.from({ length: rope.dims / 2 }, (_, i) => {
    const theta = 1 / rope.base ** ((2 * i) / rope.dims) / (factors ? factors[i] : 1);
    if (scaling.type === "none") return theta;
    if (scaling.type === "linear") return theta / scaling.factor;
    // The rule of Llama 3.1's reference implementation (`apply_scaling`), in terms of wavelengths.
    const wavelength = (2 * Math.PI) / theta;
    if (wavelength < scaling.originalContext / scaling.highFreqFactor) return theta;
    if (wavelength > scaling.originalContext / scaling.lowFreqFactor) return theta / scaling.factor;
    const smooth = (scaling.originalContext / wavelength - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
    return ((1 - smooth) * theta) / scaling.factor + smooth * theta;
  });
}

/** Each pair of elements, taken as a complex number, times e^(i * position * theta). */
function rotate(head: Vector, position: number, thetas: Vector, style: RopeConfig["style"]): Vector {
  const result = head.slice();
  thetas.forEach((theta, i) => {
    const [re, im] = style === "interleaved" ? [2 * i, 2 * i + 1] : [i, i + thetas.length];
    const [cos, sin] = [Math.cos(position * theta), Math.sin(position * theta)];
    result[re] = head[re] * cos - head[im] * sin;
    result[im] = head[re] * sin + head[im] * cos;
  });
  return result;
}

function affine(matrix: ArrayLike<number>, bias: ArrayLike<number> | undefined, x: Vector): Vector {
  const rows = matrix.length / x.length;
  return Float64Array.from({ length: rows }, (_, r) => {
    let sum = bias ? bias[r] : 0;
    for (let c = 0; c < x.length; c++) sum += matrix[r * x.length + c] * x[c];
    return sum;
  });
}

function inner(a: Vector, b: Vector): number {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

function plus(a: Vector, b: Vector): Vector {
  return a.map((value, i) => value + b[i]);
}

function rowOf(matrix: ArrayLike<number>, row: number, cols: number): Vector {
  return Float64Array.from({ length: cols }, (_, c) => matrix[row * cols + c]);
}

function heads(x: Vector, headDim: number): Vector[] {
  return Array.from({ length: x.length / headDim }, (_, h) => x.subarray(h * headDim, (h + 1) * headDim));
}

function join(parts: readonly Vector[]): Vector {
  return Float64Array.from(parts.flatMap((part) => [...part]));
}
