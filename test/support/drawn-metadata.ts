import type { GgufValue } from "../../src/model/formats/gguf-values.ts";

const text = (value: string): GgufValue => ({ type: "string", value });
const u32 = (value: number): GgufValue => ({ type: "uint32", value });

/** Metadata of a drawn model, its keys under `architecture`; llama.cpp's loader of this vocabulary wants a token for every byte. */
export function drawnMetadata(architecture: string, keys: Readonly<Record<string, GgufValue>>, vocabSize: number, name = architecture): Map<string, GgufValue> {
  const names = ["<unk>", "<s>", "</s>", ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`)];
  while (names.length < vocabSize) names.push(`▁word${names.length}`);
  return new Map<string, GgufValue>([
    ["general.architecture", text(name)],
    ["general.name", text("drawn")],
    ...Object.entries(keys).map(([key, value]) => [`${architecture}.${key}`, value] as const),
    ["tokenizer.ggml.model", text("llama")],
    ["tokenizer.ggml.tokens", { type: "array", itemType: "string", value: names }],
    ["tokenizer.ggml.scores", { type: "array", itemType: "float32", value: new Float32Array(names.length) }],
    ["tokenizer.ggml.token_type", { type: "array", itemType: "int32", value: Int32Array.from(names, (_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1)) }],
    ["tokenizer.ggml.bos_token_id", u32(1)],
    ["tokenizer.ggml.eos_token_id", u32(2)],
    ["tokenizer.ggml.unknown_token_id", u32(0)],
  ]);
}
