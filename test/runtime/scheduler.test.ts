import { describe, expect, it } from "vitest";
import { KvCache, type KvSequence, PAGE_SIZE } from "../../src/kvcache/cache.ts";
import { forward, makeBatch } from "../../src/model/decoder.ts";
import { type Scheduled, Scheduler } from "../../src/runtime/scheduler.ts";
import { Ledger } from "../../src/tensor/ledger.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";
import { type Dice, dice, range } from "../support/dice.ts";
import { SMALL } from "../support/models.ts";
import { smallBench } from "../support/run.ts";

interface Request extends Scheduled {
  id: number;
  fedTokens: number[];
  generated: number;
  wanted: number;
  ends: number;
}

function makeRequest(id: number, promptLength: number, wanted: number): Request {
  return {
    ...{ id, prompt: range(promptLength).map((i) => (id + i) % SMALL.vocabSize!), maxLength: promptLength + wanted },
    ...{ fed: 0, cached: 0, nextToken: undefined, sequence: undefined, fedTokens: [], generated: 0, wanted, ends: 0 },
  };
}

const drawRequest = (d: Dice, id: number) => makeRequest(id, d.between(1, 50), d.between(1, 20));

/** A scheduler over a model that costs nothing to run, with all the rules checked after every step. */
function simulation(maxPages: number, tokenBudget: number) {
  const kernels = shapeKernels();
  const on = smallBench(1, SMALL, { kernels, ledger: new Ledger(false), maxPages });
  const scheduler = new Scheduler<Request>(on.cache, tokenBudget);
  const present = new Set<Request>();
  const admitted: Request[] = [];

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
    for (const request of present) if (request.sequence && !admitted.includes(request)) admitted.push(request);

    const decodes = plan.filter(({ run }) => !run.prompt);
    const prompts = plan.filter(({ run }) => run.prompt);
    const promptTokens = prompts.reduce((sum, { run }) => sum + run.tokens.length, 0);
    expect(plan.length, "every step does something").toBeGreaterThan(0);
    expect(new Set(plan.map(({ request }) => request)).size, "no request twice in a step").toBe(plan.length);
    expect(plan, "generated tokens first").toEqual([...decodes, ...prompts]);
    expect(promptTokens, "the budget").toBeLessThanOrEqual(Math.max(0, tokenBudget - decodes.length));
    const ready = [...present].filter(({ nextToken }) => nextToken !== undefined);
    expect(new Set(decodes.map(({ request }) => request)), "every running request goes on").toEqual(new Set(ready));
    const unfinished = prompts.findIndex(({ run }) => run.logits === "none");
    expect(unfinished === -1 || unfinished === prompts.length - 1, "an earlier prompt is through before a later one begins").toBe(true);

    const batch = makeBatch(on.cache, plan.map(({ run }) => run));
    forward(on.model, on.ops, batch);
    expect(batch.outputs.length).toBe(plan.filter(({ run }) => run.logits === "last").length);
    for (const { request, run } of plan) {
      expect(run.sequence).toBe(request.sequence);
      request.fedTokens.push(...run.tokens);
      if (run.logits === "none") continue;
      request.generated++;
      request.nextToken = 1;
      if (request.generated === request.wanted) end(request);
    }
  };
  const checkPages = () => {
    const held = [...present].flatMap(({ sequence }) => sequence?.pages ?? []);
    expect(on.cache.usedPages).toBe(new Set(held).size);
  };
  return { scheduler, cache: on.cache, present, admitted, add, end, step, checkPages };
}

describe("random requests", () => {
  it.each(range(20))("seed %i: every one ends once, in order of admission, and no page is lost", (seed) => {
    const d = dice(seed);
    const { scheduler, cache, present, admitted, add, end, step, checkPages } = simulation(d.between(5, 30), d.pick([1, 3, 8, 64]));
    const all: Request[] = [];
    const cancelled = new Set<Request>();
    for (let i = 0; i < 60 || !scheduler.idle; i++) {
      if (i < 60) {
        for (let n = d.below(3); n > 0; n--) {
          all.push(drawRequest(d, all.length));
          add(all.at(-1)!);
        }
      }
      if (present.size > 0 && d.chance(0.1)) {
        const victim = d.pick([...present]);
        cancelled.add(victim);
        end(victim);
      }
      if (!scheduler.idle) step();
      checkPages();
      expect(i, "no request waits for ever").toBeLessThan(5000);
    }
    expect(all.every(({ ends }) => ends === 1)).toBe(true);
    for (const request of all) {
      if (cancelled.has(request)) continue;
      expect(request.generated).toBe(request.wanted);
      expect(request.fedTokens).toEqual([...request.prompt, ...range(request.wanted - 1).map(() => 1)]);
    }
    expect(admitted.map(({ id }) => id)).toEqual([...admitted].sort((a, b) => a.id - b.id).map(({ id }) => id));
    expect([cache.usedPages, cache.freePages]).toEqual([0, cache.maxPages]);
  });
});

describe("admission", () => {
  it("takes a request only when the cache can hold it to its end, so running ones never lack a page", () => {
    const { scheduler, add, step } = simulation(4, 1000);
    const [big, small] = [makeRequest(0, 1, 3 * PAGE_SIZE), makeRequest(1, 1, PAGE_SIZE)];
    add(big);
    add(small);
    step();
    expect([big.sequence !== undefined, small.sequence]).toEqual([true, undefined]);
    while (!scheduler.idle) step();
    expect([big.ends, small.ends]).toEqual([1, 1]);
  });

  it("does not let a small request overtake a large one", () => {
    const { add, step } = simulation(4, 1000);
    const [first, large, small] = [makeRequest(0, 20, 20), makeRequest(1, 40, 20), makeRequest(2, 1, 1)];
    for (const request of [first, large, small]) add(request);
    step();
    expect([first, large, small].map(({ sequence }) => sequence !== undefined)).toEqual([true, false, false]);
  });

  it("a waiting request can be taken out, and what was never added too", () => {
    const { scheduler, cache, end, add } = simulation(4, 8);
    const request = makeRequest(0, 5, 5);
    add(request);
    end(request);
    scheduler.remove(makeRequest(1, 1, 1));
    expect(scheduler.idle).toBe(true);
    expect(scheduler.plan()).toEqual([]);
    expect(cache.usedPages).toBe(0);
  });

  it("waits while somebody else holds the pages", () => {
    const { scheduler, cache, add, step } = simulation(2, 8);
    const stranger: KvSequence = cache.create();
    cache.append(stranger, 2 * PAGE_SIZE);
    const request = makeRequest(0, 20, 2);
    add(request);
    expect(scheduler.plan()).toEqual([]);
    cache.release(stranger);
    while (!scheduler.idle) step();
    expect(request.ends).toBe(1);
  });
});

describe("chunks", () => {
  const chunks = (tokenBudget: number, lengths: readonly number[]) => {
    const cache = new KvCache(shapeKernels(), { nLayers: 1, nKvHeads: 1, headDim: 2 }, 100);
    const scheduler = new Scheduler<Request>(cache, tokenBudget);
    lengths.forEach((length, id) => scheduler.add(makeRequest(id, length, 10)));
    return range(3).map(() => scheduler.plan().map(({ request, run }) => [request.id, run.tokens.length, run.logits]));
  };

  it("cut a long prompt into the budget's size, and ask for logits after the last token only", () => {
    expect(chunks(8, [20])).toEqual([[[0, 8, "none"]], [[0, 8, "none"]], [[0, 4, "last"]]]);
  });

  it("share a step among short prompts", () => {
    expect(chunks(8, [3, 4, 5])).toEqual([[[0, 3, "last"], [1, 4, "last"], [2, 1, "none"]], [[2, 4, "last"]], []]);
  });
});
