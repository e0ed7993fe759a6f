import { describe, expect, it } from "vitest";
import type { Linear } from "../../../src/tensor/fusion.ts";
import { Tensor } from "../../../src/tensor/tensor.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { normals, pack, random, type Random, release, sameBits, weights } from "./helpers.ts";

const backends = [
  { name: "best", kernels: wasmKernels() },
  { name: "baseline SIMD", kernels: wasmKernels({ relaxed: false }) },
  { name: "laid out for wide vectors", kernels: wasmKernels({ wide: true }) },
  { name: "8-bit activations", kernels: wasmKernels({ activations: "int8" }) },
];
type Kernels = (typeof backends)[number]["kernels"];
const FORMATS = ["f32", "f16", "bf16", "int8", "int4"] as const;

function part(kernels: Kernels, rng: Random, dtype: (typeof FORMATS)[number], n: number, k: number): Linear {
  return { weight: pack(kernels, rng, weights(rng, dtype, n, k)), ...(rng.next() < 0.5 && { bias: normals(kernels, rng, [n]) }) };
}

const columns = (rng: Random, dtype: string) => (dtype === "int4" ? 32 * rng.int(1, 6) : rng.int(1, 200));
const freed = (kernels: Kernels, parts: readonly Linear[]) => parts.forEach(({ weight, bias }) => release(kernels, weight, ...(bias ? [bias] : [])));

// Fusing must not change a bit: what is fused is tested against the kernels one by one, which are tested against the scalar ones.
describe.each(backends)("fused kernels, $name", ({ kernels }) => {
  const { fused } = kernels;

  it.each(FORMATS)("linears together give the bits of each alone: %s", (dtype) => {
    const rng = random(21);
    for (let round = 0; round < 60; round++) {
      const [m, k] = [round % 3 ? rng.int(1, 14) : 1, columns(rng, dtype)];
      const parts = Array.from({ length: rng.int(1, 3) }, () => part(kernels, rng, dtype, rng.int(1, 70), k));
      const x = normals(kernels, rng, [m, k]);
      const [outs, alone] = [0, 1].map(() => parts.map(({ weight }) => kernels.alloc("f32", [m, weight.rows])));
      expect(fused!.together(parts)).toBe(true);
      fused!.linears(outs, x, parts);
      parts.forEach(({ weight, bias }, i) => kernels.linear(alone[i], x, weight, bias));
      outs.forEach((out, i) => expect(sameBits(out, alone[i])).toBe(true));
      release(kernels, x, ...outs, ...alone);
      freed(kernels, parts);
    }
  });

  it.each(FORMATS)("a linear adds to the residual stream what it would have stored: %s", (dtype) => {
    const rng = random(22);
    for (let round = 0; round < 60; round++) {
      const [m, n, k] = [round % 3 ? rng.int(1, 14) : 1, rng.int(1, 70), columns(rng, dtype)];
      const own = part(kernels, rng, dtype, n, k);
      const x = normals(kernels, rng, [m, k]);
      const sum = normals(kernels, rng, [m, n]);
      const wanted = kernels.alloc("f32", [m, n]);
      wanted.f32.set(sum.f32);
      const out = kernels.alloc("f32", [m, n]);
      fused!.addLinear(sum, x, own);
      kernels.linear(out, x, own.weight, own.bias);
      kernels.add(wanted, out);
      expect(sameBits(sum, wanted)).toBe(true);
      release(kernels, x, sum, out, wanted);
      freed(kernels, [own]);
    }
  });

  it.each(FORMATS)("a gated linear gives the bits of its three ops: %s", (dtype) => {
    const rng = random(23);
    for (const activation of ["silu", "gelu", "relu2"] as const) {
      for (let round = 0; round < 30; round++) {
        const [m, n, k] = [round % 3 ? rng.int(1, 14) : 1, rng.int(1, 70), columns(rng, dtype)];
        const [gate, up] = [part(kernels, rng, dtype, n, k), part(kernels, rng, dtype, n, k)];
        const x = normals(kernels, rng, [m, k]);
        const [out, wanted, a, b] = Array.from({ length: 4 }, () => kernels.alloc("f32", [m, n]));
        fused!.gatedLinear(out, x, gate, up, activation);
        kernels.linear(a, x, gate.weight, gate.bias);
        kernels.linear(b, x, up.weight, up.bias);
        kernels.gated(wanted, a, b, activation);
        expect(sameBits(out, wanted)).toBe(true);
        release(kernels, x, out, wanted, a, b);
        freed(kernels, [gate, up]);
      }
    }
  });

  it.each(["int8", "int4"] as const)("a norm hands quantised activations on, with the same results behind: %s", (dtype) => {
    const rng = random(24);
    for (let round = 0; round < 60; round++) {
      const [m, k] = [round % 3 ? rng.int(1, 14) : 1, columns(rng, dtype)];
      const parts = [part(kernels, rng, dtype, rng.int(1, 40), k), part(kernels, rng, dtype, rng.int(1, 40), k)];
      const kind = rng.next() < 0.5 ? "rms" : "layer";
      const norm = { weight: normals(kernels, rng, [k]), ...(kind === "layer" && rng.next() < 0.5 && { bias: normals(kernels, rng, [k]) }) };
      const x = normals(kernels, rng, [m, k], 10 ** rng.int(-3, 3));
      const h = kernels.alloc("f32", [m, k]);
      if (kind === "rms") kernels.rmsNorm(h, x, norm.weight, 1e-5);
      else kernels.layerNorm(h, x, norm.weight, norm.bias, 1e-5);

      const wanted = fused!.inputs(parts, [m, k])!;
      const memory = kernels.alloc("f32", [wanted.bytes / 4]);
      const blocks = new Tensor({ dtype: "packed", shape: [m, k], data: memory.data, format: wanted.format });
      fused!.norm(blocks, x, kind, norm, 1e-5, parts);
      const [outs, plain] = [0, 1].map(() => parts.map(({ weight }) => kernels.alloc("f32", [m, weight.rows])));
      fused!.linears(outs, blocks, parts);
      fused!.linears(plain, h, parts);
      outs.forEach((out, i) => expect(sameBits(out, plain[i])).toBe(true));
      release(kernels, x, h, memory, norm.weight, ...(norm.bias ? [norm.bias] : []), ...outs, ...plain);
      freed(kernels, parts);
    }
  });

  it("does not join weights of different formats, and refuses activations made for others", () => {
    const rng = random(25);
    const [a, b, c] = (["f32", "int8", "int4"] as const).map((dtype) => part(kernels, rng, dtype, 8, 64));
    expect(fused!.together([b, c])).toBe(false);
    expect(fused!.inputs([a], [1, 64])).toBeUndefined();
    const { format, bytes } = fused!.inputs([b], [1, 64])!;
    const blocks = new Tensor({ dtype: "packed", shape: [1, 64], data: kernels.alloc("f32", [bytes / 4]).data, format, name: "h" });
    const out = kernels.alloc("f32", [1, 8]);
    expect(() => kernels.linear(out, blocks, a.weight)).toThrow(/h: these weights want activations as f32, found/);
  });
});
