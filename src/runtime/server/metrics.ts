import type { Engine } from "../engine.ts";
import type { EngineEvent } from "../monitor.ts";
import { createHistogram, type Histogram, observe } from "./histogram.ts";

/** Seconds. */
const TTFT_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const TPOT_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

/** What the server itself counts. */
export interface ServerMetrics {
  /** Answered requests, by path and status. */
  readonly answered: Map<string, { readonly path: string; readonly status: number; count: number }>;
  readonly ttft: Histogram;
  readonly tpot: Histogram;
}

export function createMetrics(engine: Engine): ServerMetrics {
  const metrics: ServerMetrics = { answered: new Map(), ttft: createHistogram(TTFT_BOUNDS), tpot: createHistogram(TPOT_BOUNDS) };
  engine.onEvent((event) => observeEnd(metrics, event));
  return metrics;
}

export function countAnswer({ answered }: ServerMetrics, path: string, status: number): void {
  const key = `${path} ${status}`;
  const row = answered.get(key) ?? { path, status, count: 0 };
  row.count++;
  answered.set(key, row);
}

function observeEnd({ ttft, tpot }: ServerMetrics, event: EngineEvent): void {
  if (event.type !== "finished") return;
  const { ttftMs, tpotMs } = event.metrics;
  if (ttftMs !== null) observe(ttft, ttftMs / 1000);
  if (tpotMs !== null) observe(tpot, tpotMs / 1000);
}

type Labels = Readonly<Record<string, string | number>>;
type Sample = readonly [labels: Labels, value: number];

/** All counts in Prometheus's text format (Prometheus documentation, "Exposition formats", version 0.0.4). */
export function prometheusText(engine: Engine, { answered, ttft, tpot }: ServerMetrics): string {
  const { requests, running, waiting, kv, ...counts } = engine.stats();
  const { finished, cancelled, failed, refused } = requests;
  const parts = [
    family("http_requests_total", "counter", "Answered HTTP requests", [...answered.values()].map(({ path, status, count }) => [{ path, status }, count])),
    family("requests_total", "counter", "Generations that ended, by outcome", Object.entries({ finished, cancelled, failed, refused }).map(([outcome, count]) => [{ outcome }, count])),
    family("requests_running", "gauge", "Generations in the running batch", [[{}, running]]),
    family("requests_waiting", "gauge", "Generations in the queue", [[{}, waiting]]),
    family("preemptions_total", "counter", "Times that a generation had to give its pages up", [[{}, counts.preemptions]]),
    family("prompt_tokens_total", "counter", "Prompt tokens computed", [[{}, counts.promptTokens]]),
    family("prompt_tokens_cached_total", "counter", "Prompt tokens that needed no computing", [[{}, counts.cachedTokens]]),
    family("generated_tokens_total", "counter", "Tokens generated", [[{}, counts.generatedTokens]]),
    family("guessed_tokens_total", "counter", "Guessed tokens that passes computed", [[{}, counts.guessedTokens]]),
    family("accepted_tokens_total", "counter", "Guessed tokens that became part of a text", [[{}, counts.acceptedTokens]]),
    family("steps_total", "counter", "Passes of the decoder", [[{}, counts.steps]]),
    family("step_rows_total", "counter", "Token rows of all passes", [[{}, counts.rows]]),
    family("step_seconds_total", "counter", "Time inside of passes", [[{}, counts.stepMs / 1000]]),
    family("kv_pages", "gauge", "Pages of the KV cache: used by sequences, kept for equal prompts, free", (["used", "cached", "free"] as const).map((state) => [{ state }, kv[state]])),
    family("kv_page_bytes", "gauge", "Bytes of a page", [[{}, kv.pageBytes]]),
    histogramText("time_to_first_token_seconds", "From the request to its first token", ttft),
    histogramText("time_per_output_token_seconds", "Mean time per token after the first, of each generation", tpot),
  ];
  if (engine.ledger.on) parts.push(family("bytes_moved_total", "counter", "Bytes that ops read and wrote, of weights, keys and values, activations", [...moved(engine)]), family("flops_total", "counter", "Floating-point operations", [...flops(engine)]));
  return parts.join("");
}

function* moved(engine: Engine): Generator<Sample> {
  for (const [phase, { byKind }] of Object.entries(engine.breakdown())) {
    for (const [kind, row] of Object.entries(byKind)) {
      for (const direction of ["read", "written"] as const) {
        for (const of of ["weights", "kv", "activations"] as const) if (row[direction][of] > 0) yield [{ phase, kind, direction, of }, row[direction][of]];
      }
    }
  }
}

function* flops(engine: Engine): Generator<Sample> {
  for (const [phase, { byKind }] of Object.entries(engine.breakdown())) {
    for (const [kind, row] of Object.entries(byKind)) yield [{ phase, kind }, row.flops];
  }
}

function family(name: string, type: "counter" | "gauge" | "histogram", help: string, samples: readonly Sample[]): string {
  const lines = samples.map(([labels, value]) => line(name, labels, value));
  return `# HELP memwall_${name} ${help}\n# TYPE memwall_${name} ${type}\n${lines.join("")}`;
}

function histogramText(name: string, help: string, { bounds, counts, count, sum }: Histogram): string {
  const buckets = [...bounds.map((le, i) => line(`${name}_bucket`, { le }, counts[i])), line(`${name}_bucket`, { le: "+Inf" }, count)];
  return `${family(name, "histogram", help, [])}${buckets.join("")}${line(`${name}_sum`, {}, sum)}${line(`${name}_count`, {}, count)}`;
}

function line(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([key, label]) => `${key}=${JSON.stringify(String(label))}`);
  return `memwall_${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""} ${value}\n`;
}
