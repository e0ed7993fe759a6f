import { littleEndianTensors } from "./big-endian.ts";
import { FormatError, quote } from "./errors.ts";
import { readGguf, type GgufFile } from "./gguf.ts";
import { getNumber } from "./gguf-values.ts";
import { composedSource, sourcePart } from "./parts.ts";
import type { ByteSource, TensorInfo } from "./source.ts";

/** A file that can open the files beside it. */
export interface SourceWithSiblings extends ByteSource {
  /** @param file A name without folders. @returns undefined when there is no such file. */
  sibling(file: string): ByteSource | undefined;
}

const hasSiblings = (source: ByteSource): source is SourceWithSiblings => "sibling" in source;

const NAME = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;
const MOST_FILES = 1000;

/**
 * A GGUF model that was split into several files (`model-00001-of-00003.gguf`, the keys `split.*`), as one: the first file's metadata,
 * everybody's tensors, in a source that reads across all of them. A file that is not split comes back as it is.
 * The tensors of big-endian files read as little-endian ones from it.
 * @param source The first file.
 * @throws FormatError for a file that is missing, another model's, or not the first.
 */
export function joinSplit(source: ByteSource, first: GgufFile): { source: ByteSource; file: GgufFile } {
  const count = getNumber(first, "split.count", 1);
  if (count <= 1) return { source: readable(source, first), file: first };
  const number = getNumber(first, "split.no", 0);
  const fileName = /[^/\\]*$/.exec(source.name)![0];
  const name = NAME.exec(fileName);
  if (number !== 0) throw new FormatError(source.name, `expected the first of ${count} files, found file ${number + 1}: open the one that ends in -00001-of-${String(count).padStart(5, "0")}.gguf`);
  if (!name || Number(name[3]) !== count || count > MOST_FILES || !hasSiblings(source)) {
    throw new FormatError(source.name, `expected a name that ends in -00001-of-${String(count).padStart(5, "0")}.gguf, as the model lies in ${count} files, found ${quote(fileName)}`);
  }
  const sources: ByteSource[] = [readable(source, first)];
  const close = () => sources.forEach((one) => one.close());
  try {
    const tensors = new Map<string, TensorInfo>(first.tensors);
    let start = source.size;
    for (let i = 1; i < count; i++) {
      const other = `${name[1]}-${String(i + 1).padStart(5, "0")}-of-${name[3]}.gguf`;
      const part = source.sibling(other);
      if (!part) throw new FormatError(source.name, `expected the other ${count - 1} files beside it, found no ${quote(other)}`);
      sources.push(part);
      const file = readGguf(part);
      sources[i] = readable(part, file);
      const [no, of] = [getNumber(file, "split.no"), getNumber(file, "split.count")];
      if (no !== i || of !== count) throw new FormatError(part.name, `expected file ${i + 1} of ${count}, found file ${no + 1} of ${of}`);
      for (const [key, info] of file.tensors) {
        if (tensors.has(key)) throw new FormatError(part.name, `tensor ${quote(key)}: expected every tensor once, found it in an earlier file too`);
        tensors.set(key, { ...info, offset: start + info.offset });
      }
      start += part.size;
    }
    const expected = getNumber(first, "split.tensors.count", tensors.size);
    if (tensors.size !== expected) throw new FormatError(source.name, `key "split.tensors.count": expected ${expected} tensors in the ${count} files, found ${tensors.size}`);
    const parts = sources.map((one) => sourcePart(one, 0, one.size));
    return { source: composedSource(source.name, parts, close), file: { ...first, tensors } };
  } catch (error) {
    for (const one of sources.slice(1)) one.close();
    throw error;
  }
}

function readable(source: ByteSource, { bigEndian, tensors }: GgufFile): ByteSource {
  return bigEndian ? littleEndianTensors(source, tensors) : source;
}
