import { KvCache, KvCacheFullError, type KvSequence, PAGE_SIZE, pagesFor } from "../kvcache/cache.ts";
import { checkAbilities, resolveFormats } from "../kvcache/format.ts";
import { decodeSnapshot, encodeSnapshot, type SnapshotModel } from "../kvcache/snapshot.ts";
import { createModel, forward, makeBatch, type Model } from "../model/decoder.ts";
import type { ModelConfig } from "../model/config.ts";
import { fingerprint } from "../model/fingerprint.ts";
import { loadWeights } from "../model/load.ts";
import type { ModelFile } from "../model/open.ts";
import type { ByteSource } from "../model/formats/source.ts";
import type { Tokenizer } from "../model/tokenizer/tokenizer.ts";
import type { Fusion } from "../tensor/fusion.ts";
import { Ledger, type OpHook } from "../tensor/ledger.ts";
import type { Kernels } from "../tensor/kernels.ts";
import { type ActivationFormat, Ops } from "../tensor/ops.ts";
import { breakdown } from "../tensor/totals.ts";
import { createKernels, type KernelFacts, kernelFacts, startProbe } from "./backend.ts";
import { BatchLoop } from "./batch-loop.ts";
import { type ChatFormat, chatFormat, type ChatMessage, type ChatPrompt, type ChatTemplateOptions } from "./chat.ts";
import { checkIds, checkLimits, checkSpeculation, type EngineOptions, type GenerateParams, resolveContext, resolveWindow } from "./engine-options.ts";
import { Generation, type GenerationResult } from "./generation.ts";
import type { EngineEvent, EngineStats } from "./monitor.ts";
import { openWith, sourceOf } from "./open-source.ts";
import { createShaper, randomFrom, resolveSampling } from "./sampler.ts";
import { DraftModel } from "./speculation/draft.ts";
import { resolveSpeculation, speculationFor, type SpeculationParams } from "./speculation/resolve.ts";
import { Stepper, type StepperParams } from "./stepper/stepper.ts";
import { opsActivations, resolveSchemes } from "./schemes.ts";
import { Session } from "./session.ts";
import { MAX_AUTO_BUDGET } from "./token-budget.ts";
import { warmUp } from "./warm-up.ts";

export type { EngineOptions, GenerateParams } from "./engine-options.ts";
export { QueueFullError } from "./batch-loop.ts";

/** Positions that one step of `logits` computes. */
const LOGITS_CHUNK = 64;
const DEFAULT_SEQUENCES = 16;

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
  /** How the model wants its conversations written. */
  readonly chatFormat: ChatFormat;
  /** Milliseconds that loading took. */
  readonly loadMs: number;
  /** Guesses tokens for this model to test. */
  readonly draft: DraftModel | undefined;
  private readonly ops: Ops;
  private readonly speculation: Required<SpeculationParams>;
  private readonly loop: BatchLoop;
  /** Least recently used first. */
  private readonly sessions = new Set<Session>();
  private readonly identity: SnapshotModel;
  private closed = false;

  private constructor(file: Pick<ModelFile, "metadata" | "tokenizer">, model: Model, ops: Ops, options: EngineOptions, identity: SnapshotModel, loadMs: number, draft?: DraftModel) {
    const { config } = model;
    this.config = config;
    this.tokenizer = file.tokenizer;
    this.chatFormat = chatFormat(file);
    this.model = model;
    this.ops = ops;
    this.ledger = ops.ledger;
    const { kv, prefixCache, tokenBudget = "auto", maxSequences = DEFAULT_SEQUENCES } = options;
    const window = resolveWindow(config, options);
    this.context = resolveContext(config, options);
    this.identity = identity;
    this.loadMs = loadMs;
    this.draft = draft;
    this.speculation = resolveSpeculation(options, draft !== undefined);
    const chunk = Math.max(tokenBudget === "auto" ? MAX_AUTO_BUDGET : tokenBudget, LOGITS_CHUNK);
    const least = pagesFor(window, this.context, chunk);
    const { kvPages = least * maxSequences } = options;
    if (kvPages < least) throw new RangeError(`kvPages: expected ${least} or more (one sequence at full context), found ${kvPages}`);
    this.cache = new KvCache(ops.kernels, config, kvPages, { kv, window, prefixIndex: prefixCache });
    const swap = {
      save: (sequence: KvSequence) => encodeSnapshot(this.cache, sequence, identity, { tokens: sequence.tokens, notes: {} }),
      load: (bytes: Uint8Array) => decodeSnapshot(this.cache, bytes, identity).sequence,
    };
    const { policy, tpotMs, roofline, maxQueue = 1024 } = options;
    this.loop = new BatchLoop(model, ops, this.cache, {
      ...{ policy, tokenBudget, tpotMs, roofline, maxQueue, swap: options.preemption === "swap" ? swap : undefined },
      dropIdlePages: () => this.dropIdlePages(),
    });
    if (options.warmUp !== false) warmUp(model, ops, this.cache);
  }

  /**
   * Loads a GGUF file (the first of a split one), a Hugging Face folder or a llama2.c checkpoint, from a path (Node), a ByteSource or a ModelFolder.
   * @throws FormatError when a file cannot be used, RangeError for an option out of range.
   */
  static async load(from: string | ByteSource, options: EngineOptions = {}): Promise<Engine> {
    const started = performance.now();
    if (options.backend !== "scalar") startProbe();
    const source = await sourceOf(from);
    try {
      const tokenizer = options.tokenizer === undefined ? undefined : await sourceOf(options.tokenizer);
      const file = openWith(source, tokenizer);
      const context = resolveContext(file.config, options);
      checkLimits(options);
      checkSpeculation(options);
      const schemes = resolveSchemes(options, file.config);
      const [formats, window] = [resolveFormats(options.kv), resolveWindow(file.config, options)];
      const kernels = await createKernels(options.backend ?? "auto", { threads: options.threads, vectors: options.vectors, ...schemes.backend });
      let draft: DraftModel | undefined;
      try {
        checkAbilities(kernels, formats, window);
        const model = createModel(file.config, loadWeights(file, file.config, kernels, { ...schemes.load, onProgress: options.onProgress }), context);
        const ledger = new Ledger(Boolean(options.ledger), typeof options.ledger === "object" ? options.ledger : {});
        const ops = new Ops(kernels, ledger, { ...options, activations: opsActivations(kernels, schemes.activations) });
        const { name, vocabSize } = file.config;
        const hash = fingerprint(file, file.config, [schemes.load, schemes.activations.dtype]);
        const identity: SnapshotModel = {
          ...{ name, vocabSize },
          get fingerprint() {
            return hash();
          },
        };
        const { draftModel, maxSequences = DEFAULT_SEQUENCES } = options;
        if (draftModel !== undefined) draft = await DraftModel.load(draftModel, file, { ...options, context, maxSequences });
        return new Engine(file, model, ops, options, identity, performance.now() - started, draft);
      } catch (error) {
        kernels.close();
        draft?.close();
        throw error;
      }
    } finally {
      source.close();
    }
  }

  /**
   * An engine over a model that is in memory already, such as one of random weights; it closes the kernels. Sessions of it fit no other.
   * A draft model is not for it. @throws RangeError for an option out of range.
   */
  static from(model: Model, kernels: Kernels, tokenizer: Tokenizer, options: EngineOptions = {}, activations?: ActivationFormat): Engine {
    checkLimits(options);
    const { config } = model;
    resolveContext(config, options);
    checkAbilities(kernels, resolveFormats(options.kv), resolveWindow(config, options));
    if (options.draftModel !== undefined) throw new RangeError("draftModel: expected a model that is loaded from a file, found one in memory");
    const ledger = new Ledger(Boolean(options.ledger), typeof options.ledger === "object" ? options.ledger : {});
    const identity = { name: config.name, vocabSize: config.vocabSize, fingerprint: `${config.name} in memory` };
    return new Engine({ metadata: new Map(), tokenizer }, model, new Ops(kernels, ledger, { ...options, activations }), options, identity, 0);
  }

  get backend(): string {
    return this.ops.kernels.name;
  }

  /** What runs as one op on these kernels. */
  get fusions(): readonly Fusion[] {
    return [...this.ops.fusions];
  }

  /** What the kernels are, and what the probe at start-up found. */
  get kernels(): KernelFacts {
    return kernelFacts(this.ops.kernels);
  }

  get threads(): number {
    return this.ops.kernels.threads;
  }

  /**
   * Starts a generation from a text, or from token ids taken as they are.
   * @throws RangeError when the prompt is empty, beyond the context or not of this vocabulary, or a parameter is out of range;
   * QueueFullError when too many requests wait already.
   */
  generate(prompt: string | readonly number[], params: GenerateParams = {}): Generation {
    return this.start(prompt, params);
  }

  /**
   * Starts `count` generations of one prompt, which is computed once; the i-th one is what `generate` gives with the i-th seed from
   * `params.seed` on. @throws as `generate` does.
   */
  samples(prompt: string | readonly number[], count: number, params: GenerateParams = {}): Generation[] {
    if (!Number.isSafeInteger(count) || count < 1) throw new RangeError(`samples: expected a whole number, 1 or more, found ${count}`);
    if (params.session) throw new RangeError("samples: expected no session, which holds one text only");
    this.loop.checkRoom(count);
    const { seed } = resolveSampling(params);
    if (!Number.isSafeInteger(seed + count - 1)) throw new RangeError(`seed: expected one after which ${count - 1} more follow, found ${seed}`);
    const leader = this.start(prompt, { ...params, seed });
    return [leader, ...Array.from({ length: count - 1 }, (_, i) => this.start(leader.prompt, { ...params, seed: seed + i + 1 }, leader))];
  }

  /**
   * Starts the assistant's answer to a conversation, written as the model's chat template says. What a conversation and the one before it
   * have in common is in the KV cache already.
   * @throws TemplateError when the template refuses the conversation; as `generate` does.
   */
  chat(messages: readonly ChatMessage[], params: GenerateParams & ChatTemplateOptions = {}): Generation {
    const { tools, variables, generationPrompt, now, ...rest } = params;
    const { tokens, stop } = this.chatPrompt(messages, { tools, variables, generationPrompt, now });
    return this.generate(tokens, { ...rest, stop: [...stop, ...(rest.stop ?? [])] });
  }

  /** What `chat` would feed for a conversation. @throws TemplateError */
  chatPrompt(messages: readonly ChatMessage[], options?: ChatTemplateOptions): ChatPrompt {
    return this.chatFormat.prompt(messages, options);
  }

  private start(prompt: string | readonly number[], params: GenerateParams, leader?: Generation): Generation {
    if (this.closed) throw new Error("engine: closed");
    const { maxTokens = 256, stop = [], signal, session, priority = 0 } = params;
    if (!Number.isSafeInteger(priority)) throw new RangeError(`priority: expected a whole number, found ${priority}`);
    if (!Number.isSafeInteger(maxTokens) || maxTokens < 1) throw new RangeError(`maxTokens: expected a whole number, 1 or more, found ${maxTokens}`);
    const goesOn = params.seed === undefined && session?.seed !== undefined;
    const sampling = resolveSampling(goesOn ? { ...params, seed: session.seed } : params);
    if (session && !this.sessions.has(session)) throw new RangeError("session: expected an open one of this engine, found another engine's or a closed one");
    if (!Array.isArray(stop) || stop.some((one) => typeof one !== "string")) throw new RangeError(`stop: expected a list of texts, found ${JSON.stringify(stop)}`);
    signal?.throwIfAborted();
    this.loop.checkRoom(1);
    const tokens = session && session.tokens.length > 0 ? this.continued(session, prompt) : this.promptTokens(prompt);
    let draws = goesOn ? session.draws : 0;
    const shape = createShaper(sampling);
    const uniform = randomFrom(sampling.seed, draws);
    const { speculate = this.speculation.speculate, draftTokens = this.speculation.draftTokens } = params;
    const speculation = speculationFor(resolveSpeculation({ speculate, draftTokens }, this.draft !== undefined), this.draft, shape, sampling, draws);
    const generation = new Generation({
      ...{ prompt: tokens, maxTokens, context: this.context, stop, eos: this.tokenizer.eos, seed: sampling.seed, signal, priority, leader },
      ...{ shape, speculation, uniform: () => (draws++, uniform()) },
      stream: this.tokenizer.stream(tokens),
      sequence: session?.begin(tokens),
      onEnd: (ended, outcome) => {
        if (session) this.endSession(session, ended, { seed: sampling.seed, draws });
        this.loop.remove(ended, outcome);
      },
    });
    this.loop.add(generation);
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
    if (tokens.length >= this.context) throw new RangeError(`prompt: expected fewer than ${this.context} tokens (the context), found ${tokens.length}`);
    checkIds("prompt", tokens, this.tokenizer.vocabSize);
    return tokens;
  }

  /**
   * Next-token logits [vocabSize] after every one of `tokens`, a copy for each position.
   * @throws RangeError for more tokens than the context, or ids that the vocabulary has not; KvCacheFullError when running generations need the
   * cache's last pages.
   */
  *logits(tokens: readonly number[]): Generator<Float32Array> {
    if (tokens.length > this.context) throw new RangeError(`tokens: expected at most ${this.context} (the context), found ${tokens.length}`);
    checkIds("tokens", tokens, this.tokenizer.vocabSize);
    const sequence = this.cache.create();
    try {
      for (let at = 0; at < tokens.length; at += LOGITS_CHUNK) {
        const run = { sequence, tokens: tokens.slice(at, at + LOGITS_CHUNK), logits: "all", prompt: true } as const;
        const wanted = Math.ceil((at + run.tokens.length) / PAGE_SIZE) - Math.ceil(at / PAGE_SIZE);
        while (wanted > this.loop.sparePages && this.dropIdlePages());
        if (wanted > this.loop.sparePages) throw new KvCacheFullError(`logits: ${wanted} pages of the KV cache needed, ${this.loop.sparePages} not promised to running generations`);
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
    let sequence = this.cache.create();
    const feed = (part: readonly number[], prompt: boolean) =>
      forward(this.model, this.ops, makeBatch(this.cache, [{ sequence, tokens: part, logits: prompt ? "none" : "last", prompt }]));
    try {
      const split = tokens.length - steps;
      const begin = () => {
        for (let at = 0; at < split; at += LOGITS_CHUNK) feed(tokens.slice(at, Math.min(at + LOGITS_CHUNK, split)), true);
      };
      begin();
      for (;;) {
        const started = performance.now();
        for (const token of tokens.slice(split)) feed([token], false);
        yield performance.now() - started;
        if (!this.cache.window) this.cache.truncate(sequence, split);
        else {
          // Pages that the window has passed are gone.
          this.cache.release(sequence);
          sequence = this.cache.create();
          begin();
        }
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
    // Every op of its own, so that there is a tensor to look at behind each.
    const fusions = ["outputs"] as const;
    const { model, cache, tokenizer, context } = this;
    const ops = new Ops(kernels, new Ledger(true, { timing }), { attention: attentionMethod, activations, fusions });
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

  /** Counts since the engine was loaded, and what runs and waits now. */
  stats(): EngineStats {
    return this.loop.stats();
  }

  /** Calls `listener` with all that happens to requests and in steps; returns the function that takes it off again. It must not throw. */
  onEvent(listener: (event: EngineEvent) => void): () => void {
    return this.loop.monitor.listen(listener);
  }

  /** Cancels what runs and ends the backend's threads. */
  close(): void {
    this.closed = true;
    this.loop.close(new Error("engine: closed while generating"));
    this.ops.kernels.close();
    this.draft?.close();
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
}
