import { gaussian, random } from "../../src/tensor/random.ts";

/** Seeded random choices for tests: the same seed gives the same test. */
export interface Dice {
  /** [0, 1) */
  real(): number;
  /** Mean 0, deviation 1. */
  normal(): number;
  /** A whole number from 0 to n - 1. */
  below(n: number): number;
  /** A whole number from `least` to `most`, both included. */
  between(least: number, most: number): number;
  chance(probability: number): boolean;
  pick<T>(items: readonly T[]): T;
}

export function dice(seed: number): Dice {
  const real = random(seed);
  const below = (n: number) => Math.floor(real() * n);
  return {
    real,
    normal: gaussian(real),
    below,
    between: (least, most) => least + below(most - least + 1),
    chance: (probability) => real() < probability,
    pick: (items) => items[below(items.length)],
  };
}

/** [0, 1, ..., n - 1] */
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
