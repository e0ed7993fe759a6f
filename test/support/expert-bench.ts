import { createModel } from "../../src/model/decoder.ts";
import { memorySource } from "../../src/model/formats/source.ts";
import { type LoadOptions, loadWeights } from "../../src/model/load.ts";
import { type ModelFile, openModel } from "../../src/model/open.ts";
import type { Kernels } from "../../src/tensor/kernels.ts";
import type { Ledger } from "../../src/tensor/ledger.ts";
import type { AttentionMethod } from "../../src/tensor/ops.ts";
import { type ExpertModel, expertModel } from "./expert-model.ts";
import { type Bench, bench } from "./run.ts";

export const openExperts = (model: ExpertModel): ModelFile => openModel(memorySource("experts.gguf", expertModel(model)));

/** A drawn mixture of experts, ready to run. */
export function expertBench(model: ExpertModel, kernels: Kernels, { ledger, attention, ...options }: LoadOptions & { ledger?: Ledger; attention?: AttentionMethod } = {}): Bench {
  const file = openExperts(model);
  return bench(createModel(file.config, loadWeights(file, file.config, kernels, options)), { kernels, ledger, attention });
}
