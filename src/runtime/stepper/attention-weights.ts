import type { AttentionShape, Kernels, Segment } from "../../tensor/kernels.ts";
import { keyColumns, keyPosition } from "../../tensor/segments.ts";
import { f32, type Tensor } from "../../tensor/tensor.ts";

/** Attention weights of one layer: `at(head)[query * keys + key]`, each query's row sums to 1 (less where the model has sink logits). */
export interface AttentionWeights {
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
  /** Position of the first query in its sequence. */
  readonly start: number;
  at(head: number): Float32Array;
  /** The position that key `index` stands for. */
  position(index: number): number;
}

/**
 * Computes the weights again, by the textbook, from the queries of a pass and the keys in the cache: tiled attention never has them all.
 * @param q [queries, nHeads * headDim], rotated.
 * @param sinkQ The same queries as the sinks beyond a window see them.
 * @param shape With the layer's sink logits, where it has them.
 * @param segment Where the queries stand, as the layer sees it; its pages must still hold the keys.
 */
export function attentionWeights(shape: AttentionShape, kernels: Kernels, q: Tensor, segment: Segment, layer: number, sinkQ?: Tensor): AttentionWeights {
  const own = copyOf(kernels, q);
  const ownSinks = sinkQ && copyOf(kernels, sinkQ);
  const scores = kernels.alloc("f32", [shape.nHeads, segment.length, keyColumns(segment)]);
  kernels.attentionScores(scores, own, segment, layer, shape, ownSinks);
  kernels.softmax(scores, shape.sinkLogits);
  const copy = f32(scores.shape, scores.f32.slice());
  kernels.free(own);
  if (ownSinks) kernels.free(ownSinks);
  kernels.free(scores);
  return weightsOf(segment, copy);
}

/** A softmaxed matrix of scores [heads, queries, keys] as attention weights. */
export function weightsOf(segment: Segment, { shape: [heads, queries, keys], f32: values }: Tensor): AttentionWeights {
  const size = queries * keys;
  const at = (head: number) => values.subarray(head * size, (head + 1) * size);
  return { heads, queries, keys, start: segment.start, at, position: (index) => keyPosition(segment, index) };
}

/** In memory that the kernels can compute in. */
function copyOf(kernels: Kernels, tensor: Tensor): Tensor {
  const copy = kernels.alloc("f32", tensor.shape);
  copy.f32.set(tensor.f32);
  return copy;
}
