const PAGE = 65536;
const ALIGN = 64;
/** Blocks of this size and more begin with a page of the processor's: it fetches ahead within one. */
const LARGE = 65536;
const LARGE_ALIGN = 4096;
/** The most that 32-bit addresses reach. */
const LIMIT = 2 ** 32;

export interface Heap {
  readonly memory: WebAssembly.Memory;
  readonly shared: boolean;
  /** Address of `bytes` zeroed bytes, a multiple of 64, from 64 KiB on of 4096. @throws RangeError when the memory ends before. */
  alloc(bytes: number, what: string): number;
  /** Gives an address from `alloc` back; other addresses are ignored. */
  free(address: number): void;
  /** The current buffer: views on former ones stay valid, memory being shared (or never growing). */
  buffer(): ArrayBufferLike;
  /** Bytes handed out now, rounding included. */
  used(): number;
}

export interface HeapOptions {
  /** Bytes before the heap. */
  readonly reserved: number;
  /** Most bytes the memory may take, at most 4 GiB. */
  readonly maxBytes?: number;
}

const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;
const human = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Pages of an unshared memory, which cannot grow under live views: it is sized once. */
const FIXED_BYTES = 2 ** 30;

/** A memory that all threads see; where shared memory is missing, a fixed one for one thread. */
export function createMemory(maxBytes = LIMIT): { memory: WebAssembly.Memory; shared: boolean; limits: { initial: number; maximum: number } } {
  const pages = Math.max(2, Math.min(65536, Math.floor(maxBytes / PAGE)));
  if (typeof SharedArrayBuffer === "undefined") {
    const maximum = Math.min(pages, FIXED_BYTES / PAGE);
    return { memory: new WebAssembly.Memory({ initial: maximum, maximum }), shared: false, limits: { initial: maximum, maximum } };
  }
  // A maximum is address space, not memory; where even that is short, take what there is.
  for (let maximum = pages; ; maximum >>= 1) {
    try {
      return { memory: new WebAssembly.Memory({ initial: 2, maximum, shared: true }), shared: true, limits: { initial: 2, maximum } };
    } catch (error) {
      if (maximum < 1024) throw error;
    }
  }
}

/** First fit over address-ordered free ranges, neighbours merged: a few dozen long-lived blocks, so simplicity wins. */
export function createHeap(memory: WebAssembly.Memory, shared: boolean, maximumPages: number, { reserved }: HeapOptions): Heap {
  const starts: number[] = [];
  const sizes: number[] = [];
  const live = new Map<number, number>();
  let top = roundUp(reserved, ALIGN);
  let used = 0;

  const grow = (start: number, end: number, bytes: number, what: string): void => {
    const have = memory.buffer.byteLength;
    if (end <= have) return;
    const most = maximumPages * PAGE;
    if (end > most) {
      throw new RangeError(`${what} needs ${human(bytes)}, but of the ${human(most)} that 32-bit WebAssembly memory can hold here, ${human(Math.max(0, most - start))} are left`);
    }
    // In steps of an eighth: few growths, and untouched pages cost nothing.
    const want = Math.min(most, Math.max(end, have + Math.min(have >> 3, 2 ** 28)));
    try {
      memory.grow(Math.ceil((want - have) / PAGE));
    } catch {
      throw new RangeError(`${what} needs ${human(bytes)}: the system gave no more memory after ${human(have)}`);
    }
  };

  /** Makes [start, end) a free range, or a part of its neighbours. */
  const release = (start: number, end: number): void => {
    if (start === end) return;
    let at = 0;
    for (let high = starts.length; at < high; ) {
      const middle = (at + high) >> 1;
      if (starts[middle] < start) at = middle + 1;
      else high = middle;
    }
    let size = end - start;
    if (at < starts.length && end === starts[at]) {
      size += sizes[at];
      starts.splice(at, 1);
      sizes.splice(at, 1);
    }
    if (at > 0 && starts[at - 1] + sizes[at - 1] === start) sizes[at - 1] += size;
    else {
      starts.splice(at, 0, start);
      sizes.splice(at, 0, size);
    }
  };

  return {
    memory,
    shared,
    buffer: () => memory.buffer,
    used: () => used,
    alloc(bytes, what) {
      const size = Math.max(ALIGN, roundUp(bytes, ALIGN));
      const align = size < LARGE ? ALIGN : LARGE_ALIGN;
      const fit = starts.findIndex((start, i) => roundUp(start, align) + size <= start + sizes[i]);
      const start = fit < 0 ? top : starts[fit];
      const address = roundUp(start, align);
      if (fit < 0) {
        grow(address, address + size, bytes, what);
        top = address + size;
      } else {
        const end = start + sizes[fit];
        starts.splice(fit, 1);
        sizes.splice(fit, 1);
        release(address + size, end);
        new Uint8Array(memory.buffer, address, size).fill(0);
      }
      release(start, address);
      live.set(address, size);
      used += size;
      return address;
    },
    free(address) {
      const size = live.get(address);
      if (size === undefined) return;
      live.delete(address);
      used -= size;
      release(address, address + size);
    },
  };
}
