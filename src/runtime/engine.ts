import { KvCache, KvCacheFullError, PAGE_SIZE } from "../kvcache/cache.ts";
import { createModel, forward, makeBatch, type Model } from "../model/decoder.ts";
import type { ModelConfig } from "../model/config.ts";
import { loadWeights } from "../model/load.ts";
import { type ModelFile, openModel } from "../model/open.ts";
import type { ByteSource } from "../model/formats/source.ts";
import type { Tokenizer } from "../model/tokenizer/tokenizer.ts";
import { Ledger, type LedgerOptions, type OpHook } from "../tensor/ledger.ts";
import { type AttentionMethod, Ops } from "../tensor/ops.ts";
import { breakdown } from "../tensor/totals.ts";
import { type Backend, createKernels } from "./backend.ts";
import { breathe } from "./breathe.ts";
import { Generation, type GenerationResult } from "./generation.ts";
import { createSampler, resolveSampling, type SamplingParams } from "./sampler.ts";
import { Scheduler } from "./scheduler.ts";
import { Stepper, type StepperParams } from "./stepper/stepper.ts";
import { resolveSchemes, type SchemeOptions } from "./schemes.ts";

export interface EngineOptions extends SchemeOptions {
  /** llama2.c checkpoints keep their tokenizer in a file of its own. */
  tokenizer?: string | ByteSource;
  /** Default `auto`. */
  backend?: Backend;
  /** Positions that one sequence may take; default the model's own context, at most 4096. */
  context?: number;
  /** Sequences that the KV cache can hold at full context; pages are allocated when first needed. Default 16. */
  maxSequences?: number;
  /** Tokens that one step may take, prompt chunks and running sequences together. Default 256. */
  tokenBudget?: number;
  /** Default `tiled`. */
  attention?: AttentionMethod;
  /** Accounting of every op: on, off (the default), or how. */
  ledger?: boolean | LedgerOptions;
  /** Called with the share of the weights loaded so far, 0 to 1. */
  onProgress?: (share: number) => void;
}

export interface GenerateParams extends SamplingParams {
  /** Default 256; the context is a limit too. */
  maxTokens?: number;
  /** Texts that end the generation; they are not part of it. */
  stop?: readonly string[];
  signal?: AbortSignal;
}

const DEFAULT_CONTEXT = 4096;

/**
 * A loaded model, ready to generate. Any number of generations may run at once: each step of the decoder takes the next tokens of all
 * of them together.
 */
export class Engine {
  readonly config: ModelConfig;
  readonly tokenizer: Tokenizer;
  readonly model: Model;
  readonly ledger: Ledger;
  readonly cache: KvCache;
  readonly context: number;
  /** Milliseconds that loading took. */
  readonly loadMs: number;
  private readonly ops: Ops;
  private readonly scheduler: Scheduler<Generation>;
  private readonly active = new Set<Generation>();
  private pumping = false;
  private closed = false;

  private constructor(file: ModelFile, model: Model, ops: Ops, options: EngineOptions, loadMs: number) {
    const { config } = model;
    this.config = config;
    this.tokenizer = file.tokenizer;
    this.model = model;
    this.ops = ops;
    this.ledger = ops.ledger;
    this.context = resolveContext(config, options.context);
    this.loadMs = loadMs;
    this.cache = new KvCache(ops.kernels, config, Math.ceil(this.context / PAGE_SIZE) * (options.maxSequences ?? 16));
    this.scheduler = new Scheduler(this.cache, options.tokenBudget ?? 256);
  }

  /**
   * Loads a GGUF file or a llama2.c checkpoint, from a path (Node) or any ByteSource.
   * @throws FormatError when a file cannot be used, RangeError for an option out of range.
   */
  static async load(from: string | ByteSource, options: EngineOptions = {}): Promise<Engine> {
    const started = performance.now();
    const source = await sourceOf(from);
    try {
      const tokenizer = options.tokenizer === undefined ? undefined : await sourceOf(options.tokenizer);
      const file = openWith(source, tokenizer);
      resolveContext(file.config, options.context);
      for (const name of ["maxSequences", "tokenBudget"] as const) {
        const value = options[name] ?? 1;
        if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${name}: expected a whole number, 1 or more, found ${value}`);
      }
      const schemes = resolveSchemes(options, file.config);
      const kernels = createKernels(options.backend ?? "auto");
      const model = createModel(file.config, loadWeights(file, file.config, kernels, { ...schemes.load, onProgress: options.onProgress }));
      const ledger = new Ledger(Boolean(options.ledger), typeof options.ledger === "object" ? options.ledger : {});
      const ops = new Ops(kernels, ledger, options.attention, schemes.activations);
      return new Engine(file, model, ops, options, performance.now() - started);
    } finally {
      source.close();
    }
  }

  get backend(): string {
    return this.ops.kernels.name;
  }

  /**
   * Starts a generation from a text, or from token ids taken as they are.
   * @throws RangeError when the prompt is empty, beyond the context or not of this vocabulary, or a parameter is out of range.
   */
  generate(prompt: string | readonly number[], params: GenerateParams = {}): Generation {
    if (this.closed) throw new Error("engine: closed");
    const { maxTokens = 256, stop = [], signal } = params;
    if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) throw new RangeError(`maxTokens: expected a whole number, 1 or more, found ${maxTokens}`);
    const sampling = resolveSampling(params);
    signal?.throwIfAborted();
    const tokens = this.promptTokens(prompt);
    const generation = new Generation({
      ...{ prompt: tokens, maxTokens, context: this.context, stop, eos: this.tokenizer.eos, seed: sampling.seed, signal },
      sampler: createSampler(sampling),
      stream: this.tokenizer.stream(tokens),
      onEnd: (ended) => {
        this.scheduler.remove(ended);
        this.active.delete(ended);
      },
    });
    this.active.add(generation);
    this.scheduler.add(generation);
    if (!this.pumping) void this.pump();
    return generation;
  }

  /** Runs a generation to its end. */
  async complete(prompt: string | readonly number[], params: GenerateParams = {}): Promise<GenerationResult> {
    return this.generate(prompt, params).result;
  }

  /** The ids that `generate` would feed for a prompt. */
  promptTokens(prompt: string | readonly number[]): number[] {
    const { bos, addBos, vocabSize } = this.tokenizer;
    const text = typeof prompt === "string" ? this.tokenizer.encode(prompt) : [...prompt];
    const tokens = typeof prompt === "string" && bos !== undefined && (addBos || text.length === 0) ? [bos, ...text] : text;
    if (tokens.length === 0) throw new RangeError("prompt: expected at least one token, found none (the model has no BOS token to begin with)");
    if (tokens.length >= this.context) throw new RangeError(`prompt: expected fewer than ${this.context} tokens (the context), found ${tokens.length}`);
    const wrong = tokens.find((id) => !(Number.isSafeInteger(id) && id >= 0 && id < vocabSize));
    if (wrong !== undefined) throw new RangeError(`prompt: expected token ids below ${vocabSize}, found ${wrong}`);
    return tokens;
  }

  /**
   * Next-token logits [vocabSize] after every one of `tokens`, a copy for each position.
   * @throws KvCacheFullError when running generations need the cache's last pages.
   */
  *logits(tokens: readonly number[]): Generator<Float32Array> {
    const sequence = this.cache.create();
    try {
      for (let at = 0; at < tokens.length; at += 64) {
        const run = { sequence, tokens: tokens.slice(at, at + 64), logits: "all", prompt: true } as const;
        const wanted = Math.ceil((at + run.tokens.length) / PAGE_SIZE) - sequence.pages.length;
        if (wanted > this.scheduler.sparePages) throw new KvCacheFullError(`logits: ${wanted} pages of the KV cache needed, ${this.scheduler.sparePages} not promised to running generations`);
        const logits = forward(this.model, this.ops, makeBatch(this.cache, [run]))!;
        const rows = logits.f32.slice();
        for (let i = 0; i < logits.rows; i++) yield rows.subarray(i * logits.cols, (i + 1) * logits.cols);
      }
    } finally {
      this.cache.release(sequence);
    }
  }

  /**
   * A debugger for tokens: runs the decoder over a prompt, op by op, with every intermediate tensor to look at and to change. It takes pages
   * of the engine's KV cache until it is closed.
   * @throws RangeError as `generate` does for a prompt.
   */
  stepper(prompt: string | readonly number[], { timing = true }: StepperParams = {}): Stepper {
    if (this.closed) throw new Error("engine: closed");
    const { kernels, attentionMethod, activations } = this.ops;
    const { model, cache, tokenizer, context } = this;
    const ops = new Ops(kernels, new Ledger(true, { timing }), attentionMethod, activations);
    return new Stepper({ model, ops, cache, tokenizer, context, prompt: this.promptTokens(prompt) });
  }

  /** Calls `hook` after every op of every step; returns the function that takes it off again. Turns the ledger on. */
  onOp(hook: OpHook): () => void {
    this.ledger.on = true;
    return this.ledger.onOp(hook);
  }

  /** Where flops, bytes and time went since the engine was loaded, by phase and kind of op. Needs the ledger. */
  breakdown(): ReturnType<typeof breakdown> {
    return breakdown(this.ledger.totals());
  }

  /** Cancels what runs and ends the backend's threads. */
  close(): void {
    this.closed = true;
    for (const generation of this.active) generation.fail(new Error("engine: closed while generating"));
    this.ops.kernels.close();
  }

  /** One pass of the decoder over all running generations. */
  private step(): void {
    const plan = this.scheduler.plan();
    if (plan.length === 0) return; // All requests wait for pages that `logits` holds.
    for (const { request } of plan) request.began();
    const logits = forward(this.model, this.ops, makeBatch(this.cache, plan.map(({ run }) => run)));
    let row = 0;
    for (const { request, run } of plan) {
      if (run.logits === "none" || !logits) continue;
      const own = logits.slice(row, ++row);
      request.accept(this.ops.sample(own, (values) => request.pick(values)));
    }
  }

  private async pump(): Promise<void> {
    this.pumping = true;
    await breathe();
    try {
      while (!this.scheduler.idle && !this.closed) {
        this.step();
        await breathe();
      }
    } catch (error) {
      for (const generation of this.active) generation.fail(error);
    } finally {
      this.pumping = false;
    }
  }
}

function openWith(source: ByteSource, tokenizer: ByteSource | undefined): ModelFile {
  try {
    return openModel(source, tokenizer);
  } finally {
    tokenizer?.close();
  }
}

function resolveContext(config: ModelConfig, wanted: number | undefined): number {
  if (wanted === undefined) return Math.min(config.contextLength, DEFAULT_CONTEXT);
  if (Number.isSafeInteger(wanted) && wanted >= 2 && wanted <= config.contextLength) return wanted;
  throw new RangeError(`context: expected 2 to ${config.contextLength} tokens (the model's own context), found ${wanted}`);
}

async function sourceOf(from: string | ByteSource): Promise<ByteSource> {
  if (typeof from !== "string") return from;
  const { openFileOrFolder } = await import("./node-files.ts");
  return openFileOrFolder(from);
}
