import type { Model } from "../../model/decoder.ts";
import { SHAPES } from "../../model/shapes.ts";
import type { Kernels } from "../../tensor/kernels.ts";
import type { ActivationFormat } from "../../tensor/ops.ts";
import { shapeKernels } from "../../tensor/shapes.ts";
import { BACKENDS, createKernels } from "../backend.ts";
import { modelFor } from "./bench.ts";
import { choice, type Io, KERNEL_OPTIONS, kernelsFrom, KV_OPTIONS, MODEL_OPTIONS, SCHEME_OPTIONS, schemesFrom, text, UsageError, type Values } from "./command.ts";

/** Which model a benchmark runs, and on what. */
export const BENCH_MODEL_OPTIONS = {
  shape: { type: "string", value: "NAME", help: `random weights of a published model's shape: ${Object.keys(SHAPES).join(", ")}` },
  ...MODEL_OPTIONS,
  ...KV_OPTIONS,
  weights: { ...SCHEME_OPTIONS.weights, help: `${SCHEME_OPTIONS.weights.help}; with --shape f32, int8 (default) or int4` },
  backend: { type: "string", value: "NAME", help: "auto (default), wasm, scalar, or shapes: costs only, nothing is computed" },
  ...KERNEL_OPTIONS,
} as const;

/** @throws UsageError. The kernels are the caller's to close. */
export async function benchModel(values: Values, io: Io): Promise<{ model: Model; kernels: Kernels; activations: ActivationFormat }> {
  const backend = choice(values, "backend", [...BACKENDS, "shapes"] as const, "auto");
  const shaped = text(values, "shape") !== undefined;
  if (shaped && text(values, "model") !== undefined) throw new UsageError("--shape and --model: expected one of them");
  const schemes = await schemesFrom(shaped ? { ...values, weights: choice(values, "weights", ["f32", "int8", "int4"] as const, "int8") } : values, io);
  const kernels = backend === "shapes" ? shapeKernels() : await createKernels(backend, kernelsFrom(values));
  return { kernels, ...(await modelFor(values, schemes, io, kernels)) };
}

/** "1,2,4" as whole numbers from 1 on. @throws UsageError. */
export function sizes(values: Values, name: string, fallback: readonly number[]): readonly number[] {
  const given = text(values, name);
  if (given === undefined) return fallback;
  const found = given.split(",").map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : 0));
  if (found.every((size) => size >= 1)) return found;
  throw new UsageError(`--${name}: expected whole numbers such as ${fallback.slice(0, 3).join(",")}, found ${JSON.stringify(given)}`);
}

/** Columns as wide as their widest cell, numbers to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) => row.map((cell, i) => cell.padStart(widths[i])).join("  ")).join("\n");
}
