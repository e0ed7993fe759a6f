import { bf16ToF32, f16ToF32 } from "./float16.ts";

/**
 * A tensor is a shape, a number format and a typed-array view. Nothing else: no strides, no device, no gradient.
 *
 * Number formats and how they lie in memory (row-major, last dimension contiguous):
 * - `f32`: Float32Array.
 * - `f16`, `bf16`: Uint16Array of bits, see float16.ts. Weight matrices only.
 * - `int8`: Int8Array, symmetric; value = data[i] * scales[group of i]. Groups run along the columns: `group` columns share a scale, and
 *   every row starts a new group, so a row has ceil(cols / group) scales.
 * - `int4`: Uint8Array, two values to a byte; value = (nibble - 8) * scale. A group of g columns takes h = ceil(g / 2) bytes: byte j
 *   holds column j in its low and column j + h in its high nibble (for g = 32 the order of GGML's Q4_0). With an odd g the last high
 *   nibble is padding and holds 8, which stands for 0. Groups are 32 columns (weights) or the whole row (KV pages).
 * - `int16`: Int16Array, otherwise as int8. Quantised activations only: one scale a row (group = cols).
 * - `sparse`: Uint8Array, int8 values of which two of every four columns are zero and not stored (2:4, Mishra et al. 2021, "Accelerating
 *   Sparse Deep Neural Networks"). A row is cols / 2 values, then a nibble for every four columns, low nibble first: bits 0-1 say
 *   which column the first of the two values belongs to, bits 2-3 the second. Scales as for int8.
 * - `packed`: Uint8Array in a layout that only the kernel set which made it can read.
 */
export type DType = "f32" | HalfDType | "int8" | "int4" | "int16" | "sparse" | "packed";

/** Floats of 16 bits. */
export type HalfDType = "f16" | "bf16";

export const isHalf = (dtype: string): dtype is HalfDType => dtype === "f16" || dtype === "bf16";

/** The formats whose layout is public. */
export type PlainDType = Exclude<DType, "packed">;

/** What a tensor's values lie in. */
export type TensorData = Float32Array | Int8Array | Int16Array | Uint8Array | Uint16Array;

export interface TensorInit {
  dtype: DType;
  shape: readonly number[];
  data: TensorData;
  scales?: Float32Array;
  /** Columns per scale (int8, int4). */
  group?: number;
  name?: string;
  /** Bytes that a tensor without storage stands for (cost-only tensors). */
  bytes?: number;
  /** What a packed tensor holds, for people and for the ledger. */
  format?: string;
}

/**
 * Numbers in memory: a shape, a number format (see DType) and views of bytes that other tensors may share. What kernels compute with comes
 * from their own `alloc` and `packer`.
 */
export class Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** The values as DType says; empty in a tensor without storage (cost-only kernels). */
  readonly data: TensorData;
  /** Factors of int8, int4, int16 and sparse values, one a group, row after row; undefined in other formats and without storage. */
  readonly scales: Float32Array | undefined;
  /** Columns per scale; means nothing where there are no scales. */
  readonly group: number;
  /** Where `data` lies: read often, and slow to ask a typed array for. */
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  /** Bytes of values and scales, padding included. */
  readonly bytes: number;
  /** `dtype`, or for a packed tensor what the kernels keep inside (for instance "int8"). */
  readonly format: string;
  name: string;

  /** @throws RangeError when data or scales do not hold exactly what shape and dtype ask for. */
  constructor(init: TensorInit) {
    this.dtype = init.dtype;
    this.shape = init.shape;
    this.data = init.data;
    this.buffer = init.data.buffer;
    this.byteOffset = init.data.byteOffset;
    this.scales = init.scales;
    this.group = init.group ?? 0;
    this.name = init.name ?? "";
    this.format = init.format ?? init.dtype;
    this.bytes = init.bytes ?? init.data.byteLength + (init.scales?.byteLength ?? 0);
    if (init.dtype === "packed" || init.bytes !== undefined) return;
    const want = storage(init.dtype, init.shape, this.group);
    if (init.data.length !== want.values || (init.scales?.length ?? 0) !== want.scales) {
      throw new RangeError(
        `tensor ${this.name || "?"} [${init.shape.join(", ")}] ${init.dtype}: expected ${want.values} values and ${want.scales} scales, ` +
          `found ${init.data.length} and ${init.scales?.length ?? 0}`,
      );
    }
  }

  /** First dimension; 1 for a vector. */
  get rows(): number {
    return this.shape.length > 1 ? this.shape[0] : 1;
  }

  /** Last dimension. */
  get cols(): number {
    return this.shape[this.shape.length - 1];
  }

  /** The data of an f32 tensor. @throws TypeError for a packed one, whose memory may look like floats. */
  get f32(): Float32Array {
    if (this.dtype === "packed") throw new TypeError(`${this.name || "tensor"} is packed (${this.format}): only its kernels can read it`);
    return this.data as Float32Array;
  }

  /** One line for people: name, shape, dtype, first values, min, max, mean. A debugger shows this instead of a list of fields. */
  toString(): string {
    const head = `${this.name ? `${this.name} ` : ""}[${this.shape.join(", ")}] ${this.format}`;
    const count = this.shape.reduce((a, b) => a * b, 1);
    if (this.dtype === "packed" || this.data.length === 0) return `${head} (${this.bytes} bytes)`;
    if (count === 0) return `${head} (empty)`;
    let min = Infinity;
    let max = -Infinity;
    let sum = 0;
    const first: string[] = [];
    for (let i = 0; i < count; i++) {
      const v = this.at(i);
      if (i < 6) first.push(v.toPrecision(4));
      if (v < min) min = v;
      if (v > max) max = v;
      sum += v;
    }
    const more = count > first.length ? ", ..." : "";
    return `${head} {${first.join(", ")}${more}} min ${min.toPrecision(4)} max ${max.toPrecision(4)} mean ${(sum / count).toPrecision(4)}`;
  }

  /** Value number `i` in row-major order, dequantised. For tests and inspection: kernels never come this way. */
  at(i: number): number {
    if (this.dtype === "f32") return this.data[i];
    if (this.dtype === "f16") return f16ToF32(this.data[i]);
    if (this.dtype === "bf16") return bf16ToF32(this.data[i]);
    if (this.dtype === "packed") throw new TypeError(`${this.name || "tensor"} is packed: only its kernels can read it`);
    const cols = this.cols;
    const row = Math.floor(i / cols);
    const col = i - row * cols;
    const scale = this.scales![row * Math.ceil(cols / this.group) + Math.floor(col / this.group)];
    if (this.dtype === "int8" || this.dtype === "int16") return this.data[i] * scale;
    if (this.dtype === "sparse") return sparseValue(this.data, cols, row, col) * scale;
    const half = Math.ceil(this.group / 2);
    const inGroup = col % this.group;
    const byte = this.data[((row * cols + col - inGroup) / this.group) * half + (inGroup % half)];
    return ((inGroup < half ? byte & 15 : byte >> 4) - 8) * scale;
  }

  /** The first values of this f32 tensor's memory, read as another shape. Costs nothing, copies nothing. */
  as(shape: readonly number[]): Tensor {
    const count = shape.reduce((a, b) => a * b, 1);
    if (this.data.length === 0) return this.ghostAs(shape, count);
    return new Tensor({ dtype: "f32", shape, data: this.f32.subarray(0, count), name: this.name });
  }

  /** A tensor without storage in another shape, of as many bytes a value as this one. */
  private ghostAs(shape: readonly number[], count: number): Tensor {
    const own = this.shape.reduce((a, b) => a * b, 1);
    const { dtype, data, format, name } = this;
    return new Tensor({ dtype, shape, data, format, name, bytes: own === 0 ? 0 : (this.bytes / own) * count });
  }

  /** The rows [start, end) as a tensor over the same memory; any format but packed. */
  slice(start: number, end: number): Tensor {
    const shape = [end - start, ...this.shape.slice(1)];
    if (this.data.length === 0) return this.ghostAs(shape, shape.reduce((a, b) => a * b, 1));
    const per = (n: number) => (n / Math.max(1, this.rows)) | 0;
    const cut = <T extends TensorData>(view: T) =>
      view.subarray(start * per(view.length), end * per(view.length)) as T;
    return new Tensor({
      dtype: this.dtype,
      shape,
      data: cut(this.data),
      scales: this.scales && cut(this.scales),
      group: this.group,
      name: this.name,
    });
  }
}

// Node's console.log and the VS Code debugger look for these symbols; symbols keep the class free of any Node import.
for (const symbol of [Symbol.for("nodejs.util.inspect.custom"), Symbol.for("debug.description")]) {
  Object.defineProperty(Tensor.prototype, symbol, {
    value(this: Tensor) {
      return this.toString();
    },
  });
}

/** The integer that a sparse tensor holds for one column. */
function sparseValue(data: TensorData, cols: number, row: number, col: number): number {
  const at = row * sparseRowBytes(cols);
  const quad = col >> 2;
  const places = data[at + cols / 2 + (quad >> 1)] >> (4 * (quad & 1));
  const first = data[at + 2 * quad];
  const second = data[at + 2 * quad + 1];
  const own = (places & 3) === (col & 3) ? first : ((places >> 2) & 3) === (col & 3) ? second : 0;
  return (own << 24) >> 24;
}

/** Bytes of one row of a sparse tensor, without its scales. */
export function sparseRowBytes(cols: number): number {
  return cols / 2 + Math.ceil(cols / 8);
}

/** How many stored values (sparse: bytes) and scales a tensor needs. @throws RangeError for columns that the format cannot have. */
export function storage(dtype: DType, shape: readonly number[], group = 32): { values: number; scales: number } {
  const count = shape.reduce((a, b) => a * b, 1);
  if (dtype === "f32" || isHalf(dtype)) return { values: count, scales: 0 };
  const cols = shape[shape.length - 1];
  const rows = cols === 0 ? 0 : count / cols;
  if (dtype === "int4" && group !== cols && (cols % 32 !== 0 || group !== 32)) {
    throw new RangeError(`int4 needs groups of 32 and columns that are a multiple of 32, found groups of ${group} and ${cols} columns`);
  }
  if (dtype === "sparse" && cols % 4 !== 0) throw new RangeError(`2:4 sparsity needs columns that are a multiple of 4, found ${cols}`);
  const values = dtype === "int4" ? rows * Math.ceil(cols / group) * Math.ceil(group / 2) : dtype === "sparse" ? rows * sparseRowBytes(cols) : count;
  return { values, scales: rows * Math.ceil(cols / group) };
}

const BYTES: Readonly<Record<DType, number>> = { f32: 4, f16: 2, bf16: 2, int16: 2, int8: 1, int4: 1, sparse: 1, packed: 1 };

/** Bytes that `storage` asks for. */
export function storageBytes(dtype: DType, shape: readonly number[], group = 32): number {
  const { values, scales } = storage(dtype, shape, group);
  return values * BYTES[dtype] + scales * 4;
}

/** What the values of each format lie in. */
export const VIEWS = { f32: Float32Array, f16: Uint16Array, bf16: Uint16Array, int16: Int16Array, int8: Int8Array, int4: Uint8Array, sparse: Uint8Array } as const;

/** An f32 tensor over `data` (or zeros). */
export function f32(shape: readonly number[], data?: Float32Array | readonly number[], name?: string): Tensor {
  const values = data instanceof Float32Array ? data : data ? Float32Array.from(data) : new Float32Array(shape.reduce((a, b) => a * b, 1));
  return new Tensor({ dtype: "f32", shape, data: values, name });
}

/** A zeroed tensor in ordinary memory. `group` defaults to 32 columns. */
export function zeros(dtype: PlainDType, shape: readonly number[], group = 32, name?: string): Tensor {
  const { values, scales } = storage(dtype, shape, group);
  const data = new VIEWS[dtype](values);
  const quantised = dtype !== "f32" && !isHalf(dtype);
  return new Tensor({ dtype, shape, data, scales: quantised ? new Float32Array(scales) : undefined, group: quantised ? group : 0, name });
}

/** A tensor that has a shape and a size but no storage: what the cost-only kernels compute with. */
export function ghost(dtype: PlainDType, shape: readonly number[], group = 32, name?: string): Tensor {
  return new Tensor({ dtype, shape, data: new VIEWS[dtype](0), group, name, bytes: storageBytes(dtype, shape, group) });
}
