import { KvCache, PAGE_SIZE } from "../../kvcache/cache.ts";
import { createModel, forward, makeBatch, type Model, type Run } from "../../model/decoder.ts";
import { randomWeights } from "../../model/random-weights.ts";
import type { NamedShape } from "../../model/shapes.ts";
import { weightBytes } from "../../model/weights.ts";
import type { Kernels } from "../../tensor/kernels.ts";
import { Ledger, type OpRecord } from "../../tensor/ledger.ts";
import { type AttentionMethod, Ops } from "../../tensor/ops.ts";
import { shapeKernels } from "../../tensor/shapes.ts";
import { ghostOf, type NumberFormat } from "./formats.ts";

/** The number formats of a costed model. */
export interface Formats {
  /** Matrices, the embedding among them. */
  readonly weights: NumberFormat;
  readonly kv: { readonly k: NumberFormat; readonly v: NumberFormat };
  /** Everything else: activations, norms, biases. */
  readonly activations: NumberFormat;
}

/** A decoder on cost-only kernels. */
export interface Traced {
  readonly shape: NamedShape;
  readonly formats: Formats;
  readonly model: Model;
  readonly kernels: Kernels;
  readonly cache: KvCache;
  readonly attention: AttentionMethod;
  /** Bytes of all weights. */
  readonly weightBytes: number;
}

/** Some steps of the model that all cost what `records` say. */
export interface Steps {
  readonly records: readonly OpRecord[];
  /** How many steps these records stand for; a half where two traced steps share a range of contexts. */
  readonly count: number;
}

/** One step's new tokens of one sequence. */
export interface TraceRun {
  /** Positions that are in the cache already. */
  readonly past: number;
  /** New tokens. */
  readonly tokens: number;
  /** Prompt (prefill) or generated (decode). */
  readonly prompt: boolean;
  /** Whether the last token's logits are wanted (default true). */
  readonly logits?: boolean;
}

/** The named model with weights, KV pages and activations of the given formats, which take no memory: only their sizes exist. */
export function traced(shape: NamedShape, formats: Formats, attention: AttentionMethod = "tiled"): Traced {
  const { kv, activations } = formats;
  const kernels: Kernels = {
    ...shapeKernels(),
    // KV pages are the only tensors of four dimensions: [layers, heads, positions, headDim].
    alloc: (dtype, dims) => ghostOf(dims.length < 4 ? activations : dtype === KEYS ? kv.k : kv.v, dims),
    packer: ({ shape: dims, name }) => ({ write: () => {}, finish: () => ghostOf(formats.weights, dims, name) }),
  };
  const cache = new KvCache(kernels, shape.config, Number.MAX_SAFE_INTEGER, { kv: shape.config.latent ? KEYS : { k: KEYS, v: VALUES }, prefixIndex: false });
  const weights = randomWeights(shape, kernels, "f32");
  return { shape, formats, model: createModel(shape.config, weights), kernels, cache, attention, weightBytes: weightBytes(weights) };
}

/** What the cache calls its two formats, so that `alloc` can tell keys from values. */
const [KEYS, VALUES] = ["int8", "int4"] as const;

/** Runs the decoder once and returns what every op recorded, the choice of each sequence's next token included. */
export function traceStep({ model, kernels, cache, attention }: Traced, runs: readonly TraceRun[]): OpRecord[] {
  const ledger = new Ledger(true, { timing: false, records: true });
  const ops = new Ops(kernels, ledger, { attention });
  const batch = runs.map(({ past, tokens, prompt, logits = true }): Run => {
    const sequence = cache.create();
    cache.append(sequence, past);
    return { sequence, tokens: new Array<number>(tokens).fill(0), logits: logits ? "last" : "none", prompt };
  });
  const logits = forward(model, ops, makeBatch(cache, batch));
  if (logits) {
    const row = logits.as([1, logits.cols]);
    for (let i = 0; i < logits.rows; i++) ops.sample(row, () => 0);
  }
  for (const { sequence } of batch) cache.release(sequence);
  return ledger.records;
}

/** `batch` sequences of one length: all prompts are read, then all of them decode together. */
export interface Workload {
  readonly batch: number;
  /** Of each sequence. */
  readonly promptTokens: number;
  /** Tokens that each sequence decodes after its prompt. */
  readonly tokens: number;
}

/** Most prompt tokens in one step; longer prompts are read in chunks, shorter ones together. */
export const PREFILL_TOKENS = 2048;

/** The steps that read all prompts of a workload. */
export function tracePrefill(on: Traced, { batch, promptTokens }: Pick<Workload, "batch" | "promptTokens">): Steps[] {
  const together = Math.max(1, Math.min(batch, Math.floor(PREFILL_TOKENS / promptTokens)));
  const left = batch % together;
  const prompts = (count: number, past: number, tokens: number) =>
    traceStep(on, repeat({ past, tokens, prompt: true, logits: past + tokens === promptTokens }, count));
  const steps: Steps[] = [];
  for (let past = 0; past < promptTokens; past += PREFILL_TOKENS) {
    const tokens = Math.min(PREFILL_TOKENS, promptTokens - past);
    steps.push({ records: prompts(together, past, tokens), count: (batch - left) / together });
    if (left > 0) steps.push({ records: prompts(left, past, tokens), count: 1 });
  }
  return steps;
}

/** One decode step of `batch` sequences, each of which has `context` positions once the step is done. */
export function traceDecode(on: Traced, batch: number, context: number): OpRecord[] {
  return traceStep(on, repeat({ past: context - 1, tokens: 1, prompt: false }, batch));
}

/** Ranges of contexts into which a long decode is cut. Within a range costs are straight lines, so its two ends stand for all of it. */
const RANGES = 4;

/**
 * Every decode step of a workload. Flops and bytes of an op are linear in the context, so the steps at both ends of a range, each
 * counted for half of it, give its exact sums; only a time that changes from one bound to the other within a range is rounded up.
 */
export function traceDecodes(on: Traced, { batch, promptTokens, tokens }: Workload, ranges = RANGES): Steps[] {
  if (tokens <= 2 * ranges) {
    return Array.from({ length: tokens }, (_, i) => ({ records: traceDecode(on, batch, promptTokens + 1 + i), count: 1 }));
  }
  const steps: Steps[] = [];
  for (let range = 0; range < ranges; range++) {
    const first = Math.floor((tokens * range) / ranges);
    const end = Math.floor((tokens * (range + 1)) / ranges);
    for (const at of [first, end - 1]) steps.push({ records: traceDecode(on, batch, promptTokens + 1 + at), count: (end - first) / 2 });
  }
  return steps;
}

/** Bytes that `positions` positions of one sequence take in the KV cache, as pages. */
export function kvBytes({ cache }: Traced, positions: number): number {
  const sequence = cache.create();
  cache.append(sequence, 1);
  const page = cache.bytesInUse;
  cache.release(sequence);
  return page * Math.ceil(positions / PAGE_SIZE);
}

/** Most bytes of activations that one op reads and writes: room that a device needs beside weights and KV. */
export function workspaceBytes(records: readonly Pick<OpRecord, "read" | "written">[]): number {
  return records.reduce((most, { read, written }) => Math.max(most, read.activations + written.activations), 0);
}

const repeat = <T>(value: T, times: number): T[] => new Array<T>(times).fill(value);
