/**
 * The Node built-ins that memwall uses, and no more (node:http: node-http.d.ts): this file stands in for @types/node, so that the project has no further package.
 * Signatures follow the Node 20 documentation (https://nodejs.org/docs/latest-v20.x/api/) and leave out what nobody here calls.
 * Only src/runtime/node-*.ts, run.ts, test/ and fixtures/ may import these modules. Widen an entry when you need more of it.
 *
 * `setTimeout` comes from lib DOM and returns a number; `process` and `setImmediate` are the only Node globals declared.
 */

/** What Node adds to Error for a failed system call. */
interface NodeSystemError extends Error {
  code?: string;
  errno?: number;
  syscall?: string;
  path?: string;
}

declare module "node:events" {
  /**
   * Emits the events that E lists, with those arguments. Where arguments depend on a setting (a stream's encoding) E says `never`,
   * and the listener declares what it expects.
   */
  interface Emits<E extends Record<keyof E, readonly unknown[]>> {
    on<K extends keyof E>(event: K, listener: (...args: E[K]) => void): this;
    once<K extends keyof E>(event: K, listener: (...args: E[K]) => void): this;
    off<K extends keyof E>(event: K, listener: (...args: E[K]) => void): this;
    removeAllListeners(event?: keyof E): this;
  }
  type AnyEvents = Record<string, never[]>;
  export function once(emitter: object, event: string, options?: { signal?: AbortSignal }): Promise<unknown[]>;
}

declare module "node:stream" {
  import type { AnyEvents, Emits } from "node:events";

  /** Yields strings after setEncoding, bytes before. */
  interface Readable extends Emits<AnyEvents>, AsyncIterable<string | Uint8Array> {
    readonly destroyed: boolean;
    readonly readableEnded: boolean;
    setEncoding(encoding: "utf8"): this;
    pause(): this;
    resume(): this;
    unref?(): void;
    destroy(error?: Error): this;
  }

  interface Writable extends Emits<AnyEvents> {
    readonly destroyed: boolean;
    readonly writable: boolean;
    readonly writableEnded: boolean;
    readonly writableLength: number;
    /** False when the buffer is full: wait for "drain". */
    write(chunk: string | Uint8Array, done?: (error?: Error | null) => void): boolean;
    end(chunk?: string | Uint8Array, done?: () => void): this;
    destroy(error?: Error): this;
  }
}

declare module "node:fs" {
  interface Stats {
    readonly dev: number;
    readonly ino: number;
    readonly size: number;
    readonly mtimeMs: number;
    isFile(): boolean;
    isDirectory(): boolean;
  }

  interface Dirent {
    readonly name: string;
    isFile(): boolean;
    isDirectory(): boolean;
  }

  type PathLike = string | URL;
  type Bytes = Uint8Array | Int8Array | Float32Array | DataView;

  export function openSync(path: PathLike, flags?: string, mode?: number): number;
  /** @returns bytes read; 0 at the end of the file. A null position reads on from the file's own. */
  export function readSync(fd: number, target: Bytes, offset?: number, length?: number, position?: number | bigint | null): number;
  export function writeSync(fd: number, source: Bytes, offset?: number, length?: number, position?: number | null): number;
  export function writeSync(fd: number, text: string): number;
  export function closeSync(fd: number): void;
  export function truncateSync(path: PathLike, length: number): void;
  export function statSync(path: PathLike): Stats;
  export function statSync(path: PathLike, options: { throwIfNoEntry: false }): Stats | undefined;
  export function existsSync(path: PathLike): boolean;
  export function readFileSync(path: PathLike | number): Uint8Array;
  export function readFileSync(path: PathLike | number, encoding: "utf8"): string;
  export function writeFileSync(path: PathLike, data: string | Uint8Array, options?: { mode?: number; flag?: string }): void;
  export function appendFileSync(path: PathLike, data: string | Uint8Array): void;
  export function mkdtempSync(prefix: string): string;
  export function mkdirSync(path: PathLike, options?: { recursive?: boolean; mode?: number }): string | undefined;
  export function readdirSync(path: PathLike, options?: { recursive?: boolean }): string[];
  export function readdirSync(path: PathLike, options: { withFileTypes: true; recursive?: boolean }): Dirent[];
  export function rmSync(path: PathLike, options?: { recursive?: boolean; force?: boolean }): void;
  export function renameSync(from: PathLike, to: PathLike): void;
  export function chmodSync(path: PathLike, mode: number): void;
}

declare module "node:path" {
  export function dirname(path: string): string;
  export const sep: string;
  export function join(...parts: string[]): string;
  export function resolve(...parts: string[]): string;
  export function relative(from: string, to: string): string;
}

declare module "node:os" {
  interface CpuInfo {
    model: string;
    speed: number;
  }
  export function tmpdir(): string;
  export function availableParallelism(): number;
  /** Bytes. */
  export function totalmem(): number;
  export function platform(): string;
  export function release(): string;
}

declare module "node:util" {
  interface ParseArgsOption {
    type: "string" | "boolean";
    short?: string;
    multiple?: boolean;
    default?: string | boolean | string[] | boolean[];
  }

  type ParsedValue<O extends ParseArgsOption> = O["multiple"] extends true
    ? (O["type"] extends "string" ? string : boolean)[]
    : O["type"] extends "string"
      ? string
      : boolean;

  interface ParseArgsConfig<T extends Record<string, ParseArgsOption>> {
    args?: readonly string[];
    options?: T;
    strict?: boolean;
    allowPositionals?: boolean;
    allowNegative?: boolean;
  }

  /** @throws TypeError for an unknown option or a value of the wrong kind (when strict, the default). */
  export function parseArgs<const T extends Record<string, ParseArgsOption>>(
    config?: ParseArgsConfig<T>,
  ): { values: { [K in keyof T]?: ParsedValue<T[K]> }; positionals: string[] };

  interface InspectOptions {
    depth?: number | null;
    colors?: boolean;
    compact?: boolean | number;
    breakLength?: number;
    maxArrayLength?: number | null;
  }

  export const inspect: {
    (value: unknown, options?: InspectOptions): string;
    readonly custom: unique symbol;
  };
}

declare module "node:url" {
  export function fileURLToPath(url: string | URL): string;
}

declare module "node:process" {
  import type { AnyEvents, Emits } from "node:events";
  import type { Readable, Writable } from "node:stream";

  interface TerminalOut extends Writable {
    readonly fd: number;
    readonly isTTY?: boolean;
    /** Undefined when the stream is not a terminal. */
    readonly columns?: number;
    readonly rows?: number;
    hasColors?(count?: number): boolean;
  }

  interface TerminalIn extends Readable {
    readonly fd: number;
    readonly isTTY?: boolean;
  }

  /** All in bytes. */
  interface MemoryUsage {
    rss: number;
    heapTotal: number;
    heapUsed: number;
    external: number;
    arrayBuffers: number;
  }

  export interface Process extends Emits<AnyEvents> {
    readonly argv: string[];
    readonly execArgv: string[];
    readonly execPath: string;
    readonly env: Record<string, string | undefined>;
    exitCode: number | undefined;
    readonly stdin: TerminalIn;
    readonly stdout: TerminalOut;
    readonly stderr: TerminalOut;
    /** For instance "v20.11.0". */
    readonly version: string;
    readonly versions: Record<string, string | undefined>;
    readonly platform: string;
    readonly arch: string;
    /** How this Node was built. */
    readonly config: { readonly variables: Readonly<Record<string, unknown>> };
    readonly pid: number;
    exit(code?: number): never;
    cwd(): string;
    kill(pid: number, signal?: string | number): boolean;
    getuid?(): number;
    hrtime: { bigint(): bigint };
    memoryUsage: { (): MemoryUsage; rss(): number };
    cpuUsage(previous?: { user: number; system: number }): { user: number; system: number };
  }

  const process: Process;
  export default process;
}

declare module "node:v8" {
  /** Says so on standard error where V8 does not know a flag. */
  export function setFlagsFromString(flags: string): void;
}

declare module "node:worker_threads" {
  import type { Emits } from "node:events";
  import type { Readable } from "node:stream";

  interface WorkerOptions {
    /** True: the first argument is source text, run as CommonJS. */
    eval?: boolean;
    workerData?: unknown;
    execArgv?: readonly string[];
    argv?: readonly unknown[];
    env?: Record<string, string | undefined>;
    name?: string;
    stdin?: boolean;
    stdout?: boolean;
    stderr?: boolean;
    resourceLimits?: { maxOldGenerationSizeMb?: number; stackSizeMb?: number };
    transferList?: readonly Transferable[];
  }

  interface WorkerEvents {
    message: [value: unknown];
    error: [error: Error];
    messageerror: [error: Error];
    exit: [code: number];
    online: [];
  }

  interface Worker extends Emits<WorkerEvents> {
    readonly threadId: number;
    readonly stdout: Readable;
    readonly stderr: Readable;
    postMessage(value: unknown, transfer?: readonly Transferable[]): void;
    terminate(): Promise<number>;
    /** Lets the process end while this worker still runs. */
    unref(): void;
    ref(): void;
  }
  export const Worker: { new (file: string | URL, options?: WorkerOptions): Worker };

  interface ParentPort extends Emits<{ message: [value: unknown]; close: [] }> {
    postMessage(value: unknown, transfer?: readonly Transferable[]): void;
    close(): void;
    unref(): void;
    ref(): void;
  }
  /** Null on the main thread. */
  export const parentPort: ParentPort | null;
  export const workerData: unknown;
  export const isMainThread: boolean;
  export const threadId: number;
}

declare module "node:child_process" {
  import type { Emits } from "node:events";
  import type { Readable, Writable } from "node:stream";

  type Stdio = "pipe" | "ignore" | "inherit" | "ipc";

  interface ProcessOptions {
    cwd?: string | URL;
    env?: Record<string, string | undefined>;
    stdio?: Stdio | readonly (Stdio | number)[];
    detached?: boolean;
    /** Milliseconds. */
    timeout?: number;
    killSignal?: string;
    shell?: boolean;
    signal?: AbortSignal;
  }

  interface SyncOptions extends ProcessOptions {
    input?: string | Uint8Array;
    maxBuffer?: number;
  }

  interface ChildEvents {
    exit: [code: number | null, signal: string | null];
    close: [code: number | null, signal: string | null];
    error: [error: NodeSystemError];
    message: [value: unknown];
  }

  interface ChildProcess extends Emits<ChildEvents> {
    readonly pid?: number;
    readonly exitCode: number | null;
    readonly signalCode: string | null;
    readonly killed: boolean;
    readonly connected: boolean;
    /** Null only where stdio is not "pipe". */
    readonly stdin: Writable;
    readonly stdout: Readable;
    readonly stderr: Readable;
    kill(signal?: string | number): boolean;
    send(value: unknown): boolean;
    disconnect(): void;
    unref(): void;
  }

  interface SyncResult<T> {
    readonly pid: number;
    readonly status: number | null;
    readonly signal: string | null;
    readonly stdout: T;
    readonly stderr: T;
    readonly error?: NodeSystemError;
  }

  export function spawn(command: string, args?: readonly string[], options?: ProcessOptions): ChildProcess;
  export function fork(module: string | URL, args?: readonly string[], options?: ProcessOptions & { execArgv?: readonly string[] }): ChildProcess;
  export function spawnSync(command: string, args: readonly string[], options: SyncOptions & { encoding: "utf8" }): SyncResult<string>;
  export function spawnSync(command: string, args?: readonly string[], options?: SyncOptions): SyncResult<Uint8Array>;
  export function execFileSync(file: string, args: readonly string[], options: SyncOptions & { encoding: "utf8" }): string;
  export function execFileSync(file: string, args?: readonly string[], options?: SyncOptions): Uint8Array;
}

declare module "node:readline" {
  import type { Emits } from "node:events";
  import type { Readable, Writable } from "node:stream";

  interface InterfaceOptions {
    input: Readable;
    output?: Writable;
    terminal?: boolean;
    prompt?: string;
    historySize?: number;
    crlfDelay?: number;
    signal?: AbortSignal;
  }

  interface Interface extends Emits<{ line: [line: string]; close: []; SIGINT: [] }>, AsyncIterable<string> {
    readonly line: string;
    setPrompt(prompt: string): void;
    prompt(preserveCursor?: boolean): void;
    pause(): this;
    resume(): this;
    close(): void;
    write(text: string): void;
  }
  export function createInterface(options: InterfaceOptions): Interface & { question(query: string, done: (answer: string) => void): void };
}

declare module "node:crypto" {
  interface Hash {
    update(data: string | Uint8Array): this;
    digest(): Uint8Array;
    digest(encoding: "hex" | "base64" | "base64url"): string;
  }
  export function createHash(algorithm: "sha256" | "sha1" | "md5"): Hash;
  export function randomBytes(size: number): Uint8Array;
  export function randomUUID(): string;
  /** @throws RangeError when the lengths differ. */
  export function timingSafeEqual(a: Uint8Array, b: Uint8Array): boolean;
}

declare var process: import("node:process").Process;
declare function setImmediate(callback: () => void): object;
declare function clearImmediate(handle: object): void;
