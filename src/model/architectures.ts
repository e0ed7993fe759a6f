import { type ModelConfig, type RopeConfig, type RopeScaling, validateConfig } from "./config.ts";
import { FormatError, quote } from "./formats/errors.ts";
import { getNumber, getString, type HasMetadata } from "./formats/gguf-values.ts";
import type { TensorInfo } from "./formats/source.ts";

/** What is particular to one `general.architecture`; everything else is read from the metadata. */
interface Architecture {
  readonly ropeStyle: RopeConfig["style"];
}

/** GGUF files of `llama` carry q and k permuted for interleaved rotation; Qwen's rotate halves. */
const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama: { ropeStyle: "interleaved" },
  qwen2: { ropeStyle: "halves" },
  qwen3: { ropeStyle: "halves" },
};

/** The decoder's config from a GGUF file's metadata and tensors. @throws FormatError naming the key that is missing or wrong. */
export function configFromGguf(file: HasMetadata & { readonly tensors: ReadonlyMap<string, TensorInfo> }): ModelConfig {
  const architecture = getString(file, "general.architecture");
  if (!Object.hasOwn(ARCHITECTURES, architecture)) {
    const known = Object.keys(ARCHITECTURES).join(", ");
    throw new FormatError(file.name, `key "general.architecture": expected one of ${known}, found ${quote(architecture)}`);
  }
  const number = (key: string, fallback?: number) => getNumber(file, `${architecture}.${key}`, fallback);
  const embedding = file.tensors.get("token_embd.weight");
  if (!embedding) throw new FormatError(file.name, `tensor "token_embd.weight": expected in the file, found no such tensor`);

  const dim = number("embedding_length");
  const nHeads = number("attention.head_count");
  const headDim = number("attention.key_length", dim / nHeads);
  const valueDim = number("attention.value_length", headDim);
  if (valueDim !== headDim) throw new FormatError(file.name, `key "${architecture}.attention.value_length": expected ${headDim}, the key length, found ${valueDim}`);
  const config: ModelConfig = {
    architecture,
    name: getString(file, "general.name", architecture),
    dim,
    nLayers: number("block_count"),
    nHeads,
    nKvHeads: number("attention.head_count_kv", nHeads),
    headDim,
    ffnDim: number("feed_forward_length"),
    vocabSize: embedding.shape[0],
    contextLength: number("context_length"),
    norm: "rms",
    normEps: number("attention.layer_norm_rms_epsilon"),
    rope: {
      style: ARCHITECTURES[architecture].ropeStyle,
      base: number("rope.freq_base", 10000),
      dims: number("rope.dimension_count", headDim),
      scaling: ropeScaling(file, architecture),
    },
    ffn: "gated",
    activation: "silu",
  };
  try {
    return validateConfig(config);
  } catch (error) {
    throw new FormatError(file.name, (error as Error).message);
  }
}

function ropeScaling(file: HasMetadata, architecture: string): RopeScaling {
  const key = `${architecture}.rope.scaling.type`;
  const legacy = getNumber(file, `${architecture}.rope.scale_linear`, 1);
  const type = getString(file, key, legacy === 1 ? "none" : "linear");
  const factor = () => getNumber(file, `${architecture}.rope.scaling.factor`, legacy);
  // Llama 3's own rule comes as ready factors in the tensor rope_freqs.weight, under the type "none" or "linear" with factor 1.
  if (type === "none") return { type };
  if (type === "linear") return { type, factor: factor() };
  if (type === "llama3") {
    return {
      type,
      factor: factor(),
      lowFreqFactor: getNumber(file, `${architecture}.rope.scaling.low_freq_factor`, 1),
      highFreqFactor: getNumber(file, `${architecture}.rope.scaling.high_freq_factor`, 4),
      originalContext: getNumber(file, `${architecture}.rope.scaling.original_context_length`, 8192),
    };
  }
  throw new FormatError(file.name, `key "${key}": expected none, linear or llama3, found ${quote(type)}`);
}
