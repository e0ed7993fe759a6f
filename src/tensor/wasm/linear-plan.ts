import type { Tensor } from "../tensor.ts";
import type { Device } from "./device.ts";
import { Workspace } from "./device.ts";
import type { KernelOptions } from "./kernels/common.ts";
import { ACT16_MAX, ACT8_MAX, HALF_SHIFT, TILE_ROWS, tileBytes, tilesOf, X_BLOCK } from "./layout.ts";
import { blockOrder } from "./program.ts";

/** Multiplications below which a linear stays on one thread: some 4 microseconds. */
const ALONE = 1 << 17;
/** Bytes of weights in a chunk of a GEMV: long enough for the memory's own prefetching, short enough that threads end together. */
const GEMV_CHUNK = 1 << 15;
/** Bytes of weights, and of activations, that a thread goes over again and again in a GEMM: both fit a second-level cache. */
const GEMM_CHUNK = 1 << 18;
const STRIPE_BYTES = 1 << 19;
/** A stripe is a multiple of every number of tokens that tile functions take at once. */
const STRIPE_STEP = 12;

interface Quantised {
  readonly linear: number;
  readonly row: number;
  readonly quantise: number;
  readonly stride: number;
  /** What stored values are too large by. */
  readonly offset: number;
  readonly factor: number;
}

/** Linears and row lookups over packed weights. */
export function linearPlan(device: Device, method: KernelOptions) {
  const blocks = new Workspace(device, "quantised activations");
  const { params, paramsF32 } = device;
  const most = method.activations === "int8" ? ACT8_MAX : ACT16_MAX;
  const plan = (format: "int8" | "int4", half: boolean): Quantised => {
    const suffix = `${format}_${half ? "half" : "f32"}`;
    return {
      linear: device.kernel(`linear_${suffix}`),
      row: device.kernel(`row_${suffix}`),
      quantise: device.kernel(`quantise_${blockOrder(method, format)}`),
      stride: tileBytes(format, half),
      offset: format === "int4" ? 8 : method.dot === "u8s8" ? 128 : 0,
      factor: (half ? 1 / HALF_SHIFT : 1) / most,
    };
  };
  const plans = { int8: [plan("int8", true), plan("int8", false)], int4: [plan("int4", true), plan("int4", false)] };
  const linearF32 = device.kernel("linear_f32");
  const rowF32 = device.kernel("row_f32");
  const copy = device.kernel("copy");

  /** How a weight is packed: its size tells which scales it has. */
  const quantisedPlan = (w: Tensor, tileCount: number): Quantised | undefined => {
    if (w.dtype !== "packed") throw new TypeError(`${w.name || "a weight"} is ${w.dtype}: these kernels compute with weights from their own packer`);
    if (w.format === "f32") return undefined;
    const [narrow, wide] = plans[w.format as "int8" | "int4"];
    return w.data.length === tileCount * narrow.stride ? narrow : wide;
  };

  return {
    linear(out: Tensor, x: Tensor, w: Tensor, bias?: Tensor): void {
      const n = w.shape[0];
      const k = w.shape[1];
      const m = out.data.length / n;
      const tiles = Math.ceil(n / TILE_ROWS);
      const groups = (k + 31) >> 5;
      const found = quantisedPlan(w, tiles * groups);
      let source = device.address(x);
      let rowBytes = k * 4;
      if (found) {
        rowBytes = groups * X_BLOCK;
        const target = blocks.ensure(m * rowBytes);
        params[0] = source;
        params[1] = target;
        params[2] = k;
        params[3] = groups;
        params[4] = found.offset;
        paramsF32[5] = found.factor;
        if (m * k < 32768) device.run(found.quantise, m);
        else device.runAll(found.quantise, m, Math.max(1, Math.ceil(8192 / k)));
        source = target;
      }
      params[0] = device.address(out);
      params[1] = source;
      params[2] = device.address(w);
      params[3] = bias ? device.address(bias) : 0;
      params[4] = m;
      params[5] = n;
      params[6] = found ? groups : k;
      params[7] = Math.max(STRIPE_STEP, Math.floor(STRIPE_BYTES / rowBytes / STRIPE_STEP) * STRIPE_STEP);
      const kernel = found ? found.linear : linearF32;
      if (m * n * k < ALONE) device.run(kernel, tiles);
      else {
        const perTile = w.data.length / tiles;
        const chunk = Math.min(Math.ceil(tiles / (4 * device.threads)), Math.ceil((m === 1 ? GEMV_CHUNK : GEMM_CHUNK) / perTile));
        device.runAll(kernel, tiles, Math.max(1, chunk));
      }
    },

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
      const { tiles, groups } = tilesOf(table.shape[0], cols);
      const found = quantisedPlan(table, tiles * groups);
      const perTile = found ? groups * found.stride : cols * TILE_ROWS * 4;
      for (let i = 0; i < ids.length; i++) {
        params[0] = to + i * cols * 4;
        params[1] = from + (ids[i] >> 3) * perTile;
        params[2] = ids[i] & 7;
        params[3] = cols;
        params[4] = found ? found.offset : 0;
        device.run(found ? found.row : rowF32, 1);
      }
    },
  };
}
