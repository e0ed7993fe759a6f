import type { Tokenizer } from "../model/tokenizer/tokenizer.ts";

/** How a model's next-token distributions compare with those of a reference, over all scored positions. */
export interface Quality {
  /** exp of the mean negative log probability of the text's own next tokens, the model's and the reference's. */
  readonly perplexity: number;
  readonly referencePerplexity: number;
  /** Kullback-Leibler divergence of the model from the reference, sum of p log(p / q), in nats: mean and largest. */
  readonly klMean: number;
  readonly klMax: number;
  /** Share of positions where both have the same most probable token, 0 to 1. */
  readonly top1Agreement: number;
  /** Largest difference of two logits. */
  readonly maxLogitError: number;
  /** Positions that were scored. */
  readonly positions: number;
}

/** Logits after every token of a window, in order. */
export type LogitsOf = (tokens: readonly number[]) => Iterable<Float32Array>;

/**
 * Cuts a text into windows of `context` tokens, which do not overlap: each begins with BOS where the model's own rule says so, sees nothing of
 * the others, and the last one may be shorter.
 * @param limit Most tokens of the text to take.
 * @throws Error when the text does not fill one window.
 */
export function textWindows(text: string, tokenizer: Tokenizer, context: number, source: string, limit = Infinity): number[][] {
  const start = tokenizer.addBos && tokenizer.bos !== undefined ? [tokenizer.bos] : [];
  const size = context - start.length;
  const tokens = tokenizer.encode(text);
  const wanted = Math.max(size, limit);
  if (tokens.length < size) {
    const hint = size > 2 && tokens.length > 2 ? "; --context takes shorter windows" : "";
    throw new Error(`${source}: expected a text of at least ${size} tokens, one window of the context, found ${tokens.length}${hint}`);
  }
  const windows: number[][] = [];
  for (let at = 0; at < Math.min(tokens.length, wanted); at += size) windows.push([...start, ...tokens.slice(at, Math.min(at + size, wanted))]);
  return windows.filter((window) => window.length > 1);
}

/** Scores every token of every window but the first, given those before it in its window. */
export function compareLogits(model: LogitsOf, reference: LogitsOf, windows: readonly (readonly number[])[], onWindow?: (done: number) => void): Quality {
  let [loss, referenceLoss, kl, klMax, agreed, error, positions] = [0, 0, 0, 0, 0, 0, 0];
  for (const [done, window] of windows.entries()) {
    onWindow?.(done);
    const expected = reference(window)[Symbol.iterator]();
    let next = 1;
    for (const own of model(window)) {
      const other = expected.next().value as Float32Array;
      if (next === window.length) break; // Nobody knows what follows the last token.
      const [ownLog, otherLog] = [logSumExp(own), logSumExp(other)];
      const target = window[next++];
      loss += ownLog - own[target];
      referenceLoss += otherLog - other[target];
      let [divergence, ownBest, otherBest] = [0, 0, 0];
      for (let i = 0; i < own.length; i++) {
        const log = other[i] - otherLog;
        divergence += Math.exp(log) * (log - (own[i] - ownLog));
        error = Math.max(error, Math.abs(own[i] - other[i]));
        if (own[i] > own[ownBest]) ownBest = i;
        if (other[i] > other[otherBest]) otherBest = i;
      }
      // Rounding can leave a sum of a few 1e-17 below zero.
      divergence = Math.max(0, divergence);
      kl += divergence;
      klMax = Math.max(klMax, divergence);
      if (ownBest === otherBest) agreed++;
      positions++;
    }
    expected.return?.();
  }
  return {
    perplexity: Math.exp(loss / positions),
    referencePerplexity: Math.exp(referenceLoss / positions),
    klMean: kl / positions,
    klMax,
    top1Agreement: agreed / positions,
    maxLogitError: error,
    positions,
  };
}

/** Bytes of logits that `remembered` keeps. */
const MOST_KEPT = 1 << 29;

/** Computes each window's logits once, where all of them fit into half a gigabyte; else again each time. */
export function remembered(compute: LogitsOf, windows: readonly (readonly number[])[], vocabSize: number): LogitsOf {
  if (windows.reduce((sum, window) => sum + window.length, 0) * vocabSize * 4 > MOST_KEPT) return compute;
  const known = new Map<readonly number[], Float32Array[]>();
  return (window) => {
    const rows = known.get(window) ?? [...compute(window)];
    known.set(window, rows);
    return rows;
  };
}

function logSumExp(logits: Float32Array): number {
  let most = -Infinity;
  for (const logit of logits) most = Math.max(most, logit); // Math.max keeps a NaN.
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return most + Math.log(sum);
}
