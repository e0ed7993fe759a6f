import type { FusedKernels, Linear } from "../fusion.ts";
import type { Tensor } from "../tensor.ts";
import type { Device } from "./device.ts";
import { Workspace } from "./device.ts";
import { fetchAhead } from "./fetch-ahead.ts";
import { blockOrder, type KernelOptions } from "./kernels/common.ts";
import type { BlockOrder } from "./kernels/quantise.ts";
import { ACT16_MAX, ACT8_MAX, floatTileBytes, type FloatFormat, HALF_SHIFT, LINEAR, TILE_ROWS, tileBytes, tilesOf, X_BLOCK } from "./layout.ts";
import { GATED_ACTIVATIONS, widensInt4 } from "./program.ts";

/** Bytes of weights, times rows of activations, below which a linear stays on one thread: some 4 microseconds. */
const ALONE = 1 << 17;
/** Most bytes of weights in a chunk of a GEMV: the last ones are an eighth of it, or less. */
const GEMV_CHUNK = 1 << 20;
/** Bytes of weights, and of activations, that a thread goes over again and again in a GEMM: both fit a second-level cache. */
const GEMM_CHUNK = 1 << 18;
const STRIPE_BYTES = 1 << 19;
/** A stripe is a multiple of every number of tokens that tile functions take at once: up to 4, and 8 in wide vectors. */
const stripeStep = ({ wide }: KernelOptions): number => (wide ? 24 : 12);

/** Tokens from which on weights of int4 (but see `widensInt4`) and of 16 bits are widened, tile by tile, before they are multiplied. */
const WIDEN_FROM = 6;

/** Most tokens with which a linear is bound by reading its weights. */
const FEW_ROWS = 4;

/** How weights of one packed format are multiplied. */
interface Format {
  readonly linear: number;
  readonly add: number;
  readonly gated: number;
  readonly row: number;
  /** Bytes of a tile of k columns. */
  tileBytes(k: number): number;
  /** Of a tile that is widened for many tokens. */
  widenedBytes?(k: number): number;
  /** What the format's activations must be; undefined: f32 as they are. */
  readonly blocks?: Blocks;
}

/** Activations in blocks of 32 columns, as some weight formats read them. */
interface Blocks {
  /** The format of a tensor of such blocks. */
  readonly name: string;
  readonly order: BlockOrder;
  /** What stored weights are too large by. */
  readonly offset: number;
  readonly factor: number;
}

/** Linears and row lookups over packed weights. */
export function linearPlan(device: Device, method: KernelOptions) {
  const workspace = new Workspace(device, "quantised activations");
  const widened = new Workspace(device, "widened tiles");
  const { params, paramsF32 } = device;
  const most = method.activations === "int8" ? ACT8_MAX : ACT16_MAX;
  const step = stripeStep(method);
  const kernels = (suffix: string) => ({
    linear: device.kernel(`linear_${suffix}`),
    add: device.kernel(`linear_add_${suffix}`),
    gated: device.kernel(`linear_gated_${suffix}`),
    row: device.kernel(`row_${suffix}`),
  });
  const quantised = (format: "int8" | "int4", half: boolean): Format & { blocks: Blocks } => {
    const order = blockOrder(method, format);
    const offset = format === "int4" ? 8 : method.dot === "u8s8" ? 128 : 0;
    const factor = (half ? 1 / HALF_SHIFT : 1) / most;
    const bytesOf = (format: "int8" | "int4", half: boolean) => (k: number) => ((k + 31) >> 5) * tileBytes(format, half);
    const sizes = { tileBytes: bytesOf(format, half), ...(format === "int4" && widensInt4(method) && { widenedBytes: bytesOf("int8", false) }) };
    return { ...kernels(`${format}_${half ? "half" : "f32"}`), ...sizes, blocks: { name: `${method.activations} ${order} ${offset}${half ? " half" : ""}`, order, offset, factor } };
  };
  const formats = { int8: [quantised("int8", true), quantised("int8", false)], int4: [quantised("int4", true), quantised("int4", false)] } as const;
  const float = (format: FloatFormat): Format => {
    const bytesOf = (format: FloatFormat) => (k: number) => floatTileBytes(format, k);
    return { ...kernels(format), tileBytes: bytesOf(format), ...(format !== "f32" && { widenedBytes: bytesOf("f32") }) };
  };
  const floats = { f32: float("f32"), f16: float("f16"), bf16: float("bf16") };
  const copy = device.kernel("copy");
  const orders = [...new Set(Object.values(formats).flatMap((pair) => pair.map(({ blocks }) => blocks.order)))];
  const byOrder = (prefix: string) => Object.fromEntries(orders.map((order) => [order, device.kernel(`${prefix}_${order}`)])) as Record<BlockOrder, number>;
  const quantise = byOrder("quantise");
  const norms = { rms: byOrder("rms_norm"), layer: byOrder("layer_norm") };

  /** How a weight is packed: its size tells which scales it has. */
  const formatOf = (w: Tensor): Format => {
    if (w.dtype !== "packed") throw new TypeError(`${w.name || "a weight"} is ${w.dtype}: these kernels compute with weights from their own packer`);
    if (w.format !== "int8" && w.format !== "int4") return floats[w.format as FloatFormat];
    const [narrow, wide] = formats[w.format];
    return w.data.length === tilesOf(w.shape[0], w.shape[1]).tiles * narrow.tileBytes(w.shape[1]) ? narrow : wide;
  };

  const blockParams = ({ offset, factor }: Blocks, at: number): void => {
    params[at] = offset;
    paramsF32[at + 1] = factor;
  };

  /** Address of x / HALF_SHIFT, for f16 weights times HALF_SHIFT; undefined where that is too much for f32. */
  const raise = ({ f32: from }: Tensor): number | undefined => {
    const address = workspace.ensure(from.byteLength);
    const to = new Float32Array(workspace.ints.buffer, address, from.length);
    let most = 0;
    for (let i = 0; i < from.length; i++) {
      to[i] = from[i] * (1 / HALF_SHIFT);
      most = Math.max(most, Math.abs(to[i])); // Math.max keeps a NaN.
    }
    return most < Infinity ? address : undefined;
  };

  /** Address of x as the weights want it. @throws TypeError for blocks made for others. */
  const activations = (x: Tensor, { blocks }: Format, m: number, k: number): number => {
    if (x.dtype === "packed") {
      if (x.format !== blocks?.name) throw new TypeError(`${x.name}: these weights want activations as ${blocks?.name ?? "f32"}, found ${x.format}`);
      return device.address(x);
    }
    const from = device.address(x);
    if (!blocks) return from;
    const groups = (k + 31) >> 5;
    const to = workspace.ensure(m * groups * X_BLOCK);
    params[0] = from;
    params[1] = to;
    params[2] = k;
    params[3] = groups;
    blockParams(blocks, 4);
    if (m * k < 32768) device.run(quantise[blocks.order], m);
    else device.runAll(quantise[blocks.order], m, Math.max(1, Math.ceil(8192 / k)));
    return to;
  };

  /** One job over the parts' tiles, or (gated) over those of the first part. */
  const multiply = (how: "linear" | "add" | "gated", outs: readonly Tensor[], x: Tensor, parts: readonly Linear[], activation = 0): void => {
    const { weight } = parts[0];
    const format = formatOf(weight);
    const k = weight.shape[1];
    const m = x.rows;
    const raised = format === floats.f16 && m < WIDEN_FROM ? raise(x) : undefined;
    const source = raised ?? activations(x, format, m, k);
    const rowBytes = format.blocks ? ((k + 31) >> 5) * X_BLOCK : k * 4;
    let at: number = LINEAR.table;
    let tiles = 0;
    let bytes = 0;
    for (let i = 0; i < parts.length; i++) {
      const { weight, bias } = parts[i];
      params[at++] = outs[i] ? device.address(outs[i]) : 0;
      params[at++] = device.address(weight);
      params[at++] = bias ? device.address(bias) : 0;
      params[at++] = weight.shape[0];
      if (i === 0 || how !== "gated") tiles += (weight.shape[0] + TILE_ROWS - 1) >> 3;
      bytes += weight.data.byteLength;
    }
    params[LINEAR.x] = source;
    params[LINEAR.m] = m;
    params[LINEAR.k] = format.blocks ? (k + 31) >> 5 : k;
    params[LINEAR.stripe] = Math.max(step, Math.floor(STRIPE_BYTES / rowBytes / step) * step);
    params[LINEAR.activation] = activation;
    params[LINEAR.widened] = 0;
    if (format.widenedBytes && (m >= WIDEN_FROM || (format === floats.f16 && raised === undefined))) {
      const widenedBytes = 2 * format.widenedBytes(k);
      params[LINEAR.widened] = widened.ensure(widenedBytes * device.mostThreads);
      params[LINEAR.widenedBytes] = widenedBytes;
    }
    const kernel = format[how];
    if (m * bytes < ALONE) device.run(kernel, tiles);
    else {
      ahead?.(parts, format.tileBytes(k), how === "gated", m <= FEW_ROWS);
      const chunk = Math.min(Math.ceil(tiles / (2 * device.mostThreads)), Math.ceil(((m === 1 ? GEMV_CHUNK : GEMM_CHUNK) * tiles) / bytes));
      device.runAll(kernel, tiles, Math.max(1, chunk));
    }
  };

  const one: Linear[] = [];
  const ahead = device.mostThreads > 1 ? fetchAhead(device) : undefined;
  return {
    linear(out: Tensor, x: Tensor, weight: Tensor, bias?: Tensor): void {
      one[0] = { weight, bias };
      multiply("linear", [out], x, one);
    },

    fused: {
      together: (parts) => parts.every(({ weight }) => formatOf(weight) === formatOf(parts[0].weight)),
      inputs(parts, [rows, cols]) {
        const blocks = formatOf(parts[0].weight).blocks;
        if (!blocks || !parts.every(({ weight }) => formatOf(weight).blocks === blocks)) return undefined;
        return { format: blocks.name, bytes: rows * ((cols + 31) >> 5) * X_BLOCK };
      },
      norm(out, x, kind, { weight, bias }, eps, parts) {
        const { blocks } = formatOf(parts[0].weight);
        const n = weight.cols;
        device.setNorm(out, x, weight, bias, eps);
        params[6] = (n + 31) >> 5;
        blockParams(blocks!, 7);
        const kernel = norms[kind][blocks!.order];
        if (x.rows * n < 16384) device.run(kernel, x.rows);
        else device.runAll(kernel, x.rows, Math.max(1, Math.ceil(4096 / n)));
      },
      linears: (outs, x, parts) => multiply("linear", outs, x, parts),
      addLinear(sum, x, part) {
        one[0] = part;
        multiply("add", [sum], x, one);
      },
      gatedLinear: (out, x, gate, up, activation) => multiply("gated", [out], x, [gate, up], GATED_ACTIVATIONS.indexOf(activation)),
    } satisfies FusedKernels,

    /** out[i] = row ids[i] of a packed table or of plain f32 rows. */
    rows(out: Tensor, table: Tensor, ids: Int32Array): void {
      const cols = table.shape[table.shape.length - 1];
      const from = device.address(table);
      const to = device.address(out);
      if (table.dtype === "f32") {
        for (let i = 0; i < ids.length; i++) {
          params[0] = to + i * cols * 4;
          params[1] = from + ids[i] * cols * 4;
          params[2] = cols * 4;
          device.run(copy, 1);
        }
        return;
      }
      const { row, blocks, tileBytes } = formatOf(table);
      const perTile = tileBytes(cols);
      for (let i = 0; i < ids.length; i++) {
        params[0] = to + i * cols * 4;
        params[1] = from + (ids[i] >> 3) * perTile;
        params[2] = ids[i] & 7;
        params[3] = cols;
        params[4] = blocks ? blocks.offset : 0;
        device.run(row, 1);
      }
    },
  };
}
