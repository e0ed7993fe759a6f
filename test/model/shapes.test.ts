import { describe, expect, it } from "vitest";
import { randomWeights } from "../../src/model/random-weights.ts";
import { SHAPES } from "../../src/model/shapes.ts";
import { parameterCount } from "../../src/model/weights.ts";
import { shapeKernels } from "../../src/tensor/shapes.ts";

describe("published shapes", () => {
  // As the model cards and the checkpoints' own indices state them.
  it.each([
    ["gpt2", 124_439_808],
    ["llama-2-7b", 6_738_415_616],
    ["llama-3-8b", 8_030_261_248],
    ["mistral-7b", 7_241_732_096],
    ["qwen2.5-0.5b", 494_032_768],
    ["qwen3-8b", 8_190_735_360],
    ["gemma-2-2b", 2_614_341_888],
    ["gemma-2-9b", 9_241_705_984],
    ["gemma-3-1b", 999_885_952],
    ["phi-3-mini", 3_821_079_552],
    ["smollm3-3b", 3_075_098_624],
    ["olmo-2-7b", 7_298_617_344],
    ["llama-3.2-1b", 1_235_814_400],
  ])("%s has its %d parameters", (name, expected) => {
    expect(parameterCount(randomWeights(SHAPES[name], shapeKernels(), "f32"))).toBe(expected);
  });

  it("tensors without storage are cut like others", () => {
    const logits = shapeKernels().alloc("f32", [4, 10]);
    expect([logits.slice(1, 3).shape, logits.slice(1, 3).bytes]).toEqual([[2, 10], 80]);
  });
});
