import { ggmlBytes } from "../../quant/ggml.ts";
import { composedSource, type Part, pickedRows, transposed } from "./parts.ts";

/** A tensor on its way from the form of a checkpoint to GGUF's. */
export interface Piece {
  /** Row-major. */
  readonly shape: readonly number[];
  /** A GGML type. */
  readonly type: string;
  readonly part: Part;
}

/** What a layout follows from. */
export interface Heads {
  readonly nHeads: number;
  readonly nKvHeads: number;
  readonly headDim: number;
  /** Of latent attention: what of a head's key does not rotate, and its value. */
  readonly latent?: { readonly nopeDim: number; readonly valueDim: number };
}

/**
 * How a checkpoint keeps a tensor otherwise than GGUF does:
 * - `halves`: row i of a head rotates with row i + headDim / 2, in GGUF's `llama` with its neighbour;
 * - `grouped`: q, k and v of each KV head together, in GGUF all of q, then k, then v;
 * - `inputs first`: [inputs, outputs], as x W;
 * - `gate over up`: an expert's gate and up in one matrix, the gate's rows first;
 * - `gate beside up`: `inputs first`, columns of gate and up by turns;
 * - `keys and values`: for each head its keys' and its values' matrix of latent attention, in GGUF two tensors, the keys' transposed.
 */
export type Layout = "halves" | "grouped" | "inputs first" | "gate over up" | "gate beside up" | "keys and values";

/** A weight or bias of a layer, by GGUF's name of its part (`attn_qkv`). */
type Named = readonly [part: string, piece: Piece];
type Kind = "weight" | "bias";

/** A tensor in GGUF's form, which may be several. @throws RangeError saying what shape or type was expected. */
export function laidOut(layout: Layout, part: string, kind: Kind, piece: Piece, heads: Heads): readonly Named[] {
  return LAYOUTS[layout](part, kind, piece, heads);
}

const LAYOUTS: Readonly<Record<Layout, (part: string, kind: Kind, piece: Piece, heads: Heads) => readonly Named[]>> = {
  halves(part, kind, piece, { headDim }) {
    const order = range(0, headDim).map((row) => (row >> 1) + (row & 1) * (headDim / 2));
    return [[part, picked(piece, kind, headDim, order)]];
  },
  grouped(part, kind, piece, { nHeads, nKvHeads, headDim }) {
    const queries = (nHeads / nKvHeads) * headDim;
    const group = queries + 2 * headDim;
    if (!Number.isInteger(nHeads / nKvHeads)) throw new RangeError(`expected a multiple of ${nKvHeads} KV heads, found ${nHeads} heads`);
    checkHeight(piece, kind, group);
    const rows = range(0, group);
    const stacked = [rows.slice(0, queries), rows.slice(queries, queries + headDim), rows.slice(queries + headDim)].map((each) => picked(piece, kind, group, each).part);
    const whole = composedSource(part, stacked);
    return [[part, { ...piece, part: { bytes: whole.size, read: whole.read } }]];
  },
  "inputs first": (part, kind, piece) => [[part, outputsFirst(piece, kind)]],
  "gate over up"(part, kind, piece) {
    const height = heightOf(piece, kind);
    return gateAndUp(part, kind, piece, range(0, height / 2), range(height / 2, height));
  },
  "gate beside up"(part, kind, piece) {
    const rows = outputsFirst(piece, kind);
    const pairs = range(0, heightOf(rows, kind) / 2);
    return gateAndUp(part, kind, rows, pairs.map((i) => 2 * i), pairs.map((i) => 2 * i + 1));
  },
  "keys and values"(_part, kind, piece, { nHeads, latent }) {
    const { nopeDim, valueDim } = latent!;
    const [height, rank] = [nopeDim + valueDim, piece.shape[piece.shape.length - 1]];
    if (!(nopeDim > 0 && valueDim > 0) || piece.shape[0] !== nHeads * height) throw new RangeError(`expected ${nHeads * height} rows, keys and values of ${nHeads} heads, found ${piece.shape[0]}`);
    const byHead = (rows: readonly number[]): Piece => ({ ...picked(piece, kind, height, rows), shape: [nHeads, rows.length, rank] });
    return [["attn_k_b", turned(byHead(range(0, nopeDim)))], ["attn_v_b", byHead(range(nopeDim, height))]];
  },
};

function gateAndUp(part: string, kind: Kind, piece: Piece, gate: readonly number[], up: readonly number[]): readonly Named[] {
  const height = heightOf(piece, kind);
  if (height % 2 !== 0) throw new RangeError(`expected as many rows of the gate as of up, found ${height} of both`);
  return [[part.replace("gate_up", "gate"), picked(piece, kind, height, gate)], [part.replace("gate_up", "up"), picked(piece, kind, height, up)]];
}

/** Outputs of a linear, or of each one of a stack. */
function heightOf({ shape }: Piece, kind: Kind): number {
  return shape[shape.length - (kind === "weight" ? 2 : 1)];
}

function checkHeight(piece: Piece, kind: Kind, group: number): number {
  const height = heightOf(piece, kind);
  if (height % group === 0) return height;
  throw new RangeError(`expected a multiple of ${group} rows, found [${piece.shape.join(", ")}]`);
}

/** Of every `group` rows those in `order`. */
function picked(piece: Piece, kind: Kind, group: number, order: readonly number[]): Piece {
  const { shape, type, part } = piece;
  const height = checkHeight(piece, kind, group);
  const at = shape.length - (kind === "weight" ? 2 : 1);
  const rowBytes = ggmlBytes(type, 1, kind === "weight" ? shape[at + 1] : 1);
  return { type, shape: shape.with(at, (height / group) * order.length), part: pickedRows(part, rowBytes, order, group) };
}

/** Of what is kept as [inputs, outputs]. MXFP4 has its blocks along the inputs, and so stands the other way round already. */
function outputsFirst(piece: Piece, kind: Kind): Piece {
  return kind === "weight" && piece.type !== "MXFP4" ? turned(piece) : piece;
}

/** The last two dimensions exchanged. */
function turned({ shape, type, part }: Piece): Piece {
  if (!["F32", "F16", "BF16"].includes(type)) throw new RangeError(`expected floats in a matrix that is kept as [inputs, outputs], found ${type}`);
  const [rows, cols] = shape.slice(-2);
  if (!(shape.length >= 2)) throw new RangeError(`expected a matrix, found [${shape.join(", ")}]`);
  return { type, shape: [...shape.slice(0, -2), cols, rows], part: transposed(part, rows, cols, ggmlBytes(type, 1, 1)) };
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
}
