import type { Tensor } from "./tensor.ts";

/** What a step feeds: tokens of prompts, generated tokens, or both in one batch. */
export type Phase = "prefill" | "decode" | "mixed";

/**
 * What ops are summed by. Linears are `gemv` with one row (matrix times vector) and `gemm` with more; `attention` is all of it, naive attention's
 * three ops too; `kv` stores keys and values in the cache; `quantize` rounds activations to integers; `elementwise` is whatever has no other kind.
 */
export const OP_KINDS = [
  "gemv",
  "gemm",
  "attention",
  "norm",
  "rope",
  "activation",
  "elementwise",
  "embedding",
  "kv",
  "quantize",
  "sampling",
] as const;
/** One of OP_KINDS. */
export type OpKind = (typeof OP_KINDS)[number];

/** Bytes by what they belong to. */
export interface Traffic {
  weights: number;
  kv: number;
  activations: number;
}

/** What one op did: its shape, its arithmetic, and the bytes of the buffers it was handed, each distinct byte once. */
export interface OpRecord {
  readonly step: number;
  readonly phase: Phase;
  /** Layer of the decoder, -1 outside the layers. */
  readonly layer: number;
  readonly name: string;
  readonly kind: OpKind;
  /** Rows, columns and inner dimension of the product; for attention: queries, longest context, headDim; else rows, columns, 0. */
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** Format of the weights or of the KV pages; f32 where there are neither. */
  readonly dtype: string;
  readonly flops: number;
  readonly read: Traffic;
  readonly written: Traffic;
  /** When the op began, milliseconds on performance.now()'s clock; 0 without timing. */
  readonly startMs: number;
  /** Duration in nanoseconds; 0 without timing. */
  readonly ns: number;
}

/** What `Ledger.write` needs to know; the ledger adds step, phase, layer and time. */
export interface OpCost {
  kind: OpKind;
  m: number;
  n: number;
  k: number;
  dtype: string;
  flops: number;
  readWeights: number;
  readKv: number;
  readActivations: number;
  writtenKv: number;
  writtenActivations: number;
}

/** Sums over all ops of one (phase, layer, name, kind). */
export interface Total {
  readonly phase: Phase;
  readonly layer: number;
  readonly name: string;
  readonly kind: OpKind;
  calls: number;
  flops: number;
  readonly read: Traffic;
  readonly written: Traffic;
  ns: number;
}

/**
 * Called after an op with its record and its output, whose memory the next ops use again: copy it to keep it. Of linears that run
 * as one (`qkv`) it is the first one's output.
 */
export type OpHook = (record: OpRecord, output: Tensor) => void;

/** What a ledger measures and keeps. */
export interface LedgerOptions {
  /** Measure each op's duration (default true). */
  timing?: boolean;
  /** Keep every OpRecord in `records`, for traces (default false: only sums are kept, in constant memory). */
  records?: boolean;
}

/**
 * Writes down what every op moved and computed. Ops call `start` before and `write` after their kernel, only while `on`;
 * sums are kept per (phase, layer, name, kind), found again by their place in the step, so that a warm step does no look-ups.
 */
export class Ledger {
  /** Ops skip all accounting while this is false. */
  on: boolean;
  readonly timing: boolean;
  /** Every op since the last `clear`, in order; empty unless LedgerOptions.records asked for them. */
  readonly records: OpRecord[] = [];
  /** Counts calls of `begin`. */
  step = 0;
  /** Bytes of weights that all ops have read so far. */
  weightBytes = 0;
  layer = -1;
  phase: Phase = "decode";
  private readonly keep: boolean;
  private readonly hooks: OpHook[] = [];
  private held = false;
  private readonly sums = new Map<string, Total>();
  private readonly places: Record<Phase, Total[]> = { prefill: [], decode: [], mixed: [] };
  private place = 0;

  constructor(on = true, { timing = true, records = false }: LedgerOptions = {}) {
    this.on = on;
    this.timing = timing;
    this.keep = records;
  }

  /** Calls `hook` after every op, with the record and the op's output (valid during the call; copy it to keep it). */
  onOp(hook: OpHook): () => void {
    this.hooks.push(hook);
    return () => {
      const at = this.hooks.indexOf(hook);
      if (at >= 0) this.hooks.splice(at, 1);
    };
  }

  /** A new step of the model begins. @throws Error inside a hook or a listener: the step that called it still needs its tensors. */
  begin(phase: Phase): void {
    if (this.held) throw new Error("a hook cannot run the model that it watches: its step is not over");
    this.step++;
    this.phase = phase;
    this.layer = -1;
    this.place = 0;
  }

  /** Milliseconds now, or 0 without timing. */
  start(): number {
    return this.timing ? performance.now() : 0;
  }

  /**
   * Adds an op that has just ended to the sums, and hands its record to `records` and to the hooks, where there are any.
   * @param startMs What `start` gave before its kernel ran.
   */
  write(name: string, cost: OpCost, output: Tensor, startMs: number): void {
    const ns = this.timing ? (performance.now() - startMs) * 1e6 : 0;
    const total = this.total(name, cost.kind);
    total.calls++;
    total.flops += cost.flops;
    total.read.weights += cost.readWeights;
    this.weightBytes += cost.readWeights;
    total.read.kv += cost.readKv;
    total.read.activations += cost.readActivations;
    total.written.kv += cost.writtenKv;
    total.written.activations += cost.writtenActivations;
    total.ns += ns;
    if (!this.keep && this.hooks.length === 0) return;
    const { kind, m, n, k, dtype, flops } = cost;
    const record: OpRecord = {
      ...{ step: this.step, phase: this.phase, layer: this.layer, name, kind, m, n, k, dtype, flops },
      read: { weights: cost.readWeights, kv: cost.readKv, activations: cost.readActivations },
      written: { weights: 0, kv: cost.writtenKv, activations: cost.writtenActivations },
      startMs,
      ns,
    };
    if (this.keep) this.records.push(record);
    this.hold(() => {
      for (const hook of this.hooks) hook(record, output);
    });
  }

  /** Calls back others in the middle of a step: until they return, no step can begin. */
  hold(call: () => void): void {
    const before = this.held;
    this.held = true;
    try {
      call();
    } finally {
      this.held = before;
    }
  }

  /** All sums so far, in the order in which their ops first ran. */
  totals(): readonly Total[] {
    return [...this.sums.values()];
  }

  /** Forgets all sums and records. */
  clear(): void {
    this.records.length = 0;
    this.sums.clear();
    for (const places of Object.values(this.places)) places.length = 0;
  }

  private total(name: string, kind: OpKind): Total {
    const places = this.places[this.phase];
    const known = places[this.place];
    if (known !== undefined && known.name === name && known.layer === this.layer && known.kind === kind) {
      this.place++;
      return known;
    }
    const key = `${this.phase} ${this.layer} ${kind} ${name}`;
    let total = this.sums.get(key);
    if (!total) {
      const none = (): Traffic => ({ weights: 0, kv: 0, activations: 0 });
      total = { phase: this.phase, layer: this.layer, name, kind, calls: 0, flops: 0, read: none(), written: none(), ns: 0 };
      this.sums.set(key, total);
    }
    places[this.place++] = total;
    return total;
  }
}
