import { f16ToF32 } from "../float16.ts";
import type { HalfDType } from "../tensor.ts";

/**
 * Where things lie in the kernels' memory.
 *
 * The first page belongs to the thread pool: state words that several threads touch stand on cache lines of their own. Then come the
 * job (what all threads compute now) and its parameters, counters, then one scratch area per thread, then the heap.
 */
export const STATE = 64;
// The job stands on the line that tells of it.
export const KERNEL = 68;
export const UNITS = 72;
export const CHUNK = 76;
export const RANGES = 80;
export const SLEEPERS = 192;
export const MAIN_WAITS = 256;
export const CLOSED = 320;
export const STARTED = 384;
export const PARAMS = 512;
export const PARAM_COUNT = 32;

/**
 * Parameters of the linear kernels: activations, rows m, columns k (f32) or groups, how many tokens go through a run of tiles before the
 * next ones, which activation gates, room for widened tiles (0: they are multiplied as they are) and the bytes of it that a thread has; then a table of up to three parts of PART_WORDS: out, weight, bias or 0, rows n.
 */
export const LINEAR = { x: 0, m: 1, k: 2, stripe: 3, activation: 4, widened: 5, widenedBytes: 6, table: 7 } as const;
export const PART_WORDS = 4;
/** Vectors that kernels load: see kernels/constants.ts. */
export const CONSTANTS = 704;

/** Most threads of a pool, the main one included. */
export const MOST_THREADS = 64;
/** How far the ranges of the job are taken, each on a cache line. */
export const COUNTERS = 1024;

/** What each thread fetches after a job, on a cache line: up to three spans of an address and pieces of so many bytes. */
export const AHEAD = COUNTERS + 64 * MOST_THREADS;
export const AHEAD_SPANS = 3;
export const AHEAD_PIECE = 2048;

export const SCRATCH = AHEAD + 64 * MOST_THREADS;
/** Bytes of scratch for each thread. */
export const SCRATCH_BYTES = 8192;

/** Rows and columns of a tile of packed weights; a scale belongs to one row of one tile. */
export const TILE_ROWS = 8;
export const GROUP = 32;

/**
 * Quantised activations, one block per (token, group of 32 columns): 64 bytes of values, then the scale and two corrections
 * (-offset times the sums of the values, where weights are stored with an offset).
 */
export const X_BLOCK = 80;
export const X_SCALE = 64;
export const X_SUM = 68;
export const X_SUM_HIGH = 72;

/** Largest 16-bit activation: 127 * 256 + 127, so that it splits into two signed bytes. */
export const ACT16_MAX = 32639;
export const ACT8_MAX = 127;

/**
 * Tiles of 8 rows x 32 columns, then their 8 scales. int8: see `ColumnOrder`. int4: for every 8 columns 32 bytes, column c < 4 of row r in the low
 * nibble of byte 4r + c, column 4 + c in the high.
 *
 * Scales are 16 bits where that is exact for the whole tensor ("half"), else f32. Half scales have f16's 10 bits of mantissa but an exponent
 * without subnormals: the bits of the f32 number scale * 2^-102, shifted right by 13. Every f16 number below 128 is representable
 * (f16's subnormals reach down to 2^-24), and widening is a shift and a mask; the factor 2^102 rides on the activations' scale.
 */
export const HALF_SHIFT = 2 ** -102;

/**
 * The order of a tile's values, as products want them:
 * `fours`: for every 4 columns 32 bytes, row after row: the relaxed dot makes one sum of 4 products;
 * `pairs`: for every 2 columns 16 bytes, row after row: `i32x4.dot_i16x8_s` makes one sum of 2.
 */
export type ColumnOrder = "fours" | "pairs";

/** Bytes of one tile. */
export function tileBytes(format: "int8" | "int4", half: boolean): number {
  return (format === "int8" ? 256 : 128) + TILE_ROWS * (half ? 2 : 4);
}

const asFloat = new Float32Array(1);
const asBits = new Uint32Array(asFloat.buffer);

/** The 16 bits of a half scale, or -1 where 16 bits would lose something. */
export function encodeHalf(scale: number): number {
  asFloat[0] = scale * HALF_SHIFT;
  const bits = asBits[0];
  if (scale === 0) return 0;
  const exponent = (bits >>> 23) & 0xff;
  if (exponent < 1 || exponent > 31 || (bits & 0x1fff) !== 0 || asFloat[0] !== scale * HALF_SHIFT) return -1;
  return ((bits >>> 31) << 15) | ((bits >>> 13) & 0x7fff);
}

export function decodeHalf(half: number): number {
  asBits[0] = ((half & 0x8000) << 16) | ((half & 0x7fff) << 13);
  return asFloat[0] / HALF_SHIFT;
}

/** Tiles down and groups across of a [rows, cols] matrix. */
export function tilesOf(rows: number, cols: number): { tiles: number; groups: number } {
  return { tiles: Math.ceil(rows / TILE_ROWS), groups: Math.ceil(cols / GROUP) };
}

/**
 * Weights without scales: 8 rows side by side, column after column. bf16 are the file's bits; f16 are in the form of half scales, which 4
 * numbers at a time are widened from by a shift, a mask and a product.
 */
export type FloatFormat = "f32" | HalfDType;

/** Bytes of a tile of 8 rows. */
export function floatTileBytes(format: FloatFormat, cols: number): number {
  return TILE_ROWS * cols * (format === "f32" ? 4 : 2);
}

/** f16 bits from which on a number has no such form: 128, infinities, NaNs. */
export const F16_LIMIT = 0x5800;

/** The form of f16 bits of less than F16_LIMIT, whatever their sign. */
export function encodeF16(bits: number): number {
  return (bits & 0x7fff) === 0 ? bits : encodeHalf(f16ToF32(bits));
}
