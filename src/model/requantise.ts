import { firstNonFinite } from "../quant/ggml.ts";
import { type EncodableType, encodeRows } from "../quant/ggml-encode.ts";
import { zeros } from "../tensor/tensor.ts";
import { applyFold, type Folds } from "./folding.ts";
import { FormatError } from "./formats/errors.ts";
import type { GgufOut, GgufOutTensor } from "./formats/gguf-write.ts";
import type { GgufValue } from "./formats/gguf-values.ts";
import type { TensorInfo } from "./formats/source.ts";
import { rowReader, type WeightFile } from "./load.ts";

/** The file types that `requantise` makes, and their `llama_ftype` numbers. */
export const FILE_TYPES = { f32: 0, f16: 1, q4_0: 2, q8_0: 7 } as const;
/** One of FILE_TYPES; `targetType` says what each tensor becomes in such a file. */
export type FileType = keyof typeof FILE_TYPES;

const MATRIX_TYPES: Readonly<Record<FileType, EncodableType>> = { f32: "F32", f16: "F16", q4_0: "Q4_0", q8_0: "Q8_0" };

/** `GGML_QNT_VERSION`: the layout of quantised blocks. */
const QUANTIZATION_VERSION = 2;

/** Bytes of a file converted at a time. */
const CHUNK_BYTES = 1 << 20;

/** Beyond this, f16 is infinity. */
const MOST_F16 = 65520;

export interface RequantiseOptions {
  /** Default: every tensor keeps its type. */
  readonly type?: FileType;
  /** Factors to move between tensors first; their function stays the same. */
  readonly folds?: Folds;
  /** The mean square of what meets each column of a matrix: its Q4_0 scales are then searched. */
  readonly importance?: (name: string) => Float32Array | undefined;
  /** Called with the share of the tensors' bytes read so far, 0 to 1. */
  readonly onProgress?: (share: number) => void;
}

/**
 * The type that a tensor gets in a file of a given type, as llama.cpp's `llama-quantize` decides: matrices get the file's type, vectors,
 * learned position embeddings and the routers of experts stay what they are; in q4_0 the output head (the embedding, where it is both) becomes Q6_K, or Q8_0 if its
 * columns are no multiple of 256; columns that are no multiple of 32 become F16.
 */
export function targetType({ name, shape, type }: TensorInfo, tied: boolean, fileType: FileType): string {
  const cols = shape[shape.length - 1];
  const isMatrix = shape.length > 1 && name.endsWith(".weight") && !name.endsWith("_norm.weight") && name !== "position_embd.weight" && !/\.ffn_gate_inp(_shexp)?\.weight$/.test(name);
  if (fileType === "f32") return "F32";
  if (!isMatrix) return type;
  if (fileType === "f16") return "F16";
  if (cols % 32 !== 0) return "F16";
  const isHead = name === "output.weight" || (tied && name === "token_embd.weight");
  if (fileType === "q4_0" && isHead) return cols % 256 === 0 ? "Q6_K" : "Q8_0";
  return MATRIX_TYPES[fileType];
}

/**
 * A model as a GGUF file of another type, its tensors converted a chunk at a time while the file is written. Tensors that keep their type
 * are copied byte for byte; of others a factor beside them (`.scale`) is multiplied in. Metadata stays as it is, except for `general.file_type` and `general.quantization_version`.
 * @throws FormatError, now or while the tensors are read, naming the tensor: values that are not finite or that the new type cannot hold.
 */
export function requantise(file: WeightFile, metadata: ReadonlyMap<string, GgufValue>, options: RequantiseOptions): GgufOut {
  const { type: fileType, folds, importance, onProgress } = options;
  const tied = !file.tensors.has("output.weight");
  const total = [...file.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  const progress = (bytes: number) => onProgress?.((done += bytes) / total);
  const typeOf = (info: TensorInfo) => (fileType === undefined ? info.type : targetType(info, tied, fileType));
  const changes = (info: TensorInfo | undefined) => info !== undefined && typeOf(info) !== info.type;
  const kept = [...file.tensors.values()].filter(({ name }) => !/\.(input_)?scale$/.test(name) || !changes(file.tensors.get(name.replace(/(input_)?scale$/, "weight"))));
  const tensors = kept.map((info): GgufOutTensor => {
    const { name, shape } = info;
    const fold = folds?.get(name);
    const type = typeOf(info);
    if (type === info.type && !fold) return { name, shape, type, data: () => copied(file, info, progress) };
    const scale = changes(info) && name.endsWith(".weight") ? file.tensors.get(name.replace(/weight$/, "scale")) : undefined;
    const factors = shape.length > 2 ? shape[0] : 1;
    if (scale && String(scale.shape) !== String(factors)) throw new FormatError(file.source.name, `tensor "${scale.name}": expected [${factors}], found [${scale.shape.join(", ")}]`);
    return { name, shape, type, data: () => converted(file, info, type as EncodableType, progress, { fold, scale, importance: importance?.(name) }) };
  });
  const out = new Map(metadata);
  out.set("general.file_type", { type: "uint32", value: fileType === undefined ? fileTypeOf(file.tensors) : FILE_TYPES[fileType] });
  out.set("general.quantization_version", { type: "uint32", value: QUANTIZATION_VERSION });
  return { metadata: out, tensors };
}

/** The `llama_ftype` of files whose matrices are not quantised, by the type of their matrices. */
const PLAIN_FILE_TYPES: Readonly<Record<string, number>> = { F32: 0, F16: 1, BF16: 32 };

function fileTypeOf(tensors: WeightFile["tensors"]): number {
  const matrix = [...tensors.values()].find(({ shape }) => shape.length > 1);
  return PLAIN_FILE_TYPES[matrix?.type ?? "F32"] ?? 0;
}

function* copied({ source }: WeightFile, { offset, bytes }: TensorInfo, progress: (bytes: number) => void): Generator<Uint8Array> {
  for (let at = 0; at < bytes; at += CHUNK_BYTES) {
    const piece = new Uint8Array(Math.min(CHUNK_BYTES, bytes - at));
    source.read(offset + at, piece);
    progress(piece.length);
    yield piece;
  }
}

interface Changes {
  readonly fold?: Parameters<typeof applyFold>[0];
  /** One factor, or one for each expert of a stack. */
  readonly scale?: TensorInfo;
  readonly importance?: Float32Array;
}

function* converted(file: WeightFile, info: TensorInfo, type: EncodableType, progress: (bytes: number) => void, { fold, scale, importance }: Changes): Generator<Uint8Array> {
  const cols = info.shape[info.shape.length - 1];
  const rows = info.shape.reduce((a, b) => a * b, 1) / cols;
  const factors = zeros("f32", scale?.shape ?? [0], 0, scale?.name);
  if (scale) rowReader(file, scale).read(0, factors);
  const { rowBytes, read } = rowReader(file, info);
  const step = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
  for (let row = 0; row < rows; row += step) {
    // A vector's fold is by value: it counts as one row here, and `applyFold` sees its one dimension.
    const chunk = zeros("f32", info.shape.length > 1 ? [Math.min(step, rows - row), cols] : [cols], 0, info.name);
    read(row, chunk);
    if (scale) for (let i = 0; i < chunk.f32.length; i++) chunk.f32[i] *= factors.f32[Math.floor(((row + Math.floor(i / cols)) * factors.f32.length) / rows)];
    if (fold) applyFold(fold, chunk, row);
    yield encoded(file, type, chunk, importance);
    progress(chunk.rows * rowBytes);
  }
}

function encoded(file: WeightFile, type: EncodableType, chunk: ReturnType<typeof zeros>, importance?: Float32Array): Uint8Array {
  const wrong = firstNonFinite(chunk.f32);
  if (wrong >= 0) throw new FormatError(file.source.name, `tensor "${chunk.name}": expected finite weights, found ${chunk.f32[wrong]}`);
  const large = type === "F16" ? chunk.f32.find((value) => Math.abs(value) >= MOST_F16) : undefined;
  if (large !== undefined) throw new FormatError(file.source.name, `tensor "${chunk.name}": expected values that f16 can hold, found ${large}`);
  try {
    return encodeRows(type, chunk, importance);
  } catch (error) {
    throw new FormatError(file.source.name, (error as Error).message);
  }
}
