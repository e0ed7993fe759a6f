import { byteOf, TokenType } from "../tokenizer/vocabulary.ts";
import type { ModelConfig } from "../config.ts";
import type { GgufValue } from "./gguf-values.ts";
import type { Llama2cTokenizer } from "./llama2c.ts";

const text = (value: string): GgufValue => ({ type: "string", value });
const count = (value: number): GgufValue => ({ type: "uint32", value });
const real = (value: number): GgufValue => ({ type: "float32", value });

/** What a GGUF file says about a llama2.c checkpoint and its tokenizer, in the form that llama.cpp reads. */
export function llama2cMetadata(config: ModelConfig, { tokens, scores }: Llama2cTokenizer): Map<string, GgufValue> {
  return new Map<string, GgufValue>([
    ["general.architecture", text("llama")],
    ["general.name", text(config.name)],
    ["llama.context_length", count(config.contextLength)],
    ["llama.embedding_length", count(config.dim)],
    ["llama.block_count", count(config.nLayers)],
    ["llama.feed_forward_length", count(config.ffnDim)],
    ["llama.attention.head_count", count(config.nHeads)],
    ["llama.attention.head_count_kv", count(config.nKvHeads)],
    ["llama.attention.layer_norm_rms_epsilon", real(config.normEps)],
    ["llama.rope.dimension_count", count(config.headDim)],
    ["llama.rope.freq_base", real(config.rope?.base ?? 10000)],
    ["llama.vocab_size", count(config.vocabSize)],
    ["tokenizer.ggml.model", text("llama")],
    ["tokenizer.ggml.tokens", { type: "array", itemType: "string", value: tokens.map(tokenName) }],
    ["tokenizer.ggml.scores", { type: "array", itemType: "float32", value: scores }],
    ["tokenizer.ggml.token_type", { type: "array", itemType: "int32", value: tokens.map(tokenType) }],
    ["tokenizer.ggml.unknown_token_id", count(0)],
    ["tokenizer.ggml.bos_token_id", count(1)],
    ["tokenizer.ggml.eos_token_id", count(2)],
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: true }],
    ["tokenizer.ggml.add_space_prefix", { type: "bool", value: true }],
  ]);
}

/** llama2.c writes spaces as they are and control tokens as "\n<s>\n". */
function tokenName(name: string, id: number): string {
  return id < 3 ? name.trim() : name.replaceAll(" ", "▁");
}

function tokenType(name: string, id: number): number {
  if (id === 0) return TokenType.unknown;
  return id < 3 ? TokenType.control : byteOf(name) === undefined ? TokenType.normal : TokenType.byte;
}
