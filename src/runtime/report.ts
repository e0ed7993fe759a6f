import type { Phase } from "../tensor/ledger.ts";
import type { BreakdownRow, PhaseBreakdown } from "../tensor/totals.ts";
import type { ExpertsConfig } from "../model/experts.ts";
import { weightBytes } from "../model/weights.ts";
import type { Engine } from "./engine.ts";
import type { GenerationResult, SpeculationTimings } from "./generation.ts";

export interface ReportStyle {
  readonly color: boolean;
  readonly columns: number;
}

/** What a generation cost, for people: speeds, a table for each phase, and one sentence that says what to see. */
export function describeRun(engine: Engine, result: GenerationResult, style: ReportStyle): string {
  const phases = engine.breakdown();
  const { config, model, backend } = engine;
  const dim = (text: string) => (style.color ? `\x1b[2m${text}\x1b[22m` : text);
  const { ttftMs, tpotMs, prefillTokensPerSecond, decodeTokensPerSecond, speculation, weightBytesPerToken } = result.timings;
  const speeds = [
    `${plural(result.promptTokens, "prompt token")}${result.cachedTokens > 0 ? ` (${count(result.cachedTokens)} in the KV cache already)` : ""}, first token after ${formatMs(ttftMs)}`,
    ...(prefillTokensPerSecond === null ? [] : [`prefill ${count(prefillTokensPerSecond)} tokens/s`]),
    ...(decodeTokensPerSecond === null ? [] : [`decode ${count(decodeTokensPerSecond)} tokens/s (${formatMs(tpotMs!)} each)`]),
    ...(speculation ? [describeGuesses(speculation)] : []),
  ];
  const draft = engine.draft && Object.entries(engine.draft.breakdown());
  const lines = [
    dim(`${config.name} (${config.architecture}), ${formatBytes(weightBytes(model.weights))} of weights, ${backend} kernels, seed ${result.seed}`),
    dim(speeds.join("; ")),
    "",
    ...(["prefill", "decode", "mixed"] as const).flatMap((phase) => (phases[phase] ? [...phaseTable(phase, phases[phase], style), ""] : [])),
    ...(draft ?? []).flatMap(([phase, table]) => [dim(`draft model ${engine.draft!.model.config.name}`), ...phaseTable(phase as Phase, table, style), ""]),
    ...(phases.decode && result.tokens.length > 1 ? [speculation ? guessSentence(phases.decode, speculation, weightBytesPerToken!) : decodeSentence(phases.decode, phases.prefill, config.experts)] : []),
  ];
  return `${lines.join("\n").trimEnd()}\n`;
}

/** One phase's ops by kind, most bytes first. */
export function phaseTable(phase: Phase, { total, byKind }: PhaseBreakdown, style: ReportStyle): string[] {
  const bold = (text: string) => (style.color ? `\x1b[1m${text}\x1b[22m` : text);
  const rows = Object.entries(byKind);
  const timed = total.ms > 0;
  const bars = style.columns >= 100;
  const share = (value: number) => percent(value).padStart(6) + (bars ? ` ${bar(value, 8)}` : "");
  const cell = (kind: string, row: BreakdownRow) =>
    [
      kind.padEnd(11),
      count(row.calls).padStart(8),
      ...(timed ? [share(row.timeShare)] : []),
      share(row.flopShare),
      share(row.byteShare),
      formatBytes(row.bytesRead + row.bytesWritten).padStart(9),
      intensity(row).padStart(10),
      ...(timed ? [row.gbPerSecond.toFixed(2).padStart(6)] : []),
    ].join("  ");
  const wide = bars ? 15 : 6;
  const head = [
    phase.padEnd(11),
    "calls".padStart(8),
    ...(timed ? ["time".padStart(6).padEnd(wide)] : []),
    "flops".padStart(6).padEnd(wide),
    "bytes".padStart(6).padEnd(wide),
    "moved".padStart(9),
    "flops/byte".padStart(10),
    ...(timed ? ["GB/s".padStart(6)] : []),
  ].join("  ");
  return [bold(head), ...rows.map(([kind, row]) => cell(kind, row)), cell("all", total)];
}

/** Flops for each byte read or written. */
const intensity = ({ intensity: value }: { readonly intensity: number }): string => value.toFixed(value < 10 ? 2 : 1);

function decodeSentence(decode: PhaseBreakdown, prefill: PhaseBreakdown | undefined, experts: ExpertsConfig | undefined): string {
  const steps = decode.byKind.sampling?.calls ?? 1;
  const { total } = decode;
  const gemv = decode.byKind.gemv;
  if (!gemv) return "";
  const weights = total.read.weights;
  const lines = [
    `Each decoded token read ${formatBytes(weights / steps)} of weights, every one of them once${experts ? ` (${experts.used} of ${experts.count} experts in a layer)` : ""}, for ${intensity(gemv)} flops a byte moved:`,
    `matrix times vector (gemv) is ${percent(gemv.flopShare)} of decode's flops, ${percent(gemv.byteShare)} of its bytes` +
      (total.ms > 0 ? ` and ${percent(gemv.timeShare)} of its time.` : "."),
  ];
  const gemm = prefill?.byKind.gemm;
  if (gemm) lines.push(`The prompt shared each weight among its tokens (gemm): ${intensity(gemm)} flops a byte.`);
  return lines.join("\n");
}

/** "ngram: 11 of 56 guesses accepted (19.6 %), 1.05 tokens a step". */
function describeGuesses({ method, guessed, accepted, acceptanceRate, tokensPerStep }: SpeculationTimings): string {
  const rate = acceptanceRate === null ? "no guesses" : `${count(accepted)} of ${plural(guessed, "guess", "es")} accepted (${percent(acceptanceRate)})`;
  return `${method}: ${rate}${tokensPerStep === null ? "" : `, ${tokensPerStep.toFixed(2)} tokens a step`}`;
}

function guessSentence({ total, byKind }: PhaseBreakdown, { method, steps, tokensPerStep }: SpeculationTimings, weightBytesPerToken: number): string {
  const lines = [
    `A step of decode read ${formatBytes(total.read.weights / steps)} of weights and gave ${tokensPerStep!.toFixed(2)} tokens: ` +
      `${formatBytes(weightBytesPerToken)} of weights a token${method === "draft" ? ", the draft model's among them" : ""}.`,
  ];
  const { gemm } = byKind;
  if (gemm) lines.push(`Guesses shared each weight with the token before them (gemm): ${percent(gemm.flopShare)} of decode's flops, at ${intensity(gemm)} flops a byte.`);
  return lines.join("\n");
}

const BLOCKS = " ▏▎▍▌▋▊▉█";

function bar(share: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * width * 8);
  const full = Math.floor(eighths / 8);
  return ("█".repeat(full) + (eighths % 8 ? BLOCKS[eighths % 8] : "")).padEnd(width);
}

const plural = (n: number, noun: string, ending = "s") => `${count(n)} ${noun}${n === 1 ? "" : ending}`;

export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** 12,345 or 12.3. */
export function count(value: number): string {
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3);
}

/** Decimal units, as bandwidths are given: 1 kB is 1,000 bytes. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = bytes;
  let unit = 0;
  for (; value >= 999.5 && unit < units.length - 1; unit++) value /= 1000;
  return `${value < 100 && unit > 0 ? value.toPrecision(3) : Math.round(value)} ${units[unit]}`;
}

export function formatMs(ms: number): string {
  return ms >= 10_000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 100 ? `${ms.toFixed(0)} ms` : `${ms.toPrecision(3)} ms`;
}

/** "1 thread", "2 threads". */
export const formatThreads = (threads: number): string => `${threads} ${threads === 1 ? "thread" : "threads"}`;
