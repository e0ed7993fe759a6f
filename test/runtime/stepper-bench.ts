import type { Tokenizer } from "../../src/model/tokenizer/tokenizer.ts";
import { Ledger } from "../../src/tensor/ledger.ts";
import { type AttentionMethod, Ops } from "../../src/tensor/ops.ts";
import { scalarKernels } from "../../src/tensor/scalar/index.ts";
import { KvCache } from "../../src/kvcache/cache.ts";
import { Stepper } from "../../src/runtime/stepper/stepper.ts";
import { drawModel, type ModelOptions, packModel, SMALL } from "../support/models.ts";

/** A vocabulary of numbered words: all that a stepper asks of a tokenizer. */
function numbered(vocabSize: number): Tokenizer {
  const piece = (id: number) => `t${id}`;
  const decode = (ids: readonly number[]) => ids.map(piece).join(" ");
  const stream = () => ({ push: piece, flush: () => "" });
  return { vocabSize, bos: 0, eos: [], addBos: true, encode: (text) => text.split(" ").map((word) => Number(word.slice(1))), decode, piece, stream };
}

export const PROMPT = [3, 14, 15, 9, 26];

/** A stepper over a drawn model, on plain loops and without a clock, so that everything it shows can be written down. */
export function drawnStepper(shape: ModelOptions = SMALL, { attention = "tiled" as AttentionMethod, prompt = PROMPT, context = 64 } = {}) {
  const kernels = scalarKernels();
  const model = packModel(drawModel(7, shape), kernels);
  const cache = new KvCache(kernels, model.config, 16);
  const plain = () => new Ops(kernels, new Ledger(true, { timing: false }), { attention });
  const stepper = new Stepper({ model, ops: plain(), cache, tokenizer: numbered(model.config.vocabSize), context, prompt });
  return { stepper, model, cache, kernels, plain };
}
