import type { KvCache, KvSequence } from "../kvcache/cache.ts";
import type { Run } from "../model/decoder.ts";

/** A request as the scheduler sees it: a prompt to feed, then one token a step. */
export interface Scheduled {
  readonly prompt: readonly number[];
  /** Positions it may come to occupy. */
  readonly maxLength: number;
  /** Prompt tokens that are in the cache, or on their way. */
  fed: number;
  /** Those of them that needed no computing: from the prefix index, or kept from an earlier generation. */
  cached: number;
  /** The token to feed next, once the prompt is through. */
  nextToken: number | undefined;
  /** Undefined while it waits, unless it goes on with one that was kept. */
  sequence: KvSequence | undefined;
}

/**
 * Iteration-level scheduling (Orca, Yu et al. 2022) with chunked prefill (Sarathi, Agrawal et al. 2023): every step takes the next token of
 * each running request first, then prompt chunks up to the token budget. A request is admitted, first come first served, when the
 * cache can hold it to its end, so that no running request ever lacks a page.
 */
export class Scheduler<R extends Scheduled> {
  private readonly cache: KvCache;
  private readonly tokenBudget: number;
  private readonly waiting: R[] = [];
  private readonly running: R[] = [];

  constructor(cache: KvCache, tokenBudget: number) {
    this.cache = cache;
    this.tokenBudget = tokenBudget;
  }

  get idle(): boolean {
    return this.waiting.length === 0 && this.running.length === 0;
  }

  add(request: R): void {
    this.waiting.push(request);
  }

  /** Takes a finished or cancelled request out and gives its pages back. */
  remove(request: R): void {
    for (const list of [this.waiting, this.running]) {
      const at = list.indexOf(request);
      if (at >= 0) list.splice(at, 1);
    }
    if (request.sequence) this.cache.release(request.sequence);
    request.sequence = undefined;
  }

  /** What to run in the next step; requests whose run ends in logits can be told by `run.logits`. */
  plan(): { request: R; run: Run }[] {
    this.admit();
    const plan: { request: R; run: Run }[] = [];
    let budget = this.tokenBudget;
    for (const request of this.running) {
      if (request.nextToken === undefined) continue;
      plan.push({ request, run: { sequence: request.sequence!, tokens: [request.nextToken], logits: "last", prompt: false } });
      budget--;
    }
    for (const request of this.running) {
      const left = request.prompt.length - request.fed;
      if (left === 0 || budget <= 0) continue;
      if (request.fed === 0) this.reuse(request);
      const take = Math.min(request.prompt.length - request.fed, budget);
      const tokens = request.prompt.slice(request.fed, request.fed + take);
      plan.push({ request, run: { sequence: request.sequence!, tokens, logits: request.fed + take === request.prompt.length ? "last" : "none", prompt: true } });
      request.fed += take;
      budget -= take;
    }
    return plan;
  }

  /** Free pages that no running request may come to need. */
  get sparePages(): number {
    return this.running.reduce((spare, request) => spare - this.pagesToCome(request), this.cache.freePages);
  }

  /**
   * Takes the pages of the last waiting request that goes on with kept ones, the first in line excepted; it will compute them again. For
   * when nothing runs and the first one can't be admitted. False when there are none.
   */
  reclaim(): boolean {
    const victim = this.waiting.findLast(({ sequence }, i) => i > 0 && sequence !== undefined);
    if (!victim) return false;
    this.cache.release(victim.sequence!);
    victim.sequence = undefined;
    victim.fed = victim.cached = 0;
    return true;
  }

  private admit(): void {
    let spare = this.sparePages;
    while (this.waiting.length > 0 && this.pagesToCome(this.waiting[0]) <= spare) {
      const request = this.waiting.shift()!;
      spare -= this.pagesToCome(request);
      request.sequence ??= this.cache.create();
      this.running.push(request);
    }
  }

  /** Begins with the pages that the prefix index has by now: an equal prompt may have been computed since the request was admitted. */
  private reuse(request: R): void {
    this.cache.release(request.sequence!);
    request.sequence = this.cache.createFrom(request.prompt);
    request.fed = request.cached = request.sequence.length;
  }

  private pagesToCome({ maxLength, sequence }: R): number {
    return Math.max(0, this.cache.pagesFor(maxLength, this.tokenBudget) - (sequence?.pages.length ?? 0));
  }
}
