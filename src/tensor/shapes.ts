import type { Kernels } from "./kernels.ts";
import { spreadEvenly } from "./routing.ts";
import { ghost } from "./tensor.ts";

const nothing = () => {};

/**
 * Kernels that compute nothing and store nothing. Tensors have shapes and sizes only, so the same decoder, the same ops and the same
 * ledger trace a model of any size in milliseconds.
 */
export function shapeKernels(): Kernels {
  return {
    name: "shapes",
    threads: 1,
    kv: { formats: ["f32", "int8", "int4"], windows: true },
    alloc: (dtype, shape, group) => ghost(dtype, shape, group),
    free: nothing,
    packer: ({ dtype, shape, group, name }) => ({ write: nothing, finish: () => ghost(dtype, shape, group, name) }),
    linear: nothing,
    quantize: nothing,
    embed: nothing,
    gather: nothing,
    rmsNorm: nothing,
    layerNorm: nothing,
    ropeAngles: nothing,
    rope: nothing,
    kvWrite: nothing,
    attention: nothing,
    attentionScores: nothing,
    softmax: nothing,
    attentionMix: nothing,
    gated: nothing,
    activate: nothing,
    adjust: nothing,
    add: nothing,
    route: (ids, _weights, logits, routing) => spreadEvenly(ids, routing, logits.rows),
    scatterAdd: nothing,
    splitHeads: nothing,
    joinHeads: nothing,
    close: nothing,
  };
}
