import { checkWindow, type KvFormat, type KvFormats } from "../kvcache/format.ts";
import { learnsPositions, type ModelConfig } from "../model/config.ts";
import type { ByteSource } from "../model/formats/source.ts";
import { type Fusion, FUSIONS } from "../tensor/fusion.ts";
import type { AttentionWindow } from "../tensor/kernels.ts";
import type { LedgerOptions } from "../tensor/ledger.ts";
import type { AttentionMethod } from "../tensor/ops.ts";
import type { Backend } from "./backend.ts";
import type { SamplingParams } from "./sampler.ts";
import { POLICIES, type Policy } from "./scheduler.ts";
import type { SchemeOptions } from "./schemes.ts";
import { resolveSpeculation, type SpeculationParams } from "./speculation/resolve.ts";
import type { Session } from "./session.ts";
import type { GivenRoofline } from "./token-budget.ts";

/** How an engine loads its model, and what it computes with. All may be left out. */
export interface EngineOptions extends SchemeOptions, SpeculationParams {
  /** llama2.c checkpoints keep their tokenizer in a file of its own. */
  tokenizer?: string | ByteSource;
  /** Default `auto`. */
  backend?: Backend;
  /** Threads of the wasm kernels; default all that the machine offers. */
  threads?: number;
  /**
   * Bits of the wasm kernels' vectors: 128 (default) or 256, for which V8 joins neighbouring vectors, by an experimental flag that holds for
   * the whole process; Node 24 and later, x86 with AVX2. Attention's sums differ in their last bits from those of 128.
   */
  vectors?: 128 | 256;
  /** Positions that one sequence may take; default the model's own context, at most 4096. */
  context?: number;
  /** Sequences that the KV cache can hold at full context; pages are allocated when first needed. Default 16. */
  maxSequences?: number;
  /** Pages of the KV cache; default what `maxSequences` need, and at least what one sequence does. */
  kvPages?: number;
  /**
   * Most tokens in one step, prompt chunks and running sequences together, and most sequences that run at once. Default `auto`: the rows at
   * which this model's linears turn from memory-bound to compute-bound, measured when it first matters.
   */
  tokenBudget?: number | "auto";
  /** Steps shall take no longer, in milliseconds: bounds what `auto` chooses. */
  tpotMs?: number;
  /** What the machine does at best, for `auto` to reckon with instead of measuring. */
  roofline?: GivenRoofline;
  /** How requests are batched; default `chunked`. */
  policy?: Policy;
  /** What becomes of the keys and values of a request that has to give its pages up: computed again (default), or kept outside of the cache. */
  preemption?: "recompute" | "swap";
  /** Most requests that may wait; beyond, `generate` throws QueueFullError. Default 1024. */
  maxQueue?: number;
  /** Default `tiled`. */
  attention?: AttentionMethod;
  /** Which ops run as one where the kernels can; default all. With none, hooks see the f32 output of every op. */
  fusions?: readonly Fusion[];
  /** How keys and values are stored, both or each: f32 (default), int8 or int4. */
  kv?: KvFormat | Partial<KvFormats>;
  /**
   * Attention sees the last `window` positions and the first `sinks` ones, and the pages between are given back: generation without end in
   * fixed memory. With rotary positions the context is then no limit, unless it is given. Default: everything is seen.
   */
  window?: number;
  /** Default 4 with a window (Xiao et al. 2023, section 4.4): without them, models that were trained with full attention lose their way. */
  sinks?: number;
  /** Whether prompts that begin alike share pages, and skip their computation; default true. */
  prefixCache?: boolean;
  /** Accounting of every op: on, off (the default), or how. */
  ledger?: boolean | LedgerOptions;
  /** A small model of the same vocabulary, to guess tokens that this one then tests several at a time: GGUF or a Hugging Face folder. */
  draftModel?: string | ByteSource;
  /** Whether loading a small model ends with a tenth of a second of small steps, after which the kernels' code is optimised; default true. */
  warmUp?: boolean;
  /** Called with the share of the weights loaded so far, 0 to 1. */
  onProgress?: (share: number) => void;
}

/** What one request asks for besides its prompt. All may be left out. */
export interface GenerateParams extends SamplingParams, SpeculationParams {
  /** Default 256; the context is a limit too. */
  maxTokens?: number;
  /** Texts that end the generation; they are not part of it. */
  stop?: readonly string[];
  signal?: AbortSignal;
  /** A whole number; each level lets it pass up to 64 requests that came before. Default 0. */
  priority?: number;
  /** The text to go on with, prompt and result becoming part of it. */
  session?: Session;
}

const DEFAULT_SINKS = 4;
const DEFAULT_CONTEXT = 4096;
/** @throws RangeError for what isn't a whole number from 1 on, or a limit that isn't positive. */
export function checkLimits(options: EngineOptions): void {
  const { tokenBudget, roofline } = options;
  const whole = { maxSequences: options.maxSequences, kvPages: options.kvPages, tokenBudget: tokenBudget === "auto" ? undefined : tokenBudget, maxQueue: options.maxQueue };
  for (const [name, value = 1] of Object.entries(whole)) {
    if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${name}: expected a whole number, 1 or more, found ${value}`);
  }
  for (const [name, value = 1] of Object.entries({ tpotMs: options.tpotMs, gbPerSecond: roofline?.gbPerSecond, gflops: roofline?.gflops })) {
    if (!(value > 0)) throw new RangeError(`${name}: expected more than 0, found ${value}`);
  }
  const { attention = "tiled", policy = POLICIES[0], preemption = "recompute", sparsity = "none" } = options;
  const named: readonly (readonly [string, string, readonly string[]])[] = [
    ["attention", attention, ["tiled", "naive"]], ["policy", policy, POLICIES], ["preemption", preemption, ["recompute", "swap"]], ["sparsity", sparsity, ["none", "2:4"]],
  ];
  for (const [name, given, choices] of named) {
    if (!choices.includes(given)) throw new RangeError(`${name}: expected one of ${choices.join(", ")}, found ${JSON.stringify(given)}`);
  }
  const { fusions = FUSIONS } = options;
  if (!Array.isArray(fusions) || !fusions.every((one) => FUSIONS.includes(one))) throw new RangeError(`fusions: expected some of ${FUSIONS.join(", ")}, found ${JSON.stringify(fusions)}`);
}

/** @throws RangeError for a token that the vocabulary has not. */
export function checkIds(what: string, tokens: readonly number[], vocabSize: number): void {
  const wrong = tokens.find((id) => !(Number.isSafeInteger(id) && id >= 0 && id < vocabSize));
  if (wrong !== undefined) throw new RangeError(`${what}: expected token ids below ${vocabSize}, found ${wrong}`);
}

/** @throws RangeError for a draft model beside what it does not go with, or a way of guessing that does not exist. */
export function checkSpeculation(options: EngineOptions): void {
  const { draftModel, window, speculate } = options;
  resolveSpeculation(options, draftModel !== undefined);
  if (draftModel === undefined) return;
  if (window !== undefined) throw new RangeError("draftModel: expected no window with it (its own memory has an end; speculate ngram goes with a window), found both");
  if (speculate === "ngram") throw new RangeError("speculate: expected draft or off with a draft model, found ngram");
}

/** @throws RangeError for a context that the model does not have. */
export function resolveContext(config: ModelConfig, { context: wanted, window }: EngineOptions): number {
  const endless = window !== undefined && !learnsPositions(config);
  if (wanted === undefined) return endless ? Infinity : Math.min(config.contextLength, DEFAULT_CONTEXT);
  if (Number.isSafeInteger(wanted) && wanted >= 2 && (endless || wanted <= config.contextLength)) return wanted;
  const expected = endless ? "a whole number, 2 or more" : `2 to ${config.contextLength} tokens (the model's own context)`;
  throw new RangeError(`context: expected ${expected}, found ${wanted}`);
}

/** @throws RangeError when the window and the sinks are more than the model was trained for. */
export function resolveWindow({ contextLength }: ModelConfig, { window: size, sinks: wanted }: EngineOptions): AttentionWindow | undefined {
  if (size === undefined && wanted === undefined) return undefined;
  if (size === undefined) throw new RangeError(`sinks: expected a window to go with them, found ${wanted} sinks and none`);
  const sinks = wanted ?? DEFAULT_SINKS;
  checkWindow({ size, sinks });
  if (size + sinks > contextLength) throw new RangeError(`window: expected at most ${contextLength} positions (the model's own context) with its ${sinks} sinks, found ${size}`);
  return { size, sinks };
}
