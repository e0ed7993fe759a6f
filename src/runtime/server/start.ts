import { type Engine, QueueFullError } from "../engine.ts";
import type { Generation } from "../generation.ts";
import { ApiError } from "./errors.ts";
import type { Parameters } from "./parameters.ts";
import type { Prompt } from "./prompts.ts";

export interface Wanted extends Parameters {
  readonly prompts: readonly Prompt[];
  readonly maxTokens: number;
}

/** Most generations that one request may ask for. */
const MOST_CHOICES = 128;

/**
 * Starts the generations of a request, those of one prompt beside each other; all of them or none.
 * @throws ApiError 400 for what cannot be generated, 503 when the engine's queue is full.
 */
export function startAll(engine: Engine, wanted: Wanted, param: string, signal: AbortSignal): Generation[] {
  const { prompts, n, sampling, stop, maxTokens } = wanted;
  if (prompts.length * n > MOST_CHOICES) throw new ApiError(400, `n: expected at most ${MOST_CHOICES} completions in all, found ${prompts.length} x ${n}`, { param: "n" });
  const tokens = prompts.map((prompt) => checkedTokens(engine, prompt, param));
  const started: Generation[] = [];
  try {
    for (const prompt of tokens) started.push(...engine.samples(prompt, n, { ...sampling, stop, maxTokens, signal }));
    return started;
  } catch (error) {
    for (const generation of started) generation.cancel();
    if (error instanceof QueueFullError) throw new ApiError(503, error.message, { code: "queue_full", headers: { "retry-after": "1" } });
    if (error instanceof RangeError) throw new ApiError(400, error.message);
    throw error;
  }
}

const BEYOND_CONTEXT = "context_length_exceeded";

/** Encoding takes time in proportion to the text: what cannot fit is not even tried. @throws ApiError 400. */
export function checkFits(engine: Engine, characters: number, param: string): void {
  const least = Math.ceil(characters / longestPiece(engine));
  if (least >= engine.context) throw new ApiError(400, `${param}: expected fewer than ${engine.context} tokens (the context), found ${least} or more`, { param, code: BEYOND_CONTEXT });
}

function checkedTokens(engine: Engine, prompt: Prompt, param: string): number[] {
  if (typeof prompt === "string") checkFits(engine, prompt.length, param);
  try {
    return engine.promptTokens(prompt);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new ApiError(400, error.message.replace(/^prompt/, param), { param, code: error.message.includes("(the context)") ? BEYOND_CONTEXT : undefined });
  }
}

const longest = new WeakMap<Engine["tokenizer"], number>();

/** Characters of the vocabulary's longest token. */
function longestPiece({ tokenizer }: Engine): number {
  let most = longest.get(tokenizer);
  if (most === undefined) {
    most = 1;
    for (let id = 0; id < tokenizer.vocabSize; id++) most = Math.max(most, tokenizer.piece(id).length);
    longest.set(tokenizer, most);
  }
  return most;
}
