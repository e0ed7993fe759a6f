import type { KvCache, KvSequence } from "../kvcache/cache.ts";
import type { AttentionShape, AttentionWindow, Segment } from "../tensor/kernels.ts";
import type { Phase } from "../tensor/ledger.ts";
import type { Linear } from "../tensor/fusion.ts";
import type { Ops } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { attentionKinds, kindOfLayer, type ModelConfig, type RopeConfig, ropeFrequencies } from "./config.ts";
import { alibiSlopes } from "./alibi.ts";
import { mixture } from "./experts.ts";
import { latentQueriesAndKeys, latentValues } from "./latent.ts";
import type { LayerWeights, Norm, Weights } from "./weights.ts";

/** A decoder that can run: config and weights, and what `createModel` works out of the two once for all steps. */
export interface Model {
  readonly config: ModelConfig;
  readonly weights: Weights;
  readonly attention: AttentionShape;
  /** How layers see positions, by `kindOfLayer`. */
  readonly kinds: readonly LayerKind[];
}

/** An AttentionKind, ready to be used. */
interface LayerKind {
  readonly rope?: Rotation;
  readonly window?: number;
}

interface Rotation {
  readonly config: RopeConfig;
  /** Angle per position of each rotating pair. */
  readonly frequencies: Float64Array;
}

/** @param context Positions that a sequence may take: LongRoPE has other frequencies beyond the original context. Default the model's own. */
export function createModel(config: ModelConfig, weights: Weights, context = config.contextLength): Model {
  const rotations = new Map<RopeConfig, Rotation>();
  const rotation = (rope: RopeConfig): Rotation => {
    const made = rotations.get(rope) ?? { config: rope, frequencies: ropeFrequencies(rope, factorsOf(rope, weights, context)) };
    rotations.set(rope, made);
    return made;
  };
  const kinds = attentionKinds(config).map(({ rope, window }) => ({ ...(rope && { rope: rotation(rope) }), window }));
  return { config, weights, attention: attentionShape(config), kinds };
}

function factorsOf({ scaling }: RopeConfig, { ropeFactors, longRopeFactors }: Weights, context: number): Float32Array | undefined {
  if (scaling.type !== "longrope") return ropeFactors;
  return context > scaling.originalContext ? longRopeFactors?.long : longRopeFactors?.short;
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
 * One pass of the decoder: logits [outputs, vocabSize], valid until the next pass; undefined when no row wants any. Prefill, decode, chunked prefill
 * and mixed batches all come this way: linears see one [tokens, dim] matrix, attention walks each sequence's own pages.
 */
export function forward(model: Model, ops: Ops, batch: Batch): Tensor | undefined {
  const { config, weights } = model;
  ops.ledger.begin(batch.phase);
  ops.arena.release(0);
  const x = embed(model, ops, batch);
  const views = viewsOf(model, ops, batch);

  for (const [index, layer] of weights.layers.entries()) {
    const scratch = ops.arena.mark();
    ops.ledger.layer = index;
    const { q, k, v, latent, o, gate, up, down } = layer;
    const asked = [latent?.qDown?.linear ?? q, k, v];
    const fed = [gate, up].filter((linear) => linear !== undefined);
    const shared = config.parallelResidual && !layer.ffnNorm;
    const h = input(config, ops, "attn_norm", x, layer.attnNorm, shared ? [...asked, ...fed] : asked);
    const seen = attend(model, ops, layer, index, h, views[kindOfLayer(config, index)]);
    if (!config.parallelResidual) addBlock(config, ops, "attn_output", "attn", x, seen, o, layer.attnPostNorm);
    const thought = feedForward(config, ops, layer, shared ? h : input(config, ops, "ffn_norm", x, layer.ffnNorm, fed));
    if (config.parallelResidual) addBlock(config, ops, "attn_output", "attn", x, seen, o, layer.attnPostNorm);
    addBlock(config, ops, "ffn_down", "ffn", x, thought, down, layer.ffnPostNorm);
    ops.arena.release(scratch);
  }

  ops.ledger.layer = -1;
  const { outputs } = batch;
  if (outputs.length === 0) return undefined;
  if (outputs.length === x.rows) return logitsOf(model, ops, x);
  return ops.fusions.has("outputs") ? logitsOf(model, ops, ops.gather("outputs", x, outputs)) : ops.gather("outputs", logitsOf(model, ops, x), outputs);
}

/** The residual stream as it begins, [tokens, dim]. */
function embed({ config, weights }: Model, ops: Ops, { tokens, positions }: Batch): Tensor {
  const x = ops.embed("token_embd", weights.tokenEmbedding, tokens);
  if (config.embeddingScale !== undefined) ops.adjust("embedding_scale", x, "scale", config.embeddingScale);
  if (weights.positionEmbedding) ops.add("add_position", x, ops.embed("position_embd", weights.positionEmbedding, positions));
  return weights.embeddingNorm ? normalise(config, ops, "token_embd_norm", x, weights.embeddingNorm) : x;
}

/** The head: logits of rows of the residual stream, [rows, dim] -> [rows, vocabSize]. */
export function logitsOf({ config, weights }: Model, ops: Ops, x: Tensor): Tensor {
  const logits = ops.linear("output", input(config, ops, "output_norm", x, weights.outputNorm, [weights.output]), weights.output);
  if (config.logitScale !== undefined) ops.adjust("logit_scale", logits, "scale", config.logitScale);
  return config.logitCap === undefined ? logits : ops.adjust("logit_cap", logits, "cap", config.logitCap);
}

/** What the layers of one kind see of a step: which keys, and the cosines and sines of its rotations, towards the window and towards the sinks. */
interface View {
  readonly segments: readonly Segment[];
  readonly rope?: RopeConfig;
  readonly own?: Tensor;
  readonly sinks?: Tensor;
}

function viewsOf({ kinds }: Model, ops: Ops, { segments, positions, sinkPositions }: Batch): readonly View[] {
  const angles = new Map<Rotation, Pick<View, "rope" | "own" | "sinks">>();
  for (const { rope } of kinds) {
    if (!rope || angles.has(rope)) continue;
    const turned = (of: Int32Array) => ops.ropeAngles(of, rope.frequencies, rope.config.magnitude ?? 1);
    angles.set(rope, { rope: rope.config, own: turned(positions), ...(sinkPositions && { sinks: turned(sinkPositions) }) });
  }
  return kinds.map((kind) => ({ ...(kind.rope && angles.get(kind.rope)), segments: segments.map((segment) => seenBy(kind, segment)) }));
}

/** A segment as the layers of a kind see it: through their window. */
export function seenBy({ window }: LayerKind, segment: Segment): Segment {
  return window === undefined ? segment : { ...segment, window: narrowed(segment.window, window) };
}

/** A layer's own window within the one that the cache keeps: sinks too are seen only from within it. */
function narrowed(kept: AttentionWindow | undefined, size: number): AttentionWindow {
  if (kept && size >= kept.size + kept.sinks) return kept;
  return { size: Math.min(size, kept?.size ?? size), sinks: 0 };
}

/** Attention over the past: what each token takes from those before it. [tokens, dim] -> [tokens, nHeads * headDim], latent attention's valueDim. */
function attend(model: Model, ops: Ops, layer: LayerWeights, index: number, h: Tensor, { segments, rope, own, sinks }: View): Tensor {
  const { config } = model;
  const { latent } = layer;
  let { q, k, v } = latent ? latentQueriesAndKeys(config, ops, layer, latent, h) : projections(ops, layer, h);
  if (config.qkvClamp !== undefined) for (const [name, x] of [["clamp_q", q], ["clamp_k", k], ["clamp_v", v]] as const) ops.adjust(name, x, "clamp", config.qkvClamp);
  const normedQ = (x: Tensor, name = "attn_q_norm") => (layer.qNorm ? normalise(config, ops, name, x, layer.qNorm) : x);
  const normedK = (x: Tensor) => (layer.kNorm ? normalise(config, ops, "attn_k_norm", x, layer.kNorm) : x);
  if (!config.normsRotated) [q, k] = [normedQ(q), normedK(k)];
  let sinkQ: Tensor | undefined;
  if (rope && own) {
    const { headDim } = config;
    if (sinks) sinkQ = ops.rope("rope_q_sinks", ops.copy("q_sinks", q), sinks, headDim, rope.style);
    ops.rope("rope_q", q, own, headDim, rope.style);
    ops.rope("rope_k", k, own, headDim, rope.style);
  }
  if (config.normsRotated) [q, k, sinkQ] = [normedQ(q), normedK(k), sinkQ && normedQ(sinkQ, "attn_q_norm_sinks")];
  const shape = attentionOf(model, index);
  ops.kvWrite(k, v, segments, index, shape);
  const seen = ops.attention(q, segments, index, shape, sinkQ);
  return latent ? ops.quantize("attention_values", latentValues(config, ops, latent, seen)) : ops.quantize("attention", seen);
}

function projections(ops: Ops, layer: LayerWeights, h: Tensor): Record<"q" | "k" | "v", Tensor> {
  const [q, k, v] = ops.linears("attn_qkv", ["attn_q", "attn_k", "attn_v"], h, [layer.q, layer.k, layer.v]);
  return { q, k, v };
}

/** The feed-forward block: what each token makes of itself. [tokens, dim] -> [tokens, ffnDim], or of experts [tokens, dim]. */
function feedForward(config: ModelConfig, ops: Ops, { gate, up, experts }: LayerWeights, h: Tensor): Tensor {
  if (experts) return mixture(config.experts!, config.activation, ops, experts, h);
  const inner = gate ? ops.gatedLinear("ffn", h, gate, up!, config.activation) : ops.activate("ffn_act", ops.linear("ffn_up", h, up!), config.activation);
  return ops.quantize("ffn_act", inner);
}

/** What the linears `readers` of a block read: the residual stream, normalised where a norm stands before them, in the engine's activation format. */
function input(config: ModelConfig, ops: Ops, name: string, x: Tensor, norm: Norm | undefined, readers: readonly Linear[]): Tensor {
  return norm ? ops.normalised(name, x, config.norm, norm, config.normEps, readers) : ops.quantize(name, x);
}

/** The residual stream takes in a block's result: x += y . linear^T (x += y without one), normalised first where a norm stands behind the block, and scaled. */
function addBlock(config: ModelConfig, ops: Ops, name: string, block: "attn" | "ffn", x: Tensor, y: Tensor, linear: Linear | undefined, norm: Norm | undefined): void {
  if (linear && !norm && config.residualScale === undefined) return ops.addLinear(name, `${block}_residual`, x, y, linear);
  const made = linear ? ops.linear(name, y, linear) : y;
  const result = norm ? normalise(config, ops, `${block}_post_norm`, made, norm) : made;
  ops.add(`${block}_residual`, x, config.residualScale === undefined ? result : ops.adjust("residual_scale", result, "scale", config.residualScale));
}

function normalise(config: ModelConfig, ops: Ops, name: string, x: Tensor, { weight, bias }: Norm): Tensor {
  return config.norm === "rms" ? ops.rmsNorm(name, x, weight, config.normEps) : ops.layerNorm(name, x, weight, bias, config.normEps);
}

/** How one layer attends. */
export function attentionOf({ attention, weights }: Model, layer: number): AttentionShape {
  const { sinkLogits } = weights.layers[layer];
  return sinkLogits ? { ...attention, sinkLogits } : attention;
}

/** The part of the config that attention kernels need. */
function attentionShape({ nHeads, nKvHeads, headDim, attentionScale, attentionCap, alibi }: ModelConfig): AttentionShape {
  return {
    ...{ nHeads, nKvHeads, headDim, scale: attentionScale ?? 1 / Math.sqrt(headDim) },
    ...(attentionCap !== undefined && { softCap: attentionCap }),
    ...(alibi !== undefined && { slopes: alibiSlopes(nHeads, alibi) }),
  };
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
