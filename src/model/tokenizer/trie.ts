/** A set of strings to walk through, UTF-16 unit by unit, from node 0. */
export interface Trie {
  /** The node that `unit` leads to, or -1. */
  child(node: number, unit: number): number;
  /** By node: the value of the string that ends there, or -1. */
  readonly value: Int32Array;
}

/**
 * A trie over strings with values of 0 or more; of equal strings the last counts. The edges lie in one hash table of flat arrays, as a
 * vocabulary has a million of them.
 */
export function buildTrie(entries: readonly (readonly [string, number])[]): Trie {
  let most = 1;
  for (const [text] of entries) most += text.length;
  let slots = 16;
  while (slots < 2 * most) slots *= 2;
  const mask = slots - 1;
  // A slot's edge: the node it leaves, plus one, so that 0 is an empty slot.
  const parents = new Int32Array(slots);
  const units = new Uint16Array(slots);
  const children = new Int32Array(slots);
  const value = new Int32Array(most).fill(-1);

  const slotOf = (node: number, unit: number): number => {
    let slot = hash(node, unit) & mask;
    while (parents[slot] !== 0 && (parents[slot] !== node + 1 || units[slot] !== unit)) slot = (slot + 1) & mask;
    return slot;
  };
  let nodes = 1;
  for (const [text, id] of entries) {
    let node = 0;
    for (let i = 0; i < text.length; i++) {
      const slot = slotOf(node, text.charCodeAt(i));
      if (parents[slot] === 0) {
        parents[slot] = node + 1;
        units[slot] = text.charCodeAt(i);
        children[slot] = nodes++;
      }
      node = children[slot];
    }
    value[node] = id;
  }
  return {
    child(node, unit) {
      const slot = slotOf(node, unit);
      return parents[slot] === 0 ? -1 : children[slot];
    },
    value: value.slice(0, nodes),
  };
}

/** Spreads a pair of integers over 32 bits. */
function hash(a: number, b: number): number {
  let h = Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  return (h ^ (h >>> 13)) >>> 0;
}

/** A fixed map from pairs of non-negative integers to one of 0 or more, in flat arrays. */
export interface PairMap {
  /** The value of a pair, or -1. */
  get(left: number, right: number): number;
  set(left: number, right: number, value: number): void;
}

/** @param count How many pairs will be set at most. */
export function pairMap(count: number): PairMap {
  let slots = 16;
  while (slots < 2 * count) slots *= 2;
  const mask = slots - 1;
  const lefts = new Int32Array(slots).fill(-1);
  const rights = new Int32Array(slots);
  const values = new Int32Array(slots);
  const slotOf = (left: number, right: number): number => {
    let slot = hash(left, right) & mask;
    while (lefts[slot] !== -1 && (lefts[slot] !== left || rights[slot] !== right)) slot = (slot + 1) & mask;
    return slot;
  };
  return {
    get(left, right) {
      const slot = slotOf(left, right);
      return lefts[slot] === -1 ? -1 : values[slot];
    },
    set(left, right, value) {
      const slot = slotOf(left, right);
      lefts[slot] = left;
      rights[slot] = right;
      values[slot] = value;
    },
  };
}
