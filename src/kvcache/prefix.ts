import type { Page } from "./pool.ts";

/** A full page in the index: what it holds follows from its own tokens and from all those before it. */
export interface PrefixNode {
  /** The page before; undefined for a sequence's first page. */
  readonly parent: PrefixNode | undefined;
  readonly tokens: readonly number[];
  readonly hash: number;
  readonly page: Page;
  readonly children: Set<PrefixNode>;
}

/**
 * Full pages by the tokens that lead to them, so that equal prompt starts share them (Zheng et al. 2024, RadixAttention, by pages). A page
 * is found by a hash chained over all tokens up to its end, and taken only when its tokens and all its predecessors are equal.
 */
export class PrefixIndex {
  /** By hash, least recently used first. */
  private readonly nodes = new Map<number, PrefixNode>();
  private readonly hash: (before: number, tokens: readonly number[], from: number, count: number) => number;

  constructor(hash = chainHash) {
    this.hash = hash;
  }

  /** The page after `parent` that holds the tokens [from, from + count), if there is one. */
  find(parent: PrefixNode | undefined, tokens: readonly number[], from: number, count: number): PrefixNode | undefined {
    const node = this.nodes.get(this.hash(parent?.hash ?? 0, tokens, from, count));
    if (!node || node.parent !== parent || node.tokens.length !== count) return undefined;
    for (let i = 0; i < count; i++) if (node.tokens[i] !== tokens[from + i]) return undefined;
    return node;
  }

  /** Adds a page that `find` does not know; undefined when other tokens have the same hash. */
  insert(parent: PrefixNode | undefined, tokens: readonly number[], page: Page): PrefixNode | undefined {
    const hash = this.hash(parent?.hash ?? 0, tokens, 0, tokens.length);
    if (this.nodes.has(hash)) return undefined;
    const node: PrefixNode = { parent, tokens, hash, page, children: new Set() };
    page.node = node;
    parent?.children.add(node);
    this.nodes.set(hash, node);
    return node;
  }

  /** Used just now. Touch a chain from its end: then no page outlives one that follows it. */
  touch(node: PrefixNode): void {
    this.nodes.delete(node.hash);
    this.nodes.set(node.hash, node);
  }

  /** Takes a page out, and those that can't be found without it; returns them all. */
  remove(node: PrefixNode): Page[] {
    node.parent?.children.delete(node);
    const pages: Page[] = [];
    for (const left = [node]; left.length > 0; ) {
      const one = left.pop()!;
      this.nodes.delete(one.hash);
      one.page.node = undefined;
      pages.push(one.page);
      left.push(...one.children);
    }
    return pages;
  }

  /** The least recently used page that no sequence holds. */
  oldestIdle(): PrefixNode | undefined {
    for (const node of this.nodes.values()) if (node.page.users === 0) return node;
    return undefined;
  }
}

/** Two 26-bit multiplicative hashes in one exact integer of 52 bits. */
function chainHash(before: number, tokens: readonly number[], from: number, count: number): number {
  let low = (before % 0x4000000) ^ 0x9e3779b9;
  let high = Math.floor(before / 0x4000000) ^ 0x85ebca6b;
  for (let i = from; i < from + count; i++) {
    low = Math.imul(low ^ tokens[i], 0x01000193);
    high = Math.imul(high ^ (high >>> 15) ^ tokens[i], 0x2c1b3c6d);
  }
  low ^= low >>> 15;
  high ^= high >>> 13;
  return (high >>> 6) * 0x4000000 + (low >>> 6);
}
