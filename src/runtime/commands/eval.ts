import type { Engine, EngineOptions } from "../engine.ts";
import { compareLogits, type LogitsOf, type Quality, remembered, textWindows } from "../eval.ts";
import { type EvalRow, evalRow, schemeName, sweepSchemes } from "../eval-schemes.ts";
import { formatBytes, percent } from "../report.ts";
import { type Command, ENGINE_OPTIONS, flag, type Io, JSON_OPTION, loadEngine, MODEL_OPTIONS, number, schemesFrom, text, UsageError, type Values } from "./command.ts";

export const evaluate: Command = {
  name: "eval",
  summary: "perplexity of a text, and how far a model's quantised forms are from its f32 form",
  options: {
    ...MODEL_OPTIONS,
    text: { type: "string", value: "PATH", help: "the text, or standard input with -: windows of the context, each seen by itself" },
    "max-tokens": { type: "string", value: "N", help: "score at most N tokens of the text, but one whole window (default: all)" },
    ...ENGINE_OPTIONS,
    sweep: { type: "boolean", help: "all schemes in one table; with --calibration also AWQ and static activations" },
    sensitivity: { type: "boolean", help: "quantise one layer at a time (--weights, default int4): which ones matter most" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const path = text(values, "text");
    if (path === undefined) throw new UsageError("--text: expected a text to score");
    if (flag(values, "sweep") && flag(values, "sensitivity")) throw new UsageError("--sweep and --sensitivity: expected one of them");
    const limit = number(values, "max-tokens", { integer: true, min: 2 }, Infinity);
    const content = path === "-" ? await io.readStdin() : await io.readText(path);
    const reference = await loadEngine(values, io, REFERENCE);
    try {
      const { tokenizer, config } = reference;
      const context = Math.min(reference.context, config.contextLength);
      const windows = textWindows(content, tokenizer, context, path, limit);
      const subject: Subject = { values, io, windows, reference: remembered((window) => reference.logits(window), windows, config.vocabSize) };
      const json = flag(values, "json");
      if (flag(values, "sensitivity")) return await showSensitivity(await sensitivity(subject, config.nLayers), io, json);
      const rows = flag(values, "sweep") ? await sweep(subject) : [await single(subject)];
      if (json) return await io.out(`${JSON.stringify({ rows }, null, 2)}\n`);
      const scored = windows.reduce((sum, window) => sum + window.length - 1, 0);
      const head = `${config.name}: ${scored} tokens of ${path} scored, in ${windows.length} windows of ${context}; against f32 weights, KV and activations`;
      await io.out(`${[head, "", ...table(rows)].join("\n")}\n`);
    } finally {
      reference.close();
    }
  },
};

const REFERENCE: EngineOptions = { weights: "f32", sparsity: "none", activations: "f32", kv: "f32", calibration: undefined, window: undefined, sinks: undefined, maxSequences: 1 };

interface Subject {
  readonly values: Values;
  readonly io: Io;
  readonly windows: readonly number[][];
  readonly reference: LogitsOf;
}

/** Loads a form of the model, has `read` look at it, and lets go of it. */
async function withEngine<T>({ values, io, windows, reference }: Subject, what: string, options: EngineOptions, read: (engine: Engine, quality: Quality) => T): Promise<T> {
  const engine = await loadEngine(values, io, { ...options, maxSequences: 1 });
  try {
    const onWindow = (done: number) => {
      if (io.interactive) io.err(`\r\x1b[K${what}: window ${done + 1} of ${windows.length}`);
    };
    const quality = compareLogits((window) => engine.logits(window), reference, windows, onWindow);
    if (io.interactive) io.err("\r\x1b[K");
    return read(engine, quality);
  } finally {
    engine.close();
  }
}

async function single(subject: Subject): Promise<EvalRow> {
  const { weights = "keep", activations = "f32", sparsity = "none" } = await schemesFrom(subject.values, subject.io);
  return withEngine(subject, weights, {}, (engine, quality) => evalRow(engine, { weights, activations, sparsity }, quality, subject.windows[0]));
}

async function sweep(subject: Subject): Promise<EvalRow[]> {
  const { values, io, windows } = subject;
  const fixed = ["weights", "kv", "activations", "sparsity"].find((name) => values[name] !== undefined);
  if (fixed !== undefined) throw new UsageError(`--${fixed} and --sweep: expected one of them`);
  const rows: EvalRow[] = [];
  for (const scheme of sweepSchemes(text(values, "calibration") !== undefined)) {
    try {
      rows.push(await withEngine(subject, schemeName(scheme), scheme, (engine, quality) => evalRow(engine, scheme, quality, windows[0])));
    } catch (error) {
      // A backend that lacks a format says so; the others go on.
      if (!(error instanceof RangeError)) throw error;
      io.err(`memwall: ${schemeName(scheme)} left out: ${error.message}\n`);
    }
  }
  return rows;
}

const COLUMNS: readonly [head: string, cell: (row: EvalRow) => string][] = [
  ["scheme", ({ scheme }) => scheme],
  ["bits/weight", ({ bitsPerWeight }) => bitsPerWeight.toFixed(2)],
  ["model", ({ modelBytes }) => formatBytes(modelBytes)],
  ["KV/token", ({ kvBytesPerToken }) => formatBytes(kvBytesPerToken)],
  ["read/step", ({ bytesPerDecodeStep }) => formatBytes(bytesPerDecodeStep)],
  ["perplexity", ({ perplexity }) => perplexity.toFixed(4)],
  ["change", ({ perplexity, referencePerplexity }) => percent(perplexity / referencePerplexity - 1).replace(/^(?=\d)/, "+")],
  ["KL mean", ({ klMean }) => klMean.toExponential(2)],
  ["KL max", ({ klMax }) => klMax.toExponential(2)],
  ["top-1", ({ top1Agreement }) => percent(top1Agreement)],
  ["logit error", ({ maxLogitError }) => maxLogitError.toPrecision(3)],
  ["tokens/s", ({ decodeTokensPerSecond }) => decodeTokensPerSecond.toFixed(0)],
];

function table(rows: readonly EvalRow[]): string[] {
  return aligned([COLUMNS.map(([head]) => head), ...rows.map((row) => COLUMNS.map(([, cell]) => cell(row)))]);
}

/** Columns side by side: the first to the left, numbers to the right. */
function aligned(lines: readonly (readonly string[])[]): string[] {
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  return lines.map((line) => line.map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]))).join("  "));
}

interface Sensitivity extends Quality {
  /** -1: embedding and output head. */
  readonly layer: number;
  readonly weights: string;
}

/** Each layer quantised by itself, the most sensitive first. */
async function sensitivity(subject: Subject, nLayers: number): Promise<Sensitivity[]> {
  const weights = text(subject.values, "weights") ?? "int4";
  const found: Sensitivity[] = [];
  for (let layer = -1; layer < nLayers; layer++) {
    found.push(await withEngine(subject, `layer ${layer}`, { weights, layer, kv: "f32" }, (_, quality) => ({ layer, weights, ...quality })));
  }
  return found.sort((a, b) => b.klMean - a.klMean);
}

async function showSensitivity(found: readonly Sensitivity[], io: Io, json: boolean): Promise<void> {
  if (json) return io.out(`${JSON.stringify({ sensitivity: found }, null, 2)}\n`);
  const lines = found.map(({ layer, klMean, klMax, top1Agreement, perplexity, maxLogitError }) => [
    ...[layer < 0 ? "embedding and head" : `layer ${layer}`, klMean.toExponential(2), klMax.toExponential(2)],
    ...[percent(top1Agreement), perplexity.toFixed(4), maxLogitError.toPrecision(3)],
  ]);
  await io.out(`${aligned([[`only this in ${found[0].weights}`, "KL mean", "KL max", "top-1", "perplexity", "logit error"], ...lines]).join("\n")}\n`);
}
