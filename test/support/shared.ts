import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { memorySource, type ByteSource } from "../../src/model/formats/source.ts";

/** Real models with golden outputs, beside the repository; absent outside of the team's machines. */
export const SHARED = fileURLToPath(new URL("../../../shared/", import.meta.url));

/** Whether all of these files lie under ../shared: tests that need them skip, visibly, where they don't. */
export const haveShared = (...paths: string[]): boolean => paths.every((path) => existsSync(SHARED + path));

export const sharedSource = (path: string): ByteSource => memorySource(SHARED + path, readFileSync(SHARED + path));

export const sharedText = (path: string): string => readFileSync(SHARED + path, "utf8");

/** A next-token distribution: its most probable ids with their probabilities. */
export interface Position {
  argmax: number;
  top: [id: number, probability: number][];
}

/** Golden outputs as ../shared/parity/README.md and ../shared/models/README.md describe them. */
export interface Golden {
  tokens: number[];
  positions: Position[];
  prob_abs_tol: number;
  exact?: { prob_abs_tol: number; positions: Position[]; greedy?: number[]; long?: Position };
  greedy?: number[];
  greedy_margin?: number[];
  greedyFromBos?: number[];
  long?: Position & { tokens: number[] };
}

export const golden = (path: string): Golden => JSON.parse(sharedText(path)) as Golden;
