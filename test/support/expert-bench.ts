import { createModel } from "../../src/model/decoder.ts";
import { memorySource } from "../../src/model/formats/source.ts";
import { type LoadOptions, loadWeights, plainFile } from "../../src/model/load.ts";
import { type ModelFile, openModel } from "../../src/model/open.ts";
import { decodeRows, nativeDtype } from "../../src/quant/ggml.ts";
import type { Kernels } from "../../src/tensor/kernels.ts";
import type { Ledger } from "../../src/tensor/ledger.ts";
import type { AttentionMethod } from "../../src/tensor/ops.ts";
import { zeros } from "../../src/tensor/tensor.ts";
import { type ExpertModel, expertModel } from "./expert-model.ts";
import { type Bench, bench } from "./run.ts";

export const openExperts = (model: ExpertModel): ModelFile => openModel(memorySource("experts.gguf", expertModel(model)));

/** A drawn mixture of experts, ready to run. */
export function expertBench(model: ExpertModel, kernels: Kernels, { ledger, attention, ...options }: LoadOptions & { ledger?: Ledger; attention?: AttentionMethod } = {}): Bench {
  const file = openExperts(model);
  return bench(createModel(file.config, loadWeights(file, file.config, kernels, options)), { kernels, ledger, attention });
}

/** All tensors of a file, dequantised and times their scales, stacked ones apart, by name. */
export function plainTensors(file: ModelFile): (name: string) => ArrayLike<number> | undefined {
  const { source, tensors } = plainFile(file, file.config);
  const known = new Map<string, ArrayLike<number>>();
  const scalesOf = (name: string): ArrayLike<number> => (name.endsWith(".weight") && plain(name.replace(/weight$/, "scale"))) || [1];
  const plain = (name: string): ArrayLike<number> | undefined => {
    const info = tensors.get(name);
    if (!info) return undefined;
    if (!known.has(name)) {
      const bytes = new Uint8Array(info.bytes);
      source.read(info.offset, bytes);
      const decoded = zeros(nativeDtype(info.type), [info.shape.slice(0, -1).reduce((a, b) => a * b, 1), info.shape[info.shape.length - 1]], 32);
      decodeRows(info.type, bytes, decoded);
      const factors = scalesOf(name);
      const each = (decoded.rows * decoded.cols) / factors.length;
      known.set(name, Float64Array.from({ length: decoded.rows * decoded.cols }, (_, i) => decoded.at(i) * factors[Math.floor(i / each)]));
    }
    return known.get(name);
  };
  return plain;
}
