import type { KvFormat } from "../../kernels.ts";
import type { Expr, Local } from "../assembler.ts";
import { f32, f32x4, i16x8, i32, i32x4, i8x16, local, v128 } from "../assembler.ts";

type I32 = Expr<"i32">;
type V128 = Expr<"v128">;

/** Numbers by which kernels know the formats of KV rows. */
export const KV_FORMATS = ["f32", "int8", "int4"] as const satisfies readonly KvFormat[];

/**
 * Reads some columns of a row as f32 vectors, of which `lanes` lanes hold values and the others something finite. A row is one stream of
 * columns, or (int4) two: those in low nibbles and those in high nibbles.
 */
export interface Step {
  readonly bytes: number;
  /** Columns of each stream. */
  readonly columns: number;
  readonly lanes: 4 | 1;
  /** Which columns each vector holds, counted from the step's first column of its stream. */
  readonly parts: readonly { readonly high: boolean; readonly column: number }[];
  load(address: I32, offset: number): Local<"v128">[];
}

export interface KvReader {
  readonly format: KvFormat;
  /** Rows have scales. */
  readonly scaled: boolean;
  rowBytes(headDim: I32): I32;
  /** Columns in each stream; where int4's low one has one column more, `last` reads it. */
  columns(headDim: I32): I32;
  /** From wide to narrow. */
  readonly steps: readonly [Step, Step, Step];
  readonly last?: Step;
}

const low = (...columns: number[]) => columns.map((column) => ({ high: false, column }));
const both = (...columns: number[]) => [...low(...columns), ...columns.map((column) => ({ high: true, column }))];
const floats = (integers: V128): Local<"v128"> => local("v128", f32x4.convert_i32x4_s(integers));
const lane = (integer: I32): Local<"v128"> => local("v128", f32x4.splat(f32.convert_i32_s(integer)));
const bytes = (value: number) => v128.const(new Uint8Array(16).fill(value));

const F32: KvReader = {
  format: "f32",
  scaled: false,
  rowBytes: (headDim) => i32.shl(headDim, 2),
  columns: (headDim) => headDim,
  steps: [
    { bytes: 32, columns: 8, lanes: 4, parts: low(0, 4), load: (at, offset) => [0, 16].map((more) => local("v128", v128.load(at, offset + more))) },
    { bytes: 16, columns: 4, lanes: 4, parts: low(0), load: (at, offset) => [local("v128", v128.load(at, offset))] },
    { bytes: 4, columns: 1, lanes: 1, parts: low(0), load: (at, offset) => [local("v128", v128.load32_zero(at, offset))] },
  ],
};

/** The first 4 or 8 of 8 int16. */
const widened = (integers: V128, count: 4 | 8): Local<"v128">[] =>
  count === 4 ? [floats(i32x4.extend_low_i16x8_s(integers))] : [floats(i32x4.extend_low_i16x8_s(integers)), floats(i32x4.extend_high_i16x8_s(integers))];

const INT8: KvReader = {
  format: "int8",
  scaled: true,
  rowBytes: (headDim) => headDim,
  columns: (headDim) => headDim,
  steps: [
    { bytes: 8, columns: 8, lanes: 4, parts: low(0, 4), load: (at, offset) => widened(local("v128", v128.load8x8_s(at, offset)), 8) },
    { bytes: 4, columns: 4, lanes: 4, parts: low(0), load: (at, offset) => widened(i16x8.extend_low_i8x16_s(v128.load32_zero(at, offset)), 4) },
    { bytes: 1, columns: 1, lanes: 1, parts: low(0), load: (at, offset) => [lane(i32.load8_s(at, offset))] },
  ],
};

const nibbles = (packed: V128, count: 4 | 8): Local<"v128">[] => {
  const pairs = local("v128", packed);
  return [v128.and(pairs, bytes(15)), i8x16.shr_u(pairs, 4)].flatMap((part) =>
    widened(local("v128", i16x8.extend_low_i8x16_s(i8x16.sub(part, bytes(8)))), count),
  );
};
const lowLane = (at: I32, offset: number) => lane(i32.sub(i32.and(i32.load8_u(at, offset), 15), 8));

const INT4: KvReader = {
  format: "int4",
  scaled: true,
  rowBytes: (headDim) => i32.shr_u(i32.add(headDim, 1), 1),
  columns: (headDim) => i32.shr_u(headDim, 1),
  steps: [
    { bytes: 8, columns: 8, lanes: 4, parts: both(0, 4), load: (at, offset) => nibbles(v128.load64_zero(at, offset), 8) },
    { bytes: 4, columns: 4, lanes: 4, parts: both(0), load: (at, offset) => nibbles(v128.load32_zero(at, offset), 4) },
    { bytes: 1, columns: 1, lanes: 1, parts: both(0), load: (at, offset) => [lowLane(at, offset), lane(i32.sub(i32.shr_u(i32.load8_u(at, offset), 4), 8))] },
  ],
  last: { bytes: 1, columns: 1, lanes: 1, parts: low(0), load: (at, offset) => [lowLane(at, offset)] },
};

export const KV_READERS: readonly KvReader[] = [F32, INT8, INT4];

/** Bytes of a row, computed outside of the kernels. */
export const kvRowBytes = (format: KvFormat, headDim: number): number => (format === "f32" ? 4 * headDim : format === "int8" ? headDim : (headDim + 1) >> 1);
