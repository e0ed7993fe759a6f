/** Finds the largest of a row of values where they lie. */
export interface Ranking {
  /** Index of the largest value; the first of equals. */
  argmax(): number;
  /** Indices of the k largest values, largest first, the first of equals first. */
  top(k: number): number[];
}

/** By plain loops. */
export const plainRanking = (values: Float32Array): Ranking => ({ argmax: () => argmax(values), top: (k) => topIds(values, k) });

/** Index of the largest value; the first of equals. */
export function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Ids of the k largest values, largest first, the first of equals first: one pass with a heap of the best so far, O(n log k). */
export function topIds(values: Float32Array | Float64Array, k: number): number[] {
  const heap = new Int32Array(Math.min(k, values.length));
  for (let i = 0; i < heap.length; i++) heap[i] = i;
  for (let i = heap.length >> 1; i >= 0; i--) sink(heap, i, values);
  for (let i = heap.length; i < values.length && heap.length > 0; i++) {
    if (values[i] <= values[heap[0]]) continue;
    heap[0] = i;
    sink(heap, 0, values);
  }
  return [...heap].sort((a, b) => values[b] - values[a] || a - b);
}

/** Moves the id at `at` down to where no child of it is worse; the worst of all is on top. */
function sink(heap: Int32Array, at: number, values: Float32Array | Float64Array): void {
  const id = heap[at];
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && worse(values, heap[child + 1], heap[child])) child++;
    if (!worse(values, heap[child], id)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = id;
}

function worse(values: Float32Array | Float64Array, a: number, b: number): boolean {
  return values[a] < values[b] || (values[a] === values[b] && a > b);
}
