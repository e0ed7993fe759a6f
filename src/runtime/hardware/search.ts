import type { NamedShape } from "../../model/shapes.ts";
import type { AttentionMethod } from "../../tensor/ops.ts";
import type { Hardware } from "./hardware.ts";
import { opTime, type RoofOptions } from "./roof.ts";
import { type AttentionCount, distance, type Share, shareCounter, type ShareSummary, summary } from "./shares.ts";
import { type Formats, type Steps, traced, type Traced, traceDecodes, tracePrefill, type Workload } from "./trace.ts";

/** How the ops of a costed workload are counted and timed. */
export interface ShareOptions extends RoofOptions {
  readonly counting: AttentionCount;
  /** Without it no time is known. */
  readonly hardware?: Hardware;
}

/** Every step of a workload, prompts first. */
export function traceAll(on: Traced, workload: Workload, ranges?: number): Steps[] {
  return [...tracePrefill(on, workload), ...traceDecodes(on, workload, ranges)];
}

/** Which kinds of op a workload's calls, flops, bytes and time go to, each step as often as it counts; time only with `hardware`, at the roof. */
export function sharesOf(steps: readonly Steps[], { counting, hardware, ...roof }: ShareOptions): Share[] {
  const counter = shareCounter(counting);
  for (const { records, count } of steps) {
    for (const record of records) counter.add(record, hardware ? opTime(record, hardware, roof).seconds : 0, count);
  }
  return counter.shares();
}

export interface Candidate extends Workload, ShareSummary {
  readonly shape: string;
  readonly hw: string;
  readonly attention: AttentionMethod;
  readonly launch: boolean;
  /** Largest difference from the published shares, 0 to 1. */
  readonly distance: number;
}

export interface SearchSpace {
  readonly shapes: Readonly<Record<string, NamedShape>>;
  readonly hardware: readonly Hardware[];
  readonly formats: Formats;
  readonly prompts: readonly number[];
  /** Decoded tokens for each prompt token. */
  readonly ratios: readonly number[];
}

export const PROMPTS: readonly number[] = [4, 8, 16, 32, 64, 128, 256, 512];
export const RATIOS: readonly number[] = [0.5, 1, 2, 4, 6, 6.5, 8, 16];

/**
 * Every workload of the space that fits the model's context, at batch 1: both ways of attention (naive attention's products counted as
 * products), with and without launch overhead. The closest to the published shares first.
 */
export function searchShares({ shapes, hardware, formats, prompts, ratios }: SearchSpace): Candidate[] {
  const found: Candidate[] = [];
  for (const [shape, named] of Object.entries(shapes)) {
    for (const attention of ["tiled", "naive"] as const) {
      const on = traced(named, formats, attention);
      for (const promptTokens of prompts) {
        for (const ratio of ratios) {
          const tokens = Math.round(promptTokens * ratio);
          if (promptTokens + tokens > named.config.contextLength) continue;
          const workload = { batch: 1, promptTokens, tokens };
          const steps = traceAll(on, workload, 1);
          for (const device of hardware) {
            for (const launch of device.launchUs === undefined ? [false] : [true, false]) {
              const shares = summary(sharesOf(steps, { hardware: device, launch, counting: attention === "naive" ? "products" : "attention" }));
              found.push({ ...workload, ...shares, shape, hw: device.name, attention, launch, distance: distance(shares) });
            }
          }
        }
      }
    }
  }
  return found.sort((a, b) => a.distance - b.distance);
}

/** How the shares move away from a workload: by decoded tokens for a prompt token, by batch, and by context. */
export function movesFrom(best: Candidate, named: NamedShape, formats: Formats, hardware: Hardware): Record<"ratio" | "batch" | "context", Candidate[]> {
  const on = traced(named, formats, best.attention);
  const at = (change: Partial<Workload>): Candidate[] => {
    const { batch, promptTokens, tokens } = { ...best, ...change };
    if (promptTokens + tokens > named.config.contextLength) return [];
    const options = { hardware, launch: best.launch, counting: best.attention === "naive" ? "products" : "attention" } as const;
    const shares = summary(sharesOf(traceAll(on, { batch, promptTokens, tokens }, 1), options));
    return [{ ...best, batch, promptTokens, tokens, ...shares, distance: distance(shares) }];
  };
  const ratio = best.tokens / best.promptTokens;
  return {
    ratio: [0.25, 1, 4, 16, 64].flatMap((r) => at({ tokens: Math.max(1, Math.round(best.promptTokens * r)) })),
    batch: [1, 2, 4, 16, 64].flatMap((batch) => at({ batch })),
    context: [1, 4, 16, 40].flatMap((factor) => at({ promptTokens: best.promptTokens * factor, tokens: Math.round(best.promptTokens * factor * ratio) })),
  };
}
