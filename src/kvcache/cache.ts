import type { Kernels, KvPage } from "../tensor/kernels.ts";

/** Positions in a page: small enough that little is wasted, large enough that page tables stay short (Kwon et al. 2023). */
export const PAGE_SIZE = 16;

export interface KvCacheShape {
  readonly nLayers: number;
  readonly nKvHeads: number;
  readonly headDim: number;
}

interface Page extends KvPage {
  /** Sequences that use this page. */
  users: number;
}

/** One sequence's page table. Positions 0 .. length - 1 are stored; only the cache changes it. */
export interface KvSequence {
  readonly pages: readonly KvPage[];
  readonly length: number;
}

interface MutableSequence {
  pages: Page[];
  length: number;
}

/** All pages are in use. Nothing was changed. */
export class KvCacheFullError extends Error {
  override readonly name = "KvCacheFullError";
}

/**
 * A paged KV cache: a pool of fixed-size pages, and for each sequence a table of the pages that hold its positions. Pages are
 * allocated when first needed and then recycled; forked sequences share pages until one of them writes.
 */
export class KvCache {
  readonly shape: KvCacheShape;
  /** Most pages that may exist. */
  readonly maxPages: number;
  private readonly kernels: Kernels;
  private readonly free: Page[] = [];
  private readonly sequences = new Set<MutableSequence>();
  private created = 0;

  constructor(kernels: Kernels, shape: KvCacheShape, maxPages: number) {
    this.kernels = kernels;
    this.shape = shape;
    this.maxPages = maxPages;
  }

  /** An empty sequence. */
  create(): KvSequence {
    const sequence: MutableSequence = { pages: [], length: 0 };
    this.sequences.add(sequence);
    return sequence;
  }

  /** Makes room for `count` more positions. @throws KvCacheFullError, having changed nothing. */
  append(sequence: KvSequence, count: number): void {
    const own = this.own(sequence);
    const last = own.pages.at(-1);
    const shared = count > 0 && last !== undefined && last.users > 1 && own.length % PAGE_SIZE !== 0;
    const wanted = Math.ceil((own.length + count) / PAGE_SIZE) - own.pages.length + (shared ? 1 : 0);
    if (wanted > this.freePages) {
      throw new KvCacheFullError(`KV cache: ${wanted} more pages of ${PAGE_SIZE} tokens needed, ${this.freePages} of ${this.maxPages} free`);
    }
    if (shared) own.pages[own.pages.length - 1] = this.copy(last);
    while (own.pages.length * PAGE_SIZE < own.length + count) own.pages.push(this.take());
    own.length += count;
  }

  /** Forgets all positions from `length` on. */
  truncate(sequence: KvSequence, length: number): void {
    const own = this.own(sequence);
    if (length < 0 || length > own.length) throw new RangeError(`truncate: expected 0 to ${own.length} positions, found ${length}`);
    own.length = length;
    while (own.pages.length > Math.ceil(length / PAGE_SIZE)) this.drop(own.pages.pop()!);
  }

  /** A second sequence with the same contents; pages are shared, and copied when either side writes into them. */
  fork(sequence: KvSequence): KvSequence {
    const own = this.own(sequence);
    const copy: MutableSequence = { pages: [...own.pages], length: own.length };
    for (const page of copy.pages) page.users++;
    this.sequences.add(copy);
    return copy;
  }

  /** Gives a sequence's pages back and forgets it. */
  release(sequence: KvSequence): void {
    this.truncate(sequence, 0);
    this.sequences.delete(this.own(sequence));
  }

  /** Empties every sequence. */
  reset(): void {
    for (const sequence of this.sequences) this.truncate(sequence, 0);
  }

  /** Pages that can still be taken. */
  get freePages(): number {
    return this.maxPages - this.created + this.free.length;
  }

  /** Pages that sequences hold, a shared page counted once. */
  get usedPages(): number {
    return this.created - this.free.length;
  }

  /** Bytes of one page, keys and values, all layers, scales included. */
  get pageBytes(): number {
    const probe = this.free[0] ?? [...this.sequences].find((sequence) => sequence.pages.length > 0)?.pages[0];
    if (probe) return probe.k.bytes + probe.v.bytes;
    const { nLayers, nKvHeads, headDim } = this.shape;
    return 2 * nLayers * nKvHeads * PAGE_SIZE * headDim * 4;
  }

  /** Bytes of the pages in use, a shared page counted once. */
  get bytesInUse(): number {
    return this.usedPages * this.pageBytes;
  }

  private own(sequence: KvSequence): MutableSequence {
    const own = sequence as MutableSequence;
    if (!this.sequences.has(own)) throw new Error("KV cache: this sequence was released, or belongs to another cache");
    return own;
  }

  private take(): Page {
    const recycled = this.free.pop();
    if (recycled) {
      recycled.users = 1;
      return recycled;
    }
    const { nLayers, nKvHeads, headDim } = this.shape;
    const shape = [nLayers, nKvHeads, PAGE_SIZE, headDim];
    return { id: this.created++, k: this.kernels.alloc("f32", shape), v: this.kernels.alloc("f32", shape), users: 1 };
  }

  private copy(page: Page): Page {
    const fresh = this.take();
    fresh.k.f32.set(page.k.f32);
    fresh.v.f32.set(page.v.f32);
    this.drop(page);
    return fresh;
  }

  private drop(page: Page): void {
    if (--page.users === 0) this.free.push(page);
  }
}
