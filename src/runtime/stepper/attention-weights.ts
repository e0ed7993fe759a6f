import { attentionShape } from "../../model/decoder.ts";
import type { ModelConfig } from "../../model/config.ts";
import type { Kernels, Segment } from "../../tensor/kernels.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** Attention weights of one layer: `at(head)[query * keys + key]`, each query's row sums to 1. */
export interface AttentionWeights {
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
  /** Position of the first query in its sequence. */
  readonly start: number;
  at(head: number): Float32Array;
}

/**
 * Computes the weights again, by the textbook, from the queries of a pass and the keys in the cache: tiled attention never has them all.
 * @param q [queries, nHeads * headDim], rotated.
 * @param segment Where the queries stand; its pages must still hold the keys.
 */
export function attentionWeights(config: ModelConfig, kernels: Kernels, q: Tensor, segment: Segment, layer: number): AttentionWeights {
  const keys = segment.start + segment.length;
  const queries = segment.length;
  const own = kernels.alloc("f32", q.shape);
  const scores = kernels.alloc("f32", [config.nHeads, queries, keys]);
  own.f32.set(q.f32);
  kernels.attentionScores(scores, own, segment, layer, attentionShape(config));
  kernels.softmax(scores);
  const values = scores.f32.slice();
  kernels.free(own);
  kernels.free(scores);
  const size = queries * keys;
  return { heads: config.nHeads, queries, keys, start: segment.start, at: (head) => values.subarray(head * size, (head + 1) * size) };
}
