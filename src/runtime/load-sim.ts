import { gaussian, random } from "../tensor/random.ts";
import type { Engine } from "./engine.ts";
import type { GenerationMetrics } from "./generation.ts";
import type { StepEvent } from "./monitor.ts";

/** Draws lengths, 1 or more. */
export type Distribution = (uniform: () => number) => number;

/**
 * `64`: always that; `16-128`: all of them alike; `exp:64`: exponential with that mean; `normal:64,16`: mean and deviation.
 * @returns undefined for anything else.
 */
export function parseDistribution(text: string): Distribution | undefined {
  const whole = (value: number) => Math.max(1, Math.round(value));
  const fixed = /^(\d+)$/.exec(text);
  if (fixed && Number(fixed[1]) > 0) return () => Number(fixed[1]);
  const range = /^(\d+)-(\d+)$/.exec(text);
  if (range && Number(range[1]) > 0 && Number(range[2]) >= Number(range[1])) {
    const [least, most] = [Number(range[1]), Number(range[2])];
    return (uniform) => least + Math.floor(uniform() * (most - least + 1));
  }
  const exponential = /^exp:(\d+(?:\.\d+)?)$/.exec(text);
  if (exponential) return (uniform) => whole(-Math.log(1 - uniform()) * Number(exponential[1]));
  const normal = /^normal:(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)$/.exec(text);
  if (normal) return (uniform) => whole(Number(normal[1]) + Number(normal[2]) * gaussian(uniform)());
  return undefined;
}

export interface Arrival {
  /** Seconds after the start. */
  readonly at: number;
  readonly prompt: readonly number[];
  readonly tokens: number;
}

export interface LoadOptions {
  /** Requests a second on average; Infinity: all at once. */
  readonly rate: number;
  readonly requests: number;
  readonly promptTokens: Distribution;
  readonly tokens: Distribution;
  readonly seed: number;
}

/** A day of requests with exponential gaps between them, a Poisson process; cut to the context. Same seed, same day. */
export function drawArrivals({ rate, requests, promptTokens, tokens, seed }: LoadOptions, context: number, vocabSize: number): Arrival[] {
  const uniform = random(seed);
  let at = 0;
  return Array.from({ length: requests }, () => {
    at += -Math.log(1 - uniform()) / rate;
    const length = Math.min(promptTokens(uniform), context - 1);
    const prompt = Array.from({ length }, () => Math.floor(uniform() * vocabSize));
    return { at, prompt, tokens: Math.min(tokens(uniform), context - length) };
  });
}

export interface Percentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

export interface LoadResult {
  readonly requests: number;
  readonly seconds: number;
  readonly generatedTokens: number;
  /** Generated tokens a second. */
  readonly throughput: number;
  readonly ttftMs: Percentiles;
  /** Null where no request made a second token. */
  readonly tpotMs: Percentiles | null;
  readonly queueMs: Percentiles;
  /** Tokens in a step, on average. */
  readonly meanRows: number;
  /** Sequences that decode in a step, on average over steps with any. */
  readonly meanBatch: number;
  readonly longestStepMs: number;
  readonly preemptions: number;
  readonly tokenBudget: number | null;
  readonly gemvFlopShare: number;
  readonly gemmFlopShare: number;
  /** Bytes read and written, prompts included. */
  readonly bytesPerToken: number;
}

const WARM_UP_TOKENS = 80;

/** Really runs the arrivals, each at its time by the clock; the engine's ledger must be on, and its tokenizer without end tokens. */
export async function simulateLoad(engine: Engine, arrivals: readonly Arrival[], onProgress?: (done: number) => void): Promise<LoadResult> {
  // Whatever happens once, such as measuring the automatic budget, is no part of the day.
  await engine.complete(Array.from({ length: Math.min(WARM_UP_TOKENS, engine.context - 2) }, () => 0), { maxTokens: 2, temperature: 0 });
  engine.ledger.clear();
  const steps: StepEvent[] = [];
  const off = engine.onEvent((event) => void (event.type === "step" && steps.push(event)));
  const started = performance.now();
  let done = 0;
  const one = async ({ at, prompt, tokens }: Arrival, i: number): Promise<GenerationMetrics> => {
    const wait = at * 1000 - (performance.now() - started);
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    const { metrics } = await engine.complete(prompt, { maxTokens: tokens, temperature: 0, seed: i });
    onProgress?.(++done);
    return metrics;
  };
  const metrics = await Promise.all(arrivals.map(one));
  const seconds = (performance.now() - started) / 1000;
  off();

  const generatedTokens = metrics.reduce((sum, { tokens }) => sum + tokens, 0);
  const phases = Object.values(engine.breakdown());
  const sum = (value: (phase: (typeof phases)[number]) => number) => phases.reduce((all, phase) => all + value(phase), 0);
  const flops = sum(({ total }) => total.flops);
  const tpotMs = metrics.flatMap(({ tpotMs }) => tpotMs ?? []);
  const decoding = steps.filter(({ decodes }) => decodes > 0);
  return {
    ...{ requests: metrics.length, seconds, generatedTokens, throughput: generatedTokens / seconds },
    ttftMs: percentiles(metrics.flatMap(({ ttftMs }) => ttftMs ?? [])),
    tpotMs: tpotMs.length === 0 ? null : percentiles(tpotMs),
    queueMs: percentiles(metrics.map(({ queueMs }) => queueMs)),
    meanRows: mean(steps.map(({ decodes, prompts }) => decodes + prompts)),
    meanBatch: mean(decoding.map(({ decodes }) => decodes)),
    longestStepMs: steps.reduce((most, { ms }) => Math.max(most, ms), 0),
    preemptions: engine.stats().preemptions,
    tokenBudget: engine.stats().tokenBudget,
    gemvFlopShare: sum(({ byKind }) => byKind.gemv?.flops ?? 0) / flops,
    gemmFlopShare: sum(({ byKind }) => byKind.gemm?.flops ?? 0) / flops,
    bytesPerToken: sum(({ total }) => total.bytesRead + total.bytesWritten) / generatedTokens,
  };
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** By nearest rank; 0 of no values. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}
