import { Arena } from "./arena.ts";
import { type Fusion, FUSIONS, type Linear, type Norm } from "./fusion.ts";
import type { Activation, Adjustment, AttentionShape, Kernels, RopeStyle, Segment } from "./kernels.ts";
import type { Ledger, OpCost, OpKind } from "./ledger.ts";
import { naiveAttention } from "./naive-attention.ts";
import { attentionCost, kvFormat, linearCost, NOTHING, positionBytes, ropeCost, writeCost } from "./op-costs.ts";
import { plainRanking, type Ranking } from "./ranking.ts";
import { type Choice, choices, type Routing } from "./routing.ts";
import { visiblePairs, visiblePositions } from "./segments.ts";
import type { Tensor } from "./tensor.ts";

export type { Linear, Norm } from "./fusion.ts";

/** What a router chose for a batch. */
export interface Routes {
  /** [tokens, used] */
  readonly weights: Tensor;
  readonly choices: readonly Choice[];
}

/** `tiled`: online softmax, no scores in memory. `naive`: the textbook's three steps over a [heads, queries, keys] matrix. */
export type AttentionMethod = "tiled" | "naive";

/** The format in which linears read their inputs. */
export interface ActivationFormat {
  readonly dtype: "f32" | "int8" | "int16";
  /** The fixed scale of an op's output in a layer, where scales are static; else every row has its own. */
  readonly scale?: (layer: number, name: string) => number | undefined;
}

/** How ops compute, where there is a choice. */
export interface OpsOptions {
  /** Default `tiled`. */
  readonly attention?: AttentionMethod;
  /** Default f32. */
  readonly activations?: ActivationFormat;
  /** What runs as one op where the kernels can: default everything. */
  readonly fusions?: readonly Fusion[];
}

/**
 * The operations of a decoder. Each one checks shapes, runs one kernel and writes one OpRecord (naive attention: three). Bytes come from
 * the tensors that the kernel is handed; flops follow the conventions stated at each op, exp and sqrt counting as one.
 */
export class Ops {
  readonly kernels: Kernels;
  readonly ledger: Ledger;
  readonly arena: Arena;
  readonly attentionMethod: AttentionMethod;
  readonly activations: ActivationFormat;
  readonly fusions: ReadonlySet<Fusion>;

  /** @throws RangeError when the kernels cannot compute with these activations. */
  constructor(kernels: Kernels, ledger: Ledger, { attention = "tiled", activations = { dtype: "f32" }, fusions = FUSIONS }: OpsOptions = {}) {
    if (activations.dtype !== "f32" && !kernels.quantize) {
      throw new RangeError(`activations: the ${kernels.name} kernels compute with f32 only, found ${activations.dtype} (the scalar backend has it)`);
    }
    this.activations = activations;
    this.kernels = kernels;
    this.ledger = ledger;
    this.arena = new Arena(kernels);
    this.attentionMethod = attention;
    this.fusions = new Set(kernels.fused ? fusions : fusions.filter((fusion) => fusion === "outputs"));
  }

  /** x [m, k] . weight [n, k]^T + bias -> [m, n]; 2mnk flops. One row is a GEMV, several are a GEMM. */
  linear(name: string, x: Tensor, { weight, bias }: Linear): Tensor {
    const [m, n, k] = [x.rows, weight.rows, weight.cols];
    if (x.cols !== k) mismatch(name, `x [${x.shape}] and weight [${weight.shape}]`);
    const out = this.arena.take(name, [m, n]);
    const started = this.start();
    this.kernels.linear(out, x, weight, bias);
    if (this.ledger.on) this.write(name, linearCost(x, [{ weight, bias }]), out, started);
    return out;
  }

  /** A linear for each head over its own rows: x [heads * m, k] -> [heads * m, n], weights [n, k]; 2mnk flops a head. */
  headLinears(name: string, x: Tensor, parts: readonly Linear[]): Tensor {
    const [{ weight }] = parts;
    const [m, n, k] = [x.rows / parts.length, weight.rows, weight.cols];
    if (!Number.isInteger(m) || parts.some((part) => part.weight.rows !== n || part.weight.cols !== x.cols)) {
      mismatch(name, `x [${x.shape}] and ${parts.length} heads of weight [${weight.shape}]`);
    }
    const out = this.arena.take(name, [x.rows, n]);
    const started = this.start();
    parts.forEach((part, head) => this.kernels.linear(out.slice(head * m, (head + 1) * m), x.slice(head * m, (head + 1) * m), part.weight, part.bias));
    if (this.ledger.on) {
      const cost = linearCost(x, parts);
      this.write(name, { ...cost, kind: m === 1 ? "gemv" : "gemm", m, flops: 2 * m * cost.n * k }, out, started);
    }
    return out;
  }

  /** Columns [from, from + width) of every head of x [tokens, heads * ..] -> [heads * tokens, width], head by head. */
  splitHeads(name: string, x: Tensor, heads: number, from: number, width: number): Tensor {
    if (x.cols % heads !== 0 || from + width > x.cols / heads) mismatch(name, `x [${x.shape}], ${heads} heads and columns ${from} to ${from + width} of them`);
    const out = this.arena.take(name, [heads * x.rows, width]);
    const started = this.start();
    this.kernels.splitHeads(out, x, heads, from);
    this.plain(name, "elementwise", out, out.bytes, 0, started);
    return out;
  }

  /** Parts [heads * tokens, n] side by side -> [tokens, heads * (sum of n)]. */
  joinHeads(name: string, parts: readonly Tensor[], heads: number): Tensor {
    const { rows } = parts[0];
    if (rows % heads !== 0 || parts.some((part) => part.rows !== rows)) mismatch(name, `parts ${parts.map(({ shape }) => `[${shape}]`).join(", ")} and ${heads} heads`);
    const out = this.arena.take(name, [rows / heads, heads * parts.reduce((sum, { cols }) => sum + cols, 0)]);
    const started = this.start();
    this.kernels.joinHeads(out, parts, heads);
    this.plain(name, "elementwise", out, out.bytes, 0, started);
    return out;
  }

  /** Linears over the same x, by their names; as one op `name` where that can be fused. */
  linears(name: string, names: readonly string[], x: Tensor, parts: readonly Linear[]): Tensor[] {
    const { fused } = this.kernels;
    if (!this.fusions.has("qkv") || !fused?.together(parts)) return parts.map((part, i) => this.linear(names[i], x, part));
    for (const { weight } of parts) if (x.cols !== weight.cols) mismatch(name, `x [${x.shape}] and weight [${weight.shape}]`);
    const outs = parts.map(({ weight }, i) => this.arena.take(names[i], [x.rows, weight.rows]));
    const started = this.start();
    fused.linears(outs, x, parts);
    if (this.ledger.on) {
      const writtenActivations = outs.reduce((sum, out) => sum + out.bytes, 0);
      this.write(name, { ...linearCost(x, parts), writtenActivations }, outs[0], started);
    }
    return outs;
  }

  /** act(x . gate^T) * (x . up^T) -> [m, n]: the ops `gate`, `up` and `act`, or one op `gate_up`; 4mnk + 5mn flops. */
  gatedLinear(block: string, x: Tensor, gate: Linear, up: Linear, activation: Activation): Tensor {
    const { fused } = this.kernels;
    if (!this.fusions.has("gate-up") || !fused?.together([gate, up])) {
      const [a, b] = this.linears(`${block}_gate_up`, [`${block}_gate`, `${block}_up`], x, [gate, up]);
      return this.gated(`${block}_act`, a, b, activation);
    }
    if (x.cols !== up.weight.cols || gate.weight.rows !== up.weight.rows || gate.weight.cols !== up.weight.cols) {
      mismatch(`${block}_gate_up`, `x [${x.shape}], gate [${gate.weight.shape}] and up [${up.weight.shape}]`);
    }
    const out = this.arena.take(`${block}_act`, [x.rows, up.weight.rows]);
    const started = this.start();
    fused.gatedLinear(out, x, gate, up, activation);
    if (this.ledger.on) {
      const cost = linearCost(x, [gate, up]);
      this.write(`${block}_gate_up`, { ...cost, flops: cost.flops + 5 * x.rows * up.weight.rows }, out, started);
    }
    return out;
  }

  /** sum += x . weight^T + bias: the ops `name` and `residual`, or the first of them alone; 2mnk + mn flops. */
  addLinear(name: string, residual: string, sum: Tensor, x: Tensor, part: Linear): void {
    const { fused } = this.kernels;
    if (!this.fusions.has("residual") || !fused) return this.add(residual, sum, this.linear(name, x, part));
    if (x.cols !== part.weight.cols || sum.rows !== x.rows || sum.cols !== part.weight.rows) {
      mismatch(name, `sum [${sum.shape}], x [${x.shape}] and weight [${part.weight.shape}]`);
    }
    const started = this.start();
    fused.addLinear(sum, x, part);
    if (this.ledger.on) {
      const cost = linearCost(x, [part]);
      this.write(name, { ...cost, flops: cost.flops + sum.rows * sum.cols, readActivations: x.bytes + sum.bytes }, sum, started);
    }
  }

  /**
   * What `parts` read of x: normalised and in the engine's activation format. Where the norm can be fused with the quantisation that the
   * kernels' linears begin with, its result exists as quantised blocks only.
   */
  normalised(name: string, x: Tensor, kind: "rms" | "layer", norm: Norm, eps: number, parts: readonly Linear[]): Tensor {
    const { weight, bias } = norm;
    const { fused } = this.kernels;
    const blocks = this.fusions.has("norm") && fused && parts.length > 0 ? fused.inputs(parts, x.shape) : undefined;
    if (!blocks) return this.quantize(name, kind === "rms" ? this.rmsNorm(name, x, weight, eps) : this.layerNorm(name, x, weight, bias, eps));
    if (x.cols !== weight.cols || weight.rows !== 1) mismatch(name, `x [${x.shape}] and weight [${weight.shape}]`);
    const out = this.arena.takeBlocks(name, x.shape, blocks);
    const started = this.start();
    fused!.norm(out, x, kind, norm, eps, parts);
    this.norm(name, x, out, weight.bytes + (bias ? bias.bytes : 0), kind === "rms" ? 4 : 7, started);
    return out;
  }

  /**
   * The output x of op `name` in the engine's activation format, for all linears that read it: x itself, and no op, while that is f32; else
   * integers with a scale a row. 3 flops a value.
   */
  quantize(name: string, x: Tensor): Tensor {
    const { dtype, scale } = this.activations;
    if (dtype === "f32") return x;
    const out = this.arena.takeIntegers(name, x.shape, dtype);
    const started = this.start();
    this.kernels.quantize!(out, x, scale?.(this.ledger.layer, name));
    this.plain(name, "quantize", out, x.bytes, 3 * x.rows * x.cols, started);
    return out;
  }

  /** Rows `ids` of table [rows, cols] -> [ids, cols]; reads those rows only. */
  embed(name: string, table: Tensor, ids: Int32Array): Tensor {
    for (const id of ids) if (!(id >= 0 && id < table.rows)) throw new RangeError(`${name}: expected ids below ${table.rows}, found ${id}`);
    const out = this.arena.take(name, [ids.length, table.cols]);
    const started = this.start();
    this.kernels.embed(out, table, ids);
    if (this.ledger.on) {
      const readWeights = (table.bytes / table.rows) * new Set(ids).size;
      this.write(name, { ...NOTHING, kind: "embedding", m: ids.length, n: table.cols, dtype: table.format, readWeights, readActivations: ids.byteLength }, out, started);
    }
    return out;
  }

  /** Rows `ids` of x, in its format -> [ids, cols]. */
  gather(name: string, x: Tensor, ids: Int32Array): Tensor {
    const shape = [ids.length, x.cols];
    const out = x.dtype === "int8" || x.dtype === "int16" ? this.arena.takeIntegers(name, shape, x.dtype) : this.arena.take(name, shape);
    const started = this.start();
    this.kernels.gather(out, x, ids);
    this.plain(name, "elementwise", out, out.bytes + ids.byteLength, 0, started);
    return out;
  }

  /** The same values in a tensor of their own. */
  copy(name: string, x: Tensor): Tensor {
    return this.gather(name, x, Int32Array.from({ length: x.rows }, (_, i) => i));
  }

  /** RMSNorm of every run of weight.cols values -> the shape of x; 4 flops a value. */
  rmsNorm(name: string, x: Tensor, weight: Tensor, eps: number): Tensor {
    const out = this.normOutput(name, x, weight);
    const started = this.start();
    this.kernels.rmsNorm(out, x, weight, eps);
    this.norm(name, x, out, weight.bytes, 4, started);
    return out;
  }

  /** LayerNorm of every run of weight.cols values -> the shape of x; 7 flops a value. */
  layerNorm(name: string, x: Tensor, weight: Tensor, bias: Tensor | undefined, eps: number): Tensor {
    const out = this.normOutput(name, x, weight);
    const started = this.start();
    this.kernels.layerNorm(out, x, weight, bias, eps);
    this.norm(name, x, out, weight.bytes + (bias ? bias.bytes : 0), 7, started);
    return out;
  }

  /** Cosines and sines for one step's positions -> [positions, 2 * frequencies], shared by all layers; 3 flops a pair. */
  ropeAngles(positions: Int32Array, frequencies: Float64Array, magnitude: number): Tensor {
    const out = this.arena.take("rope_angles", [positions.length, 2 * frequencies.length]);
    const started = this.start();
    this.kernels.ropeAngles(out, positions, frequencies, magnitude);
    this.plain("rope_angles", "rope", out, positions.byteLength + frequencies.byteLength, 3 * positions.length * frequencies.length, started);
    return out;
  }

  /** Rotary position embedding of x [tokens, heads * headDim], in place; 6 flops a pair. Reads and writes the pairs that turn. */
  rope(name: string, x: Tensor, angles: Tensor, headDim: number, style: RopeStyle): Tensor {
    if (angles.rows !== x.rows || x.cols % headDim !== 0 || angles.cols > headDim) mismatch(name, `x [${x.shape}], angles [${angles.shape}], headDim ${headDim}`);
    const started = this.start();
    this.kernels.rope(x, angles, headDim, style);
    if (this.ledger.on) this.write(name, ropeCost(x, angles, headDim), x, started);
    return x;
  }

  /** Appends k and v [tokens, nKvHeads * headDim] to their sequences' pages. */
  kvWrite(k: Tensor, v: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape): void {
    const started = this.start();
    this.kernels.kvWrite(k, v, segments, layer, shape);
    if (this.ledger.on) {
      let writtenKv = 0;
      for (const { length, pages } of segments) writtenKv += length * positionBytes(pages[0]);
      const dtype = kvFormat(segments);
      this.write("kv_write", { ...NOTHING, kind: "kv", m: k.rows, n: (v === k ? 1 : 2) * k.cols, dtype, readActivations: k.bytes + (v === k ? 0 : v.bytes), writtenKv }, k, started);
    }
  }

  /**
   * Causal attention of q [tokens, nHeads * headDim], each row over its own sequence -> the shape of q.
   * 4 headDim + 5 flops for each visible (query, key, head). `sinkQ`, of q's shape, is what meets the sinks beyond the window.
   */
  attention(q: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape, sinkQ?: Tensor): Tensor {
    if (q.cols !== shape.nHeads * shape.headDim) mismatch("attention", `q [${q.shape}] and ${shape.nHeads} heads of ${shape.headDim}`);
    const out = this.arena.take("attention", q.shape);
    if (this.attentionMethod === "naive") naiveAttention(this, out, q, segments, layer, shape, sinkQ);
    else {
      const started = this.start();
      this.kernels.attention(out, q, segments, layer, shape, sinkQ);
      if (this.ledger.on) {
        const flops = visiblePairs(segments) * shape.nHeads * (4 * shape.headDim + 5);
        const readKv = visiblePositions(segments) * positionBytes(segments[0].pages[0]);
        const readActivations = q.bytes + (sinkQ ? sinkQ.bytes : 0);
        this.write("attention", { ...attentionCost(q, segments, shape), flops, readKv, readActivations, readWeights: shape.sinkLogits?.bytes ?? 0 }, out, started);
      }
    }
    return out;
  }

  /** act(gate) * up; 5 flops a value. */
  gated(name: string, gate: Tensor, up: Tensor, activation: Activation): Tensor {
    if (gate.rows !== up.rows || gate.cols !== up.cols) mismatch(name, `gate [${gate.shape}] and up [${up.shape}]`);
    const out = this.arena.take(name, gate.shape);
    const started = this.start();
    this.kernels.gated(out, gate, up, activation);
    this.plain(name, "activation", out, gate.bytes + up.bytes, 5 * gate.rows * gate.cols, started);
    return out;
  }

  /** act(x), in place; 4 flops a value. */
  activate(name: string, x: Tensor, activation: Activation): Tensor {
    const started = this.start();
    this.kernels.activate(x, activation);
    this.plain(name, "activation", x, x.bytes, 4 * x.rows * x.cols, started);
    return x;
  }

  /** Every value scaled, capped or clamped, in place: 1 flop a value, with a cap 3. */
  adjust(name: string, x: Tensor, how: Adjustment, by: number): Tensor {
    const started = this.start();
    this.kernels.adjust(x, how, by);
    this.plain(name, "elementwise", x, x.bytes, (how === "cap" ? 3 : 1) * x.rows * x.cols, started);
    return x;
  }

  /** x += y, the residual stream; 1 flop a value. */
  add(name: string, x: Tensor, y: Tensor): void {
    if (x.rows !== y.rows || x.cols !== y.cols) mismatch(name, `x [${x.shape}] and y [${y.shape}]`);
    const started = this.start();
    this.kernels.add(x, y);
    this.plain(name, "elementwise", x, x.bytes + y.bytes, x.rows * x.cols, started);
  }

  /** A tensor of zeros: what sums begin with. */
  zeros(name: string, shape: readonly number[]): Tensor {
    const out = this.arena.take(name, shape);
    const started = this.start();
    if (out.dtype === "f32") out.f32.fill(0); // Not those of cost-only kernels.
    this.plain(name, "elementwise", out, 0, 0, started);
    return out;
  }

  /** Experts for every row of a router's logits [tokens, count], `bias` [count] helping to choose; 6 flops a logit. */
  route(name: string, logits: Tensor, routing: Routing, bias?: Tensor): Routes {
    if (logits.cols !== routing.count) mismatch(name, `logits [${logits.shape}] and ${routing.count} experts`);
    const weights = this.arena.take(name, [logits.rows, routing.used]);
    const ids = new Int32Array(logits.rows * routing.used);
    const started = this.start();
    this.kernels.route(ids, weights, logits, routing, bias);
    if (this.ledger.on) {
      const cost = { ...NOTHING, m: logits.rows, n: routing.count, flops: 6 * logits.rows * routing.count, readActivations: logits.bytes };
      this.write(name, { ...cost, readWeights: bias ? bias.bytes : 0, writtenActivations: weights.bytes + ids.byteLength }, weights, started);
    }
    return { weights, choices: choices(ids, routing.count) };
  }

  /** Adds the rows of x, each times its weight, to the rows of `out` whose tokens chose them (see Choice); 2 flops a value. Writes those rows only. */
  scatterAdd(name: string, out: Tensor, x: Tensor, weights: Tensor, places: Int32Array): void {
    if (out.cols !== x.cols || x.rows !== places.length || weights.rows !== out.rows) {
      mismatch(name, `out [${out.shape}], x [${x.shape}], weights [${weights.shape}] and ${places.length} places`);
    }
    const started = this.start();
    this.kernels.scatterAdd(out, x, weights, places);
    if (this.ledger.on) {
      const readActivations = 2 * x.bytes + (weights.bytes / (weights.rows * weights.cols) + Int32Array.BYTES_PER_ELEMENT) * places.length;
      this.write(name, { ...NOTHING, m: x.rows, n: x.cols, flops: 2 * x.rows * x.cols, readActivations, writtenActivations: x.bytes }, out, started);
    }
  }

  /** Picks a token from one row of logits [1, vocabSize], whose largest the kernels find; 1 flop a value. */
  sample(logits: Tensor, pick: (values: Float32Array, ranking: Ranking) => number): number {
    const started = this.start();
    const values = logits.data as Float32Array; // Empty on cost-only kernels, whatever their format.
    const id = pick(values, this.kernels.ranking?.(logits) ?? plainRanking(values));
    const { cols: n, bytes: readActivations } = logits;
    if (this.ledger.on) this.write("sample", { ...NOTHING, kind: "sampling", m: 1, n, flops: n, readActivations, writtenActivations: Int32Array.BYTES_PER_ELEMENT }, logits, started);
    return id;
  }

  private normOutput(name: string, x: Tensor, weight: Tensor): Tensor {
    if (x.cols % (weight.rows * weight.cols) !== 0) mismatch(name, `x [${x.shape}] and weight [${weight.shape}]`);
    return this.arena.take(name, x.shape);
  }

  private norm(name: string, x: Tensor, out: Tensor, readWeights: number, flopsPerValue: number, started: number): void {
    if (!this.ledger.on) return;
    const flops = flopsPerValue * x.rows * x.cols;
    this.write(name, { ...NOTHING, kind: "norm", m: x.rows, n: x.cols, flops, readWeights, readActivations: x.bytes }, out, started);
  }

  private plain(name: string, kind: OpKind, out: Tensor, readActivations: number, flops: number, started: number): void {
    if (this.ledger.on) this.write(name, { ...NOTHING, kind, m: out.rows, n: out.cols, flops, readActivations }, out, started);
  }

  private start(): number {
    return this.ledger.on ? this.ledger.start() : 0;
  }

  private write(name: string, cost: OpCost, out: Tensor, started: number): void {
    writeCost(this.ledger, name, cost, out, started);
  }
}

function mismatch(name: string, found: string): never {
  throw new RangeError(`${name}: shapes do not fit: ${found}`);
}
