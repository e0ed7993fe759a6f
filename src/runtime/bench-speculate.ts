import { median } from "./bench.ts";
import type { Engine, GenerateParams } from "./engine.ts";
import type { GenerationResult } from "./generation.ts";
import type { Speculating } from "./speculation/speculation.ts";

/** Decode with one way of guessing, over all prompts. */
export interface SpeculatePoint {
  readonly speculate: Speculating;
  /** Tokens a second after each prompt's first, medians over the repetitions. */
  readonly tokensPerSecond: number;
  /** The slowest and the fastest repetition. */
  readonly spread: { readonly lowest: number; readonly highest: number };
  /** tokensPerSecond over that without guesses. */
  readonly speedup: number;
  readonly guessed: number;
  readonly accepted: number;
  /** accepted / guessed; null without guesses. */
  readonly acceptanceRate: number | null;
  /** Steps of the target model, and tokens that each of them gave. */
  readonly steps: number;
  readonly tokensPerStep: number;
  /** Bytes of weights read for each token, the draft model's included. */
  readonly weightBytesPerToken: number;
  /** Share of the decode time that guessing took. */
  readonly guessShare: number;
  /** Whether every text is the one without guesses, token by token: at temperature 0 and by prompt lookup it has to be. */
  readonly sameText: boolean;
}

export interface SpeculateBenchOptions {
  readonly prompts: readonly (string | readonly number[])[];
  readonly params: GenerateParams;
  /** Timed repetitions, of which the median counts. */
  readonly repeat: number;
  readonly onProgress?: (done: string) => void;
}

/**
 * The same prompts with each way of guessing, one request at a time. The ways take turns in every repetition, so that what else the machine
 * does meets them alike. Speeds are taken with the ledger off, bytes in one more pass with it on, which also warms the kernels up.
 */
export async function benchSpeculate(engine: Engine, { prompts, params, repeat, onProgress }: SpeculateBenchOptions): Promise<SpeculatePoint[]> {
  const ways: Speculating[] = ["off", "ngram", ...(engine.draft ? (["draft"] as const) : [])];
  const pass = async (speculate: Speculating): Promise<GenerationResult[]> => {
    const results: GenerationResult[] = [];
    for (const prompt of prompts) results.push(await engine.complete(prompt, { ...params, speculate }));
    return results;
  };
  const account = (on: boolean) => {
    engine.ledger.on = on;
    if (engine.draft) engine.draft.ledger.on = on;
  };
  onProgress?.("costs");
  account(true);
  const counted: GenerationResult[][] = [];
  for (const way of ways) counted.push(await pass(way));
  account(false);
  const decodeMs = ways.map((): number[] => []);
  const guessMs = ways.map((): number[] => []);
  for (let round = 0; round < repeat; round++) {
    for (const [i, way] of ways.entries()) {
      onProgress?.(`${way}, round ${round + 1} of ${repeat}`);
      const results = await pass(way);
      decodeMs[i].push(sum(results, ({ timings, tokens }) => (timings.tpotMs ?? 0) * (tokens.length - 1)));
      guessMs[i].push(sum(results, ({ timings }) => timings.speculation?.guessMs ?? 0));
    }
  }
  const later = (results: readonly GenerationResult[]) => sum(results, ({ tokens }) => Math.max(0, tokens.length - 1));
  const rate = (i: number, ms: number) => (later(counted[i]) / ms) * 1000;
  return ways.map((speculate, i) => {
    const results = counted[i];
    const guesses = (what: "guessed" | "accepted" | "steps") => sum(results, ({ timings }) => timings.speculation?.[what] ?? 0);
    const [guessed, accepted] = [guesses("guessed"), guesses("accepted")];
    const steps = speculate === "off" ? later(results) : guesses("steps");
    return {
      ...{ speculate, tokensPerSecond: rate(i, median(decodeMs[i])), spread: { lowest: rate(i, Math.max(...decodeMs[i])), highest: rate(i, Math.min(...decodeMs[i])) } },
      speedup: rate(i, median(decodeMs[i])) / rate(0, median(decodeMs[0])),
      ...{ guessed, accepted, acceptanceRate: guessed > 0 ? accepted / guessed : null, steps, tokensPerStep: later(results) / steps },
      weightBytesPerToken: sum(results, ({ timings, tokens }) => (timings.weightBytesPerToken ?? 0) * (tokens.length - 1)) / later(results),
      guessShare: median(guessMs[i]) / median(decodeMs[i]),
      sameText: results.every(({ tokens }, at) => tokens.join() === counted[0][at].tokens.join()),
    };
  });
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
