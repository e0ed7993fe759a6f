import type { FinishReason, GenerationResult } from "../generation.ts";
import type { Piece } from "./gather.ts";

/** How an endpoint words its answers (API reference: "The completion object", "The chat completion object" and its chunk). */
export interface Dialect {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** A whole choice. */
  choice(index: number, result: GenerationResult): object;
  /** What a choice's stream begins with. */
  opening(index: number): object | undefined;
  /** A choice in a chunk. */
  delta(piece: Piece): object;
}

/** The API knows `stop` and `length`; a generation that was cut off by anything else ended short. */
const reasonOf = (reason: FinishReason | undefined) => (reason === undefined ? null : reason === "stop" ? "stop" : "length");

export const COMPLETIONS: Dialect = {
  idPrefix: "cmpl",
  object: "text_completion",
  chunkObject: "text_completion",
  choice: (index, { text, finishReason }) => ({ index, text, logprobs: null, finish_reason: reasonOf(finishReason) }),
  opening: () => undefined,
  delta: ({ index, text, finishReason }) => ({ index, text, logprobs: null, finish_reason: reasonOf(finishReason) }),
};

export const CHAT: Dialect = {
  idPrefix: "chatcmpl",
  object: "chat.completion",
  chunkObject: "chat.completion.chunk",
  choice: (index, { text, finishReason }) => ({ index, message: { role: "assistant", content: text, refusal: null }, logprobs: null, finish_reason: reasonOf(finishReason) }),
  opening: (index) => ({ index, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null }),
  delta: ({ index, text, finishReason }) => ({ index, delta: finishReason === undefined ? { content: text } : {}, logprobs: null, finish_reason: reasonOf(finishReason) }),
};

/** Token counts; each prompt counts once, whatever number of completions it has. */
export function usageOf(results: readonly GenerationResult[], n: number) {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const firsts = results.filter((_, i) => i % n === 0);
  const prompt = sum(firsts.map(({ promptTokens }) => promptTokens));
  const completion = sum(results.map(({ tokens }) => tokens.length));
  const cached = sum(firsts.map(({ cachedTokens }) => cachedTokens));
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion, prompt_tokens_details: { cached_tokens: cached } };
}
