import type { Tensor } from "./tensor.ts";

/** A block of the KV cache: `pageSize` consecutive positions of one sequence, all layers. */
export interface KvPage {
  readonly id: number;
  /** Keys, [nLayers, nKvHeads, pageSize, headDim]; quantised pages have one scale per (layer, head, position). */
  readonly k: Tensor;
  /** Values, the same shape. */
  readonly v: Tensor;
}

/** A run of consecutive tokens of one sequence inside a flat batch. */
export interface Segment {
  /** Pages that hold positions 0 .. start + length - 1 of the sequence. */
  readonly pages: readonly KvPage[];
  /** Row of the batch where the run begins. */
  readonly row: number;
  /** Position in the sequence of the run's first token. */
  readonly start: number;
  /** Tokens in the run. */
  readonly length: number;
}

/** How a model attends; the part of ModelConfig that attention kernels need. */
export interface AttentionShape {
  readonly nHeads: number;
  readonly nKvHeads: number;
  readonly headDim: number;
  /** Factor on q.k, usually 1 / sqrt(headDim). */
  readonly scale: number;
}

/** Which elements rotate together: `interleaved` pairs (2i, 2i+1) as in Llama's own code, `halves` pairs (i, i + n/2) as in GPT-NeoX. */
export type RopeStyle = "interleaved" | "halves";

export type Activation = "silu" | "gelu";

/** Takes a weight matrix a few rows at a time, in order, and ends in the layout that its kernels like best. */
export interface WeightPacker {
  /** `rows` is f32, int8 or int4, as announced to `packer`; its memory may be reused after the call. */
  write(rows: Tensor): void;
  /** @throws Error when rows are missing. */
  finish(): Tensor;
}

export interface WeightSpec {
  readonly name: string;
  readonly dtype: "f32" | "int8" | "int4";
  readonly shape: readonly number[];
  /** Columns per scale (int8, int4). */
  readonly group: number;
}

/**
 * What a backend must be able to do. Shapes are already checked when a kernel is called (ops.ts does it); every output is f32 and
 * allocated by the caller. A kernel's result for one row never depends on the other rows of the batch: sums run in one fixed order.
 */
export interface Kernels {
  readonly name: string;
  /** Memory that these kernels can compute in: activations, KV pages. Zeroed. */
  alloc(dtype: "f32" | "int8" | "int4", shape: readonly number[], group?: number): Tensor;
  /** Gives KV pages and the like back; what `alloc` returned must not be used afterwards. */
  free(tensor: Tensor): void;
  /** Starts the conversion of one weight into this backend's own layout. */
  packer(spec: WeightSpec): WeightPacker;

  /** out[m, n] = x[m, k] . w[n, k]^T (+ bias[n]). */
  linear(out: Tensor, x: Tensor, w: Tensor, bias?: Tensor): void;
  /** out[i] = row ids[i] of table [rows, cols]. */
  embed(out: Tensor, table: Tensor, ids: Int32Array): void;
  /** out[i] = x[ids[i]]. */
  gather(out: Tensor, x: Tensor, ids: Int32Array): void;
  /** Every run of weight.cols values: out = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019). out may be x. */
  rmsNorm(out: Tensor, x: Tensor, weight: Tensor, eps: number): void;
  /** out = (x - mean) / sqrt(var + eps) * weight (+ bias) (Ba et al. 2016). */
  layerNorm(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | undefined, eps: number): void;
  /** out[i, 2j] = cos, out[i, 2j + 1] = sin of positions[i] * frequencies[j]; times `magnitude`. */
  ropeAngles(out: Tensor, positions: Int32Array, frequencies: Float64Array, magnitude: number): void;
  /** Rotates the first 2 x (angle pairs) of every headDim values of x, in place (Su et al. 2021). */
  rope(x: Tensor, angles: Tensor, headDim: number, style: RopeStyle): void;
  /** Stores the rows of k and v at their segments' positions of `layer`. */
  kvWrite(k: Tensor, v: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape): void;
  /** Causal attention of each row over its own segment's pages, online softmax, nothing materialised (Dao et al. 2022). */
  attention(out: Tensor, q: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape): void;
  /** The textbook's first step: scores[h, i, j] = scale * q_ih . k_jh for one segment, -Infinity above the diagonal. */
  attentionScores(scores: Tensor, q: Tensor, segment: Segment, layer: number, shape: AttentionShape): void;
  /** Softmax of every row, in place. */
  softmax(x: Tensor): void;
  /** The textbook's last step: out_ih = sum over j of weights[h, i, j] * v_jh for one segment. */
  attentionMix(out: Tensor, weights: Tensor, segment: Segment, layer: number, shape: AttentionShape): void;
  /** out = act(gate) * up (Shazeer 2020). */
  gated(out: Tensor, gate: Tensor, up: Tensor, activation: Activation): void;
  /** x = act(x). */
  activate(x: Tensor, activation: Activation): void;
  /** x += y. */
  add(x: Tensor, y: Tensor): void;
  /** Ends threads, if there are any. */
  close(): void;
}
