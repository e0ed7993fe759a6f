import type { Activation } from "../tensor/kernels.ts";
import { type ExpertsConfig, validateExperts } from "./experts.ts";
import { type LatentConfig, validateLatent } from "./latent.ts";
import { type RopeConfig, validateRope } from "./rope.ts";

export { type RopeConfig, ropeFrequencies, type RopeScaling } from "./rope.ts";

/** How the layers of one kind attend. */
export interface AttentionKind {
  /** Rotary positions; undefined where the layers have none. */
  readonly rope: RopeConfig | undefined;
  /** Positions that a query sees, its own among them; default all. */
  readonly window?: number;
}

/** Everything about a decoder but its weights. Differences between architectures are data here, not code in the decoder. */
export interface ModelConfig {
  /** As in GGUF's `general.architecture`. */
  readonly architecture: string;
  readonly name: string;
  readonly dim: number;
  readonly nLayers: number;
  readonly nHeads: number;
  readonly nKvHeads: number;
  readonly headDim: number;
  readonly ffnDim: number;
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly norm: "rms" | "layer";
  readonly normEps: number;
  /** Where a block's norms stand: on what it reads (default), on what it adds to the residual stream, or both. */
  readonly normPlacement?: "before" | "after" | "both";
  /** False: norms have no weights (OLMo). */
  readonly normWeights?: boolean;
  /** Attention and feed-forward block both read the layer's input, and their outputs are added together (GPT-J, GPT-NeoX). */
  readonly parallelResidual?: boolean;
  /** Norms of q and k stand behind the rotation, not before it (Hunyuan). */
  readonly normsRotated?: boolean;
  /** Rotary positions; undefined where positions are learned, given by `alibi`, or not known at all. */
  readonly rope: RopeConfig | undefined;
  /** Whether each position has a learned vector that is added to the embedding; default: where there is neither `rope` nor `alibi`. */
  readonly learnedPositions?: boolean;
  /** Positions that a query sees, its own among them; default all. */
  readonly window?: number;
  /** Layers that attend otherwise than `rope` and `window` say: by layer, whether it is one of them. */
  readonly alternate?: AttentionKind & { readonly layers: readonly boolean[] };
  /** ALiBi (Press et al. 2021): the steepest slope is 2^(-alibi / heads), heads rounded down to a power of two. */
  readonly alibi?: number;
  /** Factor on q.k; default 1 / sqrt(headDim). */
  readonly attentionScale?: number;
  /** Attention scores bend into (-attentionCap, attentionCap). */
  readonly attentionCap?: number;
  /** q, k and v go no further than this from 0. */
  readonly qkvClamp?: number;
  /** `gated`: act(gate(x)) * up(x), three matrices. `plain`: act(up(x)), two. */
  readonly ffn: "gated" | "plain";
  readonly activation: Activation;
  /** Multi-head latent attention in place of heads with keys and values of their own. */
  readonly latent?: LatentConfig;
  /** A mixture of experts in place of the feed-forward block. */
  readonly experts?: ExpertsConfig;
  /** Layers of the file behind the last one, which guess further tokens (multi-token prediction) and are left out. */
  readonly guessingLayers?: number;
  /** Factors on the embedding, on what blocks add to the residual stream, and on the logits; default 1. */
  readonly embeddingScale?: number;
  readonly residualScale?: number;
  readonly logitScale?: number;
  /** Logits bend into (-logitCap, logitCap). */
  readonly logitCap?: number;
}

/** The usual kind of layer, and the alternate one where there is one. */
export function attentionKinds({ rope, window, alternate }: ModelConfig): readonly AttentionKind[] {
  return alternate ? [{ rope, window }, alternate] : [{ rope, window }];
}

/** The index in `attentionKinds` of a layer. */
export function kindOfLayer({ alternate }: ModelConfig, layer: number): number {
  return alternate?.layers[layer] ? 1 : 0;
}

/** Whether the model adds a learned vector for each position to the embedding. */
export function learnsPositions({ rope, alibi, learnedPositions = rope === undefined && alibi === undefined }: ModelConfig): boolean {
  return learnedPositions;
}

/** Whether a tensor of the file belongs to a layer that is left out. */
export function isLeftOut({ nLayers, guessingLayers = 0 }: ModelConfig, tensor: string): boolean {
  const layer = Number(/^blk\.(\d+)\./.exec(tensor)?.[1]);
  return layer >= nLayers && layer < nLayers + guessingLayers;
}

/** @throws RangeError naming the field and what is wrong with it. */
export function validateConfig(config: ModelConfig): ModelConfig {
  for (const field of ["dim", "nLayers", "nHeads", "nKvHeads", "headDim", "ffnDim", "vocabSize", "contextLength"] as const) {
    const value = config[field];
    if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${field}: expected a positive integer, found ${value}`);
    if (value > MOST[field]) throw new RangeError(`${field}: expected at most ${MOST[field]}, found ${value}`);
  }
  if (config.nHeads % config.nKvHeads !== 0) {
    throw new RangeError(`nHeads: expected a multiple of nKvHeads (${config.nKvHeads}), found ${config.nHeads}`);
  }
  if (!(config.normEps >= 0 && config.normEps < 1)) throw new RangeError(`normEps: expected 0 to 1, found ${config.normEps}`);
  // Both blocks read the layer's input: they need it normalised, for the residual stream itself changes in between.
  if (config.parallelResidual && config.normPlacement === "after") throw new RangeError("normPlacement: expected before or both with a parallel residual, found after");
  for (const field of ["alibi", "attentionScale", "attentionCap", "qkvClamp", "embeddingScale", "residualScale", "logitScale", "logitCap"] as const) {
    const value = config[field];
    if (value !== undefined && !(value > 0 && Number.isFinite(value))) throw new RangeError(`${field}: expected a positive number, found ${value}`);
  }
  if (config.experts) validateExperts(config.experts);
  validateLatent(config);
  for (const { rope, window } of attentionKinds(config)) {
    if (rope) validateRope(rope, config.headDim);
    if (window !== undefined && !(Number.isSafeInteger(window) && window >= 1)) throw new RangeError(`window: expected a positive integer, found ${window}`);
  }
  const layers = config.alternate?.layers.length ?? config.nLayers;
  if (layers !== config.nLayers) throw new RangeError(`alternate layers: expected ${config.nLayers} of them, found ${layers}`);
  return config;
}

export const MOST_LAYERS = 1 << 14;

/** Far above any published model, low enough that products of two stay exact. */
const MOST = {
  ...{ dim: 1 << 20, nLayers: MOST_LAYERS, nHeads: 1 << 14, nKvHeads: 1 << 14, headDim: 1 << 16 },
  ...{ ffnDim: 1 << 24, vocabSize: 1 << 26, contextLength: 2 ** 31 - 1 },
};
