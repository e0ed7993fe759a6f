import type { Linear, Norm } from "../tensor/fusion.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { commonLinears, expertLinears, type ExpertsConfig, type ExpertsWeights } from "./experts.ts";
import { latentLinears, type LatentWeights } from "./latent.ts";

export type { Norm } from "../tensor/fusion.ts";

/**
 * The weights of one layer; what its architecture does without is absent. Matrices are [outputs, inputs]. Where experts stand in place of the
 * feed-forward block, or latent attention in place of heads of their own, `experts` and `latent` hold the rest.
 */
export interface LayerWeights {
  /** On what attention reads. */
  readonly attnNorm?: Norm;
  /** [nHeads * headDim, dim]; of q, k, v and o see LatentWeights where there is one. */
  readonly q: Linear;
  /** [nKvHeads * headDim, dim] */
  readonly k: Linear;
  readonly v: Linear;
  /** Norms of q and k: [headDim] for all heads, [heads, headDim] one for each, or [heads * headDim] over the whole row. */
  readonly qNorm?: Norm;
  readonly kNorm?: Norm;
  /** [nHeads], see AttentionShape. */
  readonly sinkLogits?: Tensor;
  readonly latent?: LatentWeights;
  /** [dim, nHeads * headDim] */
  readonly o: Linear;
  /** On what attention adds to the residual stream. */
  readonly attnPostNorm?: Norm;
  /** On what the feed-forward block reads; absent where it shares attention's. */
  readonly ffnNorm?: Norm;
  /** [ffnDim, dim]; absent where the feed-forward block is not gated. */
  readonly gate?: Linear;
  /** Absent, like `down`, where experts stand in the block's place. */
  readonly up?: Linear;
  /** [dim, ffnDim] */
  readonly down?: Linear;
  readonly experts?: ExpertsWeights;
  readonly ffnPostNorm?: Norm;
}

/** All weights of a decoder, in the memory of the kernels that they were loaded for. */
export interface Weights {
  /** [vocabSize, dim] */
  readonly tokenEmbedding: Tensor;
  /** [contextLength, dim], where positions are learned. */
  readonly positionEmbedding?: Tensor;
  /** On the embedding (BLOOM). */
  readonly embeddingNorm?: Norm;
  readonly layers: readonly LayerWeights[];
  readonly outputNorm: Norm;
  /** [vocabSize, dim]; the token embedding itself where the two are tied. */
  readonly output: Linear;
  /** Divisors of rope's frequencies, [rope dims / 2]: rope_freqs.weight. */
  readonly ropeFactors?: Float32Array;
  /** LongRoPE's two lists of them. */
  readonly longRopeFactors?: { readonly short: Float32Array; readonly long: Float32Array };
}

/** The linears of a layer that every token meets. */
export function denseLinears({ q, k, v, latent, o, gate, up, down, experts }: LayerWeights): Linear[] {
  return [q, k, v, ...(latent ? latentLinears(latent) : []), o, ...[gate, up, down].filter((linear) => linear !== undefined), ...(experts ? commonLinears(experts) : [])];
}

/** All linears of a layer. */
function layerLinears(layer: LayerWeights): Linear[] {
  return [...denseLinears(layer), ...(layer.experts ? expertLinears(layer.experts) : [])];
}

/** The norms of a layer. */
export function layerNorms({ attnNorm, qNorm, kNorm, latent, attnPostNorm, ffnNorm, ffnPostNorm }: LayerWeights): Norm[] {
  return [attnNorm, qNorm, kNorm, latent?.qDown?.norm, latent?.norm, attnPostNorm, ffnNorm, ffnPostNorm].filter((norm) => norm !== undefined);
}

/** Every linear weight, the output head included. One decode step reads them all, but for the experts that its token did not choose. */
export function linears(weights: Weights): Linear[] {
  return [...weights.layers.flatMap(layerLinears), weights.output];
}

/** Every tensor once. */
export function weightTensors(weights: Weights): Set<Tensor> {
  const { tokenEmbedding, positionEmbedding, embeddingNorm, outputNorm, layers } = weights;
  const parts = [...linears(weights), ...layers.flatMap(layerNorms), outputNorm, ...(embeddingNorm ? [embeddingNorm] : [])];
  const tensors = [tokenEmbedding, positionEmbedding, ...layers.flatMap(({ experts, sinkLogits }) => [experts?.choiceBias, sinkLogits]), ...parts.flatMap(({ weight, bias }) => [weight, bias])];
  return new Set(tensors.filter((tensor) => tensor !== undefined));
}

function ropeTables({ ropeFactors, longRopeFactors }: Weights): Float32Array[] {
  return [ropeFactors, longRopeFactors?.short, longRopeFactors?.long].filter((table) => table !== undefined);
}

/** Bytes of all weights as they lie in memory, a tied tensor counted once. */
export function weightBytes(weights: Weights): number {
  const bytes = [...[...weightTensors(weights)].map((tensor) => tensor.bytes), ...ropeTables(weights).map((table) => table.byteLength)];
  return bytes.reduce((sum, n) => sum + n, 0);
}

/** Matrices, biases and norms, a tied tensor counted once. */
export function parameterCount(weights: Weights): number {
  return [...weightTensors(weights)].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

/** Those of them that one token meets, where it chooses its experts. */
export function activeParameterCount(weights: Weights, experts: ExpertsConfig | undefined): number {
  const unused = experts ? 1 - experts.used / experts.count : 0;
  const chosen = weights.layers.flatMap((layer) => (layer.experts ? expertLinears(layer.experts) : []));
  return parameterCount(weights) - unused * chosen.reduce((sum, { weight, bias }) => sum + weight.rows * weight.cols + (bias ? bias.cols : 0), 0);
}
