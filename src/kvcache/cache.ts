import type { AttentionWindow, Kernels, KvFormat, KvPage, PageHole } from "../tensor/kernels.ts";
import { checkAbilities, checkWindow, describeFormats, type KvFormats, resolveFormats } from "./format.ts";
import { type KvCacheShape, type Page, PAGE_SIZE, PagePool } from "./pool.ts";
import { PrefixIndex, type PrefixNode } from "./prefix.ts";

export { type KvCacheShape, PAGE_SIZE } from "./pool.ts";

/** How a KV cache stores keys and values, and which of them it keeps. */
export interface KvCacheOptions {
  /** How keys and values are stored; default f32. */
  readonly kv?: KvFormat | Partial<KvFormats>;
  /** What attention sees of the past; default everything. Pages outside of it are given back. */
  readonly window?: AttentionWindow;
  /** Whether full pages are kept for sequences that begin alike; default true. */
  readonly prefixIndex?: boolean;
}

/** One sequence's page table; only the cache changes it. */
export interface KvSequence {
  /** Pages of positions 0 .. length - 1, those of the hole left out. */
  readonly pages: readonly KvPage[];
  readonly length: number;
  readonly hole: PageHole | undefined;
  /** The tokens whose keys and values are computed, as far as `record` was told. */
  readonly tokens: readonly number[];
}

interface MutableSequence {
  pages: Page[];
  length: number;
  hole: PageHole | undefined;
  tokens: number[];
  /** Whether its full pages may go into the index. */
  listed: boolean;
}

/** Where all pages of the pool are. used + cached + free = pages; bytes are pages times pageBytes. */
export interface KvCacheStats {
  /** The pool's size; memory is taken when a page is first needed. */
  readonly pages: number;
  /** Pages that sequences hold, a shared page counted once. */
  readonly used: number;
  /** Those of them that several sequences hold. */
  readonly shared: number;
  /** Pages that only the prefix index holds: taken back when nothing is free, least recently used first. */
  readonly cached: number;
  readonly free: number;
  /** Pages that exist in memory. */
  readonly allocated: number;
  readonly pageBytes: number;
  readonly bytesPerToken: number;
  readonly bytesInUse: number;
  readonly bytesShared: number;
  readonly bytesCached: number;
  readonly bytesFree: number;
  readonly bytesAllocated: number;
}

/** Most pages that a sequence of `length` positions holds when it is fed at most `chunk` tokens at a time. */
export function pagesFor(window: AttentionWindow | undefined, length: number, chunk: number): number {
  const all = Math.ceil(length / PAGE_SIZE);
  return window ? Math.min(all, Math.ceil(window.sinks / PAGE_SIZE) + Math.ceil((window.size + chunk) / PAGE_SIZE) + 1) : all;
}

/** All pages are in use. Nothing was changed. */
export class KvCacheFullError extends Error {
  override readonly name = "KvCacheFullError";
}

/**
 * A paged KV cache: a pool of fixed-size pages, and for each sequence a table of the pages that hold its positions. Pages are shared by
 * forked sequences and by those that begin with the same tokens; whoever writes into a shared page gets a copy first.
 */
export class KvCache {
  readonly shape: KvCacheShape;
  /** Most pages that may exist. */
  readonly maxPages: number;
  readonly formats: KvFormats;
  readonly window: AttentionWindow | undefined;
  private readonly pool: PagePool;
  private readonly sequences = new Set<MutableSequence>();

  /** @throws RangeError for formats or windows that the kernels do not have. */
  constructor(kernels: Kernels, shape: KvCacheShape, maxPages: number, { kv, window, prefixIndex = true }: KvCacheOptions = {}) {
    if (!(Number.isSafeInteger(maxPages) && maxPages >= 0)) throw new RangeError(`KV cache: expected a whole number of pages, found ${maxPages}`);
    this.shape = shape;
    this.maxPages = maxPages;
    this.formats = resolveFormats(kv);
    this.window = window;
    const { k, v } = this.formats;
    if (shape.latent && k !== v) throw new RangeError(`kv: expected one format, as this model's values are part of its keys, found ${describeFormats(this.formats)}`);
    if (window) checkWindow(window);
    checkAbilities(kernels, this.formats, window);
    this.pool = new PagePool(kernels, shape, this.formats, maxPages, prefixIndex ? new PrefixIndex() : undefined);
  }

  /** An empty sequence. */
  create(): KvSequence {
    return this.add({ pages: [], length: 0, hole: undefined, tokens: [], listed: true });
  }

  /**
   * A sequence that begins with the longest run of full pages that the index knows of these tokens, at least the last token left out: its
   * `length` positions need no computing.
   */
  createFrom(tokens: readonly number[]): KvSequence {
    const found: PrefixNode[] = [];
    const limit = this.pool.index ? tokens.length - 1 : 0;
    while ((found.length + 1) * PAGE_SIZE <= limit) {
      const node = this.pool.index!.find(found.at(-1), tokens, found.length * PAGE_SIZE, PAGE_SIZE);
      if (!node) break;
      found.push(node);
    }
    const length = found.length * PAGE_SIZE;
    const hole = this.holeAt(length);
    const pages = found.map(({ page }) => page);
    if (hole) pages.splice(hole.at, hole.count);
    for (const page of pages) this.pool.hold(page);
    return this.add({ pages, length, hole, tokens: tokens.slice(0, length), listed: true });
  }

  /** A sequence of `length` positions, its pages outside `hole` reserved, for a snapshot's contents. @throws KvCacheFullError */
  adopt(tokens: readonly number[], hole: PageHole | undefined): KvSequence {
    const count = Math.ceil(tokens.length / PAGE_SIZE) - (hole?.count ?? 0);
    this.need(count);
    const pages = Array.from({ length: count }, () => this.pool.take());
    return this.add({ pages, length: tokens.length, hole, tokens: [...tokens], listed: false });
  }

  /** Makes room for `count` more positions. @throws KvCacheFullError, having changed nothing. */
  append(sequence: KvSequence, count: number): void {
    if (!(Number.isSafeInteger(count) && count >= 0)) throw new RangeError(`append: expected a whole number of positions, found ${count}`);
    const own = this.own(sequence);
    const { written, shared, fresh } = this.growth(own, count);
    this.need(fresh + (shared ? 1 : 0));
    if (shared) own.pages[own.pages.length - 1] = this.pool.copy(written!);
    else if (written?.node) this.pool.unlist(written.node);
    for (let i = 0; i < fresh; i++) own.pages.push(this.pool.take());
    own.length += count;
  }

  /** Pages that `append` would take. */
  pagesToAppend(sequence: KvSequence, count: number): number {
    const { shared, fresh } = this.growth(this.own(sequence), count);
    return fresh + (shared ? 1 : 0);
  }

  /** The next positions' tokens, now that their keys and values are computed: full pages become known to the index. */
  record(sequence: KvSequence, tokens: readonly number[]): void {
    const own = this.own(sequence);
    if (own.tokens.length + tokens.length > own.length) {
      throw new RangeError(`KV cache: expected at most ${own.length - own.tokens.length} tokens to record, found ${tokens.length}`);
    }
    const before = own.tokens.length;
    for (const token of tokens) own.tokens.push(token);
    if (Math.floor(own.tokens.length / PAGE_SIZE) > Math.floor(before / PAGE_SIZE)) this.list(own);
  }

  /** Gives the pages back that no query from here on sees. */
  trim(sequence: KvSequence): void {
    const own = this.own(sequence);
    const hole = this.holeAt(own.length);
    if (!hole) return;
    const more = hole.count - (own.hole?.count ?? 0);
    if (more > 0) for (const page of own.pages.splice(hole.at, more).reverse()) this.pool.drop(page);
    if (more > 0) own.hole = hole;
  }

  /**
   * Forgets all positions from `length` on.
   * @throws RangeError beyond the end, or when the next query would see positions that the window has already given back.
   */
  truncate(sequence: KvSequence, length: number): void {
    const own = this.own(sequence);
    if (length < 0 || length > own.length) throw new RangeError(`truncate: expected 0 to ${own.length} positions, found ${length}`);
    const { hole } = own;
    const kept = this.holeAt(length)?.count ?? 0;
    if (hole && length > hole.at * PAGE_SIZE && kept < hole.count) {
      const end = (hole.at + hole.count) * PAGE_SIZE;
      throw new RangeError(`truncate: at ${length} positions some before ${end} are needed, and the window of ${this.window!.size} has given them back`);
    }
    if (hole && length <= hole.at * PAGE_SIZE) own.hole = undefined;
    own.length = length;
    own.tokens.length = Math.min(own.tokens.length, length);
    const pages = Math.ceil(length / PAGE_SIZE) - (own.hole?.count ?? 0);
    while (own.pages.length > pages) this.pool.drop(own.pages.pop()!);
  }

  /** A second sequence with the same contents; pages are shared, and copied when either side writes into them. */
  fork(sequence: KvSequence): KvSequence {
    const own = this.own(sequence);
    for (const page of own.pages) this.pool.hold(page);
    return this.add({ ...own, pages: [...own.pages], tokens: [...own.tokens] });
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

  /** Most pages that a sequence of `length` positions holds when it is fed at most `chunk` tokens at a time. */
  pagesFor(length: number, chunk: number): number {
    return pagesFor(this.window, length, chunk);
  }

  /** Pages that can still be taken, cached ones among them. */
  get freePages(): number {
    return this.maxPages - this.pool.used;
  }

  /** Pages that sequences hold, a shared page counted once. */
  get usedPages(): number {
    return this.pool.used;
  }

  /** Bytes of one page, keys and values, all layers, scales included. */
  get pageBytes(): number {
    return this.pool.pageBytes;
  }

  /** Bytes that a position takes, keys and values, all layers, scales included. */
  get bytesPerToken(): number {
    return this.pageBytes / PAGE_SIZE;
  }

  /** Bytes of the pages in use, a shared page counted once. */
  get bytesInUse(): number {
    return this.usedPages * this.pageBytes;
  }

  /** Where the pages are at this moment, in pages and in bytes. */
  stats(): KvCacheStats {
    const { used, shared, cached, allocated, pageBytes, maxPages } = this.pool;
    const free = maxPages - used - cached;
    return {
      ...{ pages: maxPages, used, shared, cached, free, allocated, pageBytes, bytesPerToken: this.bytesPerToken },
      ...{ bytesInUse: used * pageBytes, bytesShared: shared * pageBytes, bytesCached: cached * pageBytes },
      ...{ bytesFree: free * pageBytes, bytesAllocated: allocated * pageBytes },
    };
  }

  private add(sequence: MutableSequence): KvSequence {
    this.sequences.add(sequence);
    return sequence;
  }

  /** What `count` more positions mean: the half-full page that they go on in, whether others hold it too, and new pages. */
  private growth({ pages, length }: MutableSequence, count: number): { written: Page | undefined; shared: boolean; fresh: number } {
    const written = count > 0 && length % PAGE_SIZE !== 0 ? pages.at(-1) : undefined;
    const fresh = Math.ceil((length + count) / PAGE_SIZE) - Math.ceil(length / PAGE_SIZE);
    return { written, shared: written !== undefined && written.users > 1, fresh };
  }

  private own(sequence: KvSequence): MutableSequence {
    const own = sequence as MutableSequence;
    if (!this.sequences.has(own)) throw new Error("KV cache: this sequence was released, or belongs to another cache");
    return own;
  }

  private need(pages: number): void {
    if (pages <= this.freePages) return;
    throw new KvCacheFullError(`KV cache: ${pages} more pages of ${PAGE_SIZE} tokens needed, ${this.freePages} of ${this.maxPages} free`);
  }

  /** Pages between the sinks and the window of the query at position `length`. */
  private holeAt(length: number): PageHole | undefined {
    if (!this.window) return undefined;
    const at = Math.ceil(this.window.sinks / PAGE_SIZE);
    const count = Math.floor((length - this.window.size + 1) / PAGE_SIZE) - at;
    return count > 0 ? { at, count } : undefined;
  }

  /** Makes the index know all full pages of a sequence. A page of its own that the index already has stays unlisted. */
  private list(own: MutableSequence): void {
    const { index } = this.pool;
    if (!index || !own.listed) return;
    let node: PrefixNode | undefined;
    for (let i = 0; (i + 1) * PAGE_SIZE <= own.tokens.length; i++) {
      const known = index.find(node, own.tokens, i * PAGE_SIZE, PAGE_SIZE);
      const page = known ? known.page : pageAt(own, i);
      // A page before was given back and evicted since, or its hash is taken: what follows could never be found.
      if (!page || (!known && page.node)) return void (own.listed = false);
      node = known ?? index.insert(node, own.tokens.slice(i * PAGE_SIZE, (i + 1) * PAGE_SIZE), page);
      if (!node) return void (own.listed = false);
    }
  }
}

function pageAt({ pages, hole }: MutableSequence, index: number): Page | undefined {
  if (!hole || index < hole.at) return pages[index];
  return index < hole.at + hole.count ? undefined : pages[index - hole.count];
}
