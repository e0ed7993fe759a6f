import { describe, expect, it } from "vitest";
import { matrixFormat } from "../../src/model/placement.ts";
import { targetType } from "../../src/model/requantise.ts";
import { describeFormat, parseWeights, type Sparsity } from "../../src/quant/scheme.ts";

const info = (name: string, type: string, cols = 64) => ({ name, type, shape: [8, cols], offset: 0, bytes: 0 });

describe("matrixFormat", () => {
  const place = (name: string, type: string, weights: string, { cols = 64, tied = false, sparsity = "none" as Sparsity } = {}) =>
    describeFormat(matrixFormat(info(name, type, cols), tied, { weights: parseWeights(weights), sparsity }));

  it.each([
    ["F32", "f32"],
    ["F16", "f16"],
    ["BF16", "bf16"],
    ["F64", "f32"],
    ["I32", "f32"],
    ["Q8_0", "int8, groups of 32"],
    ["Q4_0", "int4, groups of 32"],
    ...["Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ2_XS", "IQ4_NL", "NVFP4"].map((type) => [type, "int8, groups of 32"]),
  ])("keeps %s as %s; f32 on request", (type, kept) => {
    expect(place("blk.0.attn_q.weight", type, "keep")).toBe(kept);
    expect(place("blk.0.attn_q.weight", type, "f32")).toBe("f32");
  });

  it("int4 but for the head and odd columns", () => {
    expect(place("blk.3.ffn_up.weight", "F32", "int4")).toBe("int4, groups of 32");
    expect(place("blk.3.ffn_up.weight", "F32", "int4", { cols: 44 })).toBe("int8, groups of 32");
    expect(place("output.weight", "F32", "int4")).toBe("int8, groups of 32");
    expect(place("token_embd.weight", "F32", "int4")).toBe("int4, groups of 32");
    expect(place("token_embd.weight", "F32", "int4", { tied: true })).toBe("int8, groups of 32");
    expect(place("position_embd.weight", "F32", "int8")).toBe("f32");
  });

  it("2:4 in the layers only, where it fits", () => {
    expect(place("blk.0.ffn_up.weight", "F32", "int8:64", { sparsity: "2:4" })).toBe("int8 2:4, groups of 64");
    expect(place("blk.0.ffn_up.weight", "F32", "int8", { sparsity: "2:4", cols: 30 })).toBe("int8, groups of 32");
    expect(place("output.weight", "F32", "int8:row", { sparsity: "2:4" })).toBe("int8, a scale a row");
  });
});

describe("targetType", () => {
  it("is what llama-quantize chooses", () => {
    const q4 = (name: string, cols?: number, tied = false) => targetType(info(name, "F32", cols), tied, "q4_0");
    expect(q4("blk.0.attn_q.weight")).toBe("Q4_0");
    expect(q4("blk.0.ffn_down.weight", 172)).toBe("F16");
    expect([q4("output.weight", 256), q4("output.weight", 64), q4("token_embd.weight", 256, true), q4("token_embd.weight", 256)]).toEqual(["Q6_K", "Q8_0", "Q6_K", "Q4_0"]);
    expect(q4("position_embd.weight")).toBe("F32");
    expect(targetType({ ...info("blk.0.attn_norm.weight", "F32"), shape: [64] }, false, "f16")).toBe("F32");
  });
});
