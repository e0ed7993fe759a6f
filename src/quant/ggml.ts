import { f16Table, widenHalves } from "../tensor/float16.ts";
import { type HalfDType, isHalf, type Tensor } from "../tensor/tensor.ts";
import { BLOCK_DECODERS, type BlockDecoder, type IntegerDecoder } from "./ggml-blocks.ts";
import { INTEGER_DECODERS } from "./ggml-integers.ts";
import { GRID_DECODERS } from "./ggml-iquants.ts";
import { K_BLOCK_DECODERS } from "./ggml-kquants.ts";

/** How GGML lays out a row of one type: consecutive blocks of `blockSize` values in `blockBytes` bytes each. */
export interface GgmlType {
  /** The number that stands for the type in a GGUF file (`enum ggml_type`). */
  readonly id: number;
  readonly blockSize: number;
  readonly blockBytes: number;
}

const type = (id: number, blockSize: number, blockBytes: number): GgmlType => ({ id, blockSize, blockBytes });

/** Every type of GGML by name; `decodeRows` knows them all. Sizes are those of the block structs in ggml-common.h. */
export const GGML_TYPES: Readonly<Record<string, GgmlType>> = {
  F32: type(0, 1, 4),
  F16: type(1, 1, 2),
  Q4_0: type(2, 32, 18),
  Q4_1: type(3, 32, 20),
  Q5_0: type(6, 32, 22),
  Q5_1: type(7, 32, 24),
  Q8_0: type(8, 32, 34),
  Q8_1: type(9, 32, 36),
  Q2_K: type(10, 256, 84),
  Q3_K: type(11, 256, 110),
  Q4_K: type(12, 256, 144),
  Q5_K: type(13, 256, 176),
  Q6_K: type(14, 256, 210),
  Q8_K: type(15, 256, 292),
  IQ2_XXS: type(16, 256, 66),
  IQ2_XS: type(17, 256, 74),
  IQ3_XXS: type(18, 256, 98),
  IQ1_S: type(19, 256, 50),
  IQ4_NL: type(20, 32, 18),
  IQ3_S: type(21, 256, 110),
  IQ2_S: type(22, 256, 82),
  IQ4_XS: type(23, 256, 136),
  I8: type(24, 1, 1),
  I16: type(25, 1, 2),
  I32: type(26, 1, 4),
  I64: type(27, 1, 8),
  F64: type(28, 1, 8),
  IQ1_M: type(29, 256, 56),
  BF16: type(30, 1, 2),
  TQ1_0: type(34, 256, 54),
  TQ2_0: type(35, 256, 66),
  MXFP4: type(39, 32, 17),
  NVFP4: type(40, 64, 36),
  Q1_0: type(41, 128, 18),
  Q2_0: type(42, 64, 18),
};

/** Ids that GGML gave up: files with them exist, their layout is no longer defined. */
const REMOVED: Readonly<Record<number, string>> = {
  4: "Q4_2",
  5: "Q4_3",
  31: "Q4_0_4_4",
  32: "Q4_0_4_8",
  33: "Q4_0_8_8",
  36: "IQ4_NL_4_4",
  37: "IQ4_NL_4_8",
  38: "IQ4_NL_8_8",
};

const NAMES = new Map(Object.entries(GGML_TYPES).map(([name, { id }]) => [id, name]));
const DECODERS: Readonly<Record<string, BlockDecoder>> = { ...BLOCK_DECODERS, ...K_BLOCK_DECODERS };
const INTEGERS: Readonly<Record<string, IntegerDecoder>> = { ...INTEGER_DECODERS, ...GRID_DECODERS };

/** The name of a type id, or undefined. */
export function typeName(id: number): string | undefined {
  return NAMES.get(id);
}

/** A type id for a message: its name where there is or was one. */
export function describeType(id: number): string {
  const removed = REMOVED[id];
  return NAMES.get(id) ?? (removed ? `${removed} (type ${id}, removed from GGML)` : `unknown type ${id}`);
}

/**
 * Bytes of `rows` rows of `cols` values each.
 * @throws RangeError for an unknown type or columns that are not whole blocks.
 */
export function ggmlBytes(name: string, rows: number, cols: number): number {
  const found = Object.hasOwn(GGML_TYPES, name) ? GGML_TYPES[name] : undefined;
  if (!found) throw new RangeError(`expected a GGML type, found ${name}`);
  if (cols % found.blockSize !== 0) {
    throw new RangeError(`${name}: expected columns in multiples of ${found.blockSize}, found ${cols}`);
  }
  return rows * (cols / found.blockSize) * found.blockBytes;
}

/**
 * What a matrix of this type can be kept as, exactly: int8 in groups of 32 where no more than a whole number of 8 bits is behind each value and a
 * scale behind each 32, int4 in such groups for Q4_0, the file's own 16 bits for F16 and BF16, else f32.
 */
export function nativeDtype(name: string): "f32" | HalfDType | "int8" | "int4" {
  if (name === "F16") return "f16";
  if (name === "BF16") return "bf16";
  if (name === "Q4_0") return "int4";
  return name === "Q8_0" || (Object.hasOwn(INTEGERS, name) && INTEGERS[name].group === 32) ? "int8" : "f32";
}

/**
 * Decodes whole rows from file blocks into a canonical tensor; exact, but for numbers of more bits than f32 has. `target` is f32 for any type, or
 * of the type's `nativeDtype`, in groups of 32 where it has scales. To decode a matrix in pieces, pass `target.slice(start, end)` and those rows' bytes.
 *
 * @param bytes Exactly the bytes of target's rows, at any alignment.
 * @returns the index in `target` of the first value that is not finite (for int8 and int4: of the first value of the first
 * group whose scale is not finite), or -1 when all are. The check rides on the decoding and costs next to nothing.
 * @throws RangeError when there is no such type or it cannot be decoded into this target, or `bytes` has the wrong length.
 */
export function decodeRows(name: string, bytes: Uint8Array, target: Tensor): number {
  const count = target.shape.reduce((a, b) => a * b, 1);
  const want = ggmlBytes(name, count === 0 ? 0 : count / target.cols, target.cols);
  if (bytes.length !== want) {
    throw new RangeError(`${label(target)}: expected ${want} bytes of ${name}, found ${bytes.length}`);
  }
  if (target.dtype === "f32") return decodeFloats(name, bytes, target.f32);
  const half = isHalf(target.dtype);
  if (target.dtype !== nativeDtype(name) || (!half && target.group !== 32)) {
    throw new RangeError(`${label(target)}: cannot decode ${name} into ${target.format} with groups of ${target.group}`);
  }
  if (half) return copyHalves(bytes, target);
  return Object.hasOwn(INTEGERS, name) ? splitIntegers(name, bytes, target) : splitBlocks(bytes, GGML_TYPES[name].blockBytes, target);
}

function label(tensor: Tensor): string {
  return `tensor ${tensor.name || "?"} [${tensor.shape.join(", ")}]`;
}

/** The index of the first NaN or infinity, or -1. */
export function firstNonFinite(values: Float32Array): number {
  // x * 0 is NaN exactly for these, and NaN sticks to a sum: the usual case is one branch-free pass. Four sums, as one would
  // wait for its own last addition.
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  const whole = values.length - (values.length % 4);
  for (let i = 0; i < whole; i += 4) {
    a += values[i] * 0;
    b += values[i + 1] * 0;
    c += values[i + 2] * 0;
    d += values[i + 3] * 0;
  }
  for (let i = whole; i < values.length; i++) a += values[i] * 0;
  return a + b + c + d === 0 ? -1 : values.findIndex((v) => !Number.isFinite(v));
}

function decodeFloats(name: string, bytes: Uint8Array, out: Float32Array): number {
  if (name === "F32") {
    new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes);
    return firstNonFinite(out);
  }
  const own = nativeDtype(name);
  if (isHalf(own)) {
    widenHalves(own, halfWords(bytes), out);
    return firstNonFinite(out);
  }
  if (Object.hasOwn(NUMBERS, name)) {
    const numbers = NUMBERS[name](bytes.slice().buffer);
    for (let i = 0; i < out.length; i++) out[i] = Number(numbers[i]);
    return firstNonFinite(out);
  }
  const { blockSize, blockBytes } = GGML_TYPES[name];
  if (Object.hasOwn(INTEGERS, name)) return multiplied(INTEGERS[name], blockSize, blockBytes, bytes, out);
  const { scales, decode } = DECODERS[name];
  let finite = true;
  for (let at = 0, i = 0; at < bytes.length; at += blockBytes, i += blockSize) {
    decode(bytes, at, out, i);
    for (let s = 0; s < scales.length; s++) finite = finite && (bytes[at + scales[s] + 1] & 0x7c) !== 0x7c;
  }
  return finite ? -1 : firstNonFinite(out);
}

/** An exponent of all ones is that of infinities and NaNs. */
function copyHalves(bytes: Uint8Array, { dtype, data }: Tensor): number {
  const halves = halfWords(bytes);
  data.set(halves);
  const most = dtype === "f16" ? 0x7c00 : 0x7f80;
  for (let i = 0; i < halves.length; i++) if ((halves[i] & most) === most) return i;
  return -1;
}

/** Types of a number a value that are no weights of any model known, but that a file may have. */
const NUMBERS: Readonly<Record<string, (buffer: ArrayBuffer) => ArrayLike<number | bigint>>> = {
  F64: (buffer) => new Float64Array(buffer),
  I8: (buffer) => new Int8Array(buffer),
  I16: (buffer) => new Int16Array(buffer),
  I32: (buffer) => new Int32Array(buffer),
  I64: (buffer) => new BigInt64Array(buffer),
};

/** Scales above can make values of 8 bits that f32 cannot hold. */
const LARGEST_SCALE = 2 ** 120;

function multiplied({ group, split }: IntegerDecoder, blockSize: number, blockBytes: number, bytes: Uint8Array, out: Float32Array): number {
  const values = new Int8Array(blockSize);
  const scales = new Float32Array(blockSize / group);
  let finite = true;
  for (let at = 0, to = 0; at < bytes.length; at += blockBytes) {
    split(bytes, at, values, 0, scales, 0);
    for (let s = 0, i = 0; s < scales.length; s++) {
      const scale = scales[s];
      finite = finite && Math.abs(scale) < LARGEST_SCALE;
      for (const end = i + group; i < end; i++) out[to++] = values[i] * scale;
    }
  }
  return finite ? -1 : firstNonFinite(out);
}

/** Q8_0 and Q4_0 blocks are an f16 scale, then the values just as a canonical tensor holds them. */
function splitBlocks(bytes: Uint8Array, blockBytes: number, target: Tensor): number {
  const values = target.data;
  const scales = target.scales!;
  const source = halfWords(bytes);
  const aligned = values.byteOffset % 2 === 0;
  const out = aligned ? new Uint16Array(values.buffer, values.byteOffset, values.length / 2) : new Uint16Array(values.length / 2);
  const table = f16Table();
  const perBlock = blockBytes / 2 - 1;
  let from = 0;
  let to = 0;
  for (let block = 0; block < scales.length; block++) {
    scales[block] = table[source[from++]];
    for (let j = 0; j < perBlock; j++) out[to++] = source[from++];
  }
  if (!aligned) new Uint8Array(values.buffer, values.byteOffset, values.byteLength).set(new Uint8Array(out.buffer));
  const bad = firstNonFinite(scales);
  return bad < 0 ? -1 : bad * 32;
}

function splitIntegers(name: string, bytes: Uint8Array, { data, scales }: Tensor): number {
  const { blockSize, blockBytes } = GGML_TYPES[name];
  const { split } = INTEGERS[name];
  for (let at = 0, to = 0; at < bytes.length; at += blockBytes, to += blockSize) split(bytes, at, data as Int8Array, to, scales!, to / 32);
  const bad = firstNonFinite(scales!);
  return bad < 0 ? -1 : bad * 32;
}

/** The bytes two at a time, which is half the work; a view at an odd address must be copied first. */
function halfWords(bytes: Uint8Array): Uint16Array {
  const even = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  return new Uint16Array(even.buffer, even.byteOffset, even.length / 2);
}
