import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { convertFolder } from "../../../src/model/convert.ts";
import { createModel } from "../../../src/model/decoder.ts";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { memoryFolder } from "../../../src/model/formats/folder.ts";
import { ggufBytes } from "../../../src/model/formats/gguf-write.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { loadWeights } from "../../../src/model/load.ts";
import { type ModelFile, openModel } from "../../../src/model/open.ts";
import { scalarKernels } from "../../../src/tensor/scalar/index.ts";
import { CASE_TOKENS, CASES } from "../../support/hf-cases.ts";
import { drawCheckpoint, type DrawnCheckpoint } from "../../support/hf-checkpoint.ts";
import { folderFiles, type SafeTensorOut } from "../../support/hf-folder.ts";
import { checkpointLogits } from "../../support/hf-reference.ts";
import { probabilities } from "../../support/reference.ts";
import { allLogits, bench, relativeError } from "../../support/run.ts";

function logitsOf(file: ModelFile): Float32Array[] {
  return allLogits(bench(createModel(file.config, loadWeights(file, file.config, scalarKernels()))), CASE_TOKENS);
}

const GOLDEN = JSON.parse(readFileSync(new URL("../../../fixtures/folders.golden.json", import.meta.url), "utf8")) as Record<string, [id: number, probability: number][][]>;
/** llama.cpp looks GELU up in a table of 16-bit floats, and rounds activations to 8 bits where weights are quantised. */
const tolerance = (name: string) => (/^(gpt_neox|falcon|bloom|mpt)/.test(name) ? 4e-4 : name.includes("MXFP4") ? 2e-2 : 3e-6);

const folderOf = (model: DrawnCheckpoint) => memoryFolder("model", folderFiles(model));

describe.each(CASES)("a folder of $name", ({ name, config, shapes }) => {
  it.each(["F32", "BF16"] as const)("computes in %s what the published model code makes of its tensors, and its conversion the same bits", (dtype) => {
    const drawn = drawCheckpoint(config, shapes, 7, dtype);
    const direct = openModel(folderOf(drawn));
    const found = logitsOf(direct);
    checkpointLogits(drawn, CASE_TOKENS).forEach((row, i) => expect(relativeError(found[i], row)).toBeLessThan(2e-5));
    const converted = openModel(memorySource("model.gguf", ggufBytes(convertFolder(folderOf(drawn)).plan)));
    expect(converted.config).toEqual(direct.config);
    expect(logitsOf(converted)).toEqual(found);
  });

  it("gives the probabilities that llama.cpp gives for its conversion", () => {
    const logits = logitsOf(openModel(folderOf(drawCheckpoint(config, shapes, 7, "F32"))));
    expect(GOLDEN[name].length).toBe(CASE_TOKENS.length);
    const differences = GOLDEN[name].flatMap((top, i) => top.map(([id, probability]) => Math.abs(probabilities(logits[i])[id] - probability)));
    expect(Math.max(...differences)).toBeLessThan(tolerance(name));
  });
});

describe("a checkpoint that is not right", () => {
  const opened = (name: string, change: object, tensors: Record<string, SafeTensorOut | undefined> = {}) => () => {
    const { config, shapes } = CASES.find((one) => one.name === name)!;
    const drawn = drawCheckpoint(config, shapes, 7, "F32");
    const kept = Object.entries({ ...drawn.tensors, ...tensors }).flatMap(([key, tensor]) => (tensor ? [[key, tensor] as const] : []));
    return openModel(memoryFolder("model", folderFiles({ config: { ...config, ...change }, tensors: Object.fromEntries(kept) })));
  };
  const floats = (...shape: number[]): SafeTensorOut => ({ dtype: "F32", shape, data: new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)) });
  const bytes = (...shape: number[]): SafeTensorOut => ({ dtype: "U8", shape, data: new Uint8Array(shape.reduce((a, b) => a * b, 1)) });
  const BLOCKS = "model.layers.0.mlp.experts.down_proj_blocks";
  const SCALES = "model.layers.0.mlp.experts.down_proj_scales";
  const MXFP4 = "gpt_oss: MXFP4, YaRN";

  it.each<[string, object, Record<string, SafeTensorOut | undefined>, string]>([
    ["falcon: one KV head", { alibi: true }, {}, 'model/config.json: key "alibi": expected false, found true'],
    ["falcon: one KV head", { parallel_attn: false }, {}, 'key "parallel_attn": expected true, found false'],
    ["falcon: one KV head", { activation: "relu" }, {}, 'key "activation": expected gelu_pytorch_tanh, found "relu"'],
    ["falcon: groups, two norms", { num_kv_heads: 1 }, {}, 'tensor "transformer.h.0.self_attention.query_key_value.weight": expected a multiple of 72 rows, found [96, 48]'],
    ["falcon: groups, two norms", { num_kv_heads: 3 }, {}, "expected a multiple of 3 KV heads, found 4 heads"],
    ["falcon: groups, two norms", { num_kv_heads: 0 }, {}, "expected a multiple of 0 KV heads, found 4 heads"],
    ["bloom", { apply_residual_connection_post_layernorm: true }, {}, 'key "apply_residual_connection_post_layernorm": expected false, found true'],
    ["bloom", { n_head: undefined }, {}, 'key "num_attention_heads": expected a whole number, 0 or more, found no such key'],
    ["gpt_neox", { use_parallel_residual: 1 }, {}, 'key "use_parallel_residual": expected true or false, found 1'],
    ["gpt_neox", { hidden_act: "relu" }, {}, 'key "hidden_act": expected gelu_pytorch_tanh, found "relu"'],
    ["mpt: grouped queries", { attn_config: { alibi: false } }, {}, 'key "attn_config.alibi": expected true, found false'],
    ["mpt: grouped queries", { attn_config: { softmax_scale: 0.5 } }, {}, 'key "attn_config.softmax_scale": expected none, found 0.5'],
    ["mpt: grouped queries", { attn_config: { attn_type: "multiquery_attention" } }, {}, 'expected multihead_attention or grouped_query_attention, found "multiquery_attention"'],
    ["mpt: grouped queries", { logit_scale: "inv_sqrt_d_model" }, {}, 'key "logit_scale": expected none, found "inv_sqrt_d_model"'],
    ["mpt: grouped queries", { expansion_ratio: 2.9 }, {}, "ffnDim: expected a positive integer, found 139"],
    ["deepseek_v2", { topk_method: "group_limited_greedy" }, {}, 'key "topk_method": expected greedy, found "group_limited_greedy"'],
    ["deepseek_v2", { norm_topk_prob: true }, {}, 'key "norm_topk_prob": expected false, as models of this type have it, found true'],
    ["deepseek_v2", { kv_lora_rank: undefined }, {}, 'key "kv_lora_rank": expected a whole number, 0 or more, found no such key'],
    ["deepseek_v2", { v_head_dim: 13 }, {}, 'tensor "model.layers.0.self_attn.kv_b_proj.weight": expected 92 rows, keys and values of 4 heads, found 96'],
    ["deepseek_v2", { v_head_dim: 24, qk_nope_head_dim: 0 }, {}, "keys and values of 4 heads, found 96"],
    ["deepseek_v2: YaRN for whole keys", { rope_scaling: { type: "yarn", factor: 8, mscale: 1, mscale_all_dim: 0.5 } }, {}, 'key "rope_scaling": expected the same mscale and mscale_all_dim, above 0, found 1 and 0.5'],
    ["deepseek_v3: groups, a layer that guesses further", { rope_interleave: false }, {}, 'key "rope_interleave": expected true, found false'],
    ["deepseek_v3: groups, a layer that guesses further", { quantization_config: { quant_method: "fp8" } }, {}, 'key "quantization_config": expected plain weights'],
    ["deepseek_v3: groups, a layer that guesses further", { num_nextn_predict_layers: 0 }, {}, "expected only tensors of a deepseek2 model with 3 layers, found this one too"],
    ["dots1", { scoring_func: "softmax" }, {}, 'key "scoring_func": expected noaux_tc or sigmoid, found "softmax"'],
    ["gpt_oss: floats", { swiglu_limit: 9 }, {}, 'key "swiglu_limit": expected 7, found 9'],
    ["granitemoe", {}, { "model.layers.0.block_sparse_moe.input_linear.weight": floats(6, 81, 48) }, "expected as many rows of the gate as of up, found 81 of both"],
    [MXFP4, {}, { [SCALES]: undefined }, `tensor "${BLOCKS}": expected its scales beside it, found none`],
    [MXFP4, {}, { [SCALES]: bytes(4, 64, 2) }, `tensor "${SCALES}": expected [4, 64, 3] U8, found [4, 64, 2] U8`],
    [MXFP4, {}, { [SCALES]: floats(4, 64, 3) }, `tensor "${SCALES}": expected [4, 64, 3] U8, found [4, 64, 3] F32`],
    [MXFP4, {}, { [BLOCKS]: bytes(4, 64, 48) }, `tensor "${BLOCKS}": expected [experts, rows, blocks, 16], found [4, 64, 48]`],
    [MXFP4, {}, { "model.layers.0.self_attn.sinks": bytes(4) }, "expected a dtype of F32, F16, BF16, I8, found U8"],
  ])("%s with %j", (name, change, tensors, message) => {
    const attempt = opened(name, change, tensors);
    expect(attempt).toThrow(FormatError);
    expect(attempt).toThrow(message);
    expect(attempt).not.toThrow("\n");
  });
});
