/** Levenshtein's distance: insertions, deletions and substitutions that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length];
}

/** What an error says of a name nobody knows: the names that are known, and the nearest of them. */
export function unknownName(found: string, known: readonly string[]): string {
  const wanted = found.toLowerCase();
  const distance = (name: string) => (name.startsWith(wanted) ? 0 : editDistance(wanted, name));
  const nearest = known.reduce((best, name) => (distance(name) < distance(best) ? name : best), known[0]);
  return `expected one of ${known.join(", ")}, found ${JSON.stringify(found)} (did you mean ${nearest}?)`;
}
