import { Tensor } from "../../tensor/tensor.ts";

/** A number format of which only the size matters. */
export interface NumberFormat {
  readonly name: string;
  readonly bits: number;
  /** Columns that share one f32 scale; 0 for formats without scales, Infinity for one scale a row. */
  readonly group: number;
}

const FLOATS: Readonly<Record<string, number>> = { f32: 32, f16: 16, bf16: 16 };

/**
 * `f32`, `f16`, `bf16`, or `intB[:G]` with B from 2 to 8 bits and an f32 scale for every G columns; without G there is one scale a row,
 * as in weight-only deployments. memwall's own kernels read `int8:32` and `int4:32`.
 * @returns undefined for anything else.
 */
export function parseFormat(text: string): NumberFormat | undefined {
  if (Object.hasOwn(FLOATS, text)) return { name: text, bits: FLOATS[text], group: 0 };
  const match = /^int([2-8])(?::(row|[1-9]\d{0,5}))?$/.exec(text);
  if (!match) return undefined;
  const group = match[2] === undefined || match[2] === "row" ? Infinity : Number(match[2]);
  return { name: text.replace(":row", ""), bits: Number(match[1]), group };
}

/** `FORMAT`, or `k=FORMAT,v=FORMAT` for keys and values; one that is left out is f16. */
export function parseKvFormats(text: string): { k: NumberFormat; v: NumberFormat } | undefined {
  const both = parseFormat(text);
  if (both) return { k: both, v: both };
  const formats: { k?: NumberFormat; v?: NumberFormat } = {};
  for (const part of text.split(",")) {
    const match = /^([kv])=(.+)$/.exec(part);
    const format = match && parseFormat(match[2]);
    const side = match?.[1] as "k" | "v" | undefined;
    if (!format || !side || formats[side]) return undefined;
    formats[side] = format;
  }
  const f16 = parseFormat("f16")!;
  return { k: formats.k ?? f16, v: formats.v ?? f16 };
}

/** "int8", or "k=int8,v=int4" where the two differ. */
export function kvName({ k, v }: { readonly k: NumberFormat; readonly v: NumberFormat }): string {
  return k.name === v.name ? k.name : `k=${k.name},v=${v.name}`;
}

export const FORMAT_HELP = "f32, f16, bf16, int2 to int8 (one f32 scale a row), or int8:32 (one every 32 columns)";

/** Bytes of a tensor in this format, scales included; every row begins on a byte. */
export function formatBytes({ bits, group }: NumberFormat, shape: readonly number[]): number {
  const cols = shape[shape.length - 1];
  const rows = shape.reduce((a, b) => a * b, 1) / cols;
  return rows * (Math.ceil((cols * bits) / 8) + (group === 0 ? 0 : 4 * Math.ceil(cols / Math.min(group, cols))));
}

/** A tensor without storage, of the size that it would have in `format`. */
export function ghostOf(format: NumberFormat, shape: readonly number[], name = ""): Tensor {
  return new Tensor({ dtype: "packed", shape, data: new Uint8Array(0), bytes: formatBytes(format, shape), format: format.name, name });
}
