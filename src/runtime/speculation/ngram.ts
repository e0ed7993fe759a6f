/** Longest and shortest run of last tokens that is looked up; shorter ones stand before anything. */
const LONGEST = 8;
const SHORTEST = 2;

/**
 * Prompt lookup (Saxena 2023): what followed the last tokens where they stood before, most recently and with the longest run in common;
 * at most `count` tokens. What follows may reach into the last tokens themselves: a text that repeats itself is carried on.
 */
export function lookUp(tokens: readonly number[], count: number): number[] {
  const end = tokens.length;
  let [best, from] = [SHORTEST - 1, -1];
  for (let at = end - 1; at >= SHORTEST && best < LONGEST; at--) {
    let run = 0;
    while (run < LONGEST && run < at && tokens[at - 1 - run] === tokens[end - 1 - run]) run++;
    if (run > best) [best, from] = [run, at];
  }
  if (from < 0) return [];
  const period = end - from;
  return Array.from({ length: count }, (_, i) => tokens[from + (i % period)]);
}
