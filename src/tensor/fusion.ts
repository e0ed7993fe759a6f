import type { Activation } from "./kernels.ts";
import type { Tensor } from "./tensor.ts";

/** A weight matrix [n, k], and its bias [n] where the model has one. */
export interface Linear {
  readonly weight: Tensor;
  readonly bias?: Tensor;
}

/** A norm's weight [n], and its bias [n] where the model has one. */
export interface Norm {
  readonly weight: Tensor;
  readonly bias?: Tensor;
}

/**
 * What a decoder may do in one op instead of several:
 * - `qkv`: linears over the same input run as one, over one quantised copy of it;
 * - `gate-up`: the gate, what it gates and the activation between them; neither product is stored;
 * - `residual`: a linear adds its result to the residual stream instead of storing it;
 * - `norm`: a norm leaves its result as the quantised activations that the next linears read;
 * - `outputs`: only rows whose logits someone wants go through the last norm and the output head.
 */
export const FUSIONS = ["qkv", "gate-up", "residual", "norm", "outputs"] as const;
/** One of FUSIONS. */
export type Fusion = (typeof FUSIONS)[number];

/** Several ops in one pass over memory, with the same bits as one by one. Shapes are checked by the caller. */
export interface FusedKernels {
  /** Whether these linears, over the same input, can run as one. */
  together(parts: readonly Linear[]): boolean;
  /** How these linears read an input [rows, cols] once it is quantised; undefined where they differ or read f32. */
  inputs(parts: readonly Linear[], shape: readonly number[]): { readonly format: string; readonly bytes: number } | undefined;
  /** out = norm(x) as `inputs` says for `parts`. */
  norm(out: Tensor, x: Tensor, kind: "rms" | "layer", norm: Norm, eps: number, parts: readonly Linear[]): void;
  /** outs[i] = x . parts[i]^T; at most three. x is f32, or what `norm` made for these parts. */
  linears(outs: readonly Tensor[], x: Tensor, parts: readonly Linear[]): void;
  /** sum += x . part^T. */
  addLinear(sum: Tensor, x: Tensor, part: Linear): void;
  /** out = act(x . gate^T) * (x . up^T). */
  gatedLinear(out: Tensor, x: Tensor, gate: Linear, up: Linear, activation: Activation): void;
}
