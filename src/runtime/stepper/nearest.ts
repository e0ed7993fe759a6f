import { editDistance } from "../hardware/nearest.ts";

/** The choice that takes the fewest edits from `word`, if one is near enough to be meant. */
export function nearest(word: string, choices: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.max(2, Math.floor(word.length / 2)) + 1;
  for (const choice of choices) {
    const edits = word.length > 1 && choice.startsWith(word) ? 1 : editDistance(word.toLowerCase(), choice.toLowerCase());
    if (edits < least) [best, least] = [choice, edits];
  }
  return best;
}
