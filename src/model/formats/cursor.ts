import { FormatError } from "./errors.ts";
import type { ByteSource } from "./source.ts";

/** How much of a header is read at once. */
const WINDOW = 256 * 1024;

/** The longest string or array that is read, in bytes: what a header may make memwall allocate in one piece. */
const MAX_PIECE = 1 << 28;

/** What stands before each text of an array while they are decoded: bytes ff 00 00 00 00 00 00 00, in place of its length. */
const MARK = "\ufffd\0\0\0\0\0\0\0";

/**
 * Decodes all and cuts them apart: a decoder costs far more for each call than for each byte. A mark's first byte is never UTF-8, so no text
 * around it changes, and a text with a mark in it shows in the count.
 */
function decodeTexts(pieces: readonly Uint8Array[], lengths: Uint32Array, decoder: TextDecoder): string[] {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  const texts = decoder.decode(bytes).split(MARK);
  texts.shift();
  if (texts.length === lengths.length) return texts;
  at = 0;
  return Array.from(lengths, (length) => decoder.decode(bytes.subarray((at += MARK.length), (at += length))));
}

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
  /** `count` texts, each with its length in 64 bits before it: they are decoded when somebody asks. */
  readonly texts: (count: number, what: string) => () => string[];
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

  function claim(what: string, each: number): number {
    const start = at;
    const claimed = view.getBigUint64(take(8, what), little);
    const most = Math.floor((size - at) / each);
    if (claimed > BigInt(most)) fail(`${what}: expected at most ${most}, as no more fit into the rest of the file, found ${claimed} (truncated?)`, start);
    return Number(claimed);
  }

  function texts(count: number, what: string): () => string[] {
    const [start, lengths, pieces] = [at, new Uint32Array(count), [] as Uint8Array[]];
    for (let known = 0; known < count; ) {
      // Those that lie whole in the window: nearly all, and a vocabulary has so many that each step here counts.
      const first = at - windowStart;
      let from = first;
      while (little && known < count && from + 8 <= windowLength) {
        const length = window[from] | (window[from + 1] << 8);
        if (window[from + 2] | window[from + 3] | window[from + 4] | window[from + 5] | window[from + 6] | window[from + 7] || from + 8 + length > windowLength) break;
        window[from] = 0xff;
        window[from + 1] = 0;
        lengths[known++] = length;
        from += 8 + length;
      }
      if (from > first) pieces.push(window.slice(first, from));
      at += from - first;
      if (known === count) break;
      // One that the window cuts, that is very long, or that is wrong.
      const length = claim(what, 1);
      pieces.push(Uint8Array.of(0xff, 0, 0, 0, 0, 0, 0, 0), bytes(length, what));
      lengths[known++] = length;
      if (at - start > MAX_PIECE) fail(`expected at most ${MAX_PIECE} bytes of ${what}, found more`, start);
    }
    return () => decodeTexts(pieces, lengths, decoder);
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
    count: claim,
    bytes,
    numbers,
    turnBigEndian: () => void (little = false),
    text,
    texts,
  };
}
