import type { OpRecord } from "../../tensor/ledger.ts";
import type { RoofOptions } from "./roof.ts";
import { type Cluster, partOf, send, type Split, stagesOf, type StageTime, stageTimes, stageWeights } from "./split.ts";
import { kvBytes, type Steps, type Traced, traceDecode, tracePrefill, type Workload, workspaceBytes } from "./trace.ts";

/** How a pool of devices is used: `dp` replicas of the model, each of tp x pp devices. */
export interface Layout extends Split {
  readonly dp: number;
  /** Groups into which a replica's sequences are divided, so that pipeline stages work at the same time in decode. */
  readonly groups: number;
}

/** What a layout does with a workload. Milliseconds, bytes per device. */
export interface LayoutCost {
  readonly layout: Layout;
  readonly memoryBytes: number;
  readonly fits: boolean;
  /** Until all prompts are read. */
  readonly ttftMs: number;
  readonly tpotMs: number;
  /** What a decode step is made of, averaged over the stages. */
  readonly parts: { readonly memory: number; readonly compute: number; readonly launch: number; readonly link: number; readonly bubble: number };
}

/** One way to use the devices, and what it would do with the workload at best. `fits`: every device has room for its part. */
export interface Plan {
  /** One layout for both phases, or one for each of two pools. */
  readonly prefill: LayoutCost;
  readonly decode: LayoutCost;
  readonly pools: { readonly prefill: number; readonly decode: number } | null;
  readonly fits: boolean;
  readonly ttftMs: number;
  readonly tpotMs: number;
  /** Decoded tokens per second of all sequences, the prompts' time included. */
  readonly tokensPerSecond: number;
}

export const OBJECTIVES = ["throughput", "tpot", "ttft"] as const;
export type Objective = (typeof OBJECTIVES)[number];

/** What is to be divided: a workload of a costed model, over devices joined as `cluster` says. */
export interface PlanProblem {
  readonly on: Traced;
  readonly workload: Workload;
  readonly cluster: Cluster;
  readonly options?: RoofOptions;
}

/** The steps of a problem's model, each traced once. */
interface Traces {
  prefill(sequences: number): readonly Steps[];
  /** One decode step in the middle of the decode: costs are linear in the context, so it is the average one. */
  decode(sequences: number): readonly OpRecord[];
}

function traces({ on, workload }: PlanProblem): Traces {
  const context = workload.promptTokens + Math.ceil((workload.tokens + 1) / 2);
  return {
    prefill: remember((batch) => tracePrefill(on, { ...workload, batch })),
    decode: remember((batch) => traceDecode(on, batch, context)),
  };
}

function remember<T>(make: (key: number) => T): (key: number) => T {
  const known = new Map<number, T>();
  return (key) => {
    if (!known.has(key)) known.set(key, make(key));
    return known.get(key)!;
  };
}

/** Why a model cannot be divided this way, or undefined. */
export function impossible({ on, workload }: PlanProblem, { tp, pp, dp, groups }: Layout): string | undefined {
  const { nHeads, nKvHeads, nLayers } = on.model.config;
  if (nHeads % tp !== 0) return `${nHeads} heads do not divide by ${tp}`;
  if (nKvHeads % tp !== 0 && tp % nKvHeads !== 0) return `${nKvHeads} KV heads and ${tp} devices do not divide`;
  if (pp > nLayers) return `${nLayers} layers are fewer than ${pp} stages`;
  if (dp > workload.batch) return `a batch of ${workload.batch} leaves some of ${dp} replicas without work`;
  if (groups > Math.ceil(workload.batch / dp)) return `a replica has fewer than ${groups} sequences`;
  return undefined;
}

/** Costs one layout; `positions` are what each sequence keeps in the KV cache of these devices. */
function costOf(problem: PlanProblem, steps: Traces, layout: Layout, positions: number): LayoutCost {
  const { on, workload, cluster, options } = problem;
  const { tp, pp, dp, groups } = layout;
  const { nLayers, nKvHeads } = on.model.config;
  const sequences = Math.ceil(workload.batch / dp);

  const decode = stageTimes(steps.decode(Math.ceil(sequences / groups)), on, layout, cluster, options);
  const through = sum(decode, "total");
  const slowest = Math.max(...decode.map(({ total }) => total));
  // A token must pass all stages, and the slowest stage must serve all groups.
  const tpot = Math.max(through, groups * slowest);
  const share = (part: keyof StageTime) => (groups * sum(decode, part) * 1e3) / pp;

  const prefill = steps.prefill(sequences).map(({ records, count }) => ({ times: stageTimes(records, on, layout, cluster, options), count }));
  const first = prefill[0].times;
  const fill = sum(first, "total") - Math.max(...first.map(({ total }) => total));
  const ttft = fill + prefill.reduce((time, { times, count }) => time + count * Math.max(...times.map(({ total }) => total)), 0);

  const kv = (sequences * kvBytes(on, positions)) / Math.min(tp, nKvHeads) / nLayers;
  const parts = [...steps.prefill(sequences).map(({ records }) => records), steps.decode(Math.ceil(sequences / groups))];
  const workspace = Math.max(...parts.map((records) => workspaceBytes(records.map((op) => partOf(op, tp, nKvHeads)))));
  const weights = stageWeights(on, layout);
  const memoryBytes = Math.max(...stagesOf(nLayers, pp).map(({ first: from, end }, stage) => weights[stage] + kv * (end - from))) + workspace;
  return {
    layout,
    memoryBytes,
    fits: memoryBytes <= cluster.hardware.capacityGB * 1e9,
    ttftMs: ttft * 1e3,
    tpotMs: tpot * 1e3,
    parts: {
      ...{ memory: share("memory"), compute: share("compute"), launch: share("launch"), link: share("link") },
      bubble: tpot * 1e3 - share("total"),
    },
  };
}

const sum = (stages: readonly StageTime[], part: keyof StageTime) => stages.reduce((total, stage) => total + stage[part], 0);

/** A layout that was left out, and why. */
export interface Rejected {
  readonly layout: Layout;
  readonly why: string;
}

/** Parts of the layout that are given; the search chooses the others. */
export type Fixed = Partial<Pick<Layout, "tp" | "pp" | "dp">>;

/** Every way to use exactly `devices` devices. */
export function layoutsOf(problem: PlanProblem, devices: number, fixed: Fixed = {}): { possible: Layout[]; rejected: Rejected[] } {
  const possible: Layout[] = [];
  const rejected: Rejected[] = [];
  const divisors = (n: number) => Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);
  for (const tp of divisors(devices)) {
    for (const pp of divisors(devices / tp)) {
      const dp = devices / tp / pp;
      if ((fixed.tp ?? tp) !== tp || (fixed.pp ?? pp) !== pp || (fixed.dp ?? dp) !== dp) continue;
      const why = impossible(problem, { tp, pp, dp, groups: 1 });
      if (why !== undefined) rejected.push({ layout: { tp, pp, dp, groups: 1 }, why });
      else {
        const most = pp === 1 ? 1 : Math.min(2 * pp, Math.ceil(problem.workload.batch / dp));
        for (let groups = 1; groups <= most; groups++) possible.push({ tp, pp, dp, groups });
      }
    }
  }
  return { possible, rejected };
}

export interface PlanOptions {
  readonly devices: number;
  readonly objective: Objective;
  readonly fixed?: Fixed;
  /** Sizes of the pools; without them one layout serves both phases, or whatever pools are best. */
  readonly pools?: { readonly prefill: number; readonly decode: number };
}

/** What `searchPlans` found; both lists of plans begin with the best. */
export interface PlanResult {
  /** Plans that fit, the best first: for every tp x pp x dp its best number of groups, and pairs of pools (where their sizes are not given: the best pair of each size). */
  readonly plans: readonly Plan[];
  /** Plans that do not fit. */
  readonly tooLarge: readonly Plan[];
  readonly rejected: readonly Rejected[];
}

/**
 * Costs the ways to use exactly `devices` devices, by rooflines and the cluster's links: one layout for both phases, and two pools, of which
 * one reads prompts while the other decodes (Zhong et al. 2024, "DistServe"). Where `pools` is given, only pools of these sizes; where only
 * `fixed` is, no pools.
 */
export function searchPlans(problem: PlanProblem, { devices, objective, fixed, pools }: PlanOptions): PlanResult {
  const steps = traces(problem);
  const rejected: Rejected[] = [];
  const costs = (count: number, positions: number): LayoutCost[] => {
    const layouts = layoutsOf(problem, count, fixed);
    if (count === devices || pools) rejected.push(...layouts.rejected);
    return layouts.possible.map((layout) => costOf(problem, steps, layout, positions));
  };
  const { promptTokens, tokens } = problem.workload;
  const all: Plan[] = [];
  if (!pools) all.push(...bestGroups(costs(devices, promptTokens + tokens).map((cost) => unified(problem, cost)), objective));
  if (pools) {
    const readers = costs(pools.prefill, promptTokens).filter(({ layout }) => layout.groups === 1);
    const decoders = bestGroups(costs(pools.decode, promptTokens + tokens).map((cost) => unified(problem, cost)), "tpot");
    for (const prefill of readers) for (const { decode } of decoders) all.push(pooled(problem, prefill, decode, pools));
  }
  const sizes = pools || fixed ? [] : Array.from({ length: devices - 1 }, (_, i) => ({ prefill: i + 1, decode: devices - 1 - i }));
  for (const size of sizes) {
    const prefill = fastest(costs(size.prefill, promptTokens), "ttftMs");
    const decode = fastest(costs(size.decode, promptTokens + tokens), "tpotMs");
    if (prefill && decode) all.push(pooled(problem, prefill, decode, size));
  }
  const sorted = all.sort(better(objective));
  return { plans: sorted.filter(({ fits }) => fits), tooLarge: sorted.filter(({ fits }) => !fits), rejected };
}

/** Orders plans, the best first: by the objective, and where that is the same by the other figures. */
export function better(objective: Objective): (a: Plan, b: Plan) => number {
  const figures = { throughput: ({ tokensPerSecond }: Plan) => 1 / tokensPerSecond, tpot: ({ tpotMs }: Plan) => tpotMs, ttft: ({ ttftMs }: Plan) => ttftMs };
  const order = [objective, ...OBJECTIVES.filter((other) => other !== objective)].map((name) => figures[name]);
  return (a, b) => {
    const figure = order.find((one) => Math.abs(one(a) - one(b)) > 1e-9 * one(a));
    return figure ? figure(a) - figure(b) : 0;
  };
}

function unified({ workload }: PlanProblem, cost: LayoutCost): Plan {
  const seconds = (cost.ttftMs + workload.tokens * cost.tpotMs) / 1e3;
  const { fits, ttftMs, tpotMs } = cost;
  return { prefill: cost, decode: cost, pools: null, fits, ttftMs, tpotMs, tokensPerSecond: (workload.batch * workload.tokens) / seconds };
}

/** One pool reads the prompts of the next batch while the other decodes this one; keys and values move from one to the other. */
function pooled({ on, workload, cluster }: PlanProblem, prefill: LayoutCost, decode: LayoutCost, pools: { prefill: number; decode: number }): Plan {
  const lanes = Math.min(pools.prefill, pools.decode);
  const moved = send((workload.batch * kvBytes(on, workload.promptTokens)) / lanes, cluster) * 1e3;
  const ttftMs = prefill.ttftMs + moved;
  const batchMs = Math.max(ttftMs, workload.tokens * decode.tpotMs);
  const fits = prefill.fits && decode.fits;
  return { prefill, decode, pools, fits, ttftMs, tpotMs: decode.tpotMs, tokensPerSecond: (workload.batch * workload.tokens * 1e3) / batchMs };
}

/** The fastest that fits, or if none does the fastest. */
function fastest(costs: readonly LayoutCost[], field: "ttftMs" | "tpotMs"): LayoutCost | undefined {
  const fitting = costs.filter(({ fits }) => fits);
  return (fitting.length > 0 ? fitting : [...costs]).reduce<LayoutCost | undefined>((best, one) => (best && best[field] <= one[field] ? best : one), undefined);
}

/** Of plans that differ in the number of groups only, the best. */
function bestGroups(plans: readonly Plan[], objective: Objective): Plan[] {
  const best = new Map<string, Plan>();
  for (const plan of [...plans].sort(better(objective))) {
    const { tp, pp, dp } = plan.decode.layout;
    const key = `${tp} ${pp} ${dp}`;
    if (!best.has(key) || (plan.fits && !best.get(key)!.fits)) best.set(key, plan);
  }
  return [...best.values()];
}
