export type NormalForm = "NFC" | "NFD" | "NFKC" | "NFKD";

/**
 * A text in one of Unicode's normal forms. The platform's own `normalize` puts a run of marks in order by insertion, which takes minutes
 * for a few hundred thousand marks on one letter: long runs are put in order before it sees them.
 */
export function normalForm(text: string, form: NormalForm): string {
  const ordered = LONG_RUN.test(text) ? text.replace(LONG_RUNS, (run) => orderedMarks(run, form)) : text;
  return ordered.normalize(form);
}

const LONG_RUN = /\p{M}{100}/u;
const LONG_RUNS = /\p{M}{100,}/gu;

/** The marks of a run in canonical order: between those that do not move, stably by their combining class. */
function orderedMarks(run: string, form: NormalForm): string {
  const decomposed = form === "NFC" || form === "NFD" ? "NFD" : "NFKD";
  const parts = new Map<string, string>();
  const marks: string[] = [];
  for (const mark of run) {
    let part = parts.get(mark);
    if (part === undefined) parts.set(mark, (part = mark.normalize(decomposed)));
    for (const each of part) marks.push(each);
  }
  const classes = combiningRanks(new Set(marks));
  const out: string[] = [];
  let buckets: string[][] = [];
  const flush = () => {
    for (const bucket of buckets) if (bucket) for (const mark of bucket) out.push(mark);
    buckets = [];
  };
  for (const mark of marks) {
    const rank = classes.get(mark)!;
    if (rank >= 0) (buckets[rank] ??= []).push(mark);
    else {
      flush();
      out.push(mark);
    }
  }
  flush();
  return out.join("");
}

/**
 * The marks' combining classes as ranks, which JavaScript does not tell but shows: of two marks in the wrong order `normalize` makes the
 * right one. -1 for a mark of class 0, which stays where it is.
 */
function combiningRanks(marks: ReadonlySet<string>): Map<string, number> {
  const goesBefore = (a: string, b: string) => a !== b && (b + a).normalize("NFD") === a + b;
  // The lowest class there is, and the highest.
  const [first, last] = ["\u0334", "\u0345"];
  const moving = [...marks].filter((mark) => mark === first || mark === last || goesBefore(first, mark) || goesBefore(mark, last));
  moving.sort((a, b) => (goesBefore(a, b) ? -1 : goesBefore(b, a) ? 1 : 0));
  const ranks = new Map([...marks].map((mark) => [mark, -1]));
  let rank = 0;
  moving.forEach((mark, i) => {
    if (i > 0 && goesBefore(moving[i - 1], mark)) rank++;
    ranks.set(mark, rank);
  });
  return ranks;
}
