import type { KvPage, Segment } from "./kernels.ts";

/** Positions in a page, at most 32. */
export const pageSizeOf = (page: KvPage): number => page.k.shape[2];

/** The page that holds a position which the segment's sequence still has. */
export function pageOf({ pages, hole }: Segment, position: number): KvPage {
  const index = Math.floor(position / pageSizeOf(pages[0]));
  return pages[hole && index >= hole.at ? index - hole.count : index];
}

/** First position of the window of the query at `position`: it sees this one and all up to itself, and the sinks. */
export function windowStart({ window }: Segment, position: number): number {
  return window && position >= window.sinks + window.size ? position - window.size + 1 : 0;
}

/** Columns of one segment's score matrix: every position that one of its queries sees. */
export function keyColumns(segment: Segment): number {
  return segment.start + segment.length - hiddenKeys(segment);
}

/** The position that a column of the score matrix stands for. */
export function keyPosition(segment: Segment, column: number): number {
  const hidden = hiddenKeys(segment);
  return hidden > 0 && column >= segment.window!.sinks ? column + hidden : column;
}

/** Positions between the sinks and the window of the segment's first query. */
function hiddenKeys(segment: Segment): number {
  const first = windowStart(segment, segment.start);
  return first > 0 ? first - segment.window!.sinks : 0;
}

/** Whether the query at position `query` sees the key at position `key`. */
export function sees(segment: Segment, query: number, key: number): boolean {
  return key <= query && (key >= windowStart(segment, query) || key < segment.window!.sinks);
}

/** (query, key) pairs under the causal mask and the window. */
export function visiblePairs(segments: readonly Segment[]): number {
  let pairs = 0;
  for (const { start, length, window } of segments) {
    const most = window ? window.size + window.sinks : Infinity;
    // Query p sees p + 1 keys up to `most`; those below it form an arithmetic series.
    const growing = Math.min(length, Math.max(0, most - start));
    pairs += growing * start + (growing * (growing + 1)) / 2;
    if (growing < length) pairs += (length - growing) * most;
  }
  return pairs;
}

/** Positions that the segments' queries see, one in a page that several segments share counted once. */
export function visiblePositions(segments: readonly Segment[]): number {
  if (segments.length === 1) return keyColumns(segments[0]);
  const seen = new Map<number, number>();
  for (const segment of segments) {
    const end = segment.start + segment.length;
    const first = windowStart(segment, segment.start);
    if (first > 0) mark(seen, segment, 0, segment.window!.sinks);
    mark(seen, segment, first, end);
  }
  let total = 0;
  for (const slots of seen.values()) total += bits(slots);
  return total;
}

/** Sets one bit for each position from `first` to `end` in its page's mask. */
function mark(seen: Map<number, number>, segment: Segment, first: number, end: number): void {
  const pageSize = pageSizeOf(segment.pages[0]);
  for (let at = first; at < end; ) {
    const slot = at % pageSize;
    const count = Math.min(pageSize - slot, end - at);
    const { id } = pageOf(segment, at);
    seen.set(id, (seen.get(id) ?? 0) | ((count === 32 ? -1 : (1 << count) - 1) << slot));
    at += count;
  }
}

function bits(mask: number): number {
  let count = 0;
  for (let left = mask; left !== 0; left &= left - 1) count++;
  return count;
}
