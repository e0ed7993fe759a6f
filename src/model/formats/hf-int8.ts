import { decodeRows } from "../../quant/ggml.ts";
import { f16ToF32, f32ToF16 } from "../../tensor/float16.ts";
import { zeros } from "../../tensor/tensor.ts";
import { FormatError, quote } from "./errors.ts";
import { madeInPieces, type Part } from "./parts.ts";
import type { Found } from "./safetensors.ts";

/**
 * What stands beside an I8 weight `X.weight`: `X.weight_scale`, for the whole, for each row or for each group of a row's columns
 * (compressed-tensors, "int-quantized"), or `X.SCB`, the largest magnitude of each row (LLM.int8(), Dettmers et al. 2022, as bitsandbytes
 * stores it). The others say how activations were rounded, which memwall need not do, or repeat what is known.
 */
const BESIDE = /\.(?:weight_scale|SCB|weight_format|input_scale|input_zero_point)$/;
/** bitsandbytes maps a row's largest magnitude to this. */
const SCB_STEPS = 127;
const BLOCK = 32;

/** Whether a tensor belongs to an I8 weight of the checkpoint instead of being one of the model's. */
export function besideInt8(name: string, found: ReadonlyMap<string, Found>): boolean {
  return BESIDE.test(name) && found.get(name.replace(BESIDE, ".weight"))?.tensor.dtype === "I8";
}

/**
 * An I8 matrix with its scales, as rows of a GGML type: Q8_0 where its blocks can hold it exactly, else F32.
 * @throws FormatError for a matrix without scales, or scales of another shape.
 */
export function int8Rows({ tensor, source }: Found, found: ReadonlyMap<string, Found>): { type: "Q8_0" | "F32"; part: Part } {
  const what = `tensor ${quote(tensor.name)}`;
  const stem = tensor.name.replace(/\.weight$/, "");
  if (found.has(`${stem}.weight_zero_point`)) throw new FormatError(source.name, `${what}: expected I8 weights around 0, found a weight_zero_point beside them`);
  const [plain, bitsandbytes] = [found.get(`${stem}.weight_scale`), found.get(`${stem}.SCB`)];
  const beside = plain ?? bitsandbytes;
  if (!beside || tensor.shape.length !== 2) throw new FormatError(source.name, `${what}: expected an I8 matrix with a weight_scale or SCB beside it, found ${beside ? `[${tensor.shape.join(", ")}]` : "neither"}`);
  const [rows, cols] = tensor.shape;
  const scales = readScales(beside);
  const groups = scales.length === 1 ? 1 : scales.length / rows;
  const fits = Number.isInteger(groups) && groups >= 1 && cols % groups === 0 && (plain !== undefined || scales.length === rows);
  if (!fits) throw new FormatError(beside.source.name, `tensor ${quote(beside.tensor.name)}: expected scales for [${rows}, ${cols}], one in all or as many for each row, found [${beside.tensor.shape.join(", ")}]`);
  if (!plain) for (let i = 0; i < scales.length; i++) scales[i] /= SCB_STEPS;
  const width = cols / groups;
  const scaleAt = (row: number, column: number) => scales[scales.length === 1 ? 0 : row * groups + Math.floor(column / width)];
  const exact = cols % BLOCK === 0 && width % BLOCK === 0 && scales.every((scale) => f16ToF32(f32ToF16(scale)) === scale);
  const rowBytes = exact ? (cols / BLOCK) * (BLOCK + 2) : 4 * cols;
  const integers = new Int8Array(cols);
  const makeRow = (row: number): Uint8Array => {
    source.read(tensor.offset + row * cols, new Uint8Array(integers.buffer));
    if (!exact) return new Uint8Array(Float32Array.from(integers, (q, column) => q * scaleAt(row, column)).buffer);
    const bytes = new Uint8Array(rowBytes);
    const view = new DataView(bytes.buffer);
    for (let column = 0, to = 0; column < cols; column += BLOCK, to += BLOCK + 2) {
      view.setUint16(to, f32ToF16(scaleAt(row, column)), true);
      bytes.set(new Uint8Array(integers.buffer, column, BLOCK), to + 2);
    }
    return bytes;
  };
  return { type: exact ? "Q8_0" : "F32", part: madeInPieces(rows, rowBytes, makeRow) };
}

function readScales({ tensor, source }: Found): Float32Array {
  const { name, dtype, shape, offset, bytes } = tensor;
  if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") throw new FormatError(source.name, `tensor ${quote(name)}: expected scales of F32, F16 or BF16, found ${dtype}`);
  const data = new Uint8Array(bytes);
  source.read(offset, data);
  const scales = zeros("f32", [shape.reduce((a, b) => a * b, 1)]);
  const bad = decodeRows(dtype, data, scales);
  if (bad >= 0) throw new FormatError(source.name, `tensor ${quote(name)}: expected finite scales, found ${scales.f32[bad]} at index ${bad}`);
  return scales.f32;
}
