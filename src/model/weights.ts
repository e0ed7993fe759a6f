import type { Linear } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";

export interface Norm {
  /** [dim], or [headDim] for a norm of single heads. */
  readonly weight: Tensor;
  readonly bias?: Tensor;
}

export interface LayerWeights {
  readonly attnNorm: Norm;
  /** [nHeads * headDim, dim] */
  readonly q: Linear;
  /** [nKvHeads * headDim, dim] */
  readonly k: Linear;
  readonly v: Linear;
  /** Norms of every head of q and k (Qwen 3). */
  readonly qNorm?: Norm;
  readonly kNorm?: Norm;
  /** [dim, nHeads * headDim] */
  readonly o: Linear;
  readonly ffnNorm: Norm;
  /** [ffnDim, dim]; absent where the feed-forward block is not gated. */
  readonly gate?: Linear;
  readonly up: Linear;
  /** [dim, ffnDim] */
  readonly down: Linear;
}

export interface Weights {
  /** [vocabSize, dim] */
  readonly tokenEmbedding: Tensor;
  /** [contextLength, dim], where positions are learned. */
  readonly positionEmbedding?: Tensor;
  readonly layers: readonly LayerWeights[];
  readonly outputNorm: Norm;
  /** [vocabSize, dim]; the token embedding itself where the two are tied. */
  readonly output: Linear;
  /** rope_freqs.weight */
  readonly ropeFactors?: Float32Array;
}

/** Every linear weight that one decode step reads, the output head included. */
export function linears(weights: Weights): Linear[] {
  const layers = weights.layers.flatMap(({ q, k, v, o, gate, up, down }) => [q, k, v, o, ...(gate ? [gate] : []), up, down]);
  return [...layers, weights.output];
}

/** Bytes of all weights as they lie in memory, a tied tensor counted once. */
export function weightBytes(weights: Weights): number {
  const seen = new Set<Tensor>([weights.tokenEmbedding]);
  if (weights.positionEmbedding) seen.add(weights.positionEmbedding);
  const norms = weights.layers.flatMap(({ attnNorm, ffnNorm, qNorm, kNorm }) => [attnNorm, ffnNorm, qNorm, kNorm]);
  for (const part of [...linears(weights), ...norms, weights.outputNorm]) {
    if (!part) continue;
    seen.add(part.weight);
    if (part.bias) seen.add(part.bias);
  }
  return [...seen].reduce((sum, tensor) => sum + tensor.bytes, weights.ropeFactors?.byteLength ?? 0);
}
