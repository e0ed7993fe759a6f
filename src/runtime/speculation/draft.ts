import { KvCache, type KvSequence, PAGE_SIZE } from "../../kvcache/cache.ts";
import type { ByteSource } from "../../model/formats/source.ts";
import { createModel, forward, makeBatch, type Model } from "../../model/decoder.ts";
import { loadWeights } from "../../model/load.ts";
import { type ModelFile, openModel } from "../../model/open.ts";
import { Ledger, type LedgerOptions } from "../../tensor/ledger.ts";
import { Ops } from "../../tensor/ops.ts";
import { breakdown } from "../../tensor/totals.ts";
import { type Backend, createKernels } from "../backend.ts";
import { sourceOf } from "../open-source.ts";
import { draw, randomFrom, type Sampling, type Shaper } from "../sampler.ts";
import { type Guesser, MOST_DRAFT_TOKENS } from "./speculation.ts";
import type { Guess } from "./verify.ts";

/** Positions that one step of catching up computes. */
const CHUNK = 64;
/** Its guesses are drawn with other random numbers than the target's tokens: the target's seed, with these bits turned. */
const OWN_STREAM = 0x5bd1e995;

export interface DraftOptions {
  readonly backend?: Backend;
  readonly threads?: number;
  readonly vectors?: 128 | 256;
  readonly ledger?: boolean | LedgerOptions;
  /** Positions that the target's sequences may take. */
  readonly context: number;
  /** Sequences that its cache holds at full context; beyond, the one that guessed least recently is forgotten and computed again. */
  readonly maxSequences: number;
}

interface Mutable {
  sequence: KvSequence | undefined;
}

/** A small model that guesses for a large one. It shares nothing with it but token ids: kernels, KV cache and ledger are its own. */
export class DraftModel {
  readonly model: Model;
  readonly ledger: Ledger;
  readonly cache: KvCache;
  private readonly ops: Ops;
  private readonly context: number;
  /** Who holds pages, least recently used first. */
  private readonly holders = new Set<Mutable>();

  private constructor(model: Model, ops: Ops, { context, maxSequences }: DraftOptions) {
    this.model = model;
    this.ops = ops;
    this.ledger = ops.ledger;
    this.context = Math.min(model.config.contextLength, context + MOST_DRAFT_TOKENS);
    this.cache = new KvCache(ops.kernels, model.config, Math.ceil(this.context / PAGE_SIZE) * maxSequences);
  }

  /** @throws FormatError when the file cannot be used, RangeError when its vocabulary is not the target's. */
  static async load(from: string | ByteSource, target: ModelFile, options: DraftOptions): Promise<DraftModel> {
    const source = await sourceOf(from);
    try {
      const file = openModel(source);
      checkVocabularies(target, file);
      const kernels = await createKernels(options.backend ?? "auto", { threads: options.threads, vectors: options.vectors });
      try {
        const model = createModel(file.config, loadWeights(file, file.config, kernels));
        const ledger = new Ledger(Boolean(options.ledger), { ...(typeof options.ledger === "object" && options.ledger), records: false });
        return new DraftModel(model, new Ops(kernels, ledger), options);
      } catch (error) {
        kernels.close();
        throw error;
      }
    } finally {
      source.close();
    }
  }

  /** Guesses for one request: drawn as the target draws its tokens, greedily where it is greedy. */
  guesser(shape: Shaper, { temperature, seed }: Sampling, drawn: number): Guesser {
    const held: Mutable = { sequence: undefined };
    const uniform = randomFrom((seed ^ OWN_STREAM) >>> 0, drawn);
    let weightBytes = 0;
    return {
      ...{ method: "draft", random: temperature > 0 },
      get weightBytes() {
        return weightBytes;
      },
      guess: (tokens, count) => {
        const before = this.ledger.weightBytes;
        const guesses = this.guess(held, tokens, count, shape, uniform);
        weightBytes += this.ledger.weightBytes - before;
        return guesses;
      },
      release: () => this.release(held),
    };
  }

  /** Where the draft model's flops, bytes and time went. Needs the ledger. */
  breakdown(): ReturnType<typeof breakdown> {
    return breakdown(this.ledger.totals());
  }

  /** Ends the threads of its kernels; it must not guess afterwards. */
  close(): void {
    this.ops.kernels.close();
  }

  private guess(held: Mutable, tokens: readonly number[], count: number, shape: Shaper, uniform: () => number): Guess[] {
    const guesses: Guess[] = [];
    const all = [...tokens];
    while (guesses.length < count && all.length <= this.context) {
      const logits = this.catchUp(held, all);
      let guess: Guess | undefined;
      const token = this.ops.sample(logits, (values, ranking) => {
        const from = shape(values, () => all, ranking);
        guess = { token: draw(from, uniform()), from };
        return guess.token;
      });
      guesses.push(guess!);
      all.push(token);
    }
    return guesses;
  }

  /** Logits [1, vocabSize] after the last of `tokens`; what the sequence has in common with them is kept. */
  private catchUp(held: Mutable, tokens: readonly number[]) {
    this.holders.delete(held);
    this.holders.add(held);
    const fresh = held.sequence === undefined;
    const sequence = (held.sequence ??= this.cache.createFrom(tokens));
    let kept = 0;
    while (kept < Math.min(sequence.tokens.length, tokens.length - 1) && sequence.tokens[kept] === tokens[kept]) kept++;
    this.cache.truncate(sequence, kept);
    for (let at = kept; ; at += CHUNK) {
      const part = tokens.slice(at, at + CHUNK);
      const last = at + CHUNK >= tokens.length;
      this.makeRoom(held, part.length);
      const logits = forward(this.model, this.ops, makeBatch(this.cache, [{ sequence, tokens: part, logits: last ? "last" : "none", prompt: fresh }]));
      this.cache.record(sequence, part);
      if (last) return logits!;
    }
  }

  /** Others lose their pages, who guessed least recently first; the cache holds any sequence alone. */
  private makeRoom(held: Mutable, count: number): void {
    for (const other of this.holders) {
      if (this.cache.pagesToAppend(held.sequence!, count) <= this.cache.freePages) return;
      if (other !== held) this.release(other);
    }
  }

  private release(held: Mutable): void {
    if (held.sequence) this.cache.release(held.sequence);
    held.sequence = undefined;
    this.holders.delete(held);
  }
}

/** @throws RangeError naming both models and where their vocabularies part. */
function checkVocabularies(target: ModelFile, draft: ModelFile): void {
  const [a, b] = [target.tokenizer, draft.tokenizer];
  const refuse = (expected: string, found: string) => {
    throw new RangeError(`draft model ${draft.source.name}: expected the vocabulary of ${target.source.name} (${expected}), found another (${found})`);
  };
  if (target.config.vocabSize !== draft.config.vocabSize) refuse(`${target.config.vocabSize} tokens`, `${draft.config.vocabSize} tokens`);
  for (let id = 0; id < Math.min(a.vocabSize, b.vocabSize); id++) {
    if (a.piece(id) !== b.piece(id)) refuse(`token ${id} is ${JSON.stringify(a.piece(id))}`, JSON.stringify(b.piece(id)));
  }
}
