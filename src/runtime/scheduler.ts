import type { KvCache, KvSequence } from "../kvcache/cache.ts";
import { PAGE_SIZE } from "../kvcache/cache.ts";
import type { Run } from "../model/decoder.ts";

/** A request as the scheduler sees it: a prompt to feed, then one token a step. */
export interface Scheduled {
  readonly prompt: readonly number[];
  /** Positions it may come to occupy. */
  readonly maxLength: number;
  /** Prompt tokens already fed. */
  fed: number;
  /** The token to feed next, once the prompt is through. */
  nextToken: number | undefined;
  /** Undefined while it waits. */
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
      const take = Math.min(left, budget);
      const tokens = request.prompt.slice(request.fed, request.fed + take);
      plan.push({ request, run: { sequence: request.sequence!, tokens, logits: take === left ? "last" : "none", prompt: true } });
      request.fed += take;
      budget -= take;
    }
    return plan;
  }

  /** Free pages that no running request may come to need. */
  get sparePages(): number {
    return this.running.reduce((spare, { maxLength, sequence }) => spare - pagesFor(maxLength) + sequence!.pages.length, this.cache.freePages);
  }

  private admit(): void {
    let spare = this.sparePages;
    while (this.waiting.length > 0 && pagesFor(this.waiting[0].maxLength) <= spare) {
      const request = this.waiting.shift()!;
      spare -= pagesFor(request.maxLength);
      request.sequence = this.cache.create();
      this.running.push(request);
    }
  }
}

const pagesFor = (length: number) => Math.ceil(length / PAGE_SIZE);
