import { FormatError } from "./errors.ts";

/** Bytes that can be read at any position: a file, or memory. Reads are synchronous. */
export interface ByteSource {
  /** For messages: usually the path. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /**
   * Fills `target` wholly with the bytes from `offset` on.
   * @throws FormatError when the source ends before that, or cannot be read.
   */
  read(offset: number, target: Uint8Array): void;
  /** Frees what the source holds. Reading afterwards is an error; closing again is not. */
  close(): void;
}

/** Where a weight lies in a file, and how. */
export interface TensorInfo {
  readonly name: string;
  /** Row-major: [rows, cols] for a matrix, [n] for a vector. */
  readonly shape: readonly number[];
  /** A name of GGML_TYPES. */
  readonly type: string;
  /** From the start of the file, in bytes. */
  readonly offset: number;
  /** Bytes in the file. */
  readonly bytes: number;
}

/** A source over bytes in memory, which are not copied. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  const source: ByteSource = {
    name,
    size: bytes.length,
    read(offset, target) {
      checkRange(source, offset, target.length);
      target.set(bytes.subarray(offset, offset + target.length));
    },
    close() {},
  };
  return source;
}

/** @throws FormatError unless [offset, offset + length) lies within the source. */
export function checkRange(source: ByteSource, offset: number, length: number): void {
  if (offset >= 0 && offset + length <= source.size) return;
  throw new FormatError(source.name, `expected ${length} bytes at byte ${offset}, found the end of the file at byte ${source.size}`);
}
