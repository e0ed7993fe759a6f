import type { Kernels, KvPage } from "../tensor/kernels.ts";
import { storageBytes, type Tensor } from "../tensor/tensor.ts";
import type { KvFormats } from "./format.ts";
import { PrefixIndex, type PrefixNode } from "./prefix.ts";

/** Positions in a page: small enough that little is wasted, large enough that page tables stay short (Kwon et al. 2023). */
export const PAGE_SIZE = 16;

export interface KvCacheShape {
  readonly nLayers: number;
  readonly nKvHeads: number;
  readonly headDim: number;
  /** Given where values are found in the keys: pages then hold keys only. */
  readonly latent?: object;
}

export interface Page extends KvPage {
  /** Sequences that use this page. */
  users: number;
  /** Its place in the prefix index. */
  node?: PrefixNode;
}

/**
 * A fixed number of pages. A page is in use (by one sequence or several), cached (only the prefix index holds it) or free. Pages are
 * allocated when first needed and then recycled; when none is free, the least recently used cached one is.
 */
export class PagePool {
  readonly index: PrefixIndex | undefined;
  readonly maxPages: number;
  /** Pages that sequences hold, a shared page counted once. */
  used = 0;
  /** Pages that several sequences hold. */
  shared = 0;
  /** Pages that only the index holds. */
  cached = 0;
  /** Pages that exist in memory. */
  allocated = 0;
  /** Bytes of one page, keys and values, all layers, scales included. */
  pageBytes: number;
  private readonly free: Page[] = [];
  private readonly kernels: Kernels;
  private readonly shape: readonly number[];
  private readonly keysOnly: boolean;
  private readonly formats: KvFormats;

  constructor(kernels: Kernels, { nLayers, nKvHeads, headDim, latent }: KvCacheShape, formats: KvFormats, maxPages: number, index: PrefixIndex | undefined) {
    this.kernels = kernels;
    this.shape = [nLayers, nKvHeads, PAGE_SIZE, headDim];
    this.keysOnly = latent !== undefined;
    this.formats = formats;
    this.maxPages = maxPages;
    this.index = index;
    this.pageBytes = storageBytes(formats.k, this.shape, headDim) + (this.keysOnly ? 0 : storageBytes(formats.v, this.shape, headDim));
  }

  /** A page for one sequence, its contents unspecified. There must be one: used < maxPages. */
  take(): Page {
    if (this.free.length === 0 && this.allocated === this.maxPages) this.unlist(this.index!.oldestIdle()!);
    const page = this.free.pop() ?? this.allocate();
    page.users = 1;
    this.used++;
    return page;
  }

  /** One more sequence uses the page. */
  hold(page: Page): void {
    page.users++;
    if (page.users === 2) this.shared++;
    if (page.users > 1) return;
    this.used++;
    this.cached--;
  }

  /** One sequence less does. */
  drop(page: Page): void {
    page.users--;
    if (page.users === 1) this.shared--;
    if (page.users > 0) return;
    this.used--;
    if (!page.node) this.free.push(page);
    else {
      this.cached++;
      this.index!.touch(page.node);
    }
  }

  /** A page of its own with the same contents, in exchange for the given one. */
  copy(page: Page): Page {
    const fresh = this.take();
    for (const part of this.keysOnly ? (["k"] as const) : (["k", "v"] as const)) {
      fresh[part].data.set(page[part].data);
      fresh[part].scales?.set(page[part].scales!);
    }
    this.drop(page);
    return fresh;
  }

  /** Takes a page, and those that follow it, out of the index; the ones without a user become free. */
  unlist(node: PrefixNode): void {
    for (const page of this.index!.remove(node)) {
      if (page.users > 0) continue;
      this.cached--;
      this.free.push(page);
    }
  }

  private allocate(): Page {
    const tensor = (part: "k" | "v"): Tensor => this.kernels.alloc(this.formats[part], this.shape, this.shape[3]);
    const k = tensor("k");
    const page: Page = { id: this.allocated++, k, v: this.keysOnly ? k : tensor("v"), users: 0 };
    this.pageBytes = k.bytes + (this.keysOnly ? 0 : page.v.bytes);
    return page;
  }
}
