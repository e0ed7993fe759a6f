import type { LaneOp, MemoryOp, Signature, ValueType } from "./opcodes.ts";
import { ATOMIC_I32, BULK, encodeOpcode, joined, LANE, leb, LOAD, PLAIN, sleb, STORE, STORE_LANE, TYPE_CODE, VECTOR } from "./opcodes.ts";

/**
 * WebAssembly as TypeScript. Expressions are values: `i32x4.add(acc, i32x4.dot_i16x8_s(x, w))` builds a typed piece of code and emits
 * nothing. Statements emit: `acc.set(expression)`, `v128.store(address, value)`, `loop(...)`. A local used as an operand is read where
 * the statement stands; a plain number is a constant of the type that the instruction wants. Every operand's type is checked when the
 * kernel is built, and the error names the kernel.
 */
export interface Expr<T extends ValueType = ValueType> {
  readonly type: T;
  /** In the order of the code: operands come before their instruction. */
  readonly parts: readonly Part[];
}

/** Bytes, or an expression that is written where it is used: a tree, as joining bytes at every level would copy them over and over. */
type Part = readonly number[] | Expr;

export type Operand<T extends ValueType> = Expr<T> | (T extends "v128" ? never : number);

export interface Local<T extends ValueType = ValueType> extends Expr<T> {
  set(value: Operand<T>): void;
  /** this = this + value (i32). */
  add(value: Operand<"i32">): void;
}

/** A function of the module under construction. */
export interface Func {
  readonly name: string;
  readonly index: number;
  readonly params: readonly ValueType[];
  readonly result: ValueType | undefined;
  /** Local declarations and code, as in the specification's code section. */
  readonly body: Uint8Array;
}

interface Building {
  readonly name: string;
  readonly params: number;
  readonly locals: ValueType[];
  /** The first `length` bytes are written. */
  code: Uint8Array;
  length: number;
  /** Open blocks, loops and ifs. */
  depth: number;
}

let building: Building | undefined;

function fail(message: string): never {
  throw new TypeError(`wasm kernel ${building?.name ?? "?"}: ${message}`);
}

function emit(...parts: readonly Part[]): void {
  if (!building) fail("a statement outside of a function");
  append(building, parts);
}

function append(frame: Building, parts: readonly Part[]): void {
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i];
    if ("parts" in part) {
      append(frame, part.parts);
      continue;
    }
    if (frame.length + part.length > frame.code.length) {
      const grown = new Uint8Array(2 * frame.code.length);
      grown.set(frame.code);
      frame.code = grown;
    }
    for (let k = 0; k < part.length; k++) frame.code[frame.length++] = part[k];
  }
}

/** The operand as an expression. @throws TypeError when its type is not the wanted one. */
function operand(value: Expr | number | undefined, type: ValueType, where: string, name?: string, index?: number): Expr {
  if (typeof value === "number") return constant(type, value);
  if (value?.type !== type) {
    const place = name === undefined ? where : `${where}.${name}, operand ${index! + 1},`;
    fail(`${place} wants ${type}, found ${value?.type ?? "nothing"}`);
  }
  return value;
}

function float32Bytes(value: number): number[] {
  return [...new Uint8Array(Float32Array.of(value).buffer)];
}

const [GET, SET, CONST] = [[0x20], [0x21], [0x41]];

/** A constant of any scalar type. */
export function constant<T extends ValueType>(type: T, value: number): Expr<T> {
  if (type === "i32") return { type, parts: [CONST, sleb(value | 0)] };
  if (type === "i64") return { type, parts: [[0x42], sleb(Math.trunc(value))] };
  if (type === "f32") return { type, parts: [[0x43, ...float32Bytes(value)]] };
  if (type === "f64") return { type, parts: [[0x44, ...new Uint8Array(Float64Array.of(value).buffer)]] };
  return fail(`a ${type} constant from the number ${value}`);
}

type Call<S> = S extends readonly [number, infer R extends ValueType, ...infer A extends ValueType[]]
  ? (...operands: { [K in keyof A]: Operand<A[K]> }) => Expr<R>
  : never;
type Calls<T> = { readonly [K in keyof T]: Call<T[K]> };

function plain<T extends Record<string, Signature>>(space: string, table: T): Calls<T> {
  const calls: Record<string, unknown> = {};
  for (const [name, [opcode, result, ...types]] of Object.entries(table)) {
    const tail = encodeOpcode(opcode);
    calls[name] = (...operands: (Expr | number)[]): Expr => {
      if (operands.length !== types.length) fail(`${space}.${name} wants ${types.length} operands, found ${operands.length}`);
      const parts: Part[] = [];
      for (let i = 0; i < types.length; i++) parts.push(operand(operands[i], types[i], space, name, i));
      parts.push(tail);
      return { type: result, parts };
    };
  }
  return calls as Calls<T>;
}

type Loads<T> = { readonly [K in keyof T]: T[K] extends readonly [number, infer R extends ValueType, number] ? (address: Operand<"i32">, offset?: number) => Expr<R> : never };

function loads<T extends Record<string, MemoryOp>>(space: string, table: T): Loads<T> {
  const calls: Record<string, unknown> = {};
  for (const [name, [opcode, result, align]] of Object.entries(table)) {
    const middle = [...encodeOpcode(opcode), align];
    calls[name] = (address: Operand<"i32">, offset = 0): Expr => ({ type: result, parts: [operand(address, "i32", space, name, 0), middle, leb(offset)] });
  }
  return calls as Loads<T>;
}

type Stores<T> = {
  readonly [K in keyof T]: T[K] extends readonly [number, infer V extends ValueType, number]
    ? (address: Operand<"i32">, value: Operand<V>, offset?: number) => void
    : never;
};

function stores<T extends Record<string, MemoryOp>>(space: string, table: T): Stores<T> {
  const calls: Record<string, unknown> = {};
  for (const [name, [opcode, type, align]] of Object.entries(table)) {
    const tail = [...encodeOpcode(opcode), align];
    calls[name] = (address: Operand<"i32">, value: Expr | number, offset = 0): void => {
      emit(operand(address, "i32", space, name, 0), operand(value, type, space, name, 1), tail, leb(offset));
    };
  }
  return calls as Stores<T>;
}

type Lanes<T> = {
  readonly [K in keyof T]: T[K] extends readonly [number, infer R extends ValueType, number, ...infer A extends ValueType[]]
    ? (lane: number, ...operands: { [I in keyof A]: Operand<A[I]> }) => Expr<R>
    : never;
};

function lanes<T extends Record<string, LaneOp>>(space: string, table: T): Lanes<T> {
  const calls: Record<string, unknown> = {};
  for (const [name, [opcode, result, count, ...types]] of Object.entries(table)) {
    const middle = encodeOpcode(opcode);
    calls[name] = (lane: number, ...operands: (Expr | number)[]): Expr => {
      if (!(lane >= 0 && lane < count)) fail(`${space}.${name} has ${count} lanes, found ${lane}`);
      return { type: result, parts: [...types.map((type, i) => operand(operands[i], type, space, name, i)), middle, leb(lane)] };
    };
  }
  return calls as Lanes<T>;
}

function storeLane([opcode, , align, count]: readonly [number, ValueType, number, number]) {
  return (lane: number, address: Operand<"i32">, value: Expr<"v128">, offset = 0): void => {
    if (!(lane >= 0 && lane < count)) fail(`a store of ${count} lanes, found lane ${lane}`);
    emit(operand(address, "i32", "store_lane, address,"), operand(value, "v128", "store_lane, value,"), encodeOpcode(opcode), [align], leb(offset), [lane]);
  };
}

/** A vector constant from 16 bytes. */
function vector(bytes: ArrayLike<number>): Expr<"v128"> {
  if (bytes.length !== 16) fail(`v128.const wants 16 bytes, found ${bytes.length}`);
  return { type: "v128", parts: [encodeOpcode(VECTOR + 0x0c), Array.from(bytes, (b) => b & 0xff)] };
}

/** `i8x16.shuffle`: byte i of the result is byte `indices[i]` of a (0 .. 15) and b (16 .. 31). */
function shuffle(indices: readonly number[], a: Expr<"v128">, b: Expr<"v128">): Expr<"v128"> {
  if (indices.length !== 16 || indices.some((i) => !(i >= 0 && i < 32))) fail(`i8x16.shuffle wants 16 indices below 32, found ${indices}`);
  return { type: "v128", parts: [operand(a, "v128", "i8x16", "shuffle", 0), operand(b, "v128", "i8x16", "shuffle", 1), encodeOpcode(VECTOR + 0x0d), indices] };
}

type Atomics = {
  readonly [K in keyof typeof ATOMIC_I32]: (typeof ATOMIC_I32)[K] extends readonly [number, ...infer A extends ValueType[]]
    ? (address: Operand<"i32">, ...operands: { [I in keyof A]: Operand<A[I]> }) => K extends "store" ? void : Expr<"i32">
    : never;
};

function atomics(): Atomics {
  const calls: Record<string, unknown> = {};
  for (const [name, [opcode, ...types]] of Object.entries(ATOMIC_I32)) {
    calls[name] = (address: Operand<"i32">, ...operands: (Expr | number)[]): Expr | void => {
      const parts: Part[] = [operand(address, "i32", `atomic ${name}, address,`), ...types.map((type, i) => operand(operands[i], type, "atomic", name, i)), encodeOpcode(opcode), [2, 0]];
      if (name === "store") emit(...parts);
      else return { type: "i32", parts };
    };
  }
  return calls as Atomics;
}

export const i32 = { ...plain("i32", PLAIN.i32), ...loads("i32", LOAD.i32), ...stores("i32", STORE.i32), const: (n: number) => constant("i32", n), atomic: atomics() };
export const i64 = { ...plain("i64", PLAIN.i64), const: (n: number) => constant("i64", n) };
export const f32 = { ...plain("f32", PLAIN.f32), ...loads("f32", LOAD.f32), ...stores("f32", STORE.f32), const: (n: number) => constant("f32", n) };
export const f64 = { ...plain("f64", PLAIN.f64), const: (n: number) => constant("f64", n) };
export const v128 = {
  ...plain("v128", PLAIN.v128),
  ...loads("v128", LOAD.v128),
  ...stores("v128", STORE.v128),
  store16_lane: storeLane(STORE_LANE.store16_lane),
  store32_lane: storeLane(STORE_LANE.store32_lane),
  store64_lane: storeLane(STORE_LANE.store64_lane),
  const: vector,
};
export const i8x16 = { ...plain("i8x16", PLAIN.i8x16), shuffle, const: (...n: number[]) => vector(new Uint8Array(Int8Array.from(n).buffer)) };
export const i16x8 = { ...plain("i16x8", PLAIN.i16x8), ...lanes("i16x8", LANE.i16x8), const: (n: number) => vector(new Uint8Array(new Int16Array(8).fill(n).buffer)) };
export const i32x4 = { ...plain("i32x4", PLAIN.i32x4), ...lanes("i32x4", LANE.i32x4), const: (n: number) => vector(new Uint8Array(new Int32Array(4).fill(n).buffer)) };
export const f32x4 = { ...plain("f32x4", PLAIN.f32x4), ...lanes("f32x4", LANE.f32x4), const: (n: number) => vector(new Uint8Array(new Float32Array(4).fill(n).buffer)) };

export const f64x2 = { ...plain("f64x2", PLAIN.f64x2), const: (n: number) => vector(new Uint8Array(new Float64Array(2).fill(n).buffer)) };

/** A new local of the function under construction, zero at first; `initial` sets it here. */
export function local<T extends ValueType>(type: T, initial?: Operand<T>): Local<T> {
  if (!building) fail("a local outside of a function");
  const made = localAt(type, building.params + building.locals.length);
  building.locals.push(type);
  if (initial !== undefined) made.set(initial);
  return made;
}

function localAt<T extends ValueType>(type: T, index: number): Local<T> {
  const at = leb(index);
  const set = (value: Operand<T>) => emit(operand(value, type, "local.set"), SET, at);
  const self: Local<T> = { type, parts: [GET, at], set, add: (value) => set(i32.add(self as Expr<"i32">, value) as Expr<T>) };
  return self;
}

/** A mutable global of the module: one per instance, hence one per thread. */
export interface Global<T extends ValueType = ValueType> extends Expr<T> {
  set(value: Operand<T>): void;
}

export function globalAt<T extends ValueType>(type: T, index: number): Global<T> {
  return { type, parts: [[0x23], leb(index)], set: (value) => emit(operand(value, type, "global.set"), [0x24], leb(index)) };
}

/** `select`: first where the condition is not 0. */
export function select<T extends ValueType>(first: Expr<T>, second: Expr<T>, condition: Operand<"i32">): Expr<T> {
  const opcode = first.type === "v128" ? [0x1c, 1, TYPE_CODE.v128] : [0x1b];
  return { type: first.type, parts: [first, operand(second, first.type, "select, operand 2,"), operand(condition, "i32", "select, condition,"), opcode] };
}

/** Somewhere to branch to: the end of a block, the start of a loop. */
export interface Label {
  readonly depth: number;
}

function nested(opening: readonly Part[], body: (label: Label) => void): void {
  emit(...opening, [0x40]);
  const frame = building!;
  frame.depth++;
  body({ depth: frame.depth });
  frame.depth--;
  emit([0x0b]);
}

export const block = (body: (end: Label) => void): void => nested([[0x02]], body);
export const loop = (body: (again: Label) => void): void => nested([[0x03]], body);

export function if_(condition: Operand<"i32">, then: () => void, otherwise?: () => void): void {
  nested([operand(condition, "i32", "if, condition,"), [0x04]], () => {
    then();
    if (otherwise) {
      emit([0x05]);
      otherwise();
    }
  });
}

function branchDepth(label: Label): readonly number[] {
  const depth = building!.depth - label.depth;
  if (depth < 0) fail("a branch to a label that is not around it");
  return leb(depth);
}

export const br = (label: Label): void => emit([0x0c], branchDepth(label));
export const br_if = (label: Label, condition: Operand<"i32">): void => emit(operand(condition, "i32", "br_if, condition,"), [0x0d], branchDepth(label));
export const return_ = (): void => emit([0x0f]);
export const drop = (value: Expr): void => emit(value, [0x1a]);
export const unreachable = (): void => emit([0x00]);

/** memory.copy within the one memory: `bytes` from source to target. */
export function memoryCopy(target: Operand<"i32">, source: Operand<"i32">, bytes: Operand<"i32">): void {
  emit(...[target, source, bytes].map((value) => operand(value, "i32", "memory.copy")), encodeOpcode(BULK + 0x0a), [0, 0]);
}

function callParts(callee: Func, operands: readonly (Expr | number)[]): Part[] {
  if (operands.length !== callee.params.length) fail(`call of ${callee.name} wants ${callee.params.length} operands, found ${operands.length}`);
  return [...operands.map((value, i) => operand(value, callee.params[i], `call of ${callee.name}, operand ${i + 1},`)), [0x10], leb(callee.index)];
}

/** Calls a function without a result. */
export function call(callee: Func, ...operands: (Expr | number)[]): void {
  if (callee.result) fail(`${callee.name} has a result: use callValue`);
  emit(...callParts(callee, operands));
}

/** The result of a function. */
export function callValue(callee: Func, ...operands: (Expr | number)[]): Expr {
  if (!callee.result) fail(`${callee.name} has no result`);
  return { type: callee.result, parts: callParts(callee, operands) };
}

/** Calls entry `entry` of table 0, a function of the module's type number `type`, without a result. */
export function callIndirect(type: number, entry: Operand<"i32">, ...operands: Operand<"i32">[]): void {
  emit(...[...operands, entry].map((value) => operand(value, "i32", "call_indirect")), [0x11], leb(type), [0]);
}

type Params<P extends readonly ValueType[]> = { [K in keyof P]: Local<P[K]> };

/**
 * Builds one function. `body` receives the parameters as locals and gives back the result, if there is one.
 * @throws TypeError naming the function when an operand, a result or a branch does not fit.
 */
export function buildFunction<const P extends readonly ValueType[]>(
  name: string,
  index: number,
  params: P,
  result: ValueType | undefined,
  body: (...params: Params<P>) => Expr | void,
): Func {
  const outer = building;
  const frame: Building = { name, params: params.length, locals: [], code: new Uint8Array(1024), length: 0, depth: 0 };
  building = frame;
  try {
    const value = body(...(params.map((type, i) => localAt(type, i)) as Params<P>));
    if (result) emit(operand(value ?? undefined, result, "the result"));
    else if (value) fail("gives a result, but declares none");
    emit([0x0b]);
    const declarations = [...leb(frame.locals.length)];
    for (const type of frame.locals) declarations.push(1, TYPE_CODE[type]);
    return { name, index, params, result, body: joined([declarations, frame.code.subarray(0, frame.length)]) };
  } finally {
    building = outer;
  }
}
