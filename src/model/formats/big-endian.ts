import { canSwap, swapBlocks } from "../../quant/byte-order.ts";
import { GGML_TYPES } from "../../quant/ggml.ts";
import { FormatError, quote } from "./errors.ts";
import type { ByteSource, TensorInfo } from "./source.ts";

/**
 * A big-endian file whose tensors read as if it were little-endian; its header stays as it is.
 * @throws FormatError for a tensor of a type whose bytes cannot be turned.
 */
export function littleEndianTensors(source: ByteSource, tensors: ReadonlyMap<string, TensorInfo>): ByteSource {
  const stored = [...tensors.values()].sort((a, b) => a.offset - b.offset);
  for (const { name, type } of stored) {
    if (!canSwap(type)) throw new FormatError(source.name, `tensor ${quote(name)}: expected a type that has a big-endian form in a big-endian file, found ${type}`);
  }
  const readTensor = ({ type, offset, bytes }: TensorInfo, from: number, target: Uint8Array) => {
    const { blockBytes } = GGML_TYPES[type];
    // Whole blocks, of which the reader may want a part only.
    const start = from - ((from - offset) % blockBytes);
    const end = Math.min(offset + bytes, start + Math.ceil((from + target.length - start) / blockBytes) * blockBytes);
    const whole = end - start === target.length;
    const blocks = whole ? target : new Uint8Array(end - start);
    source.read(start, blocks);
    swapBlocks(type, blocks);
    if (!whole) target.set(blocks.subarray(from - start, from - start + target.length));
  };
  return {
    name: source.name,
    size: source.size,
    read(offset, target) {
      source.read(offset, target);
      const end = offset + target.length;
      for (const info of stored) {
        const [from, to] = [Math.max(offset, info.offset), Math.min(end, info.offset + info.bytes)];
        if (from < to) readTensor(info, from, target.subarray(from - offset, to - offset));
      }
    },
    close: () => source.close(),
  };
}
