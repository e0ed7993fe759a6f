import { setFlagsFromString } from "node:v8";
import { describe, expect, it } from "vitest";
import { widenVectors } from "../../../src/runtime/node-vectors.ts";
import type { Linear } from "../../../src/tensor/fusion.ts";
import { type Activation, type KvFormat, type KvPage, type Segment } from "../../../src/tensor/kernels.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { type WasmKernels, wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { assemble } from "../../../src/tensor/wasm/program.ts";
import { normals, pack, random, type Random, weights } from "./helpers.ts";

const FORMATS = ["f32", "f16", "bf16", "int8", "int4"] as const;
const ACTIVATIONS: readonly Activation[] = ["silu", "gelu", "relu2", "swiglu_oai"];
const KV: readonly KvFormat[] = ["f32", "int8", "int4"];

/** Results of one drawn case, by which op: the same draws whatever the kernels. */
type Results = Record<string, Tensor>;

function linears(kernels: WasmKernels, rng: Random): Results {
  const dtype = FORMATS[rng.int(0, 4)];
  const [m, n, k] = [rng.next() < 0.3 ? 1 : rng.int(1, 20), rng.int(1, 60), dtype === "int4" ? 32 * rng.int(1, 6) : rng.int(1, 200)];
  const odd = rng.next() < 0.3; // Scales of 32 bits, in both parts: only such go together.
  const part = (): Linear => ({ weight: pack(kernels, rng, weights(rng, dtype, n, k, 32, odd)), ...(rng.next() < 0.5 && { bias: normals(kernels, rng, [n]) }) });
  const [first, second] = [part(), part()];
  const x = normals(kernels, rng, [m, k], 10 ** rng.int(-3, 3));
  const make = () => kernels.alloc("f32", [m, n]);
  const [out, gated, sum, row] = [make(), make(), normals(kernels, rng, [m, n]), kernels.alloc("f32", [2, k])];
  kernels.linear(out, x, first.weight, first.bias);
  kernels.fused!.gatedLinear(gated, x, first, second, ACTIVATIONS[rng.int(0, ACTIVATIONS.length - 1)]);
  kernels.fused!.addLinear(sum, x, second);
  kernels.embed(row, first.weight, Int32Array.of(rng.int(0, n - 1), rng.int(0, n - 1)));
  return { [`linear ${dtype}`]: out, [`gated ${dtype}`]: gated, [`added ${dtype}`]: sum, [`row ${dtype}`]: row };
}

/** Half of the cases have a head of whole vectors, which the widest steps are for. */
function attention(kernels: WasmKernels, rng: Random): Results {
  const nKvHeads = rng.int(1, 3);
  const headDim = rng.next() < 0.5 ? 16 * rng.int(1, 5) : rng.int(1, 130);
  const shape = { nKvHeads, nHeads: nKvHeads * rng.int(1, 4), headDim, scale: 0.3, ...(rng.next() < 0.3 && { softCap: 2 }) };
  const [k, v] = [KV[rng.int(0, 2)], KV[rng.int(0, 2)]];
  const [start, length] = [rng.int(0, 300), rng.next() < 0.4 ? 1 : rng.int(2, 30)];
  const dims = [1, nKvHeads, 16, headDim];
  const pages: KvPage[] = Array.from({ length: Math.ceil((start + length) / 16) }, (_, id) => ({ id, k: kernels.alloc(k, dims, headDim), v: kernels.alloc(v, dims, headDim) }));
  const width = nKvHeads * headDim;
  const segment = (from: number, count: number): Segment => ({ pages, row: 0, start: from, length: count });
  kernels.kvWrite(normals(kernels, rng, [start + length, width]), normals(kernels, rng, [start + length, width]), [segment(0, start + length)], 0, shape);
  const q = normals(kernels, rng, [length, shape.nHeads * headDim], 2);
  const out = kernels.alloc("f32", q.shape);
  kernels.attention(out, q, [segment(start, length)], 0, shape);
  return { [`attention ${k} ${v}`]: out };
}

function pointwise(kernels: WasmKernels, rng: Random): Results {
  const [rows, cols] = [rng.int(1, 6), rng.int(1, 200)];
  const x = normals(kernels, rng, [rows, cols], 4);
  const make = () => {
    const copy = kernels.alloc("f32", [rows, cols]);
    copy.f32.set(x.f32);
    return copy;
  };
  const [normed, soft, added, active] = [make(), make(), make(), make()];
  kernels.rmsNorm(normed, x, normals(kernels, rng, [cols]), 1e-5);
  kernels.softmax(soft);
  kernels.add(added, x);
  kernels.activate(active, ACTIVATIONS[rng.int(0, ACTIVATIONS.length - 1)]);
  return { normed, soft, added, active };
}

const OPS = { linears, attention, pointwise };

/** What cases of an op give; each on its own memory, which goes with it. */
function run(kernels: WasmKernels, op: keyof typeof OPS, seed: number): Map<string, Float32Array> {
  return new Map(Object.entries(OPS[op](kernels, random(seed))).map(([name, { f32 }]) => [name, f32.slice()]));
}

const CASES = 150;
const narrow = () => wasmKernels({ maxBytes: 2 ** 28 });
const wide = () => wasmKernels({ maxBytes: 2 ** 28, wide: true });

/** Before V8 is told to join anything. */
const wanted = new Map((Object.keys(OPS) as (keyof typeof OPS)[]).map((op) => [op, Array.from({ length: CASES }, (_, seed) => run(narrow(), op, seed))]));

const joins = widenVectors();
// What is compiled quickly joins nothing: functions shall be compiled well after a few calls.
if (joins) setFlagsFromString("--wasm-tiering-budget=500");

describe(`kernels laid out for wide vectors, ${joins ? "of 256 bits" : "which this Node has not"}`, () => {
  it.each(["linears", "pointwise"] as const)("give the bits of the narrow ones: %s", (op) => {
    for (let seed = 0; seed < CASES; seed++) {
      for (const [name, found] of run(wide(), op, seed)) {
        const bits = (floats: Float32Array) => new Uint32Array(floats.buffer);
        expect({ name, seed, bits: bits(found) }).toEqual({ name, seed, bits: bits(wanted.get(op)![seed].get(name)!) });
      }
    }
  });

  it("give what the narrow ones give to rounding: attention, whose scores are summed in two halves", () => {
    for (let seed = 0; seed < CASES; seed++) {
      for (const [name, found] of run(wide(), "attention", seed)) {
        const reference = wanted.get("attention")![seed].get(name)!;
        const size = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
        const worst = found.reduce((most, value, i) => Math.max(most, Math.abs(value - reference[i])), 0) / size;
        expect({ name, seed, close: worst < 3e-6 }).toEqual({ name, seed, close: true });
      }
    }
  });

  it("give a query the same bits alone and in a chunk", () => {
    for (let seed = 0; seed < 20; seed++) {
      const kernels = wide();
      const rng = random(seed);
      const shape = { nKvHeads: 2, nHeads: 6, headDim: 8 * rng.int(1, 9), scale: 0.3 };
      const tokens = rng.int(20, 200);
      const dims = [1, 2, 16, shape.headDim];
      const pages: KvPage[] = Array.from({ length: Math.ceil(tokens / 16) }, (_, id) => ({ id, k: kernels.alloc("f32", dims), v: kernels.alloc("f32", dims) }));
      const segment = (start: number, length: number): Segment => ({ pages, row: 0, start, length });
      const rows = () => normals(kernels, rng, [tokens, 2 * shape.headDim]);
      kernels.kvWrite(rows(), rows(), [segment(0, tokens)], 0, shape);
      const q = normals(kernels, rng, [tokens, 6 * shape.headDim], 2);
      const [whole, alone] = [kernels.alloc("f32", q.shape), kernels.alloc("f32", [1, q.cols])];
      kernels.attention(whole, q, [segment(0, tokens)], 0, shape);
      for (const at of [0, 7, tokens - 1]) {
        kernels.attention(alone, q.slice(at, at + 1), [segment(at, 1)], 0, shape);
        expect([...alone.data]).toEqual([...whole.slice(at, at + 1).data]);
      }
    }
  });

  it("are valid modules for every choice of options", () => {
    const relaxed = wide().probe.relaxedDot !== "none";
    for (const dot of ["pairs", "u8s8", "s8s8"] as const) {
      for (const activations of ["int8", "int16"] as const) {
        for (const madd of [true, false]) {
          const { code } = assemble({ dot, activations, madd, wide: true }, { initial: 2, maximum: 100, shared: true });
          if (relaxed || (dot === "pairs" && !madd)) expect(WebAssembly.validate(code)).toBe(true);
        }
      }
    }
  });
});
