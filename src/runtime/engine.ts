import { KvCache, KvCacheFullError, PAGE_SIZE, pagesFor } from "../kvcache/cache.ts";
import { checkAbilities, checkWindow, type KvFormat, type KvFormats, resolveFormats } from "../kvcache/format.ts";
import type { SnapshotModel } from "../kvcache/snapshot.ts";
import { createModel, forward, makeBatch, type Model } from "../model/decoder.ts";
import type { ModelConfig } from "../model/config.ts";
import { fingerprint } from "../model/fingerprint.ts";
import { loadWeights } from "../model/load.ts";
import { type ModelFile, openModel } from "../model/open.ts";
import type { ByteSource } from "../model/formats/source.ts";
import type { Tokenizer } from "../model/tokenizer/tokenizer.ts";
import type { AttentionWindow } from "../tensor/kernels.ts";
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
import { Session } from "./session.ts";

export interface EngineOptions extends SchemeOptions {
  /** llama2.c checkpoints keep their tokenizer in a file of its own. */
  tokenizer?: string | ByteSource;
  /** Default `auto`. */
  backend?: Backend;
  /** Threads of the wasm kernels; default all that the machine offers. */
  threads?: number;
  /** Positions that one sequence may take; default the model's own context, at most 4096. */
  context?: number;
  /** Sequences that the KV cache can hold at full context; pages are allocated when first needed. Default 16. */
  maxSequences?: number;
  /** Tokens that one step may take, prompt chunks and running sequences together. Default 256. */
  tokenBudget?: number;
  /** Default `tiled`. */
  attention?: AttentionMethod;
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
  /** Called with the share of the weights loaded so far, 0 to 1. */
  onProgress?: (share: number) => void;
}

export interface GenerateParams extends SamplingParams {
  /** Default 256; the context is a limit too. */
  maxTokens?: number;
  /** Texts that end the generation; they are not part of it. */
  stop?: readonly string[];
  signal?: AbortSignal;
  /** The text to go on with, prompt and result becoming part of it. */
  session?: Session;
}

const DEFAULT_SINKS = 4;
const DEFAULT_CONTEXT = 4096;
/** Positions that one step of `logits` computes. */
const LOGITS_CHUNK = 64;

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
  /** Positions that one sequence may take; Infinity with a window. */
  readonly context: number;
  /** Milliseconds that loading took. */
  readonly loadMs: number;
  private readonly ops: Ops;
  private readonly scheduler: Scheduler<Generation>;
  private readonly active = new Set<Generation>();
  /** Least recently used first. */
  private readonly sessions = new Set<Session>();
  private readonly identity: SnapshotModel;
  private pumping = false;
  private closed = false;

  private constructor(file: ModelFile, model: Model, ops: Ops, options: EngineOptions, identity: SnapshotModel, loadMs: number) {
    const { config } = model;
    this.config = config;
    this.tokenizer = file.tokenizer;
    this.model = model;
    this.ops = ops;
    this.ledger = ops.ledger;
    const { kv, prefixCache, tokenBudget = 256, maxSequences = 16 } = options;
    const window = resolveWindow(config, options);
    this.context = resolveContext(config, options);
    this.identity = identity;
    this.loadMs = loadMs;
    const pages = pagesFor(window, this.context, Math.max(tokenBudget, LOGITS_CHUNK)) * maxSequences;
    this.cache = new KvCache(ops.kernels, config, pages, { kv, window, prefixIndex: prefixCache });
    this.scheduler = new Scheduler(this.cache, tokenBudget);
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
      resolveContext(file.config, options);
      for (const name of ["maxSequences", "tokenBudget"] as const) {
        const value = options[name] ?? 1;
        if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${name}: expected a whole number, 1 or more, found ${value}`);
      }
      const schemes = resolveSchemes(options, file.config);
      const [formats, window] = [resolveFormats(options.kv), resolveWindow(file.config, options)];
      const kernels = await createKernels(options.backend ?? "auto", { threads: options.threads, scalarOnly: schemes.scalarOnly });
      try {
        checkAbilities(kernels, formats, window);
        const model = createModel(file.config, loadWeights(file, file.config, kernels, { ...schemes.load, onProgress: options.onProgress }));
        const ledger = new Ledger(Boolean(options.ledger), typeof options.ledger === "object" ? options.ledger : {});
        const ops = new Ops(kernels, ledger, options.attention, schemes.activations);
        const { name, vocabSize } = file.config;
        const identity = { name, vocabSize, fingerprint: fingerprint(file, file.config, [schemes.load, schemes.activations.dtype]) };
        return new Engine(file, model, ops, options, identity, performance.now() - started);
      } catch (error) {
        kernels.close();
        throw error;
      }
    } finally {
      source.close();
    }
  }

  get backend(): string {
    return this.ops.kernels.name;
  }

  get threads(): number {
    return this.ops.kernels.threads;
  }

  /**
   * Starts a generation from a text, or from token ids taken as they are.
   * @throws RangeError when the prompt is empty, beyond the context or not of this vocabulary, or a parameter is out of range.
   */
  generate(prompt: string | readonly number[], params: GenerateParams = {}): Generation {
    if (this.closed) throw new Error("engine: closed");
    const { maxTokens = 256, stop = [], signal, session } = params;
    if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) throw new RangeError(`maxTokens: expected a whole number, 1 or more, found ${maxTokens}`);
    const goesOn = params.seed === undefined && session?.seed !== undefined;
    const sampling = resolveSampling(goesOn ? { ...params, seed: session.seed } : params);
    signal?.throwIfAborted();
    const tokens = session && session.tokens.length > 0 ? this.continued(session, prompt) : this.promptTokens(prompt);
    let draws = goesOn ? session.draws : 0;
    const sampler = createSampler(sampling, draws);
    const generation = new Generation({
      ...{ prompt: tokens, maxTokens, context: this.context, stop, eos: this.tokenizer.eos, seed: sampling.seed, signal },
      sampler: (logits, history) => (draws++, sampler(logits, history)),
      stream: this.tokenizer.stream(tokens),
      sequence: session?.begin(tokens),
      onEnd: (ended) => {
        if (session) this.endSession(session, ended, { seed: sampling.seed, draws });
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
    const { bos, addBos } = this.tokenizer;
    const text = typeof prompt === "string" ? this.tokenizer.encode(prompt) : [...prompt];
    const tokens = typeof prompt === "string" && bos !== undefined && (addBos || text.length === 0) ? [bos, ...text] : text;
    if (tokens.length === 0) throw new RangeError("prompt: expected at least one token, found none (the model has no BOS token to begin with)");
    return this.checked(tokens);
  }

  /** The ids that `generate` would feed to go on with a session: its own, then the prompt's, tokenised by itself and without BOS. */
  private continued(session: Session, prompt: string | readonly number[]): number[] {
    return this.checked([...session.tokens, ...(typeof prompt === "string" ? this.tokenizer.encode(prompt) : prompt)]);
  }

  private checked(tokens: number[]): number[] {
    const { vocabSize } = this.tokenizer;
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
      for (let at = 0; at < tokens.length; at += LOGITS_CHUNK) {
        const run = { sequence, tokens: tokens.slice(at, at + LOGITS_CHUNK), logits: "all", prompt: true } as const;
        const wanted = Math.ceil((at + run.tokens.length) / PAGE_SIZE) - Math.ceil(at / PAGE_SIZE);
        while (wanted > this.scheduler.sparePages && this.dropIdlePages());
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
   * Feeds tokens, the last `steps` of them one at a time, as if they had been generated, and these again each time that it is asked; yields
   * the milliseconds that the steps took. @throws KvCacheFullError when generations run and hold too many pages.
   */
  *replay(tokens: readonly number[], steps: number): Generator<number, never> {
    const sequence = this.cache.create();
    const feed = (part: readonly number[], prompt: boolean) =>
      forward(this.model, this.ops, makeBatch(this.cache, [{ sequence, tokens: part, logits: prompt ? "none" : "last", prompt }]));
    try {
      const split = tokens.length - steps;
      for (let at = 0; at < split; at += LOGITS_CHUNK) feed(tokens.slice(at, Math.min(at + LOGITS_CHUNK, split)), true);
      for (;;) {
        const started = performance.now();
        for (const token of tokens.slice(split)) feed([token], false);
        yield performance.now() - started;
        this.cache.truncate(sequence, split);
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

  /** An empty session, for `generate` to go on with. */
  session(): Session {
    const session = new Session(this.cache, this.identity, (closed) => this.sessions.delete(closed));
    this.sessions.add(session);
    return session;
  }

  /**
   * A session as `save` wrote it, by an engine of the same model, weight formats and KV options; it goes on bit for bit as the saved one.
   * @throws SnapshotError with one line that says what does not fit, KvCacheFullError.
   */
  restoreSession(bytes: Uint8Array, source = "session"): Session {
    const session = Session.restore(this.cache, this.identity, (closed) => this.sessions.delete(closed), bytes, source);
    this.sessions.add(session);
    return session;
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
    if (plan.length === 0) {
      // All requests wait for pages: idle sessions give theirs, else those of `logits` will come back.
      if (!this.dropIdlePages()) this.scheduler.reclaim();
      return;
    }
    for (const { request } of plan) request.began();
    const logits = forward(this.model, this.ops, makeBatch(this.cache, plan.map(({ run }) => run)));
    // A hook may have cancelled a request in the middle of the step.
    for (const { request, run } of plan) if (request.sequence === run.sequence) this.cache.record(run.sequence, run.tokens);
    let row = 0;
    for (const { request, run } of plan) {
      if (run.logits === "none" || !logits) continue;
      const own = logits.slice(row, ++row);
      request.accept(this.ops.sample(own, (values) => request.pick(values)));
    }
  }

  private endSession(session: Session, ended: Generation, random: { seed: number; draws: number }): void {
    session.end(ended, random);
    this.sessions.delete(session);
    this.sessions.add(session);
  }

  /** Takes the pages of the session that was idle longest; its text stays. False when there are none. */
  private dropIdlePages(): boolean {
    for (const session of this.sessions) {
      if (session.busy || session.cachedTokens === 0) continue;
      session.dropPages();
      return true;
    }
    return false;
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

/** @throws RangeError for a context that the model does not have. */
function resolveContext(config: ModelConfig, { context: wanted, window }: EngineOptions): number {
  const endless = window !== undefined && config.rope !== undefined;
  if (wanted === undefined) return endless ? Infinity : Math.min(config.contextLength, DEFAULT_CONTEXT);
  if (Number.isSafeInteger(wanted) && wanted >= 2 && (endless || wanted <= config.contextLength)) return wanted;
  const expected = endless ? "a whole number, 2 or more" : `2 to ${config.contextLength} tokens (the model's own context)`;
  throw new RangeError(`context: expected ${expected}, found ${wanted}`);
}

/** @throws RangeError when the window and the sinks are more than the model was trained for. */
function resolveWindow({ contextLength }: ModelConfig, { window: size, sinks: wanted }: EngineOptions): AttentionWindow | undefined {
  if (size === undefined && wanted === undefined) return undefined;
  if (size === undefined) throw new RangeError(`sinks: expected a window to go with them, found ${wanted} sinks and none`);
  const sinks = wanted ?? DEFAULT_SINKS;
  checkWindow({ size, sinks });
  if (size + sinks > contextLength) throw new RangeError(`window: expected at most ${contextLength} positions (the model's own context) with its ${sinks} sinks, found ${size}`);
  return { size, sinks };
}

async function sourceOf(from: string | ByteSource): Promise<ByteSource> {
  if (typeof from !== "string") return from;
  const { openFileOrFolder } = await import("./node-files.ts");
  return openFileOrFolder(from);
}
