import type { Tensor } from "../tensor.ts";
import type { Heap } from "./heap.ts";
import { createHeap, createMemory } from "./heap.ts";
import type { KernelOptions } from "./kernels/common.ts";
import { constantBytes } from "./kernels/constants.ts";
import { AHEAD, CLOSED, CONSTANTS, MOST_THREADS, PARAM_COUNT, PARAMS, SCRATCH, SCRATCH_BYTES, STARTED, STATE } from "./layout.ts";
import type { Program } from "./program.ts";
import { compile } from "./program.ts";

/** What a worker thread is given; `WORKER_SOURCE` expects exactly this. */
export interface WorkerData {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly index: number;
}

/** Starts one thread that calls `WORKER_BODY` with the data. Throwing means a smaller pool. */
export type Spawn = (data: WorkerData) => { terminate(): void };

/** A worker's whole life, as the body of a function of `data`: the pool itself is WebAssembly. */
export const WORKER_BODY = `const { enter, work } = new WebAssembly.Instance(data.module, { env: { memory: data.memory } }).exports; enter(data.index); work();`;

export interface DeviceOptions {
  /** Threads that compute, the calling one included. */
  readonly threads: number;
  readonly spawn?: Spawn;
  readonly maxBytes?: number;
}

/** Milliseconds that threads may take to start before one who asks for their number gets it without them. */
const START_LIMIT = 2000;

type Kernel = (first: number, last: number) => void;

/** One instance of the kernels over one memory, with the threads that share it. */
export class Device {
  readonly heap: Heap;
  readonly program: Program;
  /** Parameters of the next job, as integers and as floats. */
  readonly params: Int32Array;
  readonly paramsF32: Float32Array;
  private readonly direct: readonly Kernel[];
  private readonly dispatch: ((kernel: number, units: number, chunk: number) => number) | undefined;
  private readonly control: Int32Array;
  private readonly ahead: Int32Array;
  private readonly workers: { terminate(): void }[] = [];
  private readonly buffers = new WeakSet<ArrayBufferLike>();
  private lastBuffer: ArrayBufferLike;
  /** When nobody waits any longer for threads to start. */
  private readonly startLimit = performance.now() + START_LIMIT;
  private closed = false;

  constructor(kernels: KernelOptions, { threads, spawn, maxBytes }: DeviceOptions) {
    const { memory, shared, limits } = createMemory(maxBytes);
    const program = compile(kernels, { ...limits, shared });
    this.program = program;
    const wanted = shared && spawn ? Math.max(1, Math.min(threads, MOST_THREADS)) : 1;
    const reserved = SCRATCH + wanted * SCRATCH_BYTES;
    if (memory.buffer.byteLength < reserved) memory.grow(Math.ceil((reserved - memory.buffer.byteLength) / 65536));
    this.heap = createHeap(memory, shared, limits.maximum, { reserved });
    this.lastBuffer = memory.buffer;
    this.params = new Int32Array(memory.buffer, PARAMS, PARAM_COUNT);
    this.paramsF32 = new Float32Array(memory.buffer, PARAMS, PARAM_COUNT);
    this.control = new Int32Array(memory.buffer, 0, PARAMS / 4);
    this.ahead = new Int32Array(memory.buffer, AHEAD, 16 * MOST_THREADS);
    new Uint8Array(memory.buffer).set(constantBytes(), CONSTANTS);

    const { module } = program;
    const exports = new WebAssembly.Instance(module, { env: { memory } }).exports as Record<string, unknown>;
    (exports.enter as (index: number) => void)(0);
    this.direct = this.program.kernels.map((name) => exports[name] as Kernel);
    this.dispatch = exports.run as typeof this.dispatch;
    for (let index = 1; index < wanted; index++) {
      try {
        this.workers.push(spawn!({ module, memory, index }));
      } catch {
        break;
      }
    }
  }

  /** Threads that compute: at the first time this waits for those that are starting. Jobs do not; threads join them when they come. */
  get threads(): number {
    if (this.workers.length === 0) return 1;
    this.awaitWorkers();
    return 1 + this.control[STARTED / 4];
  }

  /** Threads that may ever compute: those that have not started yet included. */
  get mostThreads(): number {
    return 1 + this.workers.length;
  }

  /** Waits until all workers have started or the time is over. */
  private awaitWorkers(): void {
    for (;;) {
      const started = Atomics.load(this.control, STARTED / 4);
      const left = this.startLimit - performance.now();
      if (started >= this.workers.length || left <= 0) return;
      Atomics.wait(this.control, STARTED / 4, started, left);
    }
  }

  kernel(name: string): number {
    const index = this.program.kernels.indexOf(name);
    if (index < 0) throw new Error(`no kernel named ${name}`);
    return index;
  }

  /** Runs units [0, units) of a kernel on this thread. */
  run(kernel: number, units: number): void {
    this.direct[kernel](0, units);
  }

  /** Runs units [0, units) of a kernel on all threads, `chunk` at a time. @throws Error when a worker stopped inside the job. */
  runAll(kernel: number, units: number, chunk: number): void {
    if (units <= chunk || this.workers.length === 0 || this.closed) this.direct[kernel](0, units);
    else if (this.dispatch!(kernel, units, chunk) !== 0) {
      // It may come back, and would leave a job that is long over: from now on this thread works alone.
      this.dismiss();
      throw new Error(`a worker thread stopped inside ${this.program.kernels[kernel]}; its results are lost`);
    }
  }

  /** Says what each thread shall fetch when the job that runs next is done: a line of AHEAD for each. */
  tell(spans: Int32Array): void {
    this.ahead.set(spans);
  }

  /** Address of a tensor's data. @throws TypeError when it lies elsewhere than in this device's memory. */
  address(tensor: Tensor): number {
    if (tensor.buffer !== this.lastBuffer) this.adopt(tensor, tensor.buffer);
    return tensor.byteOffset;
  }

  private adopt(tensor: Tensor, buffer: ArrayBufferLike): void {
    if (!this.buffers.has(buffer)) throw new TypeError(`${tensor.name || "a tensor"} is not in the memory of these kernels: make it with alloc or packer`);
    this.lastBuffer = buffer;
  }

  /** The first six parameters of every norm kernel. */
  setNorm(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | undefined, eps: number): void {
    const { params } = this;
    params[0] = this.address(out);
    params[1] = this.address(x);
    params[2] = this.address(weight);
    params[3] = bias ? this.address(bias) : 0;
    params[4] = weight.cols;
    this.paramsF32[5] = eps;
  }

  /** Zeroed bytes; the buffer to make views on goes with them. */
  alloc(bytes: number, what: string): { address: number; buffer: ArrayBufferLike } {
    const address = this.heap.alloc(bytes, what);
    const buffer = this.heap.buffer();
    this.buffers.add(buffer);
    return { address, buffer };
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.dismiss();
  }

  private dismiss(): void {
    if (this.workers.length === 0) return;
    Atomics.store(this.control, CLOSED / 4, 1);
    Atomics.add(this.control, STATE / 4, 1 << 9);
    Atomics.notify(this.control, STATE / 4);
    for (const worker of this.workers.splice(0)) worker.terminate();
  }
}

/** A block of device memory that grows and keeps nothing: tables and intermediate results. */
export class Workspace {
  address = 0;
  ints: Int32Array = new Int32Array(0);
  private capacity = 0;
  private readonly device: Device;
  private readonly what: string;

  constructor(device: Device, what: string) {
    this.device = device;
    this.what = what;
  }

  /** At least `bytes` bytes with unspecified contents. */
  ensure(bytes: number): number {
    if (bytes > this.capacity) {
      if (this.capacity > 0) this.device.heap.free(this.address);
      // Where memory ends here, what was given back must not be used again: whoever gets it next owns it.
      this.capacity = 0;
      const capacity = Math.ceil((bytes * 5) / 4 / 64) * 64;
      const { address, buffer } = this.device.alloc(capacity, this.what);
      this.capacity = capacity;
      this.address = address;
      this.ints = new Int32Array(buffer, address, capacity / 4);
    }
    return this.address;
  }
}
