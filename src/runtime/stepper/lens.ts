import { logitsOf, type Model } from "../../model/decoder.ts";
import { Ledger } from "../../tensor/ledger.ts";
import { Ops } from "../../tensor/ops.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { topIds } from "../../tensor/ranking.ts";
import { softmax } from "../sampler.ts";

/** A token with its probability. */
export interface Candidate {
  readonly id: number;
  readonly probability: number;
}

/** What the model would say if it ended here. */
export interface LensRow {
  /** The layer that the residual stream comes from; -1 is the embedding, before the first layer. */
  readonly layer: number;
  readonly top: readonly Candidate[];
  /** Entropy of the distribution, in bits: 0 when certain. */
  readonly entropy: number;
}

/**
 * The logit lens (nostalgebraist 2020): the output norm and the output head, applied to the residual stream as it stands after each layer.
 * @param given Whose kernels and activation format to use.
 * @param residuals One row [dim] for each layer.
 */
export function logitLens(model: Model, given: Ops, residuals: readonly { layer: number; values: Float32Array }[], top: number): LensRow[] {
  if (residuals.length === 0) return [];
  const { kernels } = given;
  const ops = new Ops(kernels, new Ledger(false), { activations: given.activations });
  const x = kernels.alloc("f32", [residuals.length, model.config.dim]);
  try {
    residuals.forEach(({ values }, row) => x.f32.set(values, row * model.config.dim));
    const logits = logitsOf(model, ops, x);
    return residuals.map(({ layer }, row) => {
      const probabilities = softmax(rowOf(logits, row));
      return { layer, top: topCandidates(probabilities, top), entropy: entropyBits(probabilities) };
    });
  } finally {
    ops.arena.free();
    kernels.free(x);
  }
}

export function topCandidates(probabilities: Float64Array, k: number): Candidate[] {
  return topIds(probabilities, k).map((id) => ({ id, probability: probabilities[id] }));
}

function entropyBits(probabilities: Float64Array): number {
  let bits = 0;
  for (const p of probabilities) if (p > 0) bits -= p * Math.log2(p);
  return bits;
}

/** How far `after` is from `before`, in bits (Kullback-Leibler divergence of before from after); 0 when nothing changed. */
export function divergenceBits(before: Float32Array, after: Float32Array): number {
  const [p, q] = [softmax(before), softmax(after)];
  let bits = 0;
  for (let i = 0; i < p.length; i++) if (p[i] > 0) bits += p[i] * Math.log2(p[i] / Math.max(q[i], Number.MIN_VALUE));
  return Math.max(0, bits);
}

function rowOf(tensor: Tensor, row: number): Float32Array {
  return tensor.f32.subarray(row * tensor.cols, (row + 1) * tensor.cols);
}
