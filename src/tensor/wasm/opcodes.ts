/**
 * The instructions that memwall's kernels use, as data: [opcode, result, ...operands]. Names and numbers are those of the WebAssembly
 * core specification (5.4 Instructions), the threads proposal and the relaxed SIMD proposal. Numbers above 255 carry their prefix byte:
 * 0xfd.. for vectors (the low bits are the LEB128 sub-opcode), see `encodeOpcode`.
 */
export type ValueType = "i32" | "i64" | "f32" | "f64" | "v128";

export type Signature = readonly [opcode: number, result: ValueType, ...operands: ValueType[]];
/** [opcode, value type, log2 of the access width]. */
export type MemoryOp = readonly [opcode: number, value: ValueType, align: number];
/** [opcode, result, lanes, ...operands]. */
export type LaneOp = readonly [opcode: number, result: ValueType, lanes: number, ...operands: ValueType[]];

export const VECTOR = 0xfd0000;
export const ATOMIC = 0xfe0000;
export const BULK = 0xfc0000;

export const TYPE_CODE: Record<ValueType, number> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };

const unary = <const T extends ValueType>(code: number, type: T) => [code, type, type] as const;
const binary = <const T extends ValueType>(code: number, type: T) => [code, type, type, type] as const;
const compare = <const T extends ValueType>(code: number, type: T) => [code, "i32", type, type] as const;
const v1 = (code: number) => [VECTOR + code, "v128", "v128"] as const;
const v2 = (code: number) => [VECTOR + code, "v128", "v128", "v128"] as const;
const v3 = (code: number) => [VECTOR + code, "v128", "v128", "v128", "v128"] as const;
const shift = (code: number) => [VECTOR + code, "v128", "v128", "i32"] as const;
const splat = <const T extends ValueType>(code: number, type: T) => [VECTOR + code, "v128", type] as const;

export const PLAIN = {
  i32: {
    eqz: [0x45, "i32", "i32"],
    eq: compare(0x46, "i32"),
    ne: compare(0x47, "i32"),
    lt_s: compare(0x48, "i32"),
    lt_u: compare(0x49, "i32"),
    gt_s: compare(0x4a, "i32"),
    gt_u: compare(0x4b, "i32"),
    le_s: compare(0x4c, "i32"),
    le_u: compare(0x4d, "i32"),
    ge_s: compare(0x4e, "i32"),
    ge_u: compare(0x4f, "i32"),
    ctz: unary(0x68, "i32"),
    add: binary(0x6a, "i32"),
    sub: binary(0x6b, "i32"),
    mul: binary(0x6c, "i32"),
    div_u: binary(0x6e, "i32"),
    rem_u: binary(0x70, "i32"),
    and: binary(0x71, "i32"),
    or: binary(0x72, "i32"),
    xor: binary(0x73, "i32"),
    shl: binary(0x74, "i32"),
    shr_s: binary(0x75, "i32"),
    shr_u: binary(0x76, "i32"),
    trunc_sat_f32_s: [BULK + 0x00, "i32", "f32"],
    reinterpret_f32: [0xbc, "i32", "f32"],
  },
  i64: {
    extend_i32_s: [0xac, "i64", "i32"],
    mul: binary(0x7e, "i64"),
    add: binary(0x7c, "i64"),
  },
  f32: {
    eq: compare(0x5b, "f32"),
    lt: compare(0x5d, "f32"),
    gt: compare(0x5e, "f32"),
    ge: compare(0x60, "f32"),
    abs: unary(0x8b, "f32"),
    neg: unary(0x8c, "f32"),
    nearest: unary(0x90, "f32"),
    sqrt: unary(0x91, "f32"),
    add: binary(0x92, "f32"),
    sub: binary(0x93, "f32"),
    mul: binary(0x94, "f32"),
    div: binary(0x95, "f32"),
    min: binary(0x96, "f32"),
    max: binary(0x97, "f32"),
    convert_i32_s: [0xb2, "f32", "i32"],
    reinterpret_i32: [0xbe, "f32", "i32"],
  },
  f64: {
    promote_f32: [0xbb, "f64", "f32"],
    div: binary(0xa3, "f64"),
    sqrt: unary(0x9f, "f64"),
    add: binary(0xa0, "f64"),
    gt: compare(0x64, "f64"),
  },
  v128: {
    not: v1(0x4d),
    and: v2(0x4e),
    andnot: v2(0x4f),
    or: v2(0x50),
    xor: v2(0x51),
    bitselect: v3(0x52),
    any_true: [VECTOR + 0x53, "i32", "v128"],
  },
  i8x16: {
    splat: splat(0x0f, "i32"),
    swizzle: v2(0x0e),
    add: v2(0x6e),
    sub: v2(0x71),
    narrow_i16x8_s: v2(0x65),
    shr_u: shift(0x6d),
  },
  i16x8: {
    splat: splat(0x10, "i32"),
    extend_low_i8x16_s: v1(0x87),
    extend_high_i8x16_s: v1(0x88),
    extend_low_i8x16_u: v1(0x89),
    extend_high_i8x16_u: v1(0x8a),
    narrow_i32x4_s: v2(0x85),
    shl: shift(0x8b),
    shr_s: shift(0x8c),
    shr_u: shift(0x8d),
    add: v2(0x8e),
    sub: v2(0x91),
  },
  i32x4: {
    splat: splat(0x11, "i32"),
    extend_low_i16x8_s: v1(0xa7),
    extend_high_i16x8_s: v1(0xa8),
    extend_low_i16x8_u: v1(0xa9),
    extend_high_i16x8_u: v1(0xaa),
    lt_s: v2(0x39),
    shl: shift(0xab),
    shr_s: shift(0xac),
    shr_u: shift(0xad),
    add: v2(0xae),
    sub: v2(0xb1),
    mul: v2(0xb5),
    max_s: v2(0xb8),
    dot_i16x8_s: v2(0xba),
    extadd_pairwise_i16x8_s: v1(0x7e),
    trunc_sat_f32x4_s: v1(0xf8),
    relaxed_dot_i8x16_i7x16_add_s: v3(0x113),
  },
  f32x4: {
    splat: splat(0x13, "f32"),
    eq: v2(0x41),
    lt: v2(0x43),
    gt: v2(0x44),
    ge: v2(0x46),
    nearest: v1(0x6a),
    abs: v1(0xe0),
    neg: v1(0xe1),
    add: v2(0xe4),
    sub: v2(0xe5),
    mul: v2(0xe6),
    div: v2(0xe7),
    min: v2(0xe8),
    max: v2(0xe9),
    pmin: v2(0xea),
    pmax: v2(0xeb),
    convert_i32x4_s: v1(0xfa),
    relaxed_madd: v3(0x105),
  },
  f64x2: {
    splat: splat(0x14, "f64"),
    eq: v2(0x47),
    add: v2(0xf0),
    sub: v2(0xf1),
    mul: v2(0xf2),
    promote_low_f32x4: v1(0x5f),
  },
} as const satisfies Record<string, Record<string, Signature>>;

/** Instructions that take a lane number. */
export const LANE = {
  i16x8: { extract_lane_s: [VECTOR + 0x18, "i32", 8, "v128"] },
  i32x4: { extract_lane: [VECTOR + 0x1b, "i32", 4, "v128"] },
  f32x4: {
    extract_lane: [VECTOR + 0x1f, "f32", 4, "v128"],
    replace_lane: [VECTOR + 0x20, "v128", 4, "v128", "f32"],
  },
} as const satisfies Record<string, Record<string, LaneOp>>;

export const LOAD = {
  i32: { load: [0x28, "i32", 2], load8_s: [0x2c, "i32", 0], load8_u: [0x2d, "i32", 0], load16_s: [0x2e, "i32", 1], load16_u: [0x2f, "i32", 1] },
  f32: { load: [0x2a, "f32", 2] },
  v128: {
    load: [VECTOR + 0x00, "v128", 4],
    load8x8_s: [VECTOR + 0x01, "v128", 3],
    load8x8_u: [VECTOR + 0x02, "v128", 3],
    load16x4_s: [VECTOR + 0x03, "v128", 3],
    load32_splat: [VECTOR + 0x09, "v128", 2],
    load64_splat: [VECTOR + 0x0a, "v128", 3],
    load32_zero: [VECTOR + 0x5c, "v128", 2],
    load64_zero: [VECTOR + 0x5d, "v128", 3],
  },
} as const satisfies Record<string, Record<string, MemoryOp>>;

export const STORE = {
  i32: { store: [0x36, "i32", 2], store8: [0x3a, "i32", 0], store16: [0x3b, "i32", 1] },
  f32: { store: [0x38, "f32", 2] },
  v128: { store: [VECTOR + 0x0b, "v128", 4] },
} as const satisfies Record<string, Record<string, MemoryOp>>;

/** v128 stores of one lane: [opcode, value, align, lanes]. */
export const STORE_LANE = { store16_lane: [VECTOR + 0x59, "v128", 1, 8], store32_lane: [VECTOR + 0x5a, "v128", 2, 4], store64_lane: [VECTOR + 0x5b, "v128", 3, 2] } as const;

/** Atomic accesses of 32-bit words: [opcode, ...operands after the address]; all but `store` give an i32. */
export const ATOMIC_I32 = {
  load: [ATOMIC + 0x10],
  store: [ATOMIC + 0x17, "i32"],
  rmw_add: [ATOMIC + 0x1e, "i32"],
  rmw_sub: [ATOMIC + 0x25, "i32"],
  rmw_and: [ATOMIC + 0x2c, "i32"],
  rmw_cmpxchg: [ATOMIC + 0x48, "i32", "i32"],
  /** memory.atomic.notify: how many to wake. */
  notify: [ATOMIC + 0x00, "i32"],
  /** memory.atomic.wait32: expected value, timeout in nanoseconds (negative: none). */
  wait: [ATOMIC + 0x01, "i32", "i64"],
} as const;

const SHORT: readonly (readonly number[])[] = Array.from({ length: 128 }, (_, byte) => [byte]);

/** Unsigned LEB128 (specification 5.2.2). */
export function leb(value: number): readonly number[] {
  if (value >= 0 && value < 128) return SHORT[value];
  const bytes: number[] = [];
  let rest = value >>> 0;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest ? low | 0x80 : low);
  } while (rest);
  return bytes;
}

/** Signed LEB128 of an integer that a double holds exactly. */
export function sleb(value: number): readonly number[] {
  if (value >= 0 && value < 64) return SHORT[value];
  const bytes: number[] = [];
  for (let rest = value; ; ) {
    const low = ((rest % 128) + 128) % 128;
    rest = (rest - low) / 128;
    const done = (rest === 0 && low < 64) || (rest === -1 && low >= 64);
    bytes.push(done ? low : low | 0x80);
    if (done) return bytes;
  }
}

/** An opcode's bytes: a plain byte, or a prefix and a LEB128 number. */
export function encodeOpcode(opcode: number): number[] {
  return opcode > 0xff ? [opcode >> 16, ...leb(opcode & 0xffff)] : [opcode];
}

/** What is put into a binary. */
export type Bytes = readonly number[] | Uint8Array;

/** Concatenation. */
export function joined(parts: readonly Bytes[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let end = 0;
  for (const part of parts) {
    if (part instanceof Uint8Array) bytes.set(part, end);
    else for (let i = 0; i < part.length; i++) bytes[end + i] = part[i];
    end += part.length;
  }
  return bytes;
}
