import { describe, expect, it } from "vitest";
import { planName, whyItLoses } from "../../../src/runtime/hardware/explain.ts";
import { peakOf } from "../../../src/runtime/hardware/hardware.ts";
import { layoutsOf, type PlanProblem, searchPlans } from "../../../src/runtime/hardware/plan.ts";
import { arithmeticOf } from "../../../src/runtime/hardware/roof.ts";
import { allGather, allReduce, type Cluster, partOf, stagesOf, stageWeights } from "../../../src/runtime/hardware/split.ts";
import { kvBytes, traceDecode, traced, tracePrefill } from "../../../src/runtime/hardware/trace.ts";
import type { OpRecord } from "../../../src/tensor/ledger.ts";
import { formats, ROUND, small } from "./support.ts";

const CLUSTER: Cluster = { hardware: ROUND, linkGBs: 10, startUs: 0.1, hopUs: 0.01 };
const HEADS = new Set(["attention", "rope_q", "rope_k", "kv_write", "ffn_act"]);
const KV = new Set(["attn_k", "attn_v", "rope_k", "kv_write"]);

/** Everything below says again, in the plainest way, what src/runtime/hardware/{split,plan}.ts do. */
function opSeconds(op: OpRecord, tp: number, nKvHeads: number): number {
  const linear = op.kind === "gemv" || op.kind === "gemm";
  const kvParts = tp < nKvHeads ? tp : nKvHeads;
  const parts = KV.has(op.name) ? kvParts : linear || HEADS.has(op.name) ? tp : 1;
  const rows = op.name === "attn_output" || op.name === "ffn_down";
  const [read, written] = [op.read.activations, op.written.activations];
  const activations = parts === 1 ? read + written : !linear ? (read + written) / parts : rows ? read / parts + written : read + written / parts;
  const kv = (op.read.kv + op.written.kv) / (parts === 1 ? 1 : kvParts);
  const bytes = op.read.weights / parts + activations + kv;
  return Math.max(op.flops / parts / peakOf(ROUND, arithmeticOf(op)), bytes / 100e9);
}

function stageSeconds(records: readonly OpRecord[], stage: number, tp: number, pp: number, layers: number, nKvHeads: number): number {
  const stageOf = (layer: number) => {
    let left = layer;
    for (let s = 0; s < pp; s++) {
      const own = Math.floor(layers / pp) + (s < layers % pp ? 1 : 0);
      if (left < own) return s;
      left -= own;
    }
    return pp - 1;
  };
  let seconds = 0;
  let inLayers = false;
  for (const op of records) {
    inLayers ||= op.layer >= 0;
    if ((op.layer >= 0 ? stageOf(op.layer) : inLayers ? pp - 1 : 0) !== stage) continue;
    seconds += opSeconds(op, tp, nKvHeads);
    const out = op.written.activations;
    if (tp > 1 && (op.name === "attn_output" || op.name === "ffn_down")) seconds += (out * 2 * (tp - 1)) / tp / 10e9 + 0.1e-6 + 2 * (tp - 1) * 0.01e-6;
    if (tp > 1 && op.name === "output") seconds += (out * (tp - 1)) / tp / 10e9 + 0.1e-6 + (tp - 1) * 0.01e-6;
    const leaves = op.name === "ffn_residual" && stageOf(op.layer + 1) !== stage && op.layer + 1 < layers;
    if (leaves) seconds += out / 10e9 + 0.11e-6;
  }
  return seconds;
}

/** Bytes of weights on one device, from what a decode step reads. */
function weightsOf(records: readonly OpRecord[], on: PlanProblem["on"], stage: number, tp: number, pp: number): number {
  const { nLayers, nKvHeads } = on.model.config;
  const from = Array.from({ length: stage }, (_, s) => Math.floor(nLayers / pp) + (s < nLayers % pp ? 1 : 0)).reduce((a, b) => a + b, 0);
  const end = from + Math.floor(nLayers / pp) + (stage < nLayers % pp ? 1 : 0);
  let bytes = stage === 0 ? on.model.weights.tokenEmbedding.bytes / tp : 0;
  for (const { layer, kind, name, read } of records) {
    if (kind === "embedding" || (layer >= 0 ? layer < from || layer >= end : stage !== pp - 1)) continue;
    const linear = kind === "gemv" || kind === "gemm";
    bytes += read.weights / (!linear ? 1 : KV.has(name) ? Math.min(tp, nKvHeads) : tp);
  }
  return bytes;
}

interface Brute {
  tp: number;
  pp: number;
  dp: number;
  groups: number;
  ttft: number;
  tpot: number;
  rate: number;
}

const known = new Map<PlanProblem, Map<number, Brute[]>>();

function bruteForce(problem: PlanProblem, devices: number): Brute[] {
  const own = known.get(problem) ?? new Map<number, Brute[]>();
  known.set(problem, own);
  const found = own.get(devices) ?? tryAll(problem, devices);
  own.set(devices, found);
  return found;
}

function tryAll({ on, workload }: PlanProblem, devices: number): Brute[] {
  const { nLayers, nKvHeads, nHeads } = on.model.config;
  const { batch, promptTokens, tokens } = workload;
  const context = promptTokens + Math.ceil((tokens + 1) / 2);
  const found: Brute[] = [];
  for (let tp = 1; tp <= devices; tp++) {
    for (let pp = 1; pp <= devices; pp++) {
      for (let dp = 1; dp <= devices; dp++) {
        if (tp * pp * dp !== devices || nHeads % tp || (nKvHeads % tp && tp % nKvHeads) || pp > nLayers || dp > batch) continue;
        const sequences = Math.ceil(batch / dp);
        for (let groups = 1; groups <= (pp === 1 ? 1 : 2 * pp) && groups <= sequences; groups++) {
          const stages = Array.from({ length: pp }, (_, s) => s);
          const times = (records: readonly OpRecord[]) => stages.map((s) => stageSeconds(records, s, tp, pp, nLayers, nKvHeads));
          const decode = traceDecode(on, Math.ceil(sequences / groups), context);
          const each = times(decode);
          const add = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
          const tpot = Math.max(add(each), groups * Math.max(...each));
          let ttft = 0;
          tracePrefill(on, { batch: sequences, promptTokens }).forEach(({ records, count }, i) => {
            const own = times(records);
            ttft += count * Math.max(...own) + (i === 0 ? add(own) - Math.max(...own) : 0);
          });
          const kv = (sequences * kvBytes(on, promptTokens + tokens)) / Math.min(tp, nKvHeads) / nLayers;
          const layersOf = (s: number) => Math.floor(nLayers / pp) + (s < nLayers % pp ? 1 : 0);
          const memory = Math.max(...stages.map((s) => weightsOf(traceDecode(on, 1, context), on, s, tp, pp) + kv * layersOf(s)));
          if (memory > ROUND.capacityGB * 1e9) continue;
          found.push({ tp, pp, dp, groups, ttft: ttft * 1e3, tpot: tpot * 1e3, rate: (batch * tokens) / (ttft + tokens * tpot) });
        }
      }
    }
  }
  return found;
}

const problem = (change: Parameters<typeof small>[0], workload: PlanProblem["workload"], tied = false): PlanProblem => ({ on: traced(small(change, tied), formats()), workload, cluster: CLUSTER });

const CASES: [string, PlanProblem, number][] = [
  ["4 devices, batch 8", problem({}, { batch: 8, promptTokens: 30, tokens: 10 }), 4],
  ["6 devices, three of them useless for heads", problem({}, { batch: 5, promptTokens: 100, tokens: 3 }), 6],
  ["8 devices, more than KV heads", problem({ nHeads: 8, headDim: 8, rope: { style: "halves", base: 1e4, dims: 8, scaling: { type: "none" } } }, { batch: 3, promptTokens: 64, tokens: 20 }), 8],
  ["wide layers", problem({ dim: 2048, headDim: 512, ffnDim: 8192 }, { batch: 4, promptTokens: 700, tokens: 64 }), 4],
  ["one device", problem({}, { batch: 2, promptTokens: 10, tokens: 2 }), 1],
];

describe("the plan search against brute force", () => {
  it.each(CASES)("%s: the same best plan for each objective", (_, case_, devices) => {
    const brute = bruteForce(case_, devices);
    const { plans } = searchPlans(case_, { devices, objective: "throughput" });
    const single = plans.filter(({ pools }) => pools === null);
    expect(single[0].tokensPerSecond).toBeCloseTo(Math.max(...brute.map(({ rate }) => rate)), 3);
    for (const [objective, field] of [["tpot", "tpotMs"], ["ttft", "ttftMs"]] as const) {
      const found = searchPlans(case_, { devices, objective }).plans.find(({ pools }) => pools === null)!;
      expect(found[field]).toBeCloseTo(Math.min(...brute.map((one) => one[objective])), 9);
    }
  });

  it.each(CASES)("%s: the best pair of pools", (_, case_, devices) => {
    const { batch, tokens, promptTokens } = case_.workload;
    const { plans } = searchPlans(case_, { devices, objective: "throughput" });
    for (const plan of plans.filter(({ pools }) => pools !== null)) {
      const { prefill, decode } = plan.pools!;
      const moved = ((batch * kvBytes(case_.on, promptTokens)) / Math.min(prefill, decode) / 10e9 + 0.11e-6) * 1e3;
      const ttft = Math.min(...bruteForce(case_, prefill).map((one) => one.ttft)) + moved;
      const tpot = Math.min(...bruteForce(case_, decode).map((one) => one.tpot));
      expect(plan.tokensPerSecond).toBeCloseTo((batch * tokens * 1e3) / Math.max(ttft, tokens * tpot), 3);
    }
    const sizes = Array.from({ length: devices - 1 }, (_, i) => i + 1).filter((size) => bruteForce(case_, size).length > 0 && bruteForce(case_, devices - size).length > 0);
    expect(plans.filter(({ pools }) => pools !== null)).toHaveLength(sizes.length);
  });

  it("drops what does not fit", () => {
    // 1.1 GB of weights: one device of 1 GB cannot hold them.
    const large = problem({ dim: 4096, headDim: 1024, ffnDim: 8192, nLayers: 4 }, { batch: 4, promptTokens: 16, tokens: 4 });
    const { plans, tooLarge } = searchPlans(large, { devices: 4, objective: "throughput" });
    const names = (list: typeof plans) => list.filter(({ pools }) => pools === null).map(planName).sort();
    const fitting = new Set(bruteForce(large, 4).map(({ tp, pp, dp }) => `${tp} ${pp} ${dp}`));
    expect(names(plans).length).toBe(fitting.size);
    expect(names(tooLarge)).toEqual(["dp 4"]);
    expect(whyItLoses(tooLarge[0], plans[0], 4, 1e9)).toMatch(/^does not fit: needs 1\.\d+ GB a device, has 1\.00 GB$/);
    for (const plan of plans.slice(1)) expect(whyItLoses(plan, plans[0], 4, 1e9)).not.toBe("");
  });
});

describe("splits", () => {
  it("move 2 (n - 1) / n of a tensor in a ring all-reduce", () => {
    expect(allReduce(8e9, 4, { ...CLUSTER, startUs: 0, hopUs: 0 })).toBeCloseTo((2 * 3 * 8) / 4 / 10, 12);
    expect(allReduce(8e9, 1, CLUSTER)).toBe(0);
    expect(allReduce(0, 4, CLUSTER)).toBeCloseTo(0.1e-6 + 6 * 0.01e-6, 15);
    expect(allGather(8e9, 4, { ...CLUSTER, startUs: 0, hopUs: 0 })).toBeCloseTo((3 * 8) / 4 / 10, 12);
  });

  it("lose no flop and no weight: the parts of a step are the step", () => {
    const { on } = problem({}, { batch: 1, promptTokens: 1, tokens: 1 });
    for (const op of traceDecode(on, 2, 50)) {
      const part = partOf(op, 2, 2);
      const replicated = ["norm", "elementwise", "embedding", "sampling"].includes(op.kind) || op.name === "rope_angles";
      expect(part.flops, op.name).toBe(replicated ? op.flops : op.flops / 2);
      expect(part.read.weights, op.name).toBe(replicated ? op.read.weights : op.read.weights / 2);
    }
    for (const tied of [false, true]) {
      const model = problem({}, { batch: 1, promptTokens: 1, tokens: 1 }, tied).on;
      expect(stageWeights(model, { tp: 1, pp: 1 })).toEqual([model.weightBytes]);
      const head = tied ? model.model.weights.tokenEmbedding.bytes : 0;
      expect(stageWeights(model, { tp: 1, pp: 3 }).reduce((a, b) => a + b, 0)).toBe(model.weightBytes + head);
    }
  });

  it("give every layer to one stage, sizes at most one apart", () => {
    for (const [layers, pp] of [[5, 1], [5, 2], [5, 5], [80, 7]]) {
      const stages = stagesOf(layers, pp);
      expect(stages[0].first).toBe(0);
      expect(stages.at(-1)!.end).toBe(layers);
      const sizes = stages.map(({ first, end }, i) => (expect(first).toBe(i === 0 ? 0 : stages[i - 1].end), end - first));
      expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
    }
  });

  it("that are impossible are told with a reason", () => {
    const { rejected } = layoutsOf(problem({ nHeads: 4, nKvHeads: 2 }, { batch: 2, promptTokens: 1, tokens: 1 }), 6);
    const why = Object.fromEntries(rejected.map(({ layout, why: reason }) => [`${layout.tp} ${layout.pp} ${layout.dp}`, reason]));
    expect(why["3 1 2"]).toBe("4 heads do not divide by 3");
    expect(why["1 6 1"]).toBe("5 layers are fewer than 6 stages");
    expect(why["1 1 6"]).toBe("a batch of 2 leaves some of 6 replicas without work");
  });
});
