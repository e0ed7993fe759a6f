import { FormatError } from "./errors.ts";
import type { ByteSource } from "./source.ts";

/** How much of a header is read at once. */
const WINDOW = 256 * 1024;

/** The longest string or array that is read, in bytes: what a header may make memwall allocate in one piece. */
const MAX_PIECE = 1 << 28;

/**
 * Reads a source front to back, little-endian unless told otherwise, through a window, so that a header of many small fields costs few reads and a
 * large file is never held in memory. Every method takes `what`, the name of what is being read for messages, and throws a
 * FormatError when the file ends before that.
 */
export interface Cursor {
  readonly position: () => number;
  /** Bytes up to the end of the file. */
  readonly remaining: () => number;
  readonly fail: (problem: string, at?: number) => never;
  /** Numbers are big-endian from here on. */
  readonly turnBigEndian: () => void;
  readonly u8: (what: string) => number;
  readonly u32: (what: string) => number;
  readonly i32: (what: string) => number;
  readonly f32: (what: string) => number;
  /** Unsigned 64 bits. */
  readonly u64: (what: string) => bigint;
  /**
   * An unsigned 64-bit count of things that take at least `each` bytes of the rest of the file: so many must fit in there,
   * which is checked before anybody allocates anything for them.
   */
  readonly count: (what: string, each: number) => number;
  /** The next `length` bytes, copied. */
  readonly bytes: (length: number, what: string) => Uint8Array<ArrayBuffer>;
  /** The same, as little-endian numbers of `width` bytes each. */
  readonly numbers: (length: number, width: number, what: string) => Uint8Array<ArrayBuffer>;
  /** UTF-8 text of `length` bytes; malformed bytes become U+FFFD. */
  readonly text: (length: number, what: string) => string;
}

/** A cursor at byte 0 of `source`. */
export function openCursor(source: ByteSource, windowBytes = WINDOW): Cursor {
  const size = source.size;
  const window = new Uint8Array(Math.min(windowBytes, size));
  const view = new DataView(window.buffer);
  // ignoreBOM keeps a leading U+FEFF: it may be a token.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let little = true;
  let at = 0;
  let windowStart = 0;
  let windowLength = 0;

  function fail(problem: string, position = at): never {
    throw new FormatError(source.name, `byte ${position}: ${problem}`);
  }

  function need(length: number, what: string): void {
    if (length > size - at) fail(`expected ${length} bytes of ${what}, found ${size - at} before the end of the file (truncated?)`);
  }

  /** Moves past `length` bytes. @returns where they start in the window. */
  function take(length: number, what: string): number {
    if (at < windowStart || at + length > windowStart + windowLength) {
      need(length, what);
      windowStart = at;
      windowLength = Math.min(window.length, size - at);
      source.read(at, window.subarray(0, windowLength));
    }
    at += length;
    return at - length - windowStart;
  }

  function bytes(length: number, what: string): Uint8Array<ArrayBuffer> {
    need(length, what);
    if (length > MAX_PIECE) fail(`expected at most ${MAX_PIECE} bytes of ${what}, found ${length}`);
    const copy = new Uint8Array(length);
    if (length <= window.length) {
      const start = take(length, what);
      copy.set(window.subarray(start, start + length));
    } else {
      source.read(at, copy);
      at += length;
    }
    return copy;
  }

  function numbers(length: number, width: number, what: string): Uint8Array<ArrayBuffer> {
    const found = bytes(length, what);
    for (let i = 0; !little && width > 1 && i < length; i += width) found.subarray(i, i + width).reverse();
    return found;
  }

  function text(length: number, what: string): string {
    if (length > window.length) return decoder.decode(bytes(length, what));
    const start = take(length, what);
    return decoder.decode(window.subarray(start, start + length));
  }

  function count(what: string, each: number): number {
    const start = at;
    const claimed = view.getBigUint64(take(8, what), little);
    const most = Math.floor((size - at) / each);
    if (claimed > BigInt(most)) fail(`${what}: expected at most ${most}, as no more fit into the rest of the file, found ${claimed} (truncated?)`, start);
    return Number(claimed);
  }

  return {
    position: () => at,
    remaining: () => size - at,
    fail,
    u8: (what) => view.getUint8(take(1, what)),
    u32: (what) => view.getUint32(take(4, what), little),
    i32: (what) => view.getInt32(take(4, what), little),
    f32: (what) => view.getFloat32(take(4, what), little),
    u64: (what) => view.getBigUint64(take(8, what), little),
    count,
    bytes,
    numbers,
    turnBigEndian: () => void (little = false),
    text,
  };
}
