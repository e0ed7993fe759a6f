import { describe, expect, it } from "vitest";
import { KvCache, type KvSequence, PAGE_SIZE } from "../../src/kvcache/cache.ts";
import { forward, makeBatch } from "../../src/model/decoder.ts";
import { HEAD_START, type Policy, type Scheduled, Scheduler, type Swap } from "../../src/runtime/scheduler.ts";
import type { AttentionWindow, PageHole } from "../../src/tensor/kernels.ts";
import { Ledger } from "../../src/tensor/ledger.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { type Dice, dice, range } from "../support/dice.ts";
import { SMALL } from "../support/models.ts";
import { smallBench } from "../support/run.ts";

interface Request extends Scheduled {
  id: number;
  generated: number[];
  leader?: Request;
  wanted: number;
  ends: number;
}

const VOCAB = SMALL.vocabSize!;

function makeRequest(id: number, promptLength: number, wanted: number, given: Partial<Request> = {}): Request {
  return {
    ...{ id, prompt: range(promptLength).map((i) => (id + i) % VOCAB), maxLength: promptLength + wanted, priority: 0 },
    ...{ fed: 0, cached: 0, preemptions: 0, sequence: undefined, generated: [], wanted, ends: 0 },
    ...given,
  };
}

const nextToken = ({ id, generated }: Request) => (id * 7 + generated.length) % VOCAB;

/** Guesses of which some stand. */
function guessing(request: Request, d: Dice): Request {
  request.guesses = () => {
    const right = range(d.below(6)).map((i) => nextToken({ ...request, generated: [...request.generated, ...range(i)] }));
    const most = request.maxLength - request.prompt.length - request.generated.length - 1;
    return [...right, ...range(d.below(4)).map(() => d.below(VOCAB))].slice(0, Math.max(0, most));
  };
  return request;
}

interface Options {
  maxPages: number;
  tokenBudget: number;
  policy?: Policy;
  swap?: boolean;
  window?: AttentionWindow;
  prefixIndex?: boolean;
}

/** Keeps no keys and values, only what they belong to: the kernels have none either. */
function tokenSwap(cache: KvCache): Swap {
  return {
    save: ({ tokens, hole }) => new TextEncoder().encode(JSON.stringify({ tokens, hole })),
    load: (bytes) => {
      const { tokens, hole } = JSON.parse(new TextDecoder().decode(bytes)) as { tokens: number[]; hole?: PageHole };
      return cache.adopt(tokens, hole);
    },
  };
}

const on = smallBench(1, SMALL, { kernels: shapeKernels(), ledger: new Ledger(false) });

function check(ok: boolean, rule: string): void {
  if (!ok) throw new Error(`broken: ${rule}`);
}

/** A scheduler over a model that costs nothing to run, with all the rules checked after every step. */
function simulation({ maxPages, tokenBudget, policy, swap, window, prefixIndex }: Options) {
  const cache = new KvCache(on.ops.kernels, on.model.config, maxPages, { window, prefixIndex });
  const preempted: Request[] = [];
  const scheduler = new Scheduler<Request>(cache, {
    ...{ tokenBudget: () => tokenBudget, policy, swap: swap ? tokenSwap(cache) : undefined },
    onPreempt: (request) => preempted.push(request),
  });
  const present = new Set<Request>();
  const add = (request: Request) => {
    present.add(request);
    scheduler.add(request);
  };
  const end = (request: Request) => {
    scheduler.remove(request);
    present.delete(request);
    request.ends++;
  };
  const step = () => {
    const plan = scheduler.plan();
    const decodes = plan.filter(({ run }) => !run.prompt);
    const prompts = plan.filter(({ run }) => run.prompt);
    const rows = plan.reduce((sum, { run }) => sum + run.tokens.length, 0);
    check(plan.length > 0, "every step does something");
    check(new Set(plan.map(({ request }) => request)).size === plan.length, "no request twice in a step");
    check(plan.every((one, i) => one === [...decodes, ...prompts][i]), "generated tokens first");
    if ((policy ?? "chunked") === "chunked") check(rows <= tokenBudget, "the budget");
    check(scheduler.runningCount <= tokenBudget, "as many run as the budget has rows");
    check(prompts.slice(0, -1).every(({ run }) => run.logits === "last") || window !== undefined || maxPages < 40, "an earlier prompt is through before a later one begins");

    const batch = makeBatch(cache, plan.map(({ run }) => run));
    forward(on.model, on.ops, batch);
    const rowsOf = ({ run }: (typeof plan)[number]) => ({ none: 0, last: 1, all: run.tokens.length })[run.logits];
    check(batch.outputs.length === plan.reduce((sum, one) => sum + rowsOf(one), 0), "a row of logits for each that is to go on, and for each guess");
    check(rows <= tokenBudget || plan.every(({ run }) => run.logits !== "all"), "guesses within the budget");
    for (const { request, run } of plan) {
      check(run.sequence === request.sequence, "a run is its request's");
      if (run.logits === "all") {
        check(!run.prompt && run.tokens.length > 1, "guesses follow a generated token");
        check(run.sequence.length <= request.maxLength - 1, "no guess beyond the end");
        // As many stand as the next tokens are the guessed ones.
        for (let i = 0; i < run.tokens.length && request.ends === 0; i++) {
          cache.record(run.sequence, [run.tokens[i]]);
          request.generated.push(nextToken(request));
          if (request.generated.length === request.wanted) end(request);
          if (request.generated.at(-1) !== run.tokens[i + 1]) break;
        }
        if (request.ends > 0) continue;
        cache.truncate(run.sequence, run.sequence.tokens.length);
        request.fed = run.sequence.length;
        continue;
      }
      cache.record(run.sequence, run.tokens);
      const known = [...request.prompt, ...request.generated];
      check(run.sequence.tokens.every((token, i) => token === known[i]), "fed in order, each token once");
      check(run.sequence.tokens.length === request.fed, "fed as far as it says");
      if (run.logits === "none") continue;
      check(run.sequence.tokens.length === known.length, "logits after the last token only");
      request.generated.push(nextToken(request));
      if (request.generated.length === request.wanted) end(request);
    }
  };
  const checkPages = () => {
    const held = new Set([...present].flatMap(({ sequence }) => sequence?.pages ?? []));
    check(cache.usedPages === held.size, "no page is lost");
  };
  return { scheduler, cache, present, preempted, add, end, step, checkPages };
}

/** Draws a whole day of requests; returns how many were preempted. */
function trace(seed: number): number {
  const d: Dice = dice(seed);
  const window = d.chance(0.2) ? { size: d.between(1, 40), sinks: d.below(5) } : undefined;
  const tokenBudget = d.pick([1, 2, 3, 8, 20, 64]);
  const policy = d.pick<Policy>(["chunked", "chunked", "chunked", "continuous", "static"]);
  const options = { maxPages: d.between(5, 40), tokenBudget, policy, swap: d.chance(0.4), window, prefixIndex: d.chance(0.7) };
  const { scheduler, cache, present, preempted, add, end, step, checkPages } = simulation(options);
  const all: Request[] = [];
  const cancelled = new Set<Request>();
  const arriving = d.between(5, 30);
  for (let i = 0; i < arriving || !scheduler.idle; i++) {
    for (let n = i < arriving ? d.below(3) : 0; n > 0; n--) {
      const request = makeRequest(all.length, d.between(1, 50), d.between(1, 25), { priority: d.chance(0.2) ? d.between(-2, 2) : 0 });
      const leader = d.chance(0.2) ? all.at(-1) : undefined;
      const like = leader ?? (d.chance(0.3) ? all.at(-1) : undefined);
      all.push(like ? { ...request, prompt: like.prompt, maxLength: like.prompt.length + request.wanted, leader } : request);
      add(d.chance(0.3) ? guessing(all.at(-1)!, d) : all.at(-1)!);
    }
    if (present.size > 0 && d.chance(0.05)) {
      const victim = d.pick([...present]);
      cancelled.add(victim);
      end(victim);
    }
    if (!scheduler.idle) step();
    checkPages();
    check(i < 5000, "nobody waits for ever");
  }
  for (const request of all) check(request.ends === 1 && (cancelled.has(request) || request.generated.length === request.wanted), "every request ends exactly once");
  check(cache.usedPages === 0 && cache.freePages === cache.maxPages, "all pages come back");
  return preempted.length;
}

describe("random requests", () => {
  it.each(range(20))("batch %i of 100 traces: every request ends once, within the budget, and no page is lost", { timeout: 120_000 }, (batch) => {
    const preemptions = range(100).reduce((sum, i) => {
      try {
        return sum + trace(batch * 100 + i);
      } catch (error) {
        throw new Error(`trace ${batch * 100 + i}: ${(error as Error).message}`, { cause: error });
      }
    }, 0);
    expect(preemptions, "the traces are tight enough to say something").toBeGreaterThan(20);
  });
});

describe("admission", () => {
  it("takes a request as soon as there are pages for its prompt; who outgrows the cache waits for the others", () => {
    const { scheduler, preempted, add, step } = simulation({ maxPages: 5, tokenBudget: 1000 });
    const requests = [makeRequest(0, 1, 4 * PAGE_SIZE), makeRequest(1, 1, 4 * PAGE_SIZE)];
    requests.forEach(add);
    step();
    expect(requests.every(({ sequence }) => sequence !== undefined)).toBe(true);
    while (!scheduler.idle) step();
    expect(requests.map(({ ends }) => ends)).toEqual([1, 1]);
    expect(new Set(preempted)).toEqual(new Set([requests[1]]));
  });

  it("does not let a small request overtake a large one", () => {
    const { add, step } = simulation({ maxPages: 4, tokenBudget: 1000 });
    const [first, large, small] = [makeRequest(0, 20, 20), makeRequest(1, 40, 20), makeRequest(2, 1, 1)];
    for (const request of [first, large, small]) add(request);
    step();
    expect([first, large, small].map(({ sequence }) => sequence !== undefined)).toEqual([true, false, false]);
  });

  it("a waiting request can be taken out, and what was never added too", () => {
    const { scheduler, cache, end, add } = simulation({ maxPages: 4, tokenBudget: 8 });
    const request = makeRequest(0, 5, 5);
    add(request);
    end(request);
    scheduler.remove(makeRequest(1, 1, 1));
    expect(scheduler.idle).toBe(true);
    expect(scheduler.plan()).toEqual([]);
    expect(cache.usedPages).toBe(0);
  });

  it("waits while somebody else holds the pages", () => {
    const { scheduler, cache, add, step } = simulation({ maxPages: 2, tokenBudget: 8 });
    const stranger: KvSequence = cache.create();
    cache.append(stranger, 2 * PAGE_SIZE);
    const request = makeRequest(0, 20, 2);
    add(request);
    expect(scheduler.plan()).toEqual([]);
    cache.release(stranger);
    while (!scheduler.idle) step();
    expect(request.ends).toBe(1);
  });

  it("refuses what no empty cache could hold", () => {
    const { add } = simulation({ maxPages: 2, tokenBudget: 8 });
    expect(() => add(makeRequest(0, 20, 20))).toThrow(new RangeError("request: 40 positions take 3 pages, the KV cache has 2"));
  });
});

describe("priorities", () => {
  it("let a request pass others, and take the pages of running ones", () => {
    const { scheduler, preempted, add, step } = simulation({ maxPages: 5, tokenBudget: 100 });
    const slow = [makeRequest(0, 20, 20), makeRequest(1, 20, 20)];
    slow.forEach(add);
    step();
    const urgent = makeRequest(2, 20, 2, { priority: 1 });
    add(urgent);
    step();
    step();
    expect([urgent.ends, preempted]).toEqual([1, [slow[1]]]);
    while (!scheduler.idle) step();
    expect(slow.map(({ ends }) => ends)).toEqual([1, 1]);
  });

  it("nobody starves: after a head start, the others have their turn", () => {
    const { add, step } = simulation({ maxPages: 3, tokenBudget: 4 });
    const modest = makeRequest(0, 20, 20);
    add(modest);
    for (let id = 1; modest.ends === 0; id++) {
      add(makeRequest(id, 20, 20, { priority: 1 }));
      for (let i = 0; i < 25 && modest.ends === 0; i++) step();
      expect(id).toBeLessThanOrEqual(HEAD_START + 5);
    }
  });
});

describe("samples of one prompt", () => {
  it.each([true, false])("compute it once and share its pages, prefix index: %s", (prefixIndex) => {
    const { scheduler, cache, add, step } = simulation({ maxPages: 40, tokenBudget: 100, prefixIndex });
    const leader = makeRequest(0, 40, 4);
    const others = range(5).map((i) => makeRequest(0, 40, 4, { id: i + 1, leader }));
    add(leader);
    others.forEach(add);
    step();
    expect(cache.usedPages).toBe(3);
    step();
    expect(others.map(({ cached }) => cached)).toEqual(others.map(() => 39));
    expect(cache.usedPages).toBe(2 + 6);
    while (!scheduler.idle) step();
    expect(cache.usedPages).toBe(0);
  });
});

describe("chunks", () => {
  const chunks = (tokenBudget: number, lengths: readonly number[], policy?: Policy) => {
    const cache = new KvCache(shapeKernels(), { nLayers: 1, nKvHeads: 1, headDim: 2 }, 100);
    const scheduler = new Scheduler<Request>(cache, { tokenBudget: () => tokenBudget, policy });
    lengths.forEach((length, id) => scheduler.add(makeRequest(id, length, 10)));
    return range(3).map(() => {
      const plan = scheduler.plan();
      if (plan.length > 0) makeBatch(cache, plan.map(({ run }) => run));
      return plan.map(({ request, run }) => [request.id, run.tokens.length, run.logits]);
    });
  };

  it("cut a long prompt into the budget's size, and ask for logits after the last token only", () => {
    expect(chunks(8, [20])).toEqual([[[0, 8, "none"]], [[0, 8, "none"]], [[0, 4, "last"]]]);
  });

  it("share a step among short prompts", () => {
    expect(chunks(8, [3, 4, 5])).toEqual([[[0, 3, "last"], [1, 4, "last"], [2, 1, "none"]], [[2, 4, "last"]], []]);
  });

  it("are whole prompts under the other policies", () => {
    for (const policy of ["continuous", "static"] as const) expect(chunks(8, [30, 4], policy)[0]).toEqual([[0, 30, "last"], [1, 4, "last"]]);
  });
});
