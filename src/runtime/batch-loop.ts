import type { KvCache } from "../kvcache/cache.ts";
import { forward, makeBatch, type Model } from "../model/decoder.ts";
import type { Ops } from "../tensor/ops.ts";
import { breathe } from "./breathe.ts";
import type { Generation, Outcome } from "./generation.ts";
import { type EngineStats, Monitor } from "./monitor.ts";
import { type Planned, type Policy, Scheduler, type Swap } from "./scheduler.ts";
import { autoBudget, type GivenRoofline, givenSpeeds, MAX_AUTO_BUDGET, measuredSpeeds, MIN_AUTO_BUDGET } from "./token-budget.ts";

/** Milliseconds between two looks whether pages have come back that others hold. */
const WAIT_MS = 2;

export interface BatchLoopOptions {
  readonly tokenBudget: number | "auto";
  readonly tpotMs: number | undefined;
  readonly roofline: GivenRoofline | undefined;
  readonly policy: Policy | undefined;
  readonly swap: Swap | undefined;
  readonly maxQueue: number;
  /** Takes pages that idle sessions keep; false when there are none. */
  readonly dropIdlePages: () => boolean;
}

/** As many requests wait as may. Nothing was started; later there will be room. */
export class QueueFullError extends Error {
  override readonly name = "QueueFullError";
}

/** Runs steps of the decoder over whatever requests there are, as long as there are any: concurrent requests share them by themselves. */
export class BatchLoop {
  readonly monitor = new Monitor();
  private readonly model: Model;
  private readonly ops: Ops;
  private readonly cache: KvCache;
  private readonly options: BatchLoopOptions;
  private readonly scheduler: Scheduler<Generation>;
  /** The requests that are not over, and their ids. */
  private readonly active = new Map<Generation, number>();
  private readonly started = new WeakSet<Generation>();
  private ids = 0;
  private pumping = false;
  private closed = false;
  /** What `auto` came to, once it was needed. */
  private measured: number | undefined;
  private budget: number;

  constructor(model: Model, ops: Ops, cache: KvCache, options: BatchLoopOptions) {
    this.model = model;
    this.ops = ops;
    this.cache = cache;
    this.options = options;
    this.budget = options.tokenBudget === "auto" ? MIN_AUTO_BUDGET : options.tokenBudget;
    this.scheduler = new Scheduler(cache, {
      ...{ policy: options.policy, swap: options.swap, relieve: options.dropIdlePages, tokenBudget: () => this.budget },
      onPreempt: (request) => {
        request.paused();
        this.monitor.emit({ type: "preempted", id: this.active.get(request)! });
      },
    });
  }

  /** @throws QueueFullError when fewer than `count` more requests may wait. */
  checkRoom(count: number): void {
    const { waitingCount } = this.scheduler;
    const { maxQueue } = this.options;
    if (waitingCount + count <= maxQueue) return;
    this.monitor.emit({ type: "refused", waiting: waitingCount });
    throw new QueueFullError(`engine: ${waitingCount} requests wait already, at most ${maxQueue} may (maxQueue): try again later`);
  }

  add(generation: Generation): void {
    this.active.set(generation, ++this.ids);
    this.scheduler.add(generation);
    this.monitor.emit({ type: "queued", id: this.ids, promptTokens: generation.prompt.length, waiting: this.scheduler.waitingCount });
    if (!this.pumping) void this.pump();
  }

  remove(generation: Generation, outcome: Outcome): void {
    const id = this.active.get(generation);
    this.scheduler.remove(generation);
    this.active.delete(generation);
    if (id !== undefined) this.monitor.emit({ type: "finished", id, outcome, metrics: generation.metrics });
  }

  /** Ends all requests with an error. */
  close(reason: Error): void {
    this.closed = true;
    this.failAll(reason);
  }

  /** Free pages that no running request may come to need. */
  get sparePages(): number {
    return this.scheduler.sparePages;
  }

  stats(): EngineStats {
    const { runningCount: running, waitingCount: waiting } = this.scheduler;
    const tokenBudget = this.options.tokenBudget === "auto" ? (this.measured ?? null) : this.budget;
    return this.monitor.stats({ running, waiting, tokenBudget, kv: this.cache.stats() });
  }

  private async pump(): Promise<void> {
    this.pumping = true;
    await breathe();
    try {
      while (!this.scheduler.idle && !this.closed) {
        if (this.step()) await breathe();
        else await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      }
    } catch (error) {
      this.failAll(error);
    } finally {
      this.pumping = false;
    }
  }

  /** One pass of the decoder over all running requests; false when all of them wait for pages that others hold. */
  private step(): boolean {
    this.setBudget();
    const plan = this.scheduler.plan();
    if (plan.length === 0) {
      // All requests wait for pages: idle sessions give theirs, else those of `logits` and of steppers will come back.
      return this.options.dropIdlePages() || this.scheduler.reclaim();
    }
    for (const { request } of plan) this.begin(request);
    const startedMs = performance.now();
    const readBefore = this.ops.ledger.weightBytes;
    const batch = makeBatch(this.cache, plan.map(({ run }) => run));
    const logits = forward(this.model, this.ops, batch);
    const weightBytes = (this.ops.ledger.weightBytes - readBefore) / plan.length;
    for (const { request, run } of plan) {
      if (request.sequence !== run.sequence) continue; // A hook has cancelled it in the middle of the step.
      const guesses = run.logits === "all" ? run.tokens.length - 1 : 0;
      this.cache.record(run.sequence, run.tokens.slice(0, run.tokens.length - guesses));
      request.ran(run.prompt ? undefined : { weightBytes, guesses });
    }
    let [row, accepted] = [0, 0];
    // Listeners hear of tokens while other rows of the logits are still to be read.
    this.ops.ledger.hold(() => {
      for (const planned of plan) {
        const { tokens, logits: wanted } = planned.run;
        const rows = wanted === "all" ? tokens.length : wanted === "last" ? 1 : 0;
        if (rows === 0 || !logits) continue;
        const own = logits.slice(row, (row += rows));
        try {
          accepted += this.choose(planned, own);
        } catch (error) {
          // Logits that are no numbers, say: the others go on.
          planned.request.fail(error);
        }
      }
    });
    const guessed = plan.reduce((sum, { run }) => sum + (run.logits === "all" ? run.tokens.length - 1 : 0), 0);
    const decodes = plan.reduce((sum, { run }) => sum + (run.prompt ? 0 : run.tokens.length), 0);
    const { runningCount: running, waitingCount: waiting } = this.scheduler;
    this.monitor.emit({
      ...{ type: "step", phase: batch.phase, decodes, prompts: batch.tokens.length - decodes, guessed, accepted, ms: performance.now() - startedMs },
      ...{ running, waiting, usedPages: this.cache.usedPages },
    });
    return true;
  }

  private begin(request: Generation): void {
    request.began();
    if (this.started.has(request)) return;
    this.started.add(request);
    this.monitor.emit({ type: "started", id: this.active.get(request)!, queueMs: request.metrics.queueMs, cachedTokens: request.cached });
  }

  /** Takes the token that each row of logits gives, for as long as it is the one that the run guessed; what the run holds beyond is forgotten. Returns how many guesses were right. */
  private choose({ request, run }: Planned<Generation>, logits: Parameters<Ops["sample"]>[0]): number {
    let accepted = 0;
    for (let row = 0; row < logits.rows; row++) {
      const token = this.ops.sample(logits.slice(row, row + 1), (values, ranking) => request.pick(values, ranking));
      const id = this.active.get(request);
      if (id !== undefined) this.monitor.emit({ type: "token", id, token, count: request.generated.length + 1 });
      const guessed = row + 1 < logits.rows && token === run.tokens[row + 1];
      request.accept(token, guessed);
      if (guessed) accepted++;
      if (request.sequence !== run.sequence) return accepted;
      if (!guessed) break;
      this.cache.record(run.sequence, [token]);
    }
    this.cache.truncate(run.sequence, run.sequence.tokens.length);
    request.fed = run.sequence.length;
    return accepted;
  }

  /** While few tokens wait, any budget does, and nothing is measured. */
  private setBudget(): void {
    const { tokenBudget, tpotMs, roofline } = this.options;
    if (tokenBudget !== "auto" || this.measured !== undefined) return;
    let pending = 0;
    for (const { prompt, fed } of this.active.keys()) pending += Math.max(1, prompt.length - fed);
    if (tpotMs === undefined && pending <= MIN_AUTO_BUDGET) return;
    const { kernels } = this.ops;
    if (kernels.name === "shapes" && !roofline) this.measured = MAX_AUTO_BUDGET;
    else this.measured = autoBudget(roofline ? givenSpeeds(this.model, roofline) : measuredSpeeds(this.model, kernels), tpotMs);
    this.budget = this.measured;
  }

  private failAll(error: unknown): void {
    for (const generation of [...this.active.keys()]) generation.fail(error);
  }
}
