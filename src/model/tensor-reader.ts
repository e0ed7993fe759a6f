import { type Calibration, statisticsOf } from "../quant/calibration.ts";
import { decodeRows, firstNonFinite, ggmlBytes, nativeDtype } from "../quant/ggml.ts";
import { quantiseRows } from "../quant/groups.ts";
import { KEEP, type MatrixFormat, type Sparsity, type WeightScheme } from "../quant/scheme.ts";
import { pruneRows } from "../quant/sparse.ts";
import type { Kernels } from "../tensor/kernels.ts";
import { isHalf, type Tensor, zeros } from "../tensor/tensor.ts";
import { isLeftOut, type ModelConfig } from "./config.ts";
import { FormatError } from "./formats/errors.ts";
import type { ByteSource, TensorInfo } from "./formats/source.ts";
import { applyFold, awqFolds, type Folds, inputOf, migratedFolds, type ReadMatrix } from "./folding.ts";
import { matrixFormat } from "./placement.ts";

/** Where weights come from: a file of whatever format, reduced to named tensors in GGUF's naming. */
export interface WeightFile {
  readonly source: ByteSource;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** What becomes of a file's weights as they are loaded. */
export interface LoadOptions {
  /** Default `keep`. */
  readonly weights?: WeightScheme;
  /** Default `none`. */
  readonly sparsity?: Sparsity;
  /** Which layer alone gets the scheme (-1: embedding and head), for sensitivity; the others become f32. */
  readonly layer?: number;
  /** Needed by awq; decides what 2:4 sparsity prunes; brings SmoothQuant's migration if it was made with one. */
  readonly calibration?: Calibration;
  /** Called with the share of the tensors' bytes read so far, 0 to 1. */
  readonly onProgress?: (share: number) => void;
}

/** Bytes of a file converted at a time: small beside any model, large enough that reads are efficient. */
const CHUNK_BYTES = 1 << 20;

/** Reads tensors into the kernels' memory, by name. */
export interface TensorReader {
  /** Row-major; undefined where the file has no such tensor. */
  shapeOf(name: string): readonly number[] | undefined;
  /** [rows, cols], in the format that `matrixFormat` says. `scale` names a tensor of one factor on all of it, which few files have (those of NVFP4). */
  matrix(name: string, shape: readonly [number, number], scale?: string): Tensor;
  /** f32. */
  vector(name: string, shape: readonly number[]): Tensor;
  /** To be called when all is read. @throws FormatError for a tensor that nobody has asked for: what it would change is not computed. */
  finish(): void;
}

/** Tables that old files carry along and that follow from the config, and the ranges that 4-bit activations would have. */
const UNUSED = /^(?:rope_freqs|rope_factors_(?:long|short)|blk\.\d+\.(?:attn_rot_embd|rope_freqs))\.weight$|\.input_scale$/;

/**
 * A reader that converts a chunk of rows at a time: the file is never held as a whole. For cost-only kernels no weight is read at all.
 * Its methods throw a FormatError naming the tensor that is missing, misshapen, unsupported or not finite.
 * @throws RangeError for options that do not fit.
 */
export function tensorReader(file: WeightFile, config: ModelConfig, kernels: Kernels, options: LoadOptions): TensorReader {
  const { weights: scheme = KEEP, sparsity = "none", layer, calibration, onProgress } = options;
  const tied = !file.tensors.has("output.weight");
  const total = [...file.tensors.values()].reduce((sum, info) => sum + info.bytes, 0);
  let done = 0;

  const used = new Set<string>();
  const find = (name: string, shape: readonly number[]): TensorInfo => {
    used.add(name);
    const info = file.tensors.get(name);
    if (!info) throw new FormatError(file.source.name, `tensor "${name}": expected [${shape.join(", ")}], found no such tensor`);
    if (info.shape.length !== shape.length || info.shape.some((n, i) => n !== shape[i])) {
      throw new FormatError(file.source.name, `tensor "${name}": expected [${shape.join(", ")}], found [${info.shape.join(", ")}]`);
    }
    return info;
  };
  const costsOnly = kernels.name === "shapes";
  const progress = (bytes: number) => {
    done += bytes;
    onProgress?.(done / total);
  };
  const read = (info: TensorInfo, target: Tensor, row: number) => {
    if (costsOnly) return;
    const rowBytes = rowSize(file, info);
    const bytes = new Uint8Array(target.rows * rowBytes);
    file.source.read(info.offset + row * rowBytes, bytes);
    const bad = decode(file, info, bytes, target);
    if (bad >= 0) throw new FormatError(file.source.name, `tensor "${info.name}": expected finite weights, found ${target.at(bad)} at index ${row * target.cols + bad}`);
    progress(bytes.length);
  };
  const folds = costsOnly ? new Map<string, never>() : chooseFolds(file, config, scheme, calibration);
  const factorOf = (scale: string | undefined): number => {
    if (scale === undefined || !file.tensors.has(scale)) return 1;
    const one = zeros("f32", [1], 0, scale);
    read(find(scale, [1]), one, 0);
    return one.f32[0];
  };
  const matrix = (name: string, shape: readonly [number, number], scale?: string): Tensor => {
    const info = find(name, shape);
    const factor = factorOf(scale);
    const fold = folds.get(name);
    const placed = matrixFormat(info, tied, { weights: scheme, sparsity, layer });
    // What is multiplied by something is no number of 16 bits any more.
    const format: MatrixFormat = isHalf(placed.dtype) && (fold || factor !== 1) ? { dtype: "f32", group: 0 } : placed;
    const [rows, cols] = shape;
    const packer = kernels.packer({ name, dtype: format.dtype, shape, group: format.group || cols });
    const scaled = format.dtype !== "f32" && !isHalf(format.dtype);
    const native = nativeDtype(info.type);
    const asStored = !fold && native === format.dtype && (!scaled || format.group === 32);
    const known = asStored ? undefined : columnImportance(name, scheme, sparsity, calibration, folds);
    // What attention sees is no input of the output projection where attention is latent.
    const importance = known?.length === cols ? known : undefined;
    // What kernels may do by themselves: keep blocks as they are, or round floats.
    const plain = factor === 1 && (asStored || (!fold && !importance && (native === "f32" || isHalf(native))));
    const rowBytes = rowSize(file, info);
    // Whole tiles of 8 rows, as some kernels pack them.
    const step = Math.max(8, Math.floor(CHUNK_BYTES / rowBytes / 8) * 8);
    for (let row = 0; row < rows && !costsOnly; row += step) {
      const count = Math.min(step, rows - row);
      const packed = plain && packer.writeBlocks?.(info.type, count, (bytes) => file.source.read(info.offset + row * rowBytes, bytes));
      if (packed) {
        progress(count * rowBytes);
        continue;
      }
      const chunk = zeros(asStored ? format.dtype : "f32", [count, cols], 32, name);
      read(info, chunk, row);
      if (factor !== 1 && !multiply(chunk.scales ?? chunk.f32, factor)) throw new FormatError(file.source.name, `tensor "${scale}": expected a factor that leaves the weights finite, found ${factor}`);
      applyFold(fold, chunk, row);
      packer.write(asStored ? chunk : convert(chunk, format, importance));
    }
    return packer.finish();
  };
  const vector = (name: string, shape: readonly number[]): Tensor => {
    const tensor = kernels.alloc("f32", shape);
    tensor.name = name;
    read(find(name, shape), tensor, 0);
    applyFold(folds.get(name), tensor, 0);
    return tensor;
  };
  const finish = (): void => {
    const left = [...file.tensors.keys()].find((name) => !used.has(name) && !UNUSED.test(name) && !isLeftOut(config, name));
    if (left !== undefined) throw new FormatError(file.source.name, `tensor "${left}": expected only what a ${config.architecture} model is made of, found this one too`);
  };
  return { shapeOf: (name) => file.tensors.get(name)?.shape, matrix, vector, finish };
}

/** Multiplies in place. @returns whether all is finite. */
function multiply(values: Float32Array, factor: number): boolean {
  for (let i = 0; i < values.length; i++) values[i] *= factor;
  return firstNonFinite(values) < 0;
}

/** f32 rows in another format. */
function convert(rows: Tensor, { dtype, group }: MatrixFormat, importance?: Float32Array): Tensor {
  if (dtype === "f32" || isHalf(dtype)) return rows;
  return dtype === "sparse" ? pruneRows(rows, group, importance) : quantiseRows(rows, dtype, group, importance);
}

/** @throws RangeError when the scheme needs a calibration and has none, or one that it cannot use. */
export function chooseFolds(file: WeightFile, config: ModelConfig, scheme: WeightScheme, calibration: Calibration | undefined): Folds {
  const has = (name: string) => file.tensors.has(name);
  if (scheme.method !== "awq") return calibration?.smooth ? migratedFolds(config, has, calibration) : new Map();
  if (!calibration) throw new RangeError(`weights: ${scheme.name} needs a calibration, found none (run.ts calibrate makes one)`);
  if (calibration.smooth) throw new RangeError(`weights: ${scheme.name} needs a calibration without SmoothQuant's migration, found one with it`);
  return awqFolds(config, has, calibration, matrixReader(file));
}

/** Reads matrices of a file as f32. */
export function matrixReader(file: WeightFile): ReadMatrix {
  return (name, most) => {
    const info = file.tensors.get(name);
    if (!info) throw new FormatError(file.source.name, `tensor "${name}": expected in the file, found no such tensor`);
    const [rows, cols] = info.shape;
    const stride = Math.max(1, Math.ceil(rows / most));
    const picked = zeros("f32", [Math.ceil(rows / stride), cols], 0, name);
    const { read } = rowReader(file, info);
    for (let row = 0; row < rows; row += stride) read(row, picked.slice(row / stride, row / stride + 1));
    return picked;
  };
}

/** Reads rows [row, row + target.rows) of a tensor into an f32 `target`. */
export function rowReader(file: WeightFile, info: TensorInfo): { rowBytes: number; read(row: number, target: Tensor): void } {
  const rowBytes = rowSize(file, info);
  return {
    rowBytes,
    read(row, target) {
      const bytes = new Uint8Array(target.rows * rowBytes);
      file.source.read(info.offset + row * rowBytes, bytes);
      decode(file, info, bytes, target);
    },
  };
}

/** The mean square of what meets each column of a matrix, after folding; undefined where nothing asks for it or nobody knows. */
export function columnImportance(name: string, scheme: WeightScheme, sparsity: Sparsity, calibration: Calibration | undefined, folds: Folds): Float32Array | undefined {
  const input = inputOf(name);
  if (!calibration || !input || (scheme.method !== "awq" && sparsity === "none")) return undefined;
  const seen = statisticsOf(calibration, input.layer, input.name);
  const columns = scheme.method === "awq" ? folds.get(name)?.columns : undefined;
  return seen && Float32Array.from(seen.channelSquare, (square, c) => square / (columns ? columns[c] ** 2 : 1));
}

function rowSize(file: WeightFile, info: TensorInfo): number {
  try {
    return ggmlBytes(info.type, 1, info.shape[info.shape.length - 1]);
  } catch (error) {
    throw new FormatError(file.source.name, `tensor "${info.name}": ${(error as Error).message}`);
  }
}

function decode(file: WeightFile, info: TensorInfo, bytes: Uint8Array, target: Tensor): number {
  try {
    return decodeRows(info.type, bytes, target);
  } catch (error) {
    throw new FormatError(file.source.name, `tensor "${info.name}": ${(error as Error).message}`);
  }
}
