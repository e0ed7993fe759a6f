import type { Engine, GenerateParams } from "./engine.ts";
import type { FinishReason, Generation, GenerationMetrics } from "./generation.ts";

/** One line of a file of requests. */
export interface BatchRequest {
  readonly id: string | number;
  readonly prompt: string | readonly number[];
  readonly params: Pick<GenerateParams, "maxTokens" | "temperature" | "seed" | "stop">;
  /** Where it stands in the file, from 1. */
  readonly line: number;
}

/** One line of a file of results. */
export interface BatchResult {
  readonly id: string | number;
  readonly text: string;
  readonly tokens: readonly number[];
  readonly finishReason: FinishReason;
  readonly metrics: GenerationMetrics;
}

/** A line that is no request. */
export interface BadLine {
  readonly line: number;
  readonly problem: string;
}

/** Requests that are with the engine at once: enough to fill its steps. */
const IN_FLIGHT = 128;

const FIELDS = ["id", "prompt", "maxTokens", "temperature", "seed", "stop"];

/** The requests of a JSON Lines text, and what is wrong with its other lines; empty lines count for nothing. */
export function parseRequests(text: string): { requests: BatchRequest[]; bad: BadLine[] } {
  const requests: BatchRequest[] = [];
  const bad: BadLine[] = [];
  const seen = new Map<string, number>();
  for (const [i, content] of text.split("\n").entries()) {
    if (content.trim() === "") continue;
    const line = i + 1;
    const found = parseRequest(content, line);
    const before = typeof found === "string" ? undefined : seen.get(String(found.id));
    if (typeof found === "string") bad.push({ line, problem: found });
    else if (before !== undefined) bad.push({ line, problem: `id: expected one of its own, found that of line ${before}` });
    else {
      seen.set(String(found.id), line);
      requests.push(found);
    }
  }
  return { requests, bad };
}

/** Ids of the results of a JSON Lines text. @throws Error naming the line that is no result. */
export function finishedIds(text: string, file: string): Set<string> {
  const ids = new Set<string>();
  for (const [i, content] of text.split("\n").entries()) {
    if (content.trim() === "") continue;
    const { id } = objectOf(content) ?? {};
    if (!isId(id)) throw new Error(`${file}: line ${i + 1}: expected a result of run.ts batch, found something else`);
    ids.add(String(id));
  }
  return ids;
}

export interface BatchOptions {
  /** Called with every result, in the order in which requests end. */
  readonly onResult: (result: BatchResult) => void;
  /** Called with requests that the engine does not take. */
  readonly onBad: (bad: BadLine) => void;
  readonly signal: AbortSignal;
}

/** Runs all requests through the engine, many at once, until they are done or the signal says stop: unfinished ones leave no result. */
export async function runBatch(engine: Engine, requests: readonly BatchRequest[], { onResult, onBad, signal }: BatchOptions): Promise<void> {
  const left = [...requests].reverse();
  const running = new Set<Generation>();
  const stop = () => running.forEach((generation) => generation.cancel());
  const next = async (): Promise<void> => {
    for (let request = left.pop(); request && !signal.aborted; request = left.pop()) {
      const { id, prompt, params, line } = request;
      try {
        const generation = engine.generate(prompt, params);
        running.add(generation);
        const { text, tokens, finishReason, metrics } = await generation.result;
        running.delete(generation);
        if (finishReason !== "cancelled") onResult({ id, text, tokens, finishReason, metrics });
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        onBad({ line, problem: error.message });
      }
    }
  };
  signal.addEventListener("abort", stop, { once: true });
  try {
    await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, requests.length) }, next));
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** A request, or what is wrong with it. */
function parseRequest(content: string, line: number): BatchRequest | string {
  const found = objectOf(content);
  if (!found) return "expected a JSON object, found something else";
  const { id, prompt, maxTokens, temperature, seed, stop } = found;
  const unknown = Object.keys(found).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) return `expected ${FIELDS.join(", ")}, found ${JSON.stringify(unknown)}`;
  const wrong = (name: string, expected: string) => `${name}: expected ${expected}, found ${JSON.stringify(found[name]) ?? "nothing"}`;
  if (!isId(id)) return wrong("id", "a text or a whole number");
  const ids = Array.isArray(prompt) && prompt.every((one) => typeof one === "number");
  if (typeof prompt !== "string" && !ids) return wrong("prompt", "a text or token ids");
  for (const [name, value] of Object.entries({ maxTokens, temperature, seed })) {
    if (value !== undefined && typeof value !== "number") return wrong(name, "a number");
  }
  const stops = typeof stop === "string" ? [stop] : stop;
  if (stops !== undefined && !(Array.isArray(stops) && stops.every((one) => typeof one === "string"))) return wrong("stop", "a text or several");
  const params = { maxTokens, temperature, seed, stop: stops } as BatchRequest["params"];
  return { id, prompt: prompt as BatchRequest["prompt"], params, line };
}

function isId(id: unknown): id is string | number {
  return typeof id === "string" || Number.isSafeInteger(id);
}

function objectOf(content: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(content);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
