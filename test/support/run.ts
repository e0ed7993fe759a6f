import { KvCache, type KvSequence, PAGE_SIZE } from "../../src/kvcache/cache.ts";
import { forward, makeBatch, type Model, type Run } from "../../src/model/decoder.ts";
import { Ledger, type OpRecord } from "../../src/tensor/ledger.ts";
import { type AttentionMethod, Ops } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { drawModel, type ModelOptions, packModel, type PlainModel } from "./models.ts";
import type { ReadTensor } from "./reference.ts";

/** A model with all it needs to run. */
export interface Bench {
  readonly model: Model;
  readonly ops: Ops;
  readonly ledger: Ledger;
  readonly cache: KvCache;
}

export interface BenchOptions {
  kernels?: Ops["kernels"];
  ledger?: Ledger;
  attention?: AttentionMethod;
  maxPages?: number;
}

export function bench(model: Model, options: BenchOptions = {}): Bench {
  const { kernels = scalarKernels(), ledger = new Ledger(false), attention, maxPages = 64 } = options;
  return { model, ledger, ops: new Ops(kernels, ledger, { attention }), cache: new KvCache(kernels, model.config, maxPages) };
}

/** A drawn model, ready to run on scalar kernels. */
export function smallBench(seed: number, shape: ModelOptions, options: BenchOptions = {}): Bench {
  const kernels = options.kernels ?? scalarKernels();
  return bench(packModel(drawModel(seed, shape), kernels), { ...options, kernels });
}

/** One step of the model; the logits are a copy. */
export function step({ model, ops, cache }: Bench, runs: readonly Run[]): Float32Array[] {
  const logits = forward(model, ops, makeBatch(cache, runs));
  return logits ? rows(logits) : [];
}

export function rows(tensor: Tensor): Float32Array[] {
  return Array.from({ length: tensor.rows }, (_, i) => tensor.f32.slice(i * tensor.cols, (i + 1) * tensor.cols));
}

export const prompt = (sequence: KvSequence, tokens: readonly number[], logits: Run["logits"] = "all"): Run => ({ sequence, tokens, logits, prompt: true });
export const token = (sequence: KvSequence, id: number): Run => ({ sequence, tokens: [id], logits: "last", prompt: false });

/** Logits after every token of one sequence, fed at once. */
export function allLogits(on: Bench, tokens: readonly number[]): Float32Array[] {
  const sequence = on.cache.create();
  try {
    return step(on, [prompt(sequence, tokens)]);
  } finally {
    on.cache.release(sequence);
  }
}

/** Weights for the reference: dequantised one by one. */
export function readPlain({ tensors }: PlainModel): ReadTensor {
  const known = new Map<string, Float64Array>();
  return (name) => {
    const tensor = tensors.get(name);
    if (tensor && !known.has(name)) {
      const count = tensor.shape.reduce((a, b) => a * b, 1);
      known.set(name, Float64Array.from({ length: count }, (_, i) => tensor.at(i)));
    }
    return known.get(name);
  };
}

/** Largest difference between two vectors, in units of the second one's largest magnitude. */
export function relativeError(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [error, size] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    error = Math.max(error, Math.abs(found[i] - expected[i])); // Math.max keeps a NaN.
    size = Math.max(size, Math.abs(expected[i]));
  }
  return error / size;
}

export { PAGE_SIZE };

/** A ledger that keeps what is recorded and is off until then. */
export const kept = () => new Ledger(false, { timing: false, records: true });

/** Runs something with the ledger on, and returns what it wrote down. */
export function recorded(on: Bench, run: () => void): OpRecord[] {
  on.ledger.clear();
  on.ledger.on = true;
  run();
  on.ledger.on = false;
  return [...on.ledger.records];
}
