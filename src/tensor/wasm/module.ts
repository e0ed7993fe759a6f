import type { Expr, Func, Global, Local, Operand } from "./assembler.ts";
import { buildFunction, callIndirect, globalAt } from "./assembler.ts";
import type { ValueType } from "./opcodes.ts";
import { type Bytes, joined, leb, TYPE_CODE } from "./opcodes.ts";

export interface MemoryLimits {
  /** Pages of 64 KiB. */
  readonly initial: number;
  readonly maximum: number;
  readonly shared: boolean;
}

/** A kernel works on units [first, last) of the current job; all else it reads from the job's parameters. */
const KERNEL_TYPE = ["i32", "i32"] as const;

/** A WebAssembly module under construction: one imported memory ("env", "memory"), functions, one table of kernels. */
export class ModuleBuilder {
  private readonly types: string[] = [];
  private readonly typeBytes: Bytes[] = [];
  private readonly functions: Func[] = [];
  private readonly exported: Func[] = [];
  private readonly kernels: Func[] = [];
  private readonly globals: ValueType[] = [];
  private readonly memory: MemoryLimits;

  constructor(memory: MemoryLimits) {
    this.memory = memory;
  }

  /** A function that only this module calls. */
  func<const P extends readonly ValueType[]>(
    name: string,
    params: P,
    result: ValueType | undefined,
    body: (...params: { [K in keyof P]: Local<P[K]> }) => Expr | void,
  ): Func {
    this.typeOf(params, result);
    const built = buildFunction(name, this.functions.length, params, result, body);
    this.functions.push(built);
    return built;
  }

  /** A function that JavaScript may call. */
  export<const P extends readonly ValueType[]>(
    name: string,
    params: P,
    result: ValueType | undefined,
    body: (...params: { [K in keyof P]: Local<P[K]> }) => Expr | void,
  ): Func {
    const built = this.func(name, params, result, body);
    this.exported.push(built);
    return built;
  }

  /** A kernel: exported, and an entry of the table through which threads call it. */
  kernel(name: string, body: (first: Local<"i32">, last: Local<"i32">) => void): Func {
    const built = this.export(name, KERNEL_TYPE, undefined, body);
    this.kernels.push(built);
    return built;
  }

  /** Names of the kernels, in table order. */
  get kernelNames(): string[] {
    return this.kernels.map(({ name }) => name);
  }

  /** Runs table entry `entry` over units [first, last). */
  callKernel(entry: Operand<"i32">, first: Operand<"i32">, last: Operand<"i32">): void {
    callIndirect(this.typeOf(KERNEL_TYPE, undefined), entry, first, last);
  }

  global<T extends ValueType>(type: T): Global<T> {
    this.globals.push(type);
    return globalAt(type, this.globals.length - 1);
  }

  /** The binary (specification 5.5). */
  encode(): Uint8Array<ArrayBuffer> {
    const { initial, maximum, shared } = this.memory;
    const functionTypes = this.functions.flatMap(({ params, result }) => leb(this.typeOf(params, result)));
    const types = section(1, vector(this.typeBytes));
    const imports = section(2, vector([[...text("env"), ...text("memory"), 0x02, shared ? 3 : 1, ...leb(initial), ...leb(maximum)]]));
    const functions = section(3, [...leb(this.functions.length), ...functionTypes]);
    const table = section(4, vector([[0x70, 0x00, ...leb(this.kernels.length)]]));
    const globals = section(6, vector(this.globals.map((type) => [TYPE_CODE[type], 1, ...zero(type), 0x0b])));
    const exports = section(7, vector(this.exported.map(({ name, index }) => [...text(name), 0x00, ...leb(index)])));
    const elements = section(9, vector([[0x00, 0x41, 0x00, 0x0b, ...leb(this.kernels.length), ...this.kernels.flatMap(({ index }) => leb(index))]]));
    const code = section(10, vector(this.functions.map(({ body }) => joined([leb(body.length), body]))));
    const magic = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
    return joined([magic, types, imports, functions, table, globals, exports, elements, code]);
  }

  private typeOf(params: readonly ValueType[], result: ValueType | undefined): number {
    const key = `${params} -> ${result ?? ""}`;
    const known = this.types.indexOf(key);
    if (known >= 0) return known;
    this.types.push(key);
    const codes = (list: readonly ValueType[]) => [...leb(list.length), ...list.map((type) => TYPE_CODE[type])];
    this.typeBytes.push([0x60, ...codes(params), ...codes(result ? [result] : [])]);
    return this.types.length - 1;
  }
}

const zero = (type: ValueType): number[] =>
  type === "i32" ? [0x41, 0] : type === "i64" ? [0x42, 0] : type === "f32" ? [0x43, 0, 0, 0, 0] : type === "f64" ? [0x44, 0, 0, 0, 0, 0, 0, 0, 0] : [0xfd, 12, ...Array<number>(16).fill(0)];

const vector = (items: readonly Bytes[]): Bytes => joined([leb(items.length), ...items]);
const text = (name: string): number[] => [...leb(name.length), ...Array.from(name, (c) => c.charCodeAt(0))];
const section = (id: number, body: Bytes): Bytes => joined([[id], leb(body.length), body]);
