import { BYTE_CHARACTERS } from "../../src/model/tokenizer/byte-characters.ts";
import { f32ToBf16, f32ToF16 } from "../../src/tensor/float16.ts";
import type { ModelConfig } from "../../src/model/config.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { drawModel, SMALL, type ModelOptions } from "./models.ts";

/** A tensor on its way into a safetensors file. */
export interface SafeTensorOut {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** A safetensors file with these tensors, in order. */
export function safeTensors(tensors: Readonly<Record<string, SafeTensorOut>>, metadata?: Readonly<Record<string, string>>): Uint8Array {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) header[name] = { dtype, shape, data_offsets: [end, (end += data.length)] };
  return safeTensorsFile(JSON.stringify(header), ...Object.values(tensors).map(({ data }) => data));
}

/** A safetensors file with any text as its header. */
export function safeTensorsFile(header: string, ...data: Uint8Array[]): Uint8Array {
  const text = new TextEncoder().encode(header.padEnd(header.length + ((8 - (header.length % 8)) % 8)));
  const file = new Uint8Array(8 + text.length + data.reduce((sum, { length }) => sum + length, 0));
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let at = 8 + text.length;
  for (const piece of data) {
    file.set(piece, at);
    at += piece.length;
  }
  return file;
}

export type Width = "F32" | "F16" | "BF16";

function narrowed(values: Float32Array, dtype: Width): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.slice().buffer);
  return new Uint8Array(Uint16Array.from(values, dtype === "F16" ? f32ToF16 : f32ToBf16).buffer);
}

/** GGUF's names and the checkpoints', without `.weight` and `.bias`. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^token_embd/, "model.embed_tokens"],
  [/^output_norm/, "model.norm"],
  [/^output/, "lm_head"],
  [/^blk\.(\d+)\.attn_norm/, "model.layers.$1.input_layernorm"],
  [/^blk\.(\d+)\.ffn_norm/, "model.layers.$1.post_attention_layernorm"],
  [/^blk\.(\d+)\.attn_([qk])_norm/, "model.layers.$1.self_attn.$2_norm"],
  [/^blk\.(\d+)\.attn_([qkv])/, "model.layers.$1.self_attn.$2_proj"],
  [/^blk\.(\d+)\.attn_output/, "model.layers.$1.self_attn.o_proj"],
  [/^blk\.(\d+)\.ffn_(gate|up|down)/, "model.layers.$1.mlp.$2_proj"],
];

export interface FolderModel {
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: Record<string, SafeTensorOut>;
}

/**
 * A small model as a checkpoint: llama, qwen2 or qwen3 with drawn weights.
 * @param plain What it is made of, under GGUF's names, q and k as the checkpoint has them.
 */
export function folderModel(type: "llama" | "mistral" | "qwen2" | "qwen3", dtype: Width = "F32", shape: ModelOptions = {}, seed = 1): FolderModel & { plain: ReadonlyMap<string, Tensor>; shape: ModelConfig } {
  const biases = type === "qwen2" ? (["attn_q", "attn_k", "attn_v"] as const) : [];
  const { config, tensors: plain } = drawModel(seed, { ...SMALL, vocabSize: VOCAB, biases, qkNorm: type === "qwen3", ...shape });
  const tensors: Record<string, SafeTensorOut> = {};
  for (const [name, tensor] of plain) {
    const [pattern, hf] = NAMES.find(([match]) => match.test(name)) ?? [];
    if (pattern) tensors[name.replace(pattern, hf!)] = { dtype, shape: tensor.shape, data: narrowed(tensor.f32, dtype) };
  }
  return {
    plain,
    shape: config,
    tensors,
    config: {
      ...{ model_type: type, hidden_size: config.dim, num_hidden_layers: config.nLayers, num_attention_heads: config.nHeads, num_key_value_heads: config.nKvHeads },
      ...{ head_dim: config.headDim, intermediate_size: config.ffnDim, vocab_size: config.vocabSize, max_position_embeddings: config.contextLength },
      ...{ rms_norm_eps: config.normEps, rope_theta: config.rope!.base, tie_word_embeddings: !plain.has("output.weight"), hidden_act: "silu" },
    },
  };
}

/** Ids of `tokenizerJson`: the bytes, four merged tokens, then <s>, </s>, <|user|>, <|assistant|>. */
export const SPECIAL = { bos: 260, eos: 261, user: 262, assistant: 263 };
/** A few rows more than there are tokens, as real embeddings have. */
export const VOCAB = 270;

/** A byte-level BPE tokenizer with a handful of merges. */
export function tokenizerJson(): Record<string, unknown> {
  const vocab = Object.fromEntries([...BYTE_CHARACTERS, "Ġt", "he", "Ġthe", "in"].map((name, id) => [name, id]));
  const special = (content: string, id: number) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true });
  return {
    version: "1.0",
    added_tokens: [special("<s>", SPECIAL.bos), special("</s>", SPECIAL.eos), special("<|user|>", SPECIAL.user), special("<|assistant|>", SPECIAL.assistant)],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      special_tokens: { "<s>": { id: "<s>", ids: [SPECIAL.bos], tokens: ["<s>"] } },
    },
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", unk_token: null, byte_fallback: false, vocab, merges: ["Ġ t", "h e", "Ġt he", "i n"] },
  };
}

export const TOKENIZER_CONFIG = {
  ...{ bos_token: "<s>", eos_token: { content: "</s>" }, tokenizer_class: "PreTrainedTokenizerFast" },
  chat_template: "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
};

/** The files of a folder, ready for `memoryFolder` or a disk. */
export function folderFiles({ config, tensors }: FolderModel, change: Readonly<Record<string, Uint8Array | string>> = {}): Record<string, Uint8Array | string> {
  return {
    "config.json": JSON.stringify(config),
    "generation_config.json": JSON.stringify({ eos_token_id: [SPECIAL.eos, SPECIAL.user] }),
    "tokenizer.json": JSON.stringify(tokenizerJson()),
    "tokenizer_config.json": JSON.stringify(TOKENIZER_CONFIG),
    "model.safetensors": safeTensors(tensors, { format: "pt" }),
    ...change,
  };
}

/** The weights in several files with their index, instead of model.safetensors. */
export function sharded(tensors: Readonly<Record<string, SafeTensorOut>>, shards: number): Record<string, Uint8Array | string> {
  const names = Object.keys(tensors);
  const file = (i: number) => `model-${String(i + 1).padStart(5, "0")}-of-${String(shards).padStart(5, "0")}.safetensors`;
  const shardOf = (i: number) => Math.floor((i * shards) / names.length);
  const files: Record<string, Uint8Array | string> = {};
  for (let shard = 0; shard < shards; shard++) {
    files[file(shard)] = safeTensors(Object.fromEntries(names.filter((_, i) => shardOf(i) === shard).map((name) => [name, tensors[name]])));
  }
  files["model.safetensors.index.json"] = JSON.stringify({ metadata: { total_size: 0 }, weight_map: Object.fromEntries(names.map((name, i) => [name, file(shardOf(i))])) });
  return files;
}
