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
import { folderFiles, folderModel, safeTensors, sharded, SPECIAL, tokenizerJson, TOKENIZER_CONFIG, type Width } from "../../support/hf-folder.ts";
import { packModel } from "../../support/models.ts";
import { allLogits, bench, relativeError } from "../../support/run.ts";

const PROMPT = [260, 116, 104, 101, 256, 10, 200, 33];

function logitsOf(file: ModelFile): Float32Array[] {
  const kernels = scalarKernels();
  return allLogits(bench(createModel(file.config, loadWeights(file, file.config, kernels)), { kernels }), PROMPT);
}

const open = (files: Record<string, Uint8Array | string>) => openModel(memoryFolder("model", files));

const TYPES = ["llama", "mistral", "qwen2", "qwen3"] as const;

describe.each(TYPES)("a folder of %s", (type) => {
  it.each(["F32", "F16", "BF16"] as Width[])("computes in %s what its conversion computes, bit for bit", (dtype) => {
    const folder = memoryFolder("model", folderFiles(folderModel(type, dtype, { headDim: 8 })));
    const converted = openModel(memorySource("model.gguf", ggufBytes(convertFolder(folder).plan)));
    const direct = openModel(folder);
    expect(converted.config).toEqual(direct.config);
    expect(logitsOf(converted)).toEqual(logitsOf(direct));
    expect(converted.tokenizer.encode("the thin <s> thé")).toEqual(direct.tokenizer.encode("the thin <s> thé"));
    expect([converted.tokenizer.bos, converted.tokenizer.addBos, converted.metadata.get("tokenizer.chat_template")]).toEqual([
      SPECIAL.bos,
      true,
      { type: "string", value: TOKENIZER_CONFIG.chat_template },
    ]);
  });

  it("computes what rotating halves of a head computes", () => {
    const model = folderModel(type);
    const rope = { ...model.shape.rope!, style: "halves" as const };
    const kernels = scalarKernels();
    const expected = allLogits(bench(packModel({ config: { ...model.shape, rope }, tensors: model.plain }, kernels), { kernels }), PROMPT);
    const found = logitsOf(open(folderFiles(model)));
    found.forEach((row, i) => expect(relativeError(row, expected[i])).toBeLessThan(1e-6));
  });
});

describe("a folder", () => {
  it("is the same in one file and in shards", () => {
    const model = folderModel("llama");
    const { "model.safetensors": _, ...rest } = folderFiles(model);
    expect(logitsOf(open({ ...rest, ...sharded(model.tensors, 3) }))).toEqual(logitsOf(open(folderFiles(model))));
  });

  it("says which ids begin and end a text", () => {
    const { tokenizer } = open(folderFiles(folderModel("llama")));
    expect(tokenizer).toMatchObject({ vocabSize: 270, bos: SPECIAL.bos, eos: [SPECIAL.eos, SPECIAL.user], addBos: true });
  });

  it("takes the rope scalings that config.json names, also as transformers 5 writes them", () => {
    const model = folderModel("llama");
    const withRope = (change: object) => open(folderFiles({ ...model, config: { ...model.config, ...change } }));
    expect(withRope({ rope_scaling: { type: "linear", factor: 4 } }).config.rope!.scaling).toEqual({ type: "linear", factor: 4 });
    expect(withRope({ rope_parameters: { rope_type: "default", rope_theta: 500000 } }).config.rope).toMatchObject({ base: 500000, scaling: { type: "none" } });
    const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };
    const scaled = withRope({ rope_scaling: llama3 });
    expect(scaled.tensors.get("rope_freqs.weight")).toMatchObject({ shape: [4], type: "F32" });
    // The rule by its own formula, in the plain model.
    const kernels = scalarKernels();
    const scaling = { type: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 64 } as const;
    const plain = { config: { ...model.shape, rope: { ...model.shape.rope!, style: "halves" as const, scaling } }, tensors: model.plain };
    const expected = allLogits(bench(packModel(plain, kernels), { kernels }), PROMPT);
    logitsOf(scaled).forEach((row, i) => expect(relativeError(row, expected[i])).toBeLessThan(1e-5));
  });
});

describe("a folder that is not right", () => {
  const model = folderModel("llama");
  const files = folderFiles(model);
  const config = (change: object) => ({ ...files, "config.json": JSON.stringify({ ...model.config, ...change }) });
  const without = (...names: string[]) => Object.fromEntries(Object.entries(files).filter(([name]) => !names.includes(name)));
  const shards = { ...without("model.safetensors"), ...sharded(model.tensors, 2) };
  const index = (map: object) => ({ ...shards, "model.safetensors.index.json": JSON.stringify({ weight_map: map }) });
  const map = (JSON.parse(shards["model.safetensors.index.json"] as string) as { weight_map: Record<string, string> }).weight_map;
  const extra = { dtype: "F32", shape: [1], data: new Uint8Array(4) };
  const tokens = (change: object) => ({ ...files, "tokenizer.json": JSON.stringify({ ...tokenizerJson(), ...change }) });

  it.each<[string, Record<string, Uint8Array | string>, string]>([
    ["no config.json", without("config.json"), "model: expected a Hugging Face model folder with a config.json"],
    ["no weights", without("model.safetensors"), "model: expected weights in model.safetensors or in shards with model.safetensors.index.json, found neither"],
    ["no tokenizer.json", without("tokenizer.json"), "model: expected a tokenizer.json"],
    ["another model_type", config({ model_type: "mamba" }), 'model/config.json: key "model_type": expected one of llama, mistral, qwen2, qwen3, mixtral, '],
    ["quantised weights", config({ quantization_config: { quant_method: "gptq" } }), 'found those of "gptq"'],
    ["another activation", config({ hidden_act: "gelu" }), 'key "hidden_act": expected silu, found "gelu"'],
    ["an unknown rope rule", config({ rope_scaling: { rope_type: "magic" } }), 'found "magic"'],
    ["no heads", config({ num_attention_heads: 0, head_dim: null }), "expected a whole head_dim"],
    ["a missing number", config({ hidden_size: undefined }), 'key "hidden_size": expected a whole number, 0 or more, found no such key'],
    ["another vocab_size", config({ vocab_size: 271 }), 'tensor "model.embed_tokens.weight": expected 271 rows, the vocab_size of config.json, found 270'],
    ["a tokenizer with too many tokens", tokens({ added_tokens: [{ id: 270, content: "<x>" }] }), 'token "<x>": expected an id below 270, the rows of the embedding, found 270'],
    ["an end token that is none", { ...files, "tokenizer_config.json": JSON.stringify({ eos_token: "<end>" }) }, 'key "eos_token": expected a token of tokenizer.json, found "<end>"'],
    ["an end id beyond", { ...files, "generation_config.json": '{"eos_token_id": 999}' }, 'key "eos_token_id": expected ids below 270, the rows of the embedding, found 999'],
    ["a tensor too many", { ...files, "model.safetensors": safeTensors({ ...model.tensors, "model.layers.9.mlp.up_proj.weight": extra }) }, 'tensor "model.layers.9.mlp.up_proj.weight": expected only tensors of a llama model with 2 layers'],
    ["a dtype that is none of ours", { ...files, "model.safetensors": safeTensors({ "model.norm.weight": { ...extra, dtype: "U32" } }) }, "expected a dtype of F32, F16, BF16, I8, found U32"],
    ["a shard that is missing", Object.fromEntries(Object.entries(shards).filter(([name]) => !name.includes("00002-of"))), 'expected the shard "model-00002-of-00002.safetensors" that model.safetensors.index.json names, found no such file'],
    ["a tensor in no shard", index({ ...map, "model.ghost": Object.values(map)[0] }), 'tensor "model.ghost": expected in "model-00001-of-00002.safetensors", found in no shard'],
    ["a tensor in another shard", index({ ...map, "lm_head.weight": "model-00001-of-00002.safetensors" }), 'tensor "lm_head.weight": expected in "model-00001-of-00002.safetensors", found in model/model-00002-of-00002.safetensors'],
    ["an index that points outside", index({ a: "../secret.safetensors" }), 'key "weight_map": expected the name of a .safetensors file in the folder, found "../secret.safetensors"'],
    ["an index with an absolute path", index({ a: "/etc/x.safetensors" }), "expected the name of a .safetensors file in the folder"],
    ["an index with backslashes", index({ a: "..\\x.safetensors" }), "expected the name of a .safetensors file in the folder"],
    ["a tensor in two shards", { ...shards, "model-00002-of-00002.safetensors": safeTensors(model.tensors) }, "expected every tensor once, found it in model/model-00001-of-00002.safetensors too"],
  ])("%s", (_, broken, message) => {
    const attempt = () => open(broken);
    expect(attempt).toThrow(FormatError);
    expect(attempt).toThrow(message);
    expect(attempt).not.toThrow("\n");
  });

  it("shards of another model are told by their shapes", () => {
    const other = folderModel("llama", "F32", { dim: 16 });
    expect(() => logitsOf(open({ ...files, "model.safetensors": safeTensors({ ...model.tensors, "model.norm.weight": other.tensors["model.norm.weight"] }) }))).toThrow(
      'model: tensor "output_norm.weight": expected [32], found [16]',
    );
  });

  it("does not pass for a file", () => {
    expect(() => memoryFolder("model", {}).read(0, new Uint8Array(1))).toThrow("model: this is a directory, expected a file");
    expect(() => openModel(memoryFolder("model", files), memorySource("tok", new Uint8Array(0)))).toThrow("brings its own tokenizer");
  });
});
