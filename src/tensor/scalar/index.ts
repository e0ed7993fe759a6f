import { joinHeads, splitHeads } from "../heads.ts";
import type { Kernels, WeightPacker, WeightSpec } from "../kernels.ts";
import { route } from "../routing.ts";
import type { Tensor } from "../tensor.ts";
import { zeros } from "../tensor.ts";
import { attention, attentionMix, attentionScores, kvWrite } from "./attention.ts";
import { dequantiseRow, gather, linear, quantize } from "./linear.ts";
import { activate, add, adjust, gated, layerNorm, rmsNorm, rope, ropeAngles, scatterAdd, softmax } from "./pointwise.ts";

/** Plain loops over typed arrays: the textbook, the kernels that a debugger steps through, and the reference for all others. */
export function scalarKernels(): Kernels {
  return {
    name: "scalar",
    threads: 1,
    kv: { formats: ["f32", "int8", "int4"], windows: true },
    alloc: (dtype, shape, group) => zeros(dtype, shape, group),
    free: () => {},
    packer: plainPacker,
    linear,
    quantize,
    embed: (out, table, ids) => ids.forEach((id, i) => dequantiseRow(out.f32, i * table.cols, table, id)),
    gather,
    rmsNorm,
    layerNorm,
    ropeAngles,
    rope,
    kvWrite,
    attention,
    attentionScores,
    softmax,
    attentionMix,
    gated,
    activate,
    adjust,
    add,
    route,
    scatterAdd,
    splitHeads,
    joinHeads,
    close: () => {},
  };
}

/** The canonical layout of tensor.ts, as it is. */
function plainPacker({ name, dtype, shape, group }: WeightSpec): WeightPacker {
  const weight = zeros(dtype, shape, group, name);
  let row = 0;
  return {
    write(rows: Tensor) {
      const part = weight.slice(row, row + rows.rows);
      (part.data as Uint8Array).set(rows.data as Uint8Array);
      part.scales?.set(rows.scales!);
      row += rows.rows;
    },
    finish() {
      if (row !== weight.rows) throw new Error(`${name}: expected ${weight.rows} rows, packed ${row}`);
      return weight;
    },
  };
}
