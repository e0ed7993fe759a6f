import { labelOf } from "./inspect.ts";
import { nearest } from "./nearest.ts";
import type { Stepper } from "./stepper.ts";
import { weightRows, namedWeights } from "./weights.ts";

/** An op as the user names it. */
export interface Reference {
  readonly name: string;
  readonly layer: number | undefined;
  /** `*.name`: in every layer. */
  readonly every: boolean;
}

/** A whole number from the command line. @throws RangeError saying what was expected. */
export function wholeNumber(what: string, given: string | undefined, least: number, fallback?: number, most = Number.MAX_SAFE_INTEGER): number {
  const value = given === undefined ? (fallback ?? NaN) : /^\d+$/.test(given) ? Number(given) : NaN;
  if (value >= least && value <= most) return value;
  const range = most === Number.MAX_SAFE_INTEGER ? `${least} or more` : `${least} to ${most}`;
  throw new RangeError(`${what}: expected a whole number, ${range}, found ${given === undefined ? "none" : JSON.stringify(given)}`);
}

/** `5` or `0:8`, within `cols` columns. */
export function columnRange(given: string, cols: number): [number, number] {
  const match = /^(\d+)(?::(\d+))?$/.exec(given);
  const from = match ? Number(match[1]) : NaN;
  const to = match?.[2] === undefined ? from + 1 : Number(match[2]);
  if (from < to && to <= cols) return [from, to];
  throw new RangeError(`columns: expected 5 or 0:8, within 0:${cols}, found ${JSON.stringify(given)}`);
}

/** @throws RangeError naming the nearest op when there is none of this name. */
export function opReference(stepper: Stepper, given: string | undefined): Reference {
  const names = [...new Set(stepper.pass.ops.map(({ record }) => record.name))];
  if (given === undefined) throw new RangeError("expected an op, such as attn_q or 2.ffn_down: ops all lists them");
  const [, layer, name] = /^(?:(\d+|\*)\.)?(.*)$/.exec(given)!;
  if (!names.includes(name)) {
    const meant = nearest(name, names);
    throw new RangeError(`no op ${JSON.stringify(given)} in this step${meant ? `, did you mean ${layer === undefined ? "" : `${layer}.`}${meant}?` : ": ops all lists them"}`);
  }
  const { nLayers } = stepper.model.config;
  const number = layer === undefined || layer === "*" ? undefined : wholeNumber("layer", layer, 0, undefined, nLayers - 1);
  return { name, layer: number, every: layer === "*" };
}

/** A tensor to look at, a copy of an op's output or a weight. */
export interface Viewed {
  readonly label: string;
  readonly shape: readonly number[];
  readonly rows: number;
  readonly cols: number;
  readonly defaultRow: number;
  /** Rows [from, to), as f32. */
  read(from: number, to: number): Float32Array;
}

/** An op's output by reference, the last op's when nothing is given, or a weight by its name. */
export function resolveTensor(stepper: Stepper, given: string | undefined): Viewed {
  const weight = given === undefined ? undefined : namedWeights(stepper.model).get(given);
  if (weight) {
    const { rows, cols, shape } = weight;
    return { label: `${given} (${weight.format})`, shape, rows, cols, defaultRow: 0, read: (from, to) => weightRows(weight, from, to, stepper.kernels) };
  }
  if (given !== undefined && /\.(weight|bias)$/.test(given)) {
    const meant = nearest(given, [...namedWeights(stepper.model).keys()]);
    throw new RangeError(`no weight ${JSON.stringify(given)}${meant ? `, did you mean ${meant}?` : ""}`);
  }
  let op = stepper.op;
  if (given !== undefined && given !== ".") {
    const { name, layer } = opReference(stepper, given);
    const found = stepper.find(name, layer);
    if (!found) throw new RangeError(`${given} has not run yet in this step: to ${given} runs to it`);
    op = found;
  }
  const { output } = op;
  const { cols, shape } = output;
  const rows = output.f32.length / cols;
  return { label: labelOf(op), shape, rows, cols, defaultRow: rows - 1, read: (from, to) => output.f32.subarray(from * cols, to * cols) };
}
