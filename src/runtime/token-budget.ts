import type { Model } from "../model/decoder.ts";
import type { ModelConfig } from "../model/config.ts";
import { expertLinears, expertLoad } from "../model/experts.ts";
import { denseLinears, type LayerWeights } from "../model/weights.ts";
import type { Kernels } from "../tensor/kernels.ts";
import type { Linear } from "../tensor/ops.ts";
import { median } from "./bench.ts";

/** What a machine does at best, for those who know it. */
export interface GivenRoofline {
  /** Bytes of weights that it reads, 10^9 a second. */
  readonly gbPerSecond: number;
  /** Flops of its linears, 10^9 a second. */
  readonly gflops: number;
}

/** How long all linears of a model take over some rows. */
export interface LinearSpeed {
  readonly rows: number;
  readonly stepMs: number;
}

/** Rows at which linears are timed; `auto` never takes more than the last. */
export const LADDER: readonly number[] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
export const MAX_AUTO_BUDGET = LADDER[LADDER.length - 1];
/** Two KV pages. What a step does besides its linears, reading the past and starting some hundred ops, wants to be shared by that many rows. */
export const MIN_AUTO_BUDGET = 32;

/** From where on a row costs at most this much more than it could, more rows in a step gain little: the linears are compute-bound. */
const NEARLY = 1.1;
const RUNG_MS = 8;
const LONG_ENOUGH_MS = 300;

const known = new WeakMap<Model, readonly LinearSpeed[]>();

/** The linears' speed at every rung of the ladder, by a clock; measured once for a model and its kernels, in a tenth of a second or so. */
export function measuredSpeeds(model: Model, kernels: Kernels): readonly LinearSpeed[] {
  const found = known.get(model);
  if (found) return found;
  const speeds: LinearSpeed[] = [];
  const started = performance.now();
  for (const rows of LADDER) {
    // Slow kernels don't get to the top: more rows than that would only make others wait.
    if (rows > MIN_AUTO_BUDGET && performance.now() - started > LONG_ENOUGH_MS) break;
    speeds.push({ rows, stepMs: timeLinears(model, kernels, rows) });
  }
  known.set(model, speeds);
  return speeds;
}

/** The same by the roofline model (Williams et al. 2009): a step takes as long as its bytes or as its flops, whichever is longer. */
export function givenSpeeds({ config, weights }: Model, { gbPerSecond, gflops }: GivenRoofline): readonly LinearSpeed[] {
  return LADDER.map((rows) => {
    const work = [...weights.layers.flatMap((layer) => workOf(config, layer, rows)), { linear: weights.output, rows }];
    const memoryMs = work.reduce((sum, { linear: { weight } }) => sum + weight.bytes, 0) / gbPerSecond / 1e6;
    const computeMs = work.reduce((sum, { linear: { weight }, rows: own }) => sum + 2 * own * weight.rows * weight.cols, 0) / gflops / 1e6;
    return { rows, stepMs: Math.max(memoryMs, computeMs) };
  });
}

/** The linears of a layer that a step of `rows` rows runs, and over how many of them: as many experts as such a step meets, most likely. */
function workOf({ experts }: ModelConfig, layer: LayerWeights, rows: number): { linear: Linear; rows: number }[] {
  const work = denseLinears(layer).map((linear) => ({ linear, rows }));
  if (!experts || !layer.experts) return work;
  const load = expertLoad(experts, rows);
  const met = expertLinears(layer.experts).slice(0, 3 * load.experts);
  return [...work, ...met.map((linear) => ({ linear, rows: load.rows }))];
}

/** Rows at which the linears turn from memory-bound to compute-bound: the fewest at which a row is nearly as cheap as it gets. */
export function turningPoint(speeds: readonly LinearSpeed[]): number {
  const cost = ({ rows, stepMs }: LinearSpeed) => stepMs / rows;
  const least = Math.min(...speeds.map(cost));
  return speeds.find((speed) => cost(speed) <= NEARLY * least)!.rows;
}

/** Most rows that a step can take within `ms`, at least one; between two rungs time grows in a straight line. */
export function rowsWithin(speeds: readonly LinearSpeed[], ms: number): number {
  const over = speeds.findIndex(({ stepMs }) => stepMs > ms);
  if (over < 0) return speeds[speeds.length - 1].rows;
  if (over === 0) return 1;
  const [low, high] = [speeds[over - 1], speeds[over]];
  return Math.floor(low.rows + ((high.rows - low.rows) * (ms - low.stepMs)) / (high.stepMs - low.stepMs));
}

/** Tokens in a step: the linears' turning point, and fewer where a step of so many would take longer than `tpotMs`. */
export function autoBudget(speeds: readonly LinearSpeed[], tpotMs?: number): number {
  const budget = Math.max(MIN_AUTO_BUDGET, turningPoint(speeds));
  return tpotMs === undefined ? budget : Math.min(budget, rowsWithin(speeds, tpotMs));
}

/**
 * Times the linears of one layer after another, so that they come from memory, and scales up to the bytes of all; the median, since
 * other programs may take a core away at any time.
 */
function timeLinears({ config, weights }: Model, kernels: Kernels, rows: number): number {
  const layers = weights.layers.map((layer) => workOf(config, layer, rows));
  const bytesOf = (work: readonly { linear: Linear }[]) => work.reduce((sum, { linear: { weight } }) => sum + weight.bytes, 0);
  const total = layers.reduce((sum, work) => sum + bytesOf(work), weights.output.weight.bytes);
  const most = (side: (linear: Linear) => number) => layers.flat().reduce((max, { linear }) => Math.max(max, side(linear)), 0);
  const x = kernels.alloc("f32", [rows * most(({ weight }) => weight.cols)]);
  const out = kernels.alloc("f32", [rows * most(({ weight }) => weight.rows)]);
  for (let i = 0; i < x.f32.length; i++) x.f32[i] = ((i * 29) % 97) / 97 - 0.5;
  const run = ({ linear: { weight, bias }, rows: own }: { linear: Linear; rows: number }) =>
    kernels.linear(out.as([own, weight.rows]), x.as([own, weight.cols]), weight, bias);
  try {
    run(layers[0][0]);
    const msPerByte: number[] = [];
    const started = performance.now();
    const spent = () => performance.now() - started;
    for (let layer = rows; spent() < RUNG_MS || (msPerByte.length < 3 && spent() < 8 * RUNG_MS); layer++) {
      const own = layers[layer % layers.length];
      const before = performance.now();
      own.forEach(run);
      msPerByte.push((performance.now() - before) / bytesOf(own));
    }
    return median(msPerByte) * total;
  } finally {
    kernels.free(x);
    kernels.free(out);
  }
}
