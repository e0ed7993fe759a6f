import type { KvCache, KvSequence } from "../kvcache/cache.ts";
import { decodeSnapshot, encodeSnapshot, type SnapshotModel } from "../kvcache/snapshot.ts";
import type { Generation } from "./generation.ts";

/**
 * A text that goes on over several generations: its tokens, and their keys and values for as long as the cache has room for them. When
 * others need the room the text stays, and the next generation computes what is missing.
 */
export class Session {
  /** All tokens so far, prompts and generated ones. */
  readonly tokens: number[] = [];
  /** Of the last generation; the next one goes on with the same random numbers unless it brings a seed of its own. */
  seed: number | undefined;
  /** Random numbers drawn with that seed. */
  draws = 0;
  private sequence: KvSequence | undefined;
  private running = false;
  private readonly cache: KvCache;
  private readonly model: SnapshotModel;
  private readonly onClose: (session: Session) => void;

  constructor(cache: KvCache, model: SnapshotModel, onClose: (session: Session) => void) {
    this.cache = cache;
    this.model = model;
    this.onClose = onClose;
  }

  /** What `save` wrote. @throws SnapshotError when the bytes are damaged or do not fit this engine, KvCacheFullError. */
  static restore(cache: KvCache, model: SnapshotModel, onClose: (session: Session) => void, bytes: Uint8Array, source: string): Session {
    const session = new Session(cache, model, onClose);
    const { sequence, tokens, notes } = decodeSnapshot(cache, bytes, model, source);
    session.sequence = sequence;
    for (const token of tokens) session.tokens.push(token);
    session.seed = notes.seed;
    session.draws = notes.draws ?? 0;
    return session;
  }

  /** Whether a generation has it. */
  get busy(): boolean {
    return this.running;
  }

  /** Positions whose keys and values are at hand. */
  get cachedTokens(): number {
    return this.sequence?.length ?? 0;
  }

  /** The session as bytes; `engine.restoreSession` takes them, with the same model and KV options. @throws Error while a generation runs. */
  save(): Uint8Array {
    this.checkIdle();
    const { seed, draws, tokens } = this;
    const sequence = this.sequence ?? this.cache.create();
    try {
      return encodeSnapshot(this.cache, sequence, this.model, { tokens, notes: { ...(seed !== undefined && { seed }), draws } });
    } finally {
      if (!this.sequence) this.cache.release(sequence);
    }
  }

  /** Gives the pages back. @throws Error while a generation runs. */
  close(): void {
    this.checkIdle();
    this.dropPages();
    this.onClose(this);
  }

  /** A generation takes the session over, to feed `tokens`, which begin with its own; at least one of them is left to compute. */
  begin(tokens: readonly number[]): KvSequence | undefined {
    this.checkIdle();
    this.running = true;
    const { sequence } = this;
    this.sequence = undefined;
    if (sequence) this.cache.truncate(sequence, Math.min(sequence.length, tokens.length - 1));
    return sequence;
  }

  /** The generation is over: keeps its text, and of its sequence what was really computed. */
  end(generation: Generation, { seed, draws }: { seed: number; draws: number }): void {
    this.running = false;
    this.tokens.splice(0, this.tokens.length, ...generation.prompt);
    for (const token of generation.generated) this.tokens.push(token);
    [this.seed, this.draws] = [seed, draws];
    this.sequence = generation.sequence;
    generation.sequence = undefined;
    if (this.sequence) this.cache.truncate(this.sequence, this.sequence.tokens.length);
  }

  /** Gives the pages back and keeps the text. */
  dropPages(): void {
    if (this.sequence) this.cache.release(this.sequence);
    this.sequence = undefined;
  }

  private checkIdle(): void {
    if (this.running) throw new Error("session: a generation is still running on it");
  }
}
