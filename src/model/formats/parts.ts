import { decodeRows } from "../../quant/ggml.ts";
import { zeros } from "../../tensor/tensor.ts";
import { checkRange, type ByteSource } from "./source.ts";

/** A run of bytes that is read from somewhere, or made when read. */
export interface Part {
  readonly bytes: number;
  /** Fills `target` wholly with the bytes from `offset` on, all of them within the part. */
  read(offset: number, target: Uint8Array): void;
}

/**
 * Parts one after the other as one source: how tensors that lie in several files, or in another order than wanted, look to everyone else
 * like tensors of one file. Closing it calls `close`.
 */
export function composedSource(name: string, parts: readonly Part[], close: () => void = () => {}): ByteSource {
  const starts: number[] = [];
  let size = 0;
  for (const part of parts) {
    starts.push(size);
    size += part.bytes;
  }
  const source: ByteSource = {
    name,
    size,
    read(offset, target) {
      checkRange(source, offset, target.length);
      for (let done = 0, index = indexAt(starts, offset); done < target.length; index++) {
        const within = offset + done - starts[index];
        const take = Math.min(target.length - done, parts[index].bytes - within);
        if (take > 0) parts[index].read(within, target.subarray(done, done + take));
        done += take;
      }
    },
    close,
  };
  return source;
}

/** The last of the ascending `starts` that is at most `offset`. */
function indexAt(starts: readonly number[], offset: number): number {
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle] <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** `bytes` bytes of a source from `start` on. */
export function sourcePart(source: ByteSource, start: number, bytes: number): Part {
  return { bytes, read: (offset, target) => source.read(start + offset, target) };
}

export function memoryPart(data: Uint8Array): Part {
  return { bytes: data.length, read: (offset, target) => target.set(data.subarray(offset, offset + target.length)) };
}

/**
 * `count` pieces of `pieceBytes` bytes, each made when it is first read, and kept until another one is or the last byte has been: tensors are
 * read from front to back, so there is never more than one.
 */
export function madeInPieces(count: number, pieceBytes: number, make: (index: number) => Uint8Array): Part {
  const bytes = count * pieceBytes;
  let [held, piece]: [number, Uint8Array] = [-1, new Uint8Array(0)];
  return {
    bytes,
    read(offset, target) {
      for (let done = 0; done < target.length; ) {
        const index = Math.floor((offset + done) / pieceBytes);
        if (index !== held) [held, piece] = [index, make(index)];
        const from = offset + done - index * pieceBytes;
        const part = piece.subarray(from, from + target.length - done);
        target.set(part, done);
        done += part.length;
      }
      if (offset + target.length === bytes) [held, piece] = [-1, new Uint8Array(0)];
    },
  };
}

/** Of every `groupRows` rows of a matrix those with the numbers `order`, in that order: by default all of them in another one. */
export function pickedRows(base: Part, rowBytes: number, order: readonly number[], groupRows: number = order.length): Part {
  const first = order.reduce((a, b) => Math.min(a, b));
  const last = order.reduce((a, b) => Math.max(a, b));
  return madeInPieces(base.bytes / (groupRows * rowBytes), order.length * rowBytes, (index) => {
    const rows = new Uint8Array((last + 1 - first) * rowBytes);
    base.read((index * groupRows + first) * rowBytes, rows);
    const picked = new Uint8Array(order.length * rowBytes);
    order.forEach((row, i) => picked.set(rows.subarray((row - first) * rowBytes, (row - first + 1) * rowBytes), i * rowBytes));
    return picked;
  });
}

/** Values of a half-width type as 32-bit floats, which is exact. The whole is read for every part of it: meant for vectors. */
export function widened(base: Part, type: "F16" | "BF16"): Part {
  return {
    bytes: 2 * base.bytes,
    read(offset, target) {
      const narrow = new Uint8Array(base.bytes);
      base.read(0, narrow);
      const wide = zeros("f32", [base.bytes / 2]);
      decodeRows(type, narrow, wide);
      target.set(new Uint8Array(wide.f32.buffer, wide.f32.byteOffset + offset, target.length));
    },
  };
}

/** A vector of 32-bit floats with 1 added to each. The whole is read for every part of it. */
export function plusOne(base: Part): Part {
  return {
    bytes: base.bytes,
    read(offset, target) {
      const values = new Float32Array(base.bytes / 4);
      const bytes = new Uint8Array(values.buffer);
      base.read(0, bytes);
      for (let i = 0; i < values.length; i++) values[i] += 1;
      target.set(bytes.subarray(offset, offset + target.length));
    },
  };
}

/** Matrices [rows, cols], one behind the other, each as [cols, rows]. */
export function transposed(base: Part, rows: number, cols: number, valueBytes: number): Part {
  const size = rows * cols * valueBytes;
  return madeInPieces(base.bytes / size, size, (index) => {
    const from = new Uint8Array(size);
    base.read(index * size, from);
    const to = new Uint8Array(size);
    for (let row = 0; row < rows; row++) {
      for (let col = 0; col < cols; col++) {
        const [source, place] = [(row * cols + col) * valueBytes, (col * rows + row) * valueBytes];
        for (let i = 0; i < valueBytes; i++) to[place + i] = from[source + i];
      }
    }
    return to;
  });
}
