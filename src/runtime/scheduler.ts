import type { KvCache, KvSequence } from "../kvcache/cache.ts";
import type { Run } from "../model/decoder.ts";

/** A request as the scheduler sees it: tokens to feed, and after the last of them one more with every step. */
export interface Scheduled {
  readonly prompt: readonly number[];
  /** What was generated so far; the last of it is still to be fed. */
  readonly generated: readonly number[];
  /** Positions it may come to occupy. */
  readonly maxLength: number;
  /** Each level is worth a head start of HEAD_START requests. */
  readonly priority: number;
  /** A request with the same prompt that came before: its pages are shared once they are computed. */
  readonly leader?: Scheduled | undefined;
  /** Tokens, of the prompt and then of what was generated, that are in the cache or on their way. */
  fed: number;
  /** Prompt tokens that needed no computing: from the prefix index, from the leader, or kept from an earlier generation. */
  cached: number;
  /** Times that its pages were taken away. */
  preemptions: number;
  /** Undefined while it waits, unless it goes on with one that was kept. */
  sequence: KvSequence | undefined;
  /** Tokens that may follow the known ones, to be tried together with the next one. */
  guesses?(): readonly number[];
}

/** `chunked`: prompts in chunks beside running requests. `continuous`: prompts whole. `static`: a batch begins when the one before has ended. */
export const POLICIES = ["chunked", "continuous", "static"] as const;
/** How requests share steps: one of POLICIES. */
export type Policy = (typeof POLICIES)[number];

/** Keeps a preempted request's keys and values somewhere else. */
export interface Swap {
  save(sequence: KvSequence): Uint8Array;
  load(bytes: Uint8Array): KvSequence;
}

export interface SchedulerOptions<R> {
  /** Most tokens in a step, and most requests that run at once. Asked again in every step. */
  readonly tokenBudget: () => number;
  /** Default `chunked`. */
  readonly policy?: Policy;
  /** Without it, what a preempted request had computed is computed again. */
  readonly swap?: Swap;
  /** Gives pages back that are kept for nobody who waits; asked before anybody is preempted. False when there are none. */
  readonly relieve?: () => boolean;
  readonly onPreempt?: (request: R) => void;
}

/** Requests that a request of the next lower priority lets pass, and no more: nobody waits for ever. */
export const HEAD_START = 64;

interface Entry<R> {
  readonly request: R;
  /** Who has less stands before. */
  readonly rank: number;
  saved?: Uint8Array;
}

/** One request's part in a step. */
export interface Planned<R> {
  readonly request: R;
  readonly run: Run;
}

/**
 * Iteration-level scheduling (Orca, Yu et al. 2022) with chunked prefill (Sarathi, Agrawal et al. 2023): every step takes the next token of
 * each running request first, then prompt chunks up to the token budget.
 *
 * Requests stand in one order, by arrival and priority. The first ones run, as many as there are pages for what is known of them; when
 * they grow and pages run out, the last one gives its pages up and waits again (Kwon et al. 2023, section 4.5). The first one always gets
 * what it needs, so every request comes to its end.
 */
export class Scheduler<R extends Scheduled> {
  private readonly cache: KvCache;
  private readonly options: SchedulerOptions<R>;
  /** Both in order of rank. */
  private readonly waiting: Entry<R>[] = [];
  private readonly running: Entry<R>[] = [];
  private arrivals = 0;

  constructor(cache: KvCache, options: SchedulerOptions<R>) {
    this.cache = cache;
    this.options = options;
  }

  get idle(): boolean {
    return this.waiting.length === 0 && this.running.length === 0;
  }

  get waitingCount(): number {
    return this.waiting.length;
  }

  get runningCount(): number {
    return this.running.length;
  }

  /** @throws RangeError for a request that no empty cache could hold. */
  add(request: R): void {
    const pages = this.cache.pagesFor(request.maxLength, 1);
    if (pages > this.cache.maxPages) throw new RangeError(`request: ${request.maxLength} positions take ${pages} pages, the KV cache has ${this.cache.maxPages}`);
    insert(this.waiting, { request, rank: this.arrivals++ - request.priority * HEAD_START });
  }

  /** Takes a finished or cancelled request out and gives its pages back. */
  remove(request: R): void {
    for (const list of [this.waiting, this.running]) {
      const at = list.findIndex((entry) => entry.request === request);
      if (at >= 0) list.splice(at, 1);
    }
    this.release(request);
  }

  /** What to run in the next step: decodes, then prompt chunks. There are pages for all of it. */
  plan(): Planned<R>[] {
    const tokenBudget = this.options.tokenBudget();
    for (const { request } of this.running) this.cache.trim(request.sequence!);
    this.admit(tokenBudget);
    const decodes: Planned<R>[] = [];
    const prompts: Planned<R>[] = [];
    let budget = this.chunked ? tokenBudget - this.running.filter(({ request }) => isDecoding(request)).length : Infinity;
    let promised = 0;
    // Who stands before may take the pages of who stands behind, so the list can only lose entries that have not had their turn.
    for (let i = 0; i < this.running.length; i++) {
      const { request } = this.running[i];
      const counted = isDecoding(request);
      if (request.fed === 0 && (budget <= 0 || !this.begin(request))) continue;
      const decoding = isDecoding(request);
      const most = decoding ? 1 : Math.min(known(request) - request.fed, budget);
      const take = most > 0 ? this.makeRoom(i, most, promised) : 0;
      if (take === 0) {
        if (this.cache.freePages < promised) this.restart(request);
        continue;
      }
      promised += this.cache.pagesToAppend(request.sequence!, take);
      const tokens = tokensOf(request, request.fed, request.fed + take);
      request.fed += take;
      const run: Run = { sequence: request.sequence!, tokens, logits: request.fed === known(request) ? "last" : "none", prompt: !decoding };
      (decoding ? decodes : prompts).push({ request, run });
      // After a preemption the prefix index may know all but the last token: then it begins with a row that nobody reckoned with.
      if (!counted) budget -= take;
    }
    const rows = decodes.length + prompts.reduce((sum, { run }) => sum + run.tokens.length, 0);
    return [...this.speculate(decodes, tokenBudget - rows, promised), ...prompts];
  }

  /**
   * What a step has left goes to guesses: rows of the token budget that no known token needs, and pages that are free. A run with
   * guesses wants logits after each token, so that they can be tested (Leviathan et al. 2023, section 2.3).
   */
  private speculate(decodes: readonly Planned<R>[], rows: number, promised: number): Planned<R>[] {
    let [left, free] = [rows, this.cache.freePages - promised];
    return decodes.map((planned) => {
      const { request, run } = planned;
      const guesses = left > 0 ? (request.guesses?.() ?? []) : [];
      const own = this.cache.pagesToAppend(run.sequence, 1);
      const more = (take: number) => this.cache.pagesToAppend(run.sequence, 1 + take) - own;
      let take = Math.min(guesses.length, Math.max(0, left));
      while (take > 0 && more(take) > free) take--;
      if (take === 0) return planned;
      left -= take;
      free -= more(take);
      request.fed += take;
      return { request, run: { ...run, tokens: [...run.tokens, ...guesses.slice(0, take)], logits: "all" } };
    });
  }

  /** Free pages that no running request may come to need. */
  get sparePages(): number {
    return this.running.reduce((spare, { request }) => spare - this.pagesTo(request, request.maxLength), this.cache.freePages);
  }

  /**
   * Takes the pages of the last waiting request that goes on with kept ones, the first in line excepted; it will compute them again. For
   * when nothing can run. False when there are none.
   */
  reclaim(): boolean {
    const victim = this.waiting.findLast(({ request }, i) => (i > 0 || this.running.length > 0) && request.sequence !== undefined);
    if (!victim) return false;
    this.release(victim.request);
    victim.request.fed = victim.request.cached = 0;
    return true;
  }

  private get chunked(): boolean {
    return (this.options.policy ?? "chunked") === "chunked";
  }

  /**
   * Lets waiting requests run while there are pages for the tokens that they have, and one page more for each running one to grow into. Only a
   * higher priority makes a request stand before a running one; then it may take the last one's pages.
   */
  private admit(tokenBudget: number): void {
    if (this.options.policy === "static" && this.running.length > 0) return;
    while (this.waiting.length > 0) {
      const [entry] = this.waiting;
      const last = this.running.at(-1);
      const full = this.running.length >= tokenBudget;
      if (full || this.pagesTo(entry.request, known(entry.request) + 1) > this.freeAfterGrowth()) {
        if (!last || last.rank <= entry.rank) return;
        this.preempt();
        continue;
      }
      this.waiting.shift();
      if (entry.saved) {
        entry.request.sequence = this.options.swap!.load(entry.saved);
        entry.request.fed = entry.request.sequence.length;
        entry.saved = undefined;
      }
      entry.request.sequence ??= this.cache.create();
      insert(this.running, entry);
    }
  }

  /** Pages that are free once every running request has all its known tokens in the cache, and a page more. */
  private freeAfterGrowth(): number {
    return this.running.reduce((free, { request }) => free - this.pagesTo(request, known(request)) - 1, this.cache.freePages);
  }

  /** How many of `count` tokens the i-th running request can be fed; those behind it lose their pages for the first one, if need be. */
  private makeRoom(i: number, count: number, promised: number): number {
    const { sequence } = this.running[i].request;
    const fits = (tokens: number) => this.cache.pagesToAppend(sequence!, tokens) <= this.cache.freePages - promised;
    while (!fits(count) && this.options.relieve?.());
    while (!fits(count) && this.running.length > i + 1) this.preempt();
    let take = count;
    while (take > 0 && !fits(take)) take--;
    return take;
  }

  /**
   * Begins with the pages that can be had by now: its leader's, or those of the prefix index, where an equal prompt may have been computed
   * since the request was admitted. False while the leader is still at its prompt.
   */
  private begin(request: R): boolean {
    const { leader, prompt } = request;
    if (leader?.sequence && leader.sequence.tokens.length < prompt.length && leader.fed > 0) return false;
    this.release(request);
    if (leader?.sequence && leader.sequence.tokens.length >= prompt.length && !leader.sequence.hole) {
      request.sequence = this.cache.fork(leader.sequence);
      this.cache.truncate(request.sequence, prompt.length - 1);
    } else request.sequence = this.cache.createFrom(tokensOf(request, 0, known(request)));
    request.fed = request.sequence.length;
    if (request.preemptions === 0) request.cached = request.fed;
    return true;
  }

  /** Gives back what `begin` took, when it turns out that others need it in this step. */
  private restart(request: R): void {
    this.release(request);
    request.sequence = this.cache.create();
    request.fed = 0;
    if (request.preemptions === 0) request.cached = 0;
  }

  /** The last running request gives its pages up and waits, before all that stand behind it. */
  private preempt(): void {
    const entry = this.running.pop()!;
    const { request } = entry;
    if (request.fed > 0) {
      const swap = request.sequence!.length > 0 ? this.options.swap : undefined;
      if (swap) entry.saved = swap.save(request.sequence!);
      request.preemptions++;
      this.options.onPreempt?.(request);
    }
    this.release(request);
    request.fed = 0;
    insert(this.waiting, entry);
  }

  private release(request: R): void {
    if (request.sequence) this.cache.release(request.sequence);
    request.sequence = undefined;
  }

  /** Pages that a request lacks to hold `length` positions. */
  private pagesTo({ sequence, maxLength }: R, length: number): number {
    const chunk = this.chunked ? this.options.tokenBudget() : Infinity;
    return Math.max(0, this.cache.pagesFor(Math.min(length, maxLength), chunk) - (sequence?.pages.length ?? 0));
  }
}

function insert<R>(list: Entry<R>[], entry: Entry<R>): void {
  const at = list.findIndex(({ rank }) => rank > entry.rank);
  list.splice(at < 0 ? list.length : at, 0, entry);
}

/** Tokens that a request has so far. */
function known({ prompt, generated }: Scheduled): number {
  return prompt.length + generated.length;
}

/** Whether all but a generated token is in the cache. */
function isDecoding(request: Scheduled): boolean {
  return request.fed >= request.prompt.length && request.fed === known(request) - 1;
}

function tokensOf({ prompt, generated }: Scheduled, from: number, to: number): number[] {
  const head = prompt.slice(from, to);
  return to <= prompt.length ? head : [...head, ...generated.slice(Math.max(0, from - prompt.length), to - prompt.length)];
}
