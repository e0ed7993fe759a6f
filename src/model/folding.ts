import { type Calibration, type LinearInput, type OpStatistics, statisticsOf } from "../quant/calibration.ts";
import { quantiseRows } from "../quant/groups.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { f32 } from "../tensor/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { layerOf } from "./placement.ts";

/** How a tensor changes: column c times columns[c], and row r (of a vector: value r) times rows[r]. */
export interface Fold {
  columns?: Float32Array;
  rows?: Float32Array;
}

/** Folds by tensor name. Together they leave the model's function as it is. */
export type Folds = Map<string, Fold>;

/** Reads a matrix as f32: all of its rows, or `most` of them, spread evenly. */
export type ReadMatrix = (name: string, most: number) => Tensor;

/** A place where a factor per channel can move from the input of some linears into the parameters that make this input. */
interface Site {
  readonly layer: number;
  readonly input: LinearInput;
  /** The matrices that read it; their columns are the channels. */
  readonly readers: readonly string[];
  /** The vectors and matrices whose values or rows are the channels. */
  readonly makers: readonly string[];
  /** Channels that come from one and the same row of the makers: query heads that share a KV head. */
  readonly rowOf?: (channel: number) => number;
}

/**
 * All sites of a decoder: norms into the linears behind them, v into the output projection, up into down where the block is gated (the
 * product passes a factor through; an activation function alone would not).
 */
function sites({ nLayers, nHeads, nKvHeads, headDim, latent, ffn, qkvClamp }: ModelConfig, has: (name: string) => boolean): Site[] {
  const found: Site[] = [];
  const perKv = nHeads / nKvHeads;
  for (let layer = 0; layer < nLayers; layer++) {
    const weights = (...parts: string[]) => parts.map((part) => `blk.${layer}.${part}.weight`);
    const both = (part: string) => [`blk.${layer}.${part}.weight`, `blk.${layer}.${part}.bias`].filter(has);
    const rowOf = (channel: number) => Math.floor(Math.floor(channel / headDim) / perKv) * headDim + (channel % headDim);
    const fed = ffn === "gated" ? weights("ffn_gate", "ffn_up") : weights("ffn_up");
    // Only what a norm with weights has made can be made otherwise; where both blocks read the same, both are readers.
    const [attnNorm, ffnNorm] = has(`blk.${layer}.attn_norm_2.weight`) ? [both("attn_norm_2"), both("attn_norm")] : [both("attn_norm"), both("ffn_norm")];
    const shared = ffnNorm.length > 0 ? [] : fed;
    // Latent attention has no sites: what its matrices read and make is not what the names here say.
    if (attnNorm.length > 0 && !latent) found.push({ layer, input: "attn_norm", readers: [...weights("attn_q", "attn_k", "attn_v"), ...shared], makers: attnNorm });
    if (qkvClamp === undefined && !latent) found.push({ layer, input: "attention", readers: weights("attn_output"), makers: both("attn_v"), rowOf });
    // Experts have no site: too many readers, and the router among them.
    if (!has(`blk.${layer}.ffn_up.weight`)) continue;
    if (ffnNorm.length > 0) found.push({ layer, input: "ffn_norm", readers: fed, makers: ffnNorm });
    if (ffn === "gated") found.push({ layer, input: "ffn_act", readers: weights("ffn_down"), makers: both("ffn_up") });
  }
  if (has("output.weight") && has("output_norm.weight")) found.push({ layer: -1, input: "output_norm", readers: ["output.weight"], makers: ["output_norm.weight", "output_norm.bias"].filter(has) });
  return found;
}

/** @throws RangeError when a calibration belongs to a model of another shape. */
export function checkCalibration({ model, ops }: Calibration, { nLayers, dim, nHeads, headDim, ffnDim }: ModelConfig): void {
  const headDims = nHeads * headDim;
  const found = [model.nLayers, model.dim, model.headDims, model.ffnDim].join(", ");
  const expected = [nLayers, dim, headDims, ffnDim].join(", ");
  if (found !== expected) throw new RangeError(`calibration: expected one of this model (layers, dim, heads x headDim, ffnDim: ${expected}), found one of ${model.name} (${found})`);
  const channels: Readonly<Record<LinearInput, number>> = { attn_norm: dim, attention: headDims, ffn_norm: dim, ffn_act: ffnDim, output_norm: dim };
  const odd = ops.find(({ name, layer, channelMax }) => channelMax.length !== channels[name] || layer >= nLayers || layer < -1);
  if (odd) throw new RangeError(`calibration: expected ${channels[odd.name]} channels of ${odd.name}, found ${odd.channelMax.length} in layer ${odd.layer}`);
}

const READERS: Readonly<Record<string, LinearInput>> = {
  ...{ attn_q: "attn_norm", attn_k: "attn_norm", attn_v: "attn_norm", attn_output: "attention" },
  ...{ ffn_gate: "ffn_norm", ffn_up: "ffn_norm", ffn_down: "ffn_act", output: "output_norm" },
};

/** Which op's output a matrix reads; undefined for the embedding. */
export function inputOf(name: string): { layer: number; name: LinearInput } | undefined {
  const found = READERS[name.replace(/^blk\.\d+\./, "").replace(/\.weight$/, "")];
  return found && { layer: layerOf(name), name: found };
}

/** Factors per channel for one site, or undefined to leave it alone. */
type Choose = (site: Site, seen: OpStatistics) => Float64Array | undefined;

function foldAll(config: ModelConfig, has: (name: string) => boolean, calibration: Calibration, choose: Choose): Folds {
  const folds: Folds = new Map();
  const at = (name: string): Fold => {
    const known = folds.get(name) ?? {};
    folds.set(name, known);
    return known;
  };
  for (const site of sites(config, has)) {
    const seen = statisticsOf(calibration, site.layer, site.input);
    const factors = seen && choose(site, seen);
    if (!factors) continue;
    for (const name of site.readers) at(name).columns = Float32Array.from(factors);
    const { rowOf = (channel: number) => channel } = site;
    const rows = new Float32Array(rowOf(factors.length - 1) + 1);
    factors.forEach((factor, channel) => (rows[rowOf(channel)] = 1 / factor));
    for (const name of site.makers) at(name).rows = rows;
  }
  return folds;
}

/** Channels of one row get one factor: the largest of theirs. */
function shared({ rowOf }: Site, factors: Float64Array): Float64Array {
  if (!rowOf) return factors;
  const most = new Map<number, number>();
  factors.forEach((factor, channel) => most.set(rowOf(channel), Math.max(most.get(rowOf(channel)) ?? 0, factor)));
  return factors.map((_, channel) => most.get(rowOf(channel))!);
}

/** The largest magnitude of every column over all readers. */
function columnMax(weights: readonly Tensor[]): Float64Array {
  const max = new Float64Array(weights[0].cols);
  for (const { f32: values, cols } of weights) values.forEach((value, i) => (max[i % cols] = Math.max(max[i % cols], Math.abs(value))));
  return max;
}

/** Factors stay in a range where neither side of a fold loses precision. */
const bounded = (factor: number) => (factor > 0 && Number.isFinite(factor) ? Math.min(1e4, Math.max(1e-4, factor)) : 1);

/**
 * SmoothQuant (Xiao et al. 2022, equation 4): factor = max|x|^alpha / max|w|^(1 - alpha) for every channel, which moves the
 * difficulty of activations with outliers into the weights. Only norms take factors, as in the paper.
 */
export function smoothingFolds(config: ModelConfig, has: (name: string) => boolean, calibration: Calibration, alpha: number, read: ReadMatrix) {
  const migrations: { layer: number; name: LinearInput; factors: number[] }[] = [];
  const folds = foldAll(config, has, calibration, (site, { channelMax }) => {
    if (site.input !== "attn_norm" && site.input !== "ffn_norm") return undefined;
    const weights = columnMax(site.readers.map((name) => read(name, Infinity)));
    const factors = Float64Array.from(channelMax, (most, c) => bounded(most ** alpha / weights[c] ** (1 - alpha)));
    migrations.push({ layer: site.layer, name: site.input, factors: [...factors] });
    return factors;
  });
  return { folds, migrations };
}

/** The folds that a calibration with SmoothQuant was made with. */
export function migratedFolds(config: ModelConfig, has: (name: string) => boolean, calibration: Calibration): Folds {
  const migrations = calibration.smooth?.migrations ?? [];
  return foldAll(config, has, calibration, ({ layer, input }) => {
    const found = migrations.find((migration) => migration.layer === layer && migration.name === input);
    return found && Float64Array.from(found.factors);
  });
}

/** Strengths of the scaling that AWQ tries. */
const STRENGTHS = Array.from({ length: 20 }, (_, i) => i / 20);

/** Rows of a matrix that the search looks at, spread evenly: the factors are for columns. */
const SEARCH_ROWS = 256;

/**
 * Activation-aware weight quantisation (Lin et al. 2023, section 3.2): factor = (mean |x|)^strength for every channel, so that the
 * columns that matter most are rounded finest, with the strength that changes the outputs least. The error is that of independent
 * channels: the sum over weights of mean x^2 times the squared rounding error.
 */
export function awqFolds(config: ModelConfig, has: (name: string) => boolean, calibration: Calibration, read: ReadMatrix): Folds {
  return foldAll(config, has, calibration, (site, { channelMean, channelSquare }) => {
    const weights = site.readers.map((name) => read(name, SEARCH_ROWS));
    if (weights.some(({ cols }) => cols % 32 !== 0)) return undefined;
    let best: Float64Array | undefined;
    let least = Infinity;
    for (const strength of STRENGTHS) {
      const raw = Float64Array.from(channelMean, (mean) => Math.max(mean, 1e-6) ** strength);
      const middle = Math.sqrt(raw.reduce((a, b) => Math.max(a, b), 0) * raw.reduce((a, b) => Math.min(a, b), Infinity));
      const factors = shared(site, raw.map((factor) => bounded(factor / middle)));
      const error = weights.reduce((sum, weight) => sum + roundingError(weight, factors, channelSquare), 0);
      if (error < least) [least, best] = [error, factors];
    }
    return best;
  });
}

function roundingError(weight: Tensor, factors: Float64Array, meanSquare: readonly number[]): number {
  const { cols, rows } = weight;
  const scaled = f32([rows, cols], weight.f32.map((value, i) => value * factors[i % cols]));
  const importance = Float32Array.from(meanSquare, (square, c) => square / factors[c] ** 2);
  const rounded = quantiseRows(scaled, "int4", 32, importance);
  let error = 0;
  for (let i = 0; i < scaled.f32.length; i++) error += importance[i % cols] * (scaled.f32[i] - rounded.at(i)) ** 2;
  return error;
}

/** Applies a fold to rows [first, first + rows.rows) of a tensor, in place. A vector counts as rows of one value. */
export function applyFold(fold: Fold | undefined, rows: Tensor, first: number): void {
  if (!fold) return;
  const width = rows.shape.length > 1 ? rows.cols : 1;
  const values = rows.f32;
  for (let i = 0; i < values.length; i++) {
    const row = first + Math.floor(i / width);
    values[i] *= (fold.columns ? fold.columns[i % width] : 1) * (fold.rows ? fold.rows[row] : 1);
  }
}
