import type { SamplingParams } from "../sampler.ts";
import { booleanField, type Fields, isObject, numberField, textsField, wrong } from "./fields.ts";

/** What both endpoints ask for in the same words (API reference, "Create completion" and "Create chat completion"). */
export interface Parameters {
  readonly sampling: SamplingParams;
  readonly stop: readonly string[];
  /** Completions of each prompt. */
  readonly n: number;
  readonly stream: boolean;
  /** A last chunk with the token counts. */
  readonly includeUsage: boolean;
}

const MOST_STOPS = 16;
const MOST_COMPLETIONS = 128;
/** The n-th completion takes the n-th seed from the given one on: all of them stay exact integers. */
const MOST_SEED = 2 ** 52;

/**
 * `temperature` and `top_p` are 1 by the reference: the model's own distribution. `top_k`, `min_p` and `repeat_penalty` are additions
 * that other servers have as well. Unknown fields are left alone; known ones that would change the answer and are not built are refused.
 */
export function parseParameters(fields: Fields): Parameters {
  refuseUnbuilt(fields);
  const stream = booleanField(fields, "stream");
  const streamOptions = fields.stream_options ?? {};
  if (!isObject(streamOptions)) return wrong("stream_options", "an object", streamOptions);
  return {
    sampling: {
      temperature: numberField(fields, "temperature", { min: 0, max: 2 }) ?? 1,
      // 0 is allowed, and leaves the most probable token as the least positive number does.
      topP: Math.max(numberField(fields, "top_p", { min: 0, max: 1 }) ?? 1, Number.MIN_VALUE),
      topK: numberField(fields, "top_k", { min: 0, max: Infinity, whole: true }) ?? 0,
      minP: numberField(fields, "min_p", { min: 0, max: 0.999 }) ?? 0,
      repeatPenalty: numberField(fields, "repeat_penalty", { min: Number.MIN_VALUE, max: 100 }) ?? 1,
      seed: numberField(fields, "seed", { min: 0, max: MOST_SEED, whole: true }),
    },
    stop: textsField(fields, "stop", MOST_STOPS),
    n: numberField(fields, "n", { min: 1, max: MOST_COMPLETIONS, whole: true }) ?? 1,
    stream,
    includeUsage: stream && booleanField(streamOptions, "include_usage", "stream_options.include_usage"),
  };
}

/** Tokens to generate at most. @throws ApiError for more than `most`. */
export function maxTokensOf(fields: Fields, names: readonly string[], most: number): number | undefined {
  for (const name of names) {
    const value = numberField(fields, name, { min: 1, max: most, whole: true });
    if (value !== undefined) return value;
  }
  return undefined;
}

function refuseUnbuilt(fields: Fields): void {
  const refuse = (name: string, neutral: boolean, expected: string) => {
    if (!neutral) wrong(name, `${expected} (anything else is not supported here)`, fields[name]);
  };
  const { logprobs, top_logprobs, echo, suffix, best_of, logit_bias, tools, functions, response_format } = fields;
  refuse("logprobs", logprobs === undefined || logprobs === null || logprobs === false, "null or false");
  refuse("top_logprobs", top_logprobs === undefined || top_logprobs === null || top_logprobs === 0, "null");
  refuse("echo", echo === undefined || echo === null || echo === false, "false");
  refuse("suffix", suffix === undefined || suffix === null || suffix === "", "null");
  refuse("best_of", best_of === undefined || best_of === null || best_of === (fields.n ?? 1), "the value of n");
  refuse("logit_bias", logit_bias === undefined || logit_bias === null || (isObject(logit_bias) && Object.keys(logit_bias).length === 0), "null");
  for (const name of ["presence_penalty", "frequency_penalty"]) refuse(name, (fields[name] ?? 0) === 0, "0");
  for (const [name, value] of Object.entries({ tools, functions })) refuse(name, value === undefined || value === null || (Array.isArray(value) && value.length === 0), "null");
  refuse("response_format", response_format === undefined || response_format === null || (isObject(response_format) && response_format.type === "text"), `{"type":"text"}`);
}
