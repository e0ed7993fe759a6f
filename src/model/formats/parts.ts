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
 * A matrix with the rows of each group of `order.length` rows in another order: row i of a group is row order[i] of the group in `base`.
 * Whole groups are read from `base`, one at a time.
 */
export function reorderedRows(base: Part, rowBytes: number, order: ArrayLike<number>): Part {
  const groupBytes = order.length * rowBytes;
  return {
    bytes: base.bytes,
    read(offset, target) {
      const group = new Uint8Array(groupBytes);
      let held = -1;
      for (let done = 0; done < target.length; ) {
        const at = offset + done;
        const index = Math.floor(at / groupBytes);
        if (index !== held) base.read(index * groupBytes, group);
        held = index;
        const within = at - index * groupBytes;
        const row = Math.floor(within / rowBytes);
        const column = within - row * rowBytes;
        const take = Math.min(rowBytes - column, target.length - done);
        const from = order[row] * rowBytes + column;
        target.set(group.subarray(from, from + take), done);
        done += take;
      }
    },
  };
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

/**
 * A matrix [rows, cols] as [cols, rows]. It is turned as a whole when it is first read, and kept until its last byte is: matrices are read from
 * front to back, one after the other, so there is never more than one.
 */
export function transposed(base: Part, rows: number, cols: number, valueBytes: number): Part {
  let turned: Uint8Array | undefined;
  const turn = (): Uint8Array => {
    const from = new Uint8Array(base.bytes);
    base.read(0, from);
    const to = new Uint8Array(base.bytes);
    for (let row = 0; row < rows; row++) {
      for (let col = 0; col < cols; col++) {
        const [source, place] = [(row * cols + col) * valueBytes, (col * rows + row) * valueBytes];
        for (let i = 0; i < valueBytes; i++) to[place + i] = from[source + i];
      }
    }
    return to;
  };
  return {
    bytes: base.bytes,
    read(offset, target) {
      turned ??= turn();
      target.set(turned.subarray(offset, offset + target.length));
      if (offset + target.length === base.bytes) turned = undefined;
    },
  };
}
