import { joinHeads, splitHeads } from "../heads.ts";
import type { Kernels } from "../kernels.ts";
import { route } from "../routing.ts";
import { ropeAngles } from "../scalar/pointwise.ts";
import type { PlainDType, TensorData } from "../tensor.ts";
import { isHalf, storage, Tensor, VIEWS } from "../tensor.ts";
import { attentionPlan } from "./attention-plan.ts";
import type { Spawn } from "./device.ts";
import { Device, Workspace } from "./device.ts";
import type { KernelOptions } from "./kernels/common.ts";
import { linearPlan } from "./linear-plan.ts";
import { wasmPacker } from "./pack.ts";
import type { Probe } from "./probe.ts";
import { probe } from "./probe.ts";
import { selection } from "./select.ts";

export type { Spawn, WorkerData } from "./device.ts";
export { WORKER_BODY } from "./device.ts";
export type { Probe, RelaxedDot } from "./probe.ts";
export { probe, startProbe } from "./probe.ts";

export interface WasmOptions {
  /** Threads that compute, the calling one included; more than one needs `spawn`. Default 1. */
  readonly threads?: number;
  readonly spawn?: Spawn;
  /** Most bytes of memory, at most (and by default) 4 GiB. */
  readonly maxBytes?: number;
  /** Activations of int8 and int4 linears: 16 bits (default), or 8 bits, which is faster where the relaxed dot is exact. */
  readonly activations?: "int16" | "int8";
  /** False: baseline SIMD only, whatever the machine can do. */
  readonly relaxed?: boolean;
  /** The engine joins operations on neighbouring vectors to 256 bits: kernels are laid out for that. Default false. */
  readonly wide?: boolean;
}

export interface WasmKernels extends Kernels {
  readonly probe: Probe;
  /** How linears multiply here. */
  readonly method: KernelOptions;
  /** Threads that compute now. */
  readonly threads: number;
  readonly device: Device;
}

/** Floats below which a pointwise op stays on one thread. */
const ALONE = 16384;

/**
 * Kernels emitted as WebAssembly SIMD, over one (shared) memory and `threads` threads.
 * @throws Error where WebAssembly has no SIMD.
 */
export function wasmKernels({ threads = 1, spawn, maxBytes, activations = "int16", relaxed = true, wide = false }: WasmOptions = {}): WasmKernels {
  const found = probe(wide);
  if (!found.simd) throw new Error("this JavaScript engine has no WebAssembly SIMD: use the scalar kernels");
  const exact = relaxed && (found.relaxedDot === "u8s8" || found.relaxedDot === "s8s8") ? found.relaxedDot : "pairs";
  // Eight bits gain nothing on the pairs path.
  const method: KernelOptions = { dot: exact, activations: exact === "pairs" ? "int16" : activations, madd: relaxed && found.madd, wide };
  const device = new Device(method, { threads, spawn, maxBytes });
  const { params, paramsF32 } = device;
  const linears = linearPlan(device, method);
  const attention = attentionPlan(device);
  const staging = new Workspace(device, "a piece of the model file");
  const names = ["rms_norm", "layer_norm", "rope_interleaved", "rope_halves", "gated_silu", "gated_gelu", "gated_relu2", "gated_swiglu_oai", "silu", "gelu", "relu2", "swiglu_oai", "scale", "cap", "clamp", "add", "add_scaled", "softmax", "copy"] as const;
  const kernel = Object.fromEntries(names.map((name) => [name, device.kernel(name)])) as Record<(typeof names)[number], number>;

  /** Rows of `width` floats each: on all threads where that pays. */
  const byRows = (index: number, rows: number, width: number): void => {
    if (rows * width < ALONE) device.run(index, rows);
    else device.runAll(index, rows, Math.max(1, Math.ceil(ALONE / 4 / width)));
  };
  /** n floats in vectors of four. */
  const byFloats = (index: number, n: number): void => {
    params[3] = n;
    byRows(index, (n + 3) >> 2, 4);
  };

  const norm = (index: number, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | undefined, eps: number): void => {
    const n = weight.cols;
    device.setNorm(out, x, weight, bias, eps);
    params[6] = weight.rows;
    byRows(index, x.data.length / n, n);
  };

  return {
    name: "wasm",
    kv: { formats: ["f32", "int8", "int4"], windows: true },
    probe: found,
    method,
    device,
    get threads() {
      return device.threads;
    },
    alloc: (dtype, shape, group) => allocate(device, dtype, shape, group),
    free: (tensor) => {
      device.heap.free(tensor.data.byteOffset);
      if (tensor.scales) device.heap.free(tensor.scales.byteOffset);
    },
    packer: (spec) => wasmPacker(device, staging, method, spec),
    linear: linears.linear,
    fused: linears.fused,
    embed: linears.rows,
    gather: linears.rows,
    rmsNorm: (out, x, weight, eps) => norm(kernel.rms_norm, out, x, weight, undefined, eps),
    layerNorm: (out, x, weight, bias, eps) => norm(kernel.layer_norm, out, x, weight, bias, eps),
    ropeAngles,
    rope(x, angles, headDim, style) {
      const pairs = angles.cols / 2;
      const width = x.data.length / angles.rows;
      params[0] = device.address(x);
      params[1] = device.address(angles);
      params[2] = width;
      params[3] = headDim;
      params[4] = pairs;
      byRows(style === "halves" ? kernel.rope_halves : kernel.rope_interleaved, angles.rows, width);
    },
    ...attention,
    softmax(x, sinkLogits) {
      const n = x.cols;
      params[0] = device.address(x);
      params[1] = n;
      params[2] = sinkLogits ? device.address(sinkLogits) : 0;
      params[3] = x.data.length / x.rows / n;
      byRows(kernel.softmax, x.data.length / n, n * 4);
    },
    gated(out, gate, up, activation) {
      params[0] = device.address(out);
      params[1] = device.address(gate);
      params[2] = device.address(up);
      byFloats(kernel[`gated_${activation}`], out.data.length);
    },
    activate(x, activation) {
      params[0] = device.address(x);
      byFloats(kernel[activation], x.data.length);
    },
    adjust(x, how, by) {
      params[0] = device.address(x);
      paramsF32[1] = by;
      paramsF32[2] = 1 / by;
      byFloats(kernel[how], x.data.length);
    },
    add(x, y) {
      params[0] = device.address(x);
      params[1] = device.address(y);
      byFloats(kernel.add, x.data.length);
    },
    route,
    scatterAdd(out, x, weights, places) {
      const n = x.cols;
      const [to, from] = [device.address(out), device.address(x)];
      params[3] = n;
      for (let i = 0; i < places.length; i++) {
        params[0] = to + Math.floor(places[i] / weights.cols) * n * 4;
        params[1] = from + i * n * 4;
        paramsF32[2] = weights.f32[places[i]];
        device.run(kernel.add_scaled, (n + 3) >> 2);
      }
    },
    splitHeads,
    joinHeads,
    ranking: selection(device),
    close: () => device.close(),
  };
}

function allocate(device: Device, dtype: PlainDType, shape: readonly number[], group = 32): Tensor {
  const { values, scales } = storage(dtype, shape, group);
  const what = `a tensor [${shape.join(", ")}] ${dtype}`;
  const { address, buffer } = device.alloc(values * VIEWS[dtype].BYTES_PER_ELEMENT, what);
  const View: new (buffer: ArrayBufferLike, address: number, length: number) => TensorData = VIEWS[dtype];
  const data = new View(buffer, address, values);
  if (dtype === "f32" || isHalf(dtype)) return new Tensor({ dtype, shape, data });
  // Attention reads scales four at a time, up to three beyond the last.
  const second = device.alloc(scales * 4 + 12, what);
  return new Tensor({ dtype, shape, data, scales: new Float32Array(second.buffer, second.address, scales), group });
}
