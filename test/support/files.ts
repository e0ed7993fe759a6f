import { ggufBytes } from "../../src/model/formats/gguf-write.ts";
import type { GgufValue } from "../../src/model/formats/gguf-values.ts";
import { type EncodableType, encodeRows } from "../../src/quant/ggml-encode.ts";
import type { PlainModel } from "./models.ts";

/** Ids 0 to 2 are <unk>, <s> and </s>, then the space and as many letters as there is room for. */
export function letters(vocabSize: number): string[] {
  const names = ["<unk>", "<s>", "</s>", "▁"];
  for (let code = 0x61; names.length < vocabSize; code++) names.push(String.fromCharCode(code));
  return names.slice(0, vocabSize);
}

export interface FileOptions {
  /** How matrices are stored; those whose columns are not whole blocks stay F32. */
  readonly type?: EncodableType;
  /** Metadata to add, replace, or (undefined) leave out. */
  readonly metadata?: Readonly<Record<string, GgufValue | undefined>>;
}

/** A llama as a GGUF file with a SentencePiece vocabulary of letters. */
export function ggufModel({ config, tensors }: PlainModel, { type = "F32", metadata = {} }: FileOptions = {}): Uint8Array {
  const { architecture, rope } = config;
  const names = letters(config.vocabSize);
  const uint32 = (value: number): GgufValue => ({ type: "uint32", value });
  const values: Record<string, GgufValue | undefined> = {
    "general.architecture": { type: "string", value: architecture },
    "general.name": { type: "string", value: config.name },
    [`${architecture}.context_length`]: uint32(config.contextLength),
    [`${architecture}.embedding_length`]: uint32(config.dim),
    [`${architecture}.block_count`]: uint32(config.nLayers),
    [`${architecture}.feed_forward_length`]: uint32(config.ffnDim),
    [`${architecture}.attention.head_count`]: uint32(config.nHeads),
    [`${architecture}.attention.head_count_kv`]: uint32(config.nKvHeads),
    [`${architecture}.attention.key_length`]: uint32(config.headDim),
    [`${architecture}.attention.value_length`]: uint32(config.headDim),
    [`${architecture}.attention.layer_norm_rms_epsilon`]: { type: "float32", value: config.normEps },
    [`${architecture}.rope.dimension_count`]: uint32(rope!.dims),
    [`${architecture}.rope.freq_base`]: { type: "float32", value: rope!.base },
    "tokenizer.ggml.model": { type: "string", value: "llama" },
    "tokenizer.ggml.tokens": { type: "array", itemType: "string", value: names },
    "tokenizer.ggml.scores": { type: "array", itemType: "float32", value: names.map((_, id) => -id) },
    "tokenizer.ggml.token_type": { type: "array", itemType: "int32", value: names.map((_, id) => [2, 3, 3][id] ?? 1) },
    "tokenizer.ggml.bos_token_id": uint32(1),
    "tokenizer.ggml.eos_token_id": uint32(2),
    "tokenizer.ggml.unknown_token_id": uint32(0),
    ...metadata,
  };
  return ggufBytes({
    metadata: new Map(Object.entries(values).flatMap(([key, value]) => (value ? [[key, value] as const] : []))),
    tensors: [...tensors.values()].map((tensor) => {
      const stored = tensor.shape.length === 2 && (!type.startsWith("Q") || tensor.cols % 32 === 0) ? type : "F32";
      return { name: tensor.name, shape: tensor.shape, type: stored, data: encodeRows(stored, tensor) };
    }),
  });
}

/** The same as a llama2.c checkpoint (format 0), for a plain llama whose heads fill `dim`. */
export function llama2cModel({ config, tensors }: PlainModel): Uint8Array {
  const { dim, ffnDim, nLayers, nHeads, nKvHeads, vocabSize, contextLength } = config;
  const tied = !tensors.has("output.weight");
  const header = [dim, ffnDim, nLayers, nHeads, nKvHeads, tied ? vocabSize : -vocabSize, contextLength];
  const parts = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down", "ffn_up"];
  const names = [
    "token_embd.weight",
    ...parts.flatMap((part) => Array.from({ length: nLayers }, (_, i) => `blk.${i}.${part}.weight`)),
    "output_norm.weight",
  ];
  const floats = names.map((name) => tensors.get(name)!.f32);
  floats.push(new Float32Array(contextLength * (dim / nHeads)));
  if (!tied) floats.push(tensors.get("output.weight")!.f32);
  return joinBytes([Int32Array.from(header), ...floats]);
}

/** A llama2.c tokenizer file for the same letters. */
export function llama2cTokenizer(vocabSize: number): Uint8Array {
  const names = letters(vocabSize).map((name, id) => new TextEncoder().encode(id < 3 ? ["<unk>", "\n<s>\n", "\n</s>\n"][id] : name.replace("▁", " ")));
  const longest = Math.max(...names.map((name) => name.length));
  return joinBytes([Int32Array.of(longest), ...names.flatMap((name, id) => [Float32Array.of(-id), Int32Array.of(name.length), name])]);
}

function joinBytes(parts: readonly (Int32Array | Float32Array | Uint8Array)[]): Uint8Array {
  const bytes = parts.map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength));
  const whole = new Uint8Array(bytes.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of bytes) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
