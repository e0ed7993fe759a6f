/** The merges of a vocabulary. Symbols and merges are known by small non-negative integers. */
export interface Merges {
  /** The merge of two neighbouring symbols, or -1 when they do not merge. */
  find(left: number, right: number): number;
  /** By merge: how early it happens, 0 first; below 2^21. Default: in the order of their numbers. */
  readonly rank?: ArrayLike<number>;
  /** By merge: the symbol it makes. */
  readonly result: ArrayLike<number>;
}

/**
 * Byte-pair encoding: while any two neighbours merge, merge the pair of the lowest rank, the leftmost of equals (Sennrich et al. 2016,
 * section 3.2). A heap of candidate pairs over a linked list of symbols: for n symbols at most 3n pairs are looked at and 3n pushed,
 * so the whole is O(n log n).
 * @returns A function that merges the first `count` of `symbols` in place and returns how many are left at their start.
 */
export function symbolMerger(merges: Merges): (symbols: Int32Array, count: number) => number {
  const forWords = scratch(256);
  return (symbols, count) => (count < 2 ? count : mergeIn(count <= 256 ? forWords : scratch(count), symbols, count, merges));
}

/** Room to merge `count` symbols: the list's links, and the heap. Each merge takes a candidate out and puts at most two in. */
function scratch(count: number) {
  return {
    previous: new Int32Array(count + 1),
    next: new Int32Array(count),
    keys: new Float64Array(2 * count),
    found: new Int32Array(2 * count),
  };
}

function mergeIn({ previous, next, keys, found }: ReturnType<typeof scratch>, symbols: Int32Array, count: number, merges: Merges): number {
  const { rank, result } = merges;
  for (let i = 0; i < count; i++) {
    previous[i] = i - 1;
    next[i] = i + 1;
  }
  // The heap orders candidates by rank, then position: rank * stride + left in one number. Beside it, the merge.
  let stride = 2;
  while (stride < count) stride *= 2;
  let size = 0;

  const push = (left: number, right: number): void => {
    const merge = merges.find(symbols[left], symbols[right]);
    if (merge < 0) return;
    const key = (rank ? rank[merge] : merge) * stride + left;
    let at = size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (keys[parent] <= key) break;
      keys[at] = keys[parent];
      found[at] = found[parent];
      at = parent;
    }
    keys[at] = key;
    found[at] = merge;
  };

  const dropFirst = (): void => {
    const key = keys[--size];
    const merge = found[size];
    let at = 0;
    for (let child = 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && keys[child + 1] < keys[child]) child++;
      if (keys[child] >= key) break;
      keys[at] = keys[child];
      found[at] = found[child];
      at = child;
    }
    keys[at] = key;
    found[at] = merge;
  };

  for (let i = 0; i + 1 < count; i++) push(i, i + 1);
  while (size > 0) {
    const left = keys[0] - Math.floor(keys[0] / stride) * stride;
    const merge = found[0];
    dropFirst();
    // A candidate is stale when one of its symbols has been merged away (-1) or has grown since.
    const right = next[left];
    if (symbols[left] < 0 || right === count || merges.find(symbols[left], symbols[right]) !== merge) continue;
    symbols[left] = result[merge];
    symbols[right] = -1;
    next[left] = next[right];
    previous[next[left]] = left;
    if (left > 0) push(previous[left], left);
    if (next[left] < count) push(left, next[left]);
  }

  let kept = 0;
  for (let i = 0; i < count; i = next[i]) symbols[kept++] = symbols[i];
  return kept;
}

/**
 * A memory for `Merges.find`, which sees the same few thousand pairs again and again: a direct-mapped cache of fixed size in front of
 * `search`, which has to give the same answer each time.
 */
export function cachedFind(search: (left: number, right: number) => number): (left: number, right: number) => number {
  const slots = 1 << 16;
  const lefts = new Int32Array(slots).fill(-1);
  const rights = new Int32Array(slots);
  const answers = new Int32Array(slots);
  return (left, right) => {
    const slot = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) >>> 16;
    if (lefts[slot] === left && rights[slot] === right) return answers[slot];
    const answer = search(left, right);
    lefts[slot] = left;
    rights[slot] = right;
    answers[slot] = answer;
    return answer;
  };
}
