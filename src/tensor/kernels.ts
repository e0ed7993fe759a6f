import type { FusedKernels } from "./fusion.ts";
import type { Ranking } from "./ranking.ts";
import type { Routing } from "./routing.ts";
import type { HalfDType, PlainDType, Tensor } from "./tensor.ts";

/** How keys or values are stored. */
export type KvFormat = "f32" | "int8" | "int4";

/**
 * A block of the KV cache: `pageSize` consecutive positions of one sequence, all layers.
 *
 * Quantised tensors have group = headDim: row r = (layer * nKvHeads + head) * pageSize + slot has the scale scales[r] and its values at
 * r * headDim (int8) or at the bytes r * ceil(headDim / 2) (int4: column j in the low nibble of byte j, column j + ceil(headDim / 2) in
 * its high nibble, plus 8). kvWrite quantises a row once, symmetric, all in f32: scale = 0 if all values are 0, else
 * max(2^-126, amax / 127) (int4: / 7), value = roundTiesToEven(x / scale). A row with a NaN or an infinity gets the scale NaN, so that
 * whatever attends to it becomes NaN, as in f32.
 */
export interface KvPage {
  readonly id: number;
  /** Keys, [nLayers, nKvHeads, pageSize, headDim]. */
  readonly k: Tensor;
  /** Values, the same shape; the tensor of keys itself where the values are found in the keys (multi-head latent attention). */
  readonly v: Tensor;
}

/**
 * What attention sees of the past: the first `sinks` positions and the last `size` ones, the query's own among them. The query at
 * position p sees j <= p if j < sinks or j > p - size (Beltagy et al. 2020; sinks: Xiao et al. 2023).
 */
export interface AttentionWindow {
  readonly size: number;
  readonly sinks: number;
}

/** Pages that no later query sees were given back: a page table leaves out `count` pages after its first `at`. */
export interface PageHole {
  readonly at: number;
  readonly count: number;
}

/** A run of consecutive tokens of one sequence inside a flat batch. */
export interface Segment {
  /** Pages that hold positions 0 .. start + length - 1 of the sequence, those of the hole left out: `pageOf` finds one. */
  readonly pages: readonly KvPage[];
  readonly hole?: PageHole;
  /** Undefined: everything from position 0 on is visible. */
  readonly window?: AttentionWindow;
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
  /** Bends scores smoothly into (-softCap, softCap): softCap * tanh(score / softCap), after `scale` (Gemma 2). */
  readonly softCap?: number;
  /** By head: a key's score falls by this much for each position that it lies before the query (ALiBi, Press et al. 2021); after the cap. */
  readonly slopes?: Float32Array;
  /** [nHeads]: one more score in every softmax of a head, of a key without a value: attention may look at nothing (gpt-oss; Miller 2023). */
  readonly sinkLogits?: Tensor;
}

/** Which elements rotate together: `interleaved` pairs (2i, 2i+1) as in Llama's own code, `halves` pairs (i, i + n/2) as in GPT-NeoX. */
export type RopeStyle = "interleaved" | "halves";

/**
 * `relu2`: the square of max(0, x) (So et al. 2021). `swiglu_oai`: gpt-oss's gate, clamped and never quite closed, which has no meaning without an up:
 * with g = min(gate, 7) and u = up no further than 7 from 0, it is g * sigmoid(1.702 g) * (u + 1) (OpenAI 2025, "gpt-oss-120b & gpt-oss-20b").
 */
export type Activation = "silu" | "gelu" | "relu2" | "swiglu_oai";

/** Slope and limit of `swiglu_oai`. */
export const SWIGLU_OAI = { alpha: 1.702, limit: 7 } as const;

/** What `adjust` makes of every value x: x * by, by * tanh(x / by), or x no further than `by` from 0. */
export type Adjustment = "scale" | "cap" | "clamp";

/** Takes a weight matrix a few rows at a time, in order, and ends in the layout that its kernels like best. */
export interface WeightPacker {
  /** `rows` is f32, int8, int4 or sparse, as announced to `packer`; its memory may be reused after the call. */
  write(rows: Tensor): void;
  /**
   * The same for `rows` rows as they stand in a file of GGML type `type`, which `read` puts where they are wanted; floats are rounded as
   * `quantiseRows` does. False: not this way, the rows are still to be written. `read` is called at most once.
   */
  writeBlocks?(type: string, rows: number, read: (target: Uint8Array) => void): boolean;
  /** @throws Error when rows are missing. */
  finish(): Tensor;
}

/** A weight that is about to be packed: the rows that `WeightPacker.write` will bring. */
export interface WeightSpec {
  readonly name: string;
  readonly dtype: "f32" | HalfDType | "int8" | "int4" | "sparse";
  readonly shape: readonly number[];
  /** Columns per scale (int8, int4, sparse). */
  readonly group: number;
}

/** What a backend's KV kernels can do; the cache refuses anything else. */
export interface KvAbilities {
  readonly formats: readonly KvFormat[];
  /** Whether Segment.window and Segment.hole are honoured. */
  readonly windows: boolean;
}

/**
 * What a backend must be able to do. Shapes are already checked when a kernel is called (ops.ts does it). Outputs are allocated by the caller
 * and f32, except that `quantize`, and `gather` of what it made, give integers, `route` ids, and `kvWrite` what the pages hold. A kernel's
 * result for one row never depends on the other rows of the batch: sums run in one fixed order.
 */
export interface Kernels {
  readonly name: string;
  /** Threads that compute, the calling one included. */
  readonly threads: number;
  readonly kv: KvAbilities;
  /** Memory that these kernels can compute in: activations, KV pages. Zeroed. */
  alloc(dtype: PlainDType, shape: readonly number[], group?: number): Tensor;
  /** Gives KV pages and the like back; what `alloc` returned must not be used afterwards. */
  free(tensor: Tensor): void;
  /** Starts the conversion of one weight into this backend's own layout. @throws RangeError for a format that it does not have. */
  packer(spec: WeightSpec): WeightPacker;

  /** out[m, n] = x[m, k] . w[n, k]^T (+ bias[n]). x is f32, or what `quantize` made of it. */
  linear(out: Tensor, x: Tensor, w: Tensor, bias?: Tensor): void;
  /**
   * out = x as int8 or int16 (out's format), one scale a row: `scale`, or the row's largest magnitude over 127 or 32767. A row with a value
   * that is not finite stays not finite. Backends without it compute with f32 activations only.
   */
  quantize?(out: Tensor, x: Tensor, scale?: number): void;
  /** out[i] = row ids[i] of table [rows, cols]. */
  embed(out: Tensor, table: Tensor, ids: Int32Array): void;
  /** out[i] = x[ids[i]], in the format of x: f32, or what `quantize` made of it. */
  gather(out: Tensor, x: Tensor, ids: Int32Array): void;
  /**
   * Every run of weight.cols values: out = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019). out may be x. The rows of a weight
   * [heads, n] take turns.
   */
  rmsNorm(out: Tensor, x: Tensor, weight: Tensor, eps: number): void;
  /** out = (x - mean) / sqrt(var + eps) * weight (+ bias) (Ba et al. 2016). */
  layerNorm(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | undefined, eps: number): void;
  /** out[i, 2j] = cos, out[i, 2j + 1] = sin of positions[i] * frequencies[j]; times `magnitude`. */
  ropeAngles(out: Tensor, positions: Int32Array, frequencies: Float64Array, magnitude: number): void;
  /** Rotates the first 2 x (angle pairs) of every headDim values of x, in place (Su et al. 2021). */
  rope(x: Tensor, angles: Tensor, headDim: number, style: RopeStyle): void;
  /** Stores the rows of k and v at their segments' positions of `layer`, quantised as the pages are (see KvPage); those of v only where pages keep values apart. */
  kvWrite(k: Tensor, v: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape): void;
  /**
   * Causal attention of each row over its own segment's pages, online softmax, nothing materialised (Dao et al. 2022).
   * A query at a position p >= sinks + size of its window takes its scores with the sinks from `sinkQ` (see Batch.sinkPositions), if given.
   */
  attention(out: Tensor, q: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape, sinkQ?: Tensor): void;
  /** The textbook's first step: scores[h, i, c] = scale * q_ih . k_jh for one segment, j = keyPosition(c); -Infinity where j is not visible. */
  attentionScores(scores: Tensor, q: Tensor, segment: Segment, layer: number, shape: AttentionShape, sinkQ?: Tensor): void;
  /** Softmax of every row of x [heads, .., cols], in place; with one more score by head, as AttentionShape says, whose weight is left out. */
  softmax(x: Tensor, sinkLogits?: Tensor): void;
  /** The textbook's last step: out_ih = sum over c of weights[h, i, c] * v_jh, j = keyPosition(c), for one segment. */
  attentionMix(out: Tensor, weights: Tensor, segment: Segment, layer: number, shape: AttentionShape): void;
  /** out = act(gate) * up (Shazeer 2020). */
  gated(out: Tensor, gate: Tensor, up: Tensor, activation: Activation): void;
  /** x = act(x). */
  activate(x: Tensor, activation: Activation): void;
  /** Every value of x, in place. */
  adjust(x: Tensor, how: Adjustment, by: number): void;
  /** x += y. */
  add(x: Tensor, y: Tensor): void;
  /** Chooses experts by the logits of a router [tokens, count]: see `route` in routing.ts. Cost-only kernels choose as `spreadEvenly` says. */
  route(ids: Int32Array, weights: Tensor, logits: Tensor, routing: Routing, bias?: Tensor): void;
  /** out[p / used] += weights[p] * x[i] for every p = places[i], rounded down, with weights [tokens, used]. No two places share a row of out. */
  scatterAdd(out: Tensor, x: Tensor, weights: Tensor, places: Int32Array): void;
  /** Some columns of every head, a matrix for each head: see `splitHeads` in heads.ts. */
  splitHeads(out: Tensor, x: Tensor, heads: number, from: number): void;
  /** Matrices of heads side by side: see `joinHeads` in heads.ts. */
  joinHeads(out: Tensor, parts: readonly Tensor[], heads: number): void;
  /** The largest of one row of f32, where the backend has something faster than plain loops; of values that are no NaN. */
  ranking?(row: Tensor): Ranking;
  /** Several ops in one pass, where the backend has that. */
  readonly fused?: FusedKernels;
  /** Ends threads, if there are any. */
  close(): void;
}
