import type { Sampling, Shaper } from "../sampler.ts";
import type { DraftModel } from "./draft.ts";
import { DEFAULT_DRAFT_TOKENS, MOST_DRAFT_TOKENS, ngramGuesser, type Speculating, Speculation, SPECULATIONS } from "./speculation.ts";

export interface SpeculationParams {
  /** How the tokens to come are guessed. Default: what the engine was loaded with. */
  speculate?: Speculating;
  /** Most tokens guessed at once, 1 to 16; default what the engine was loaded with, or 8. */
  draftTokens?: number;
}

/** What the engine was loaded with, or what a request says. @throws RangeError naming the option, what was expected and what was found. */
export function resolveSpeculation({ speculate, draftTokens = DEFAULT_DRAFT_TOKENS }: SpeculationParams, hasDraft: boolean): Required<SpeculationParams> {
  const method = speculate ?? (hasDraft ? "draft" : "off");
  if (!SPECULATIONS.includes(method)) throw new RangeError(`speculate: expected one of ${SPECULATIONS.join(", ")}, found ${JSON.stringify(speculate)}`);
  if (method === "draft" && !hasDraft) throw new RangeError("speculate: expected a draft model (draftModel) for draft, found none");
  if (!Number.isSafeInteger(draftTokens) || draftTokens < 1 || draftTokens > MOST_DRAFT_TOKENS) {
    throw new RangeError(`draftTokens: expected a whole number from 1 to ${MOST_DRAFT_TOKENS}, found ${draftTokens}`);
  }
  return { speculate: method, draftTokens };
}

/** The guesses of one request, `drawn` random numbers of whose seed are used up already; undefined when it makes none. */
export function speculationFor({ speculate, draftTokens }: Required<SpeculationParams>, draft: DraftModel | undefined, shape: Shaper, sampling: Sampling, drawn: number): Speculation | undefined {
  if (speculate === "off") return undefined;
  return new Speculation(speculate === "draft" ? draft!.guesser(shape, sampling, drawn) : ngramGuesser(), draftTokens);
}
