import { type HalfDType, isHalf } from "../tensor/tensor.ts";

/** A format that a weight matrix can be kept in. `group`: columns per scale, 0 for one scale a row. */
export interface MatrixFormat {
  readonly dtype: "f32" | HalfDType | "int8" | "int4" | "sparse";
  readonly group: number;
}

/** What `--weights` asks for. */
export interface WeightScheme {
  /** As written on the command line. */
  readonly name: string;
  /** `keep`: what is nearest to the file (see `matrixFormat`). */
  readonly dtype: "keep" | "f32" | "int8" | "int4";
  /** Columns per scale, 0 for one scale a row. */
  readonly group: number;
  /** `awq` moves scales between channels by a calibration run before it rounds (Lin et al. 2023). */
  readonly method: "nearest" | "awq";
}

/** `2:4` keeps two of every four columns of each layer's matrices. */
export type Sparsity = "none" | "2:4";

const nearest = (name: string, dtype: WeightScheme["dtype"], group: number): WeightScheme => ({ name, dtype, group, method: "nearest" });

const SCHEMES: readonly WeightScheme[] = [
  nearest("keep", "keep", 32),
  nearest("f32", "f32", 0),
  nearest("int8", "int8", 32),
  nearest("int8:64", "int8", 64),
  nearest("int8:128", "int8", 128),
  nearest("int8:row", "int8", 0),
  nearest("int4", "int4", 32),
  { name: "int4:awq", dtype: "int4", group: 32, method: "awq" },
];

/** The names that `parseWeights` accepts: int8 and int4 have groups of 32 columns unless they say otherwise. */
export const WEIGHT_SCHEMES: readonly string[] = SCHEMES.map(({ name }) => name);

export const KEEP: WeightScheme = SCHEMES[0];

/** @throws RangeError listing the names. */
export function parseWeights(name: string): WeightScheme {
  const found = SCHEMES.find((scheme) => scheme.name === name);
  if (!found) throw new RangeError(`weights: expected one of ${WEIGHT_SCHEMES.join(", ")}, found ${JSON.stringify(name)}`);
  return found;
}

/** "int8, groups of 32" */
export function describeFormat({ dtype, group }: MatrixFormat): string {
  if (dtype === "f32" || isHalf(dtype)) return dtype;
  return `${dtype === "sparse" ? "int8 2:4" : dtype}, ${group === 0 ? "a scale a row" : `groups of ${group}`}`;
}
