import { describe, expect, it } from "vitest";
import type { AttentionShape, Kernels, KvPage, Segment } from "../../../src/tensor/kernels.ts";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { zeros } from "../../../src/tensor/tensor.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";
import { copy, normals, random, sameBits, worstRow } from "./helpers.ts";

const scalar = scalarKernels();
const kernels = wasmKernels();

function pages(k: Kernels, count: number, shape: AttentionShape, pageSize: number, nLayers: number): KvPage[] {
  const dims = [nLayers, shape.nKvHeads, pageSize, shape.headDim];
  return Array.from({ length: count }, (_, id) => ({ id, k: k.alloc("f32", dims), v: k.alloc("f32", dims) }));
}

function free(k: Kernels, list: readonly KvPage[]): void {
  for (const page of list) for (const tensor of [page.k, page.v]) k.free(tensor);
}

const same = (a: Tensor, b: Tensor) => a.data.every((value, i) => value === b.data[i]);
/** A soft cap and slopes by head, each in half of the cases. */
const bends = (rng: ReturnType<typeof random>, heads: number): Pick<AttentionShape, "softCap" | "slopes"> => ({
  ...(rng.next() < 0.5 && { softCap: 10 ** (2 * rng.next() - 1) }),
  ...(rng.next() < 0.5 && { slopes: Float32Array.from({ length: heads }, () => rng.next() / 4) }),
});
const scale = (headDim: number) => 1 / Math.sqrt(headDim);

describe("attention", () => {
  it("equals the scalar kernels on random shapes, mixed batches and page sizes", () => {
    const rng = random(1);
    for (let round = 0; round < 150; round++) {
      const nKvHeads = rng.int(1, 3);
      const shape: AttentionShape = { nKvHeads, nHeads: nKvHeads * rng.int(1, 4), headDim: rng.int(1, round % 5 === 0 ? 130 : 40), scale: 0.3, ...bends(rng, nKvHeads * 4) };
      const [pageSize, nLayers] = [rng.int(1, 32), 2];
      const layer = rng.int(0, 1);
      const specs = Array.from({ length: rng.int(1, 3) }, () => ({ start: round % 10 === 0 ? rng.int(200, 600) : rng.int(0, 40), length: rng.next() < 0.4 ? 1 : rng.int(1, 30) }));
      const total = specs.reduce((sum, { length }) => sum + length, 0);
      const build = (k: Kernels): Segment[] => {
        let row = 0;
        return specs.map(({ start, length }) => {
          const segment = { start, length, row, pages: pages(k, Math.ceil((start + length) / pageSize), shape, pageSize, nLayers) };
          row += length;
          return segment;
        });
      };
      const [mine, reference] = [build(kernels), build(scalar)];
      mine.forEach((segment, s) => {
        segment.pages.forEach((page, p) => {
          for (let i = 0; i < page.k.data.length; i++) {
            page.k.data[i] = reference[s].pages[p].k.data[i] = 2 * rng.next() - 1;
            page.v.data[i] = reference[s].pages[p].v.data[i] = 2 * rng.next() - 1;
          }
        });
      });
      const width = shape.nKvHeads * shape.headDim;
      const [k, v, q] = [normals(kernels, rng, [total, width]), normals(kernels, rng, [total, width]), normals(kernels, rng, [total, shape.nHeads * shape.headDim], 3)];
      kernels.kvWrite(k, v, mine, layer, shape);
      scalar.kvWrite(copy(k), copy(v), reference, layer, shape);
      expect(mine.every((segment, s) => segment.pages.every((page, p) => same(page.k, reference[s].pages[p].k) && same(page.v, reference[s].pages[p].v)))).toBe(true);
      const out = kernels.alloc("f32", q.shape);
      const wanted = zeros("f32", q.shape);
      kernels.attention(out, q, mine, layer, shape);
      scalar.attention(wanted, copy(q), reference, layer, shape);
      expect(worstRow(out, wanted)).toBeLessThan(1e-5);
      for (const { pages } of mine) free(kernels, pages);
      for (const tensor of [k, v, q, out]) kernels.free(tensor);
    }
  });

  it("gives a query the same bits alone, in a chunk, in a batch, and with any page size", () => {
    const rng = random(2);
    for (const [nHeads, nKvHeads, headDim] of [[6, 2, 24], [3, 3, 17], [8, 1, 64]]) {
      const shape = { nHeads, nKvHeads, headDim, scale: scale(headDim) };
      const tokens = 600;
      const width = nKvHeads * headDim;
      const [k, v, q] = [normals(kernels, rng, [tokens, width]), normals(kernels, rng, [tokens, width]), normals(kernels, rng, [tokens, nHeads * headDim], 2)];
      const layouts = [16, 5, 32].map((pageSize) => pages(kernels, Math.ceil(tokens / pageSize), shape, pageSize, 1));
      const whole = layouts[0];
      const out = kernels.alloc("f32", q.shape);
      const segment = (pages: readonly KvPage[], start: number, length: number, row = 0): Segment => ({ pages, start, length, row });
      for (const list of layouts) kernels.kvWrite(k, v, [segment(list, 0, tokens)], 0, shape);
      kernels.attention(out, q, [segment(whole, 0, tokens)], 0, shape);
      for (const start of [0, 1, 17, 255, 256, 257, 400, 511, 512, 599]) {
        for (const length of [1, 2, 7, 64]) {
          if (start + length > tokens) continue;
          const part = kernels.alloc("f32", [length, nHeads * headDim]);
          for (const list of layouts) {
            kernels.attention(part, q.slice(start, start + length), [segment(list, start, length)], 0, shape);
            expect(sameBits(part, out.slice(start, start + length))).toBe(true);
          }
          kernels.free(part);
        }
      }
      // Two decoding sequences and a chunk in one batch.
      const batch = kernels.alloc("f32", [5, nHeads * headDim]);
      const rows = kernels.alloc("f32", [5, nHeads * headDim]);
      kernels.gather(rows, q, Int32Array.of(300, 599, 10, 11, 12));
      kernels.attention(batch, rows, [segment(whole, 300, 1, 0), segment(whole, 599, 1, 1), segment(whole, 10, 3, 2)], 0, shape);
      [300, 599, 10, 11, 12].forEach((row, i) => expect(sameBits(batch.slice(i, i + 1), out.slice(row, row + 1))).toBe(true));
    }
  });

  it("serves quantised pages and windows", () => {
    const rng = random(3);
    const shape = { nHeads: 4, nKvHeads: 2, headDim: 32, scale: scale(32) };
    for (const format of ["int8", "int4"] as const) {
      const make = (k: Kernels) => Array.from({ length: 3 }, (_, id) => ({ id, k: k.alloc(format, [1, 2, 16, 32], 32), v: k.alloc(format, [1, 2, 16, 32], 32) }));
      const [mine, reference] = [make(kernels), make(scalar)];
      const [k, v, q] = [normals(kernels, rng, [40, 64]), normals(kernels, rng, [40, 64]), normals(kernels, rng, [40, 128])];
      const segment = { start: 0, length: 40, row: 0 };
      kernels.kvWrite(k, v, [{ ...segment, pages: mine }], 0, shape);
      scalar.kvWrite(copy(k), copy(v), [{ ...segment, pages: reference }], 0, shape);
      const out = kernels.alloc("f32", q.shape);
      const wanted = zeros("f32", q.shape);
      for (const window of [undefined, { size: 8, sinks: 2 }, { size: 8, sinks: 0 }]) {
        for (const bent of [shape, { ...shape, ...bends(rng, 4) }]) {
          kernels.attention(out, q, [{ ...segment, pages: mine, window }], 0, bent);
          scalar.attention(wanted, copy(q), [{ ...segment, pages: reference, window }], 0, bent);
          expect(worstRow(out, wanted)).toBeLessThan(1e-5);
        }
      }
    }
  });
});
