import type { ModelConfig, RopeConfig } from "../../src/model/config.ts";
import { referenceMixture } from "./reference-experts.ts";
import { referenceLatent } from "./reference-latent.ts";

/** Reads one weight, dequantised, row-major; undefined where the model has no such tensor. */
export type ReadTensor = (name: string) => ArrayLike<number> | undefined;

type Vector = Float64Array;

/**
 * A decoder in float64, written from the papers and for nothing but clarity: one sequence, whole matrices, no cache. It shares no code
 * with src, so that the two can only agree by both being right.
 * @param rowNorms Whether norms of q and k are over whole rows, not over heads.
 * @returns logits after every token, [tokens][vocabSize].
 */
export function referenceLogits(config: ModelConfig, read: ReadTensor, tokens: readonly number[], rowNorms = false): Vector[] {
  const need = (name: string): ArrayLike<number> => {
    const found = read(name);
    if (found === undefined) throw new Error(`reference: no tensor ${name}`);
    return found;
  };
  const project = (name: string, x: Vector): Vector => affine(need(`${name}.weight`), read(`${name}.bias`), x);
  const normed = (name: string, x: Vector): Vector => normalised(config, x, need(`${name}.weight`), read(`${name}.bias`));
  const headNormed = (name: string, x: Vector): Vector => {
    const gain = read(`${name}.weight`);
    if (!gain) return x;
    if (rowNorms) return normed(name, x);
    const bias = read(`${name}.bias`);
    const own = (vector: ArrayLike<number>, head: number) => Array.from({ length: config.headDim }, (_, i) => vector[(head * config.headDim + i) % vector.length]);
    return join(heads(x, config.headDim).map((part, head) => normalised(config, part, own(gain, head), bias && own(bias, head))));
  };
  const normIfAny = (name: string, x: Vector): Vector => (read(`${name}.weight`) ? normed(name, x) : x);

  let stream = tokens.map((id, position) => {
    const x = rowOf(need("token_embd.weight"), id, config.dim).map((value) => value * (config.embeddingScale ?? 1));
    const learned = config.learnedPositions ?? (!config.rope && config.alibi === undefined);
    return normIfAny("token_embd_norm", learned ? plus(x, rowOf(need("position_embd.weight"), position, config.dim)) : x);
  });
  for (let layer = 0; layer < config.nLayers; layer++) {
    const at = (part: string) => `blk.${layer}.${part}`;
    const { rope, window = Infinity } = config.alternate?.layers[layer] ? config.alternate : config;
    const angles = rope && ropeAngles(rope, read("rope_freqs.weight") ?? longRope(rope, config.contextLength, read));
    const turned = (x: Vector, position: number): Vector =>
      rope ? join(heads(x, config.headDim).map((head) => rotate(head, position, angles!, rope.style, rope.magnitude ?? 1))) : x;
    const clamped = (x: Vector): Vector => x.map((value) => Math.max(-(config.qkvClamp ?? Infinity), Math.min(config.qkvClamp ?? Infinity, value)));
    const scaled = (x: Vector): Vector => x.map((value) => value * (config.residualScale ?? 1));

    const h = stream.map((x) => normIfAny(at("attn_norm"), x));
    const latent = config.latent && referenceLatent(config, at, need, h, (x, i) => rotate(x, i, angles!, rope!.style, rope!.magnitude ?? 1));
    const ordinary = config.latent ? [] : h;
    const placed = (part: string, x: Vector, i: number): Vector => {
      const y = clamped(project(at(part), x));
      const norm = (z: Vector) => headNormed(at(`${part}_norm`), z);
      return config.normsRotated ? norm(turned(y, i)) : turned(norm(y), i);
    };
    const q = ordinary.map((x, i) => placed("attn_q", x, i));
    const k = ordinary.map((x, i) => placed("attn_k", x, i));
    const v = ordinary.map((x) => clamped(project(at("attn_v"), x)));
    // gpt-oss calls the norm before its experts post_attention_norm, DBRX attn_output_norm.
    const before = (config.normPlacement ?? "before") === "before";
    const ffnNorm = at((before ? ["post_attention_norm", "attn_output_norm"] : []).find((name) => read(at(`${name}.weight`))) ?? "ffn_norm");
    const attended = h.map((_, i) => {
      const first = Math.max(0, i - window + 1);
      const mixed = latent?.[i] ?? attend(config, q[i], k.slice(first, i + 1), v.slice(first, i + 1), read(at("attn_sinks.weight")));
      return scaled(normIfAny(at(before ? "none" : "post_attention_norm"), project(at("attn_output"), mixed)));
    });
    const { experts } = config;
    const block = (x: Vector) =>
      experts && layer >= experts.denseLayers ? referenceMixture(experts, gateOf(config), at, read, x) : feedForward(config, (part, y) => project(at(part), y), x);
    const between = config.parallelResidual ? stream : stream.map((x, i) => plus(x, attended[i]));
    const fed = between.map((x, i) => {
      const own = config.parallelResidual && !read(at("ffn_norm.weight")) ? h[i] : normIfAny(ffnNorm, x);
      return scaled(normIfAny(at("post_ffw_norm"), block(own)));
    });
    stream = stream.map((x, i) => plus(plus(x, attended[i]), fed[i]));
  }
  const head = read("output.weight") ?? need("token_embd.weight");
  const bent = (x: number) => (config.logitCap === undefined ? x : config.logitCap * Math.tanh(x / config.logitCap));
  return stream.map((x) => affine(head, read("output.bias"), normed("output_norm", x)).map((logit) => bent(logit * (config.logitScale ?? 1))));
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
function attend(config: ModelConfig, q: Vector, keys: readonly Vector[], values: readonly Vector[], sinkLogits?: ArrayLike<number>): Vector {
  const { headDim, nHeads, nKvHeads, attentionScale = 1 / Math.sqrt(headDim), attentionCap, alibi } = config;
  const outputs = heads(q, headDim).map((query, head) => {
    const group = Math.floor(head / (nHeads / nKvHeads));
    const scores = keys.map((key, j) => {
      const score = inner(query, heads(key, headDim)[group]) * attentionScale;
      const bent = attentionCap === undefined ? score : attentionCap * Math.tanh(score / attentionCap);
      return alibi === undefined ? bent : bent - slopes(nHeads, alibi)[head] * (keys.length - 1 - j);
    });
    // gpt-oss: a last key without a value.
    const weights = probabilities(sinkLogits ? [...scores, sinkLogits[head]] : scores);
    const mixed = new Float64Array(headDim);
    values.forEach((value, j) => heads(value, headDim)[group].forEach((element, e) => (mixed[e] += weights[j] * element)));
    return mixed;
  });
  return join(outputs);
}

/** Press et al. 2021, section 3, and their code for numbers of heads that are no power of two (`get_slopes`), with 8 as `steepest`. */
function slopes(n: number, steepest: number): number[] {
  const power = 2 ** Math.floor(Math.log2(n));
  const series = (count: number) => Array.from({ length: count }, (_, i) => 2 ** (-(steepest / count) * (i + 1)));
  return [...series(power), ...series(2 * power).filter((_, i) => i % 2 === 0)].slice(0, n);
}

function feedForward(config: ModelConfig, project: (part: string, x: Vector) => Vector, x: Vector): Vector {
  const up = project("ffn_up", x);
  const act = activationOf(config);
  if (config.ffn === "plain") return project("ffn_down", up.map(act));
  const gate = project("ffn_gate", x);
  return project("ffn_down", up.map((u, i) => u * act(gate[i])));
}

function activationOf({ activation }: ModelConfig): (x: number) => number {
  if (activation === "swiglu_oai") throw new Error("reference: swiglu_oai is no activation by itself");
  return { silu: (t: number) => t * (1 / (1 + Math.exp(-t))), gelu: geluTanh, relu2: (t: number) => Math.max(t, 0) ** 2 }[activation];
}

/** What a gate makes of an up: act(gate) * up, or gpt-oss's rule (`swiglu` in its torch implementation). */
function gateOf(config: ModelConfig): (gate: number, up: number) => number {
  if (config.activation !== "swiglu_oai") return (gate, up) => activationOf(config)(gate) * up;
  return (gate, up) => (Math.min(gate, 7) / (1 + Math.exp(-1.702 * Math.min(gate, 7)))) * (Math.max(-7, Math.min(7, up)) + 1);
}

/** Hendrycks and Gimpel 2016, section 2, the approximation by tanh. */
function geluTanh(x: number): number {
  return (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

function normalised(config: ModelConfig, x: Vector, weight: ArrayLike<number>, bias: ArrayLike<number> | undefined): Vector {
  return config.norm === "rms" ? rootMeanSquareNorm(x, weight, config.normEps) : layerNorm(x, weight, bias, config.normEps);
}

/** LongRoPE's divisors for a context: Ding et al. 2024, section 3.2. */
function longRope({ scaling }: RopeConfig, context: number, read: ReadTensor): ArrayLike<number> | undefined {
  if (scaling.type !== "longrope") return undefined;
  return read(context > scaling.originalContext ? "rope_factors_long.weight" : "rope_factors_short.weight");
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
    if (scaling.type === "linear" || scaling.type === "longrope") return theta / scaling.factor;
    if (scaling.type === "yarn") {
      // Peng et al. 2023, definition 1 and the code beside it, which rounds the ramp's ends to whole pairs.
      const pair = (rotations: number) => (rope.dims * Math.log(scaling.originalContext / (rotations * 2 * Math.PI))) / (2 * Math.log(rope.base));
      const [low, high] = [Math.max(Math.floor(pair(scaling.betaFast)), 0), Math.min(Math.ceil(pair(scaling.betaSlow)), rope.dims - 1)];
      const ramp = Math.min(1, Math.max(0, (i - low) / Math.max(high - low, 0.001)));
      return (theta / scaling.factor) * ramp + theta * (1 - ramp);
    }
    // The rule of Llama 3.1's reference implementation (`apply_scaling`), in terms of wavelengths.
    const wavelength = (2 * Math.PI) / theta;
    if (wavelength < scaling.originalContext / scaling.highFreqFactor) return theta;
    if (wavelength > scaling.originalContext / scaling.lowFreqFactor) return theta / scaling.factor;
    const smooth = (scaling.originalContext / wavelength - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
    return ((1 - smooth) * theta) / scaling.factor + smooth * theta;
  });
}

/** Each pair of elements, taken as a complex number, times e^(i * position * theta). */
function rotate(head: Vector, position: number, thetas: Vector, style: RopeConfig["style"], magnitude: number): Vector {
  const result = head.slice();
  thetas.forEach((theta, i) => {
    const [re, im] = style === "interleaved" ? [2 * i, 2 * i + 1] : [i, i + thetas.length];
    const [cos, sin] = [magnitude * Math.cos(position * theta), magnitude * Math.sin(position * theta)];
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
