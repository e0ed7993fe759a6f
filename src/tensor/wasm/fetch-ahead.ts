import type { Linear } from "../fusion.ts";
import type { Device } from "./device.ts";
import { AHEAD_PIECE, TILE_ROWS } from "./layout.ts";

/** Bytes that a thread fetches at most: half of a second-level cache. */
const MOST = 1 << 18;
/** Words of a thread's line. */
const LINE = 16;

/** What followed some weights the last time. */
interface Successor {
  readonly first: number;
  readonly count: number;
  /** What threads shall fetch: known once it has followed twice. */
  spans?: Int32Array;
}

/**
 * A decode step goes through the same weights in the same order as the step before. So while the main thread does what a single thread does
 * (norms, attention over few positions, the ops' bookkeeping), the others can fetch the weights of the next job into their caches, those that they
 * will begin with: memory never rests. The order is learned, not known; what followed only once is not fetched.
 */
export function fetchAhead(device: Device) {
  const successors = new Map<number, Successor>();
  const none = new Int32Array(LINE * device.mostThreads);
  let before = 0;
  let told: Int32Array = none;

  /** Of each thread but the first: where its share of the tiles begins in each weight, and pieces to fetch there. */
  const spansOf = (parts: readonly Linear[], tileBytes: number, together: boolean): Int32Array => {
    const spans = none.slice();
    const tilesOf = ({ weight }: Linear): number => Math.ceil(weight.shape[0] / TILE_ROWS);
    const units = together ? tilesOf(parts[0]) : parts.reduce((sum, part) => sum + tilesOf(part), 0);
    const end = device.heap.buffer().byteLength - MOST - AHEAD_PIECE;
    for (let thread = 1; thread < device.mostThreads; thread++) {
      let first = Math.floor((thread * units) / device.mostThreads);
      let tiles = Math.floor(((thread + 1) * units) / device.mostThreads) - first;
      let room = MOST;
      let at = LINE * thread;
      for (const part of parts) {
        const here = Math.min(tiles, Math.max(0, tilesOf(part) - first));
        const bytes = Math.min(here * tileBytes, together ? MOST / parts.length : room);
        const address = device.address(part.weight) + first * tileBytes;
        if (bytes > 0 && address <= end) {
          spans[at++] = address;
          spans[at++] = Math.ceil(bytes / AHEAD_PIECE);
        }
        if (together) continue;
        tiles -= here;
        room -= bytes;
        first = Math.max(0, first - tilesOf(part));
      }
    }
    return spans;
  };

  /** A job over `parts` is about to run, one after the other or tile by tile together. Few rows: weights are read as fast as memory gives them. */
  return (parts: readonly Linear[], tileBytes: number, together: boolean, few: boolean): void => {
    let spans: Int32Array = none;
    if (few) {
      const here = device.address(parts[0].weight);
      const followed = successors.get(before);
      if (followed?.first === here && followed.count === parts.length) followed.spans ??= spansOf(parts, tileBytes, together);
      else successors.set(before, { first: here, count: parts.length });
      spans = successors.get(here)?.spans ?? none;
      before = here;
    }
    if (spans === told) return;
    device.tell(spans);
    told = spans;
  };
}
