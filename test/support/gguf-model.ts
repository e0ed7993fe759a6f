import { ggufBytes } from "../../src/model/formats/gguf-write.ts";
import type { GgufValue } from "../../src/model/formats/gguf-values.ts";
import { drawModel, type ModelOptions, SMALL } from "./models.ts";

const count = (value: number): GgufValue => ({ type: "uint32", value });

/** A drawn llama as the bytes of an F32 GGUF file, with a vocabulary of single letters. */
export function ggufModel(seed: number, options: ModelOptions = {}): Uint8Array {
  const { config, tensors } = drawModel(seed, { ...SMALL, vocabSize: 60, ...options });
  const names = ["<unk>", "<s>", "</s>", ..."▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?", "\n"].slice(0, config.vocabSize);
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: "llama" }],
    ["general.name", { type: "string", value: "drawn" }],
    ["llama.context_length", count(config.contextLength)],
    ["llama.embedding_length", count(config.dim)],
    ["llama.block_count", count(config.nLayers)],
    ["llama.feed_forward_length", count(config.ffnDim)],
    ["llama.attention.head_count", count(config.nHeads)],
    ["llama.attention.head_count_kv", count(config.nKvHeads)],
    ["llama.attention.layer_norm_rms_epsilon", { type: "float32", value: config.normEps }],
    ["llama.rope.dimension_count", count(config.rope?.dims ?? 0)],
    ["tokenizer.ggml.model", { type: "string", value: "llama" }],
    ["tokenizer.ggml.tokens", { type: "array", itemType: "string", value: names }],
    ["tokenizer.ggml.scores", { type: "array", itemType: "float32", value: new Float32Array(names.length) }],
  ]);
  return ggufBytes({
    metadata,
    tensors: [...tensors.values()].map(({ name, shape, f32 }) => ({ name, shape, type: "F32", data: new Uint8Array(f32.buffer, f32.byteOffset, f32.byteLength) })),
  });
}
