import { FormatError, quote } from "./errors.ts";
import { asCount, asItems, asObject, asString, at, isObject, parseJson, wrong, type JsonNode } from "./json.ts";
import type { ByteSource } from "./source.ts";

/** Bytes of one value of each dtype that the format names, except those below a byte. */
const DTYPE_BYTES: Readonly<Record<string, number>> = {
  ...{ BOOL: 1, U8: 1, I8: 1, F8_E5M2: 1, F8_E4M3: 1, F8_E8M0: 1, F8_E4M3FNUZ: 1, F8_E5M2FNUZ: 1 },
  ...{ I16: 2, U16: 2, F16: 2, BF16: 2, I32: 4, U32: 4, F32: 4, I64: 8, U64: 8, F64: 8, C64: 8 },
};

/** The format's own limit of a header, in bytes. */
const MAX_HEADER = 100_000_000;

/** One tensor of a safetensors file. */
export interface SafeTensor {
  readonly name: string;
  /** Row-major; empty for a single value. */
  readonly shape: readonly number[];
  /** As in the file: "F32", "BF16". */
  readonly dtype: string;
  /** From the start of the file, in bytes. */
  readonly offset: number;
  readonly bytes: number;
}

/** A tensor with its file. */
export interface Found {
  readonly tensor: SafeTensor;
  readonly source: ByteSource;
}

/** What a safetensors file says about itself; the tensors' bytes stay in the file. */
export interface SafeTensorsFile {
  /** The source's name. */
  readonly name: string;
  /** The free text under `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of their data. */
  readonly tensors: ReadonlyMap<string, SafeTensor>;
}

/**
 * Reads the header of a safetensors file (github.com/huggingface/safetensors, "Format"): its length in 8 bytes, then JSON, then the data,
 * which the tensors must cover from the first byte to the last without overlap or hole.
 * @throws FormatError
 */
export function readSafeTensors(source: ByteSource): SafeTensorsFile {
  const { name, size } = source;
  if (size < 8) throw new FormatError(name, `expected a safetensors file, which begins with the length of its header, found only ${size} bytes`);
  const head = new Uint8Array(8);
  source.read(0, head);
  const length = new DataView(head.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER)) throw new FormatError(name, `byte 0: expected a header of at most ${MAX_HEADER} bytes, found ${length} (no safetensors file?)`);
  const headerBytes = Number(length);
  if (headerBytes > size - 8) throw new FormatError(name, `byte 0: expected a header of ${headerBytes} bytes, found ${size - 8} before the end of the file (truncated?)`);
  const json = new Uint8Array(headerBytes);
  source.read(8, json);
  if (json[0] !== 0x7b) throw new FormatError(name, `byte 8: expected a header that begins with "{", found ${headerBytes === 0 ? "an empty one" : `byte ${json[0]}`}`);
  const header = parseJson(name, json, { maxDepth: 8 });

  const dataOffset = 8 + headerBytes;
  const metadata = new Map<string, string>();
  const tensors: SafeTensor[] = [];
  for (const key of Object.keys(asObject(header))) {
    const node = at(header, key);
    if (key === "__metadata__") for (const name of Object.keys(asObject(node))) metadata.set(name, asString(at(node, name)));
    else tensors.push(readEntry(key, node, dataOffset));
  }
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  checkCover(name, tensors, dataOffset, size);
  return { name, metadata, tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])) };
}

function readEntry(name: string, node: JsonNode, dataOffset: number): SafeTensor {
  const { file } = node;
  const what = `tensor ${quote(name)}`;
  if (!isObject(node.value)) wrong(node, "a tensor's dtype, shape and data_offsets");
  const dtype = asString(at(node, "dtype"));
  if (!Object.hasOwn(DTYPE_BYTES, dtype)) throw new FormatError(file, `${what}: expected a dtype of ${Object.keys(DTYPE_BYTES).join(", ")}, found ${quote(dtype)}`);
  const shape = asItems(at(node, "shape")).map(asCount);
  if (shape.length > 8) throw new FormatError(file, `${what}: expected at most 8 dimensions, found ${shape.length}`);
  const bytes = shape.reduce((a, b) => a * b, DTYPE_BYTES[dtype]);
  if (!Number.isSafeInteger(bytes)) throw new FormatError(file, `${what}: expected a size below 2^53 bytes, found shape [${shape.join(", ")}]`);
  const offsets = asItems(at(node, "data_offsets")).map(asCount);
  if (offsets.length !== 2 || offsets[1] - offsets[0] !== bytes) {
    throw new FormatError(file, `${what} [${shape.join(", ")}] ${dtype}: expected data_offsets ${bytes} bytes apart, found [${offsets.slice(0, 4).join(", ")}]`);
  }
  return { name, shape, dtype, offset: dataOffset + offsets[0], bytes };
}

function checkCover(file: string, tensors: readonly SafeTensor[], dataOffset: number, size: number): void {
  let end = dataOffset;
  for (const { name, offset, bytes } of tensors) {
    if (offset !== end) {
      const problem = offset < end ? "overlaps the tensor before it" : "leaves a hole before it";
      throw new FormatError(file, `tensor ${quote(name)}: expected its data at byte ${end}, found it at byte ${offset}: it ${problem}`);
    }
    end += bytes;
    if (end > size) throw new FormatError(file, `tensor ${quote(name)}: expected ${bytes} bytes at byte ${offset}, found the end of the file at byte ${size} (truncated?)`);
  }
  if (end !== size) throw new FormatError(file, `expected the end of the file after the last tensor at byte ${end}, found ${size - end} more bytes`);
}
