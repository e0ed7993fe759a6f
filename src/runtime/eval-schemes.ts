import { describeFormats, type KvFormat } from "../kvcache/format.ts";
import { linears, weightBytes } from "../model/weights.ts";
import type { Sparsity } from "../quant/scheme.ts";
import { median } from "./bench.ts";
import type { Engine } from "./engine.ts";
import type { Quality } from "./eval.ts";
import type { Activations } from "./schemes.ts";

/** One way to store and compute a model's numbers, by the command line's names. */
export interface Scheme {
  readonly weights: string;
  readonly kv: KvFormat;
  readonly activations: Activations;
  readonly sparsity: Sparsity;
}

/** One line of `eval`. */
export interface EvalRow {
  readonly scheme: string;
  readonly weights: string;
  readonly kv: string;
  readonly activations: string;
  /** Over all matrices, scales included. */
  readonly bitsPerWeight: number;
  /** All weights as they lie in memory. */
  readonly modelBytes: number;
  readonly kvBytesPerToken: number;
  /** From the ledger: the mean over the decode steps at the end of a full window. */
  readonly bytesPerDecodeStep: number;
  readonly perplexity: number;
  readonly referencePerplexity: number;
  readonly klMean: number;
  readonly klMax: number;
  readonly top1Agreement: number;
  readonly maxLogitError: number;
  /** Measured over the same decode steps. */
  readonly decodeTokensPerSecond: number;
}

/** Decode steps at the end of a window that are counted and timed, and how often; the median counts. */
const STEPS = 32;
const ROUNDS = 3;

const plain = (weights: string, kv: KvFormat = "f32", activations: Activations = "f32"): Scheme => ({ weights, kv, activations, sparsity: "none" });

/** Every scheme that the sweep shows; `calibrated` adds those that need a calibration. */
export function sweepSchemes(calibrated: boolean): Scheme[] {
  return [
    plain("f32"),
    plain("keep"),
    plain("f32", "int8"),
    plain("f32", "int4"),
    plain("int8"),
    plain("int8:64"),
    plain("int8:128"),
    plain("int8:row"),
    plain("int8", "int8"),
    plain("int8", "int4"),
    plain("int8", "f32", "int16"),
    plain("int8", "f32", "int8"),
    ...(calibrated ? [plain("int8", "f32", "int8:static")] : []),
    plain("int8", "int8", "int8"),
    plain("int4"),
    plain("int4", "int8"),
    plain("int4", "int8", "int8"),
    ...(calibrated ? [plain("int4:awq"), plain("int4:awq", "int8")] : []),
    { ...plain("int8"), sparsity: "2:4" },
  ];
}

/** "int8 weights, int8 KV": what is not f32. */
export function schemeName({ weights, kv, activations, sparsity }: { weights: string; kv: string; activations: string; sparsity: string }): string {
  const parts = [sparsity === "none" ? weights : `${weights} ${sparsity}`, ...(kv === "f32" ? [] : [`kv ${kv}`]), ...(activations === "f32" ? [] : [`act ${activations}`])];
  return parts.join(", ");
}

/** Puts a line together: what the engine holds, what one decode step reads and takes, and how good it is. */
export function evalRow(engine: Engine, scheme: { weights: string; activations: string; sparsity: string }, quality: Quality, window: readonly number[]): EvalRow {
  const { model, cache } = engine;
  const matrices = [...new Set([...linears(model.weights).map(({ weight }) => weight), model.weights.tokenEmbedding])];
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const kv = describeFormats(cache.formats);
  const { perplexity, referencePerplexity, klMean, klMax, top1Agreement, maxLogitError } = quality;
  return {
    ...{ scheme: schemeName({ ...scheme, kv }), weights: scheme.weights, kv, activations: scheme.activations },
    bitsPerWeight: (8 * sum(matrices.map(({ bytes }) => bytes))) / sum(matrices.map(({ rows, cols }) => rows * cols)),
    modelBytes: weightBytes(model.weights),
    kvBytesPerToken: cache.stats().bytesPerToken,
    ...decodeCost(engine, window),
    ...{ perplexity, referencePerplexity, klMean, klMax, top1Agreement, maxLogitError },
  };
}

function decodeCost(engine: Engine, window: readonly number[]): { bytesPerDecodeStep: number; decodeTokensPerSecond: number } {
  const steps = Math.min(STEPS, window.length - 1);
  const replay = engine.replay(window, steps);
  const times = Array.from({ length: ROUNDS }, () => replay.next().value);
  engine.ledger.clear();
  engine.ledger.on = true;
  replay.next();
  engine.ledger.on = false;
  replay.return(undefined as never);
  const { bytesRead } = engine.breakdown().decode!.total;
  return { bytesPerDecodeStep: bytesRead / steps, decodeTokensPerSecond: (1000 * steps) / median(times) };
}
