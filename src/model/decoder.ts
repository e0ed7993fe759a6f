import type { KvCache, KvSequence } from "../kvcache/cache.ts";
import type { Segment } from "../tensor/kernels.ts";
import type { Phase } from "../tensor/ledger.ts";
import type { Ops } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type ModelConfig, ropeFrequencies } from "./config.ts";
import type { LayerWeights, Norm, Weights } from "./weights.ts";

export interface Model {
  readonly config: ModelConfig;
  readonly weights: Weights;
  /** Angle per position of each rotating pair; empty without rope. */
  readonly frequencies: Float64Array;
}

export function createModel(config: ModelConfig, weights: Weights): Model {
  return { config, weights, frequencies: config.rope ? ropeFrequencies(config.rope, weights.ropeFactors) : new Float64Array(0) };
}

/** A flat list of tokens from any number of sequences, whose places in the KV cache are already reserved. */
export interface Batch {
  readonly phase: Phase;
  readonly tokens: Int32Array;
  /** Position of each token in its own sequence. */
  readonly positions: Int32Array;
  /** Where each query stands as the attention sinks see it, once one of them is beyond its window: see `sinkPosition`. */
  readonly sinkPositions?: Int32Array;
  readonly segments: readonly Segment[];
  /** Rows whose logits are wanted. */
  readonly outputs: Int32Array;
}

/**
 * One pass of the decoder: logits [outputs, vocabSize], valid until the next pass; undefined when no row wants any. Prefill, decode, chunked prefill and mixed batches
 * all come this way: linears see one [tokens, dim] matrix, attention walks each sequence's own pages.
 */
export function forward({ config, weights, frequencies }: Model, ops: Ops, batch: Batch): Tensor | undefined {
  ops.ledger.begin(batch.phase);
  ops.arena.release(0);
  const x = ops.embed("token_embd", weights.tokenEmbedding, batch.tokens);
  if (weights.positionEmbedding) ops.add("add_position", x, ops.embed("position_embd", weights.positionEmbedding, batch.positions));
  const angles = config.rope && {
    own: ops.ropeAngles(batch.positions, frequencies, 1),
    sinks: batch.sinkPositions && ops.ropeAngles(batch.sinkPositions, frequencies, 1),
  };

  for (const [index, layer] of weights.layers.entries()) {
    const scratch = ops.arena.mark();
    ops.ledger.layer = index;
    ops.add("attn_residual", x, attend(config, ops, layer, index, x, angles, batch.segments));
    ops.add("ffn_residual", x, feedForward(config, ops, layer, x));
    ops.arena.release(scratch);
  }

  ops.ledger.layer = -1;
  if (batch.outputs.length === 0) return undefined;
  const wanted = batch.outputs.length === x.rows ? x : ops.gather("outputs", x, batch.outputs);
  const last = ops.quantize("output_norm", normalise(config, ops, "output_norm", wanted, weights.outputNorm));
  return ops.linear("output", last, weights.output);
}

/** Cosines and sines of a step's rotations, as the window and as the sinks see its queries. */
interface Angles {
  readonly own: Tensor;
  readonly sinks: Tensor | undefined;
}

/** Attention over the past: what each token takes from those before it. [tokens, dim] -> [tokens, dim]. */
function attend(config: ModelConfig, ops: Ops, layer: LayerWeights, index: number, x: Tensor, angles: Angles | undefined, segments: readonly Segment[]): Tensor {
  const h = ops.quantize("attn_norm", normalise(config, ops, "attn_norm", x, layer.attnNorm));
  let q = ops.linear("attn_q", h, layer.q);
  let k = ops.linear("attn_k", h, layer.k);
  const v = ops.linear("attn_v", h, layer.v);
  if (layer.qNorm) q = normalise(config, ops, "attn_q_norm", q, layer.qNorm);
  if (layer.kNorm) k = normalise(config, ops, "attn_k_norm", k, layer.kNorm);
  let sinkQ: Tensor | undefined;
  if (config.rope && angles) {
    const { headDim, rope } = config;
    if (angles.sinks) sinkQ = ops.rope("rope_q_sinks", ops.copy("q_sinks", q), angles.sinks, headDim, rope.style);
    ops.rope("rope_q", q, angles.own, headDim, rope.style);
    ops.rope("rope_k", k, angles.own, headDim, rope.style);
  }
  const shape = attentionShape(config);
  ops.kvWrite(k, v, segments, index, shape);
  return ops.linear("attn_output", ops.quantize("attention", ops.attention(q, segments, index, shape, sinkQ)), layer.o);
}

/** The feed-forward block: what each token makes of itself. [tokens, dim] -> [tokens, dim]. */
function feedForward(config: ModelConfig, ops: Ops, layer: LayerWeights, x: Tensor): Tensor {
  const h = ops.quantize("ffn_norm", normalise(config, ops, "ffn_norm", x, layer.ffnNorm));
  const gate = layer.gate && ops.linear("ffn_gate", h, layer.gate);
  const up = ops.linear("ffn_up", h, layer.up);
  const inner = gate ? ops.gated("ffn_act", gate, up, config.activation) : ops.activate("ffn_act", up, config.activation);
  return ops.linear("ffn_down", ops.quantize("ffn_act", inner), layer.down);
}

function normalise(config: ModelConfig, ops: Ops, name: string, x: Tensor, { weight, bias }: Norm): Tensor {
  return config.norm === "rms" ? ops.rmsNorm(name, x, weight, config.normEps) : ops.layerNorm(name, x, weight, bias, config.normEps);
}

/** The part of the config that attention kernels need. */
export function attentionShape({ nHeads, nKvHeads, headDim }: ModelConfig) {
  return { nHeads, nKvHeads, headDim, scale: 1 / Math.sqrt(headDim) };
}

/** A run of new tokens for one sequence, as the caller of `makeBatch` gives it. */
export interface Run {
  readonly sequence: KvSequence;
  readonly tokens: readonly number[];
  /** Which of the run's rows need logits. */
  readonly logits: "none" | "last" | "all";
  /** Whether the tokens are prompt (prefill) or were generated (decode). */
  readonly prompt: boolean;
}

/** Reserves cache positions for every run and lays the runs out as one flat batch. @throws KvCacheFullError; runs before it keep their room. */
export function makeBatch(cache: KvCache, runs: readonly Run[]): Batch {
  const count = runs.reduce((sum, run) => sum + run.tokens.length, 0);
  if (runs.length === 0 || runs.some((run) => run.tokens.length === 0)) throw new RangeError("batch: expected at least one token in every run");
  const tokens = new Int32Array(count);
  const positions = new Int32Array(count);
  const sinkPositions = new Int32Array(count);
  const segments: Segment[] = [];
  const outputs: number[] = [];
  for (const { sequence } of runs) cache.trim(sequence);
  let row = 0;
  for (const { sequence, tokens: own, logits } of runs) {
    const start = sequence.length;
    cache.append(sequence, own.length);
    // A copy: a hook may cancel a generation, whose table then empties, in the middle of the step.
    segments.push({ pages: [...sequence.pages], hole: sequence.hole, window: cache.window, row, start, length: own.length });
    for (let i = 0; i < own.length; i++, row++) {
      tokens[row] = own[i];
      positions[row] = start + i;
      sinkPositions[row] = sinkPosition(cache, start + i);
      if (logits === "all" || (logits === "last" && i === own.length - 1)) outputs.push(row);
    }
  }
  const prompts = runs.filter((run) => run.prompt).length;
  const phase = prompts === 0 ? "decode" : prompts === runs.length ? "prefill" : "mixed";
  const beyond = cache.window !== undefined && cache.window.sinks > 0 && positions.some((position, i) => position !== sinkPositions[i]);
  return { phase, tokens, positions, ...(beyond && { sinkPositions }), segments, outputs: Int32Array.from(outputs) };
}

/**
 * The position that a query takes towards the sinks. StreamingLLM (Xiao et al. 2023, section 3.2) numbers positions within the cache: sinks
 * 0 .. sinks - 1, then the window, its last the query. Rotations are relative, so the window's keys keep their true positions, and
 * only the query is turned a second time: no key is ever rotated again, and no distance exceeds sinks + size - 1.
 */
function sinkPosition({ window }: KvCache, position: number): number {
  return window ? Math.min(position, window.sinks + window.size - 1) : position;
}
