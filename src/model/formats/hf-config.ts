import { FormatError, quote } from "./errors.ts";
import type { GgufValue } from "./gguf-values.ts";
import { asBoolean, asCount, asNumber, asString, at, given, optional, type JsonNode } from "./json.ts";

/** What a `model_type` of config.json is called and how it differs, as far as memwall reads Hugging Face folders. */
export interface HfArchitecture {
  /** As in GGUF's `general.architecture`. */
  readonly gguf: string;
  /** Whether GGUF wants the rows of q and k reordered, from rotating halves of a head to rotating neighbours. */
  readonly permuted: boolean;
  /** Whether every head of q and k has a norm of its own. */
  readonly qkNorm: boolean;
  /** Default of `tie_word_embeddings`. */
  readonly tied: boolean;
  /** Default of `rms_norm_eps`. */
  readonly normEps: number;
  /** Default of `rope_theta`. */
  readonly ropeBase: number;
}

/** The defaults are those of the configuration classes in the transformers library. */
const ARCHITECTURES: Readonly<Record<string, HfArchitecture>> = {
  llama: { gguf: "llama", permuted: true, qkNorm: false, tied: false, normEps: 1e-6, ropeBase: 10000 },
  mistral: { gguf: "llama", permuted: true, qkNorm: false, tied: false, normEps: 1e-6, ropeBase: 10000 },
  qwen2: { gguf: "qwen2", permuted: false, qkNorm: false, tied: false, normEps: 1e-6, ropeBase: 10000 },
  qwen3: { gguf: "qwen3", permuted: false, qkNorm: true, tied: false, normEps: 1e-6, ropeBase: 10000 },
};

/** config.json, read. */
export interface HfConfig {
  readonly architecture: HfArchitecture;
  /** The same facts under GGUF's keys, in the types that a GGUF file would give them. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly nLayers: number;
  readonly headDim: number;
  readonly vocabSize: number;
  /** Whether the output head is the embedding. */
  readonly tied: boolean;
  /** By rotating pair: how much slower it turns than the plain rule says; undefined where that rule holds. */
  readonly ropeFactors: Float32Array<ArrayBuffer> | undefined;
}

/**
 * Reads a config.json.
 * @param name What the model is called in messages and tables.
 * @throws FormatError naming the key: an unknown model_type, a missing number, an activation or rope rule that memwall lacks.
 */
export function readHfConfig(config: JsonNode, name: string): HfConfig {
  const type = asString(at(config, "model_type"));
  if (!Object.hasOwn(ARCHITECTURES, type)) {
    throw new FormatError(config.file, `key "model_type": expected one of ${Object.keys(ARCHITECTURES).join(", ")}, found ${quote(type)}`);
  }
  const architecture = ARCHITECTURES[type];
  checkQuantisation(at(config, "quantization_config"));
  const activation = optional(at(config, "hidden_act"), asString, "silu");
  if (activation !== "silu" && activation !== "swish") throw new FormatError(config.file, `key "hidden_act": expected silu, found ${quote(activation)}`);

  const count = (key: string) => asCount(at(config, key));
  const dim = count("hidden_size");
  const nLayers = count("num_hidden_layers");
  const nHeads = count("num_attention_heads");
  const headDim = optional(at(config, "head_dim"), asCount, dim / nHeads);
  if (!Number.isInteger(headDim) || headDim < 1 || headDim > 1 << 16) {
    throw new FormatError(config.file, `expected a whole head_dim, or hidden_size a multiple of num_attention_heads, found ${headDim} per head`);
  }
  const vocabSize = count("vocab_size");
  // transformers 5 keeps everything about positions together; before, the base stood beside the scaling.
  const rope = [at(config, "rope_parameters"), at(config, "rope_scaling")].find(given);
  const ropeBase = optional(rope && given(at(rope, "rope_theta")) ? at(rope, "rope_theta") : at(config, "rope_theta"), asNumber, architecture.ropeBase);

  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: architecture.gguf }],
    ["general.name", { type: "string", value: name }],
  ]);
  const put = (key: string, value: GgufValue) => metadata.set(`${architecture.gguf}.${key}`, value);
  const integer = (key: string, value: number) => put(key, { type: "uint32", value });
  // A GGUF file holds these as 32-bit floats: rounded here too, so that a folder computes what its conversion computes.
  const float = (key: string, value: number) => put(key, { type: "float32", value: Math.fround(value) });
  integer("vocab_size", vocabSize);
  integer("context_length", contextLength(config));
  integer("embedding_length", dim);
  integer("block_count", nLayers);
  integer("feed_forward_length", count("intermediate_size"));
  integer("attention.head_count", nHeads);
  integer("attention.head_count_kv", optional(at(config, "num_key_value_heads"), asCount, nHeads));
  integer("attention.key_length", headDim);
  integer("attention.value_length", headDim);
  float("attention.layer_norm_rms_epsilon", optional(at(config, "rms_norm_eps"), asNumber, architecture.normEps));
  integer("rope.dimension_count", headDim);
  float("rope.freq_base", ropeBase);

  let ropeFactors: Float32Array<ArrayBuffer> | undefined;
  const rule = rope === undefined ? "default" : ropeRule(rope);
  if (rule === "linear" || rule === "yarn") {
    put("rope.scaling.type", { type: "string", value: rule });
    float("rope.scaling.factor", asNumber(at(rope!, "factor")));
    const original = at(rope!, "original_max_position_embeddings");
    if (rule === "yarn") integer("rope.scaling.original_context_length", given(original) ? asCount(original) : count("max_position_embeddings"));
  } else if (rule === "llama3") ropeFactors = llama3Factors(rope!, ropeBase, headDim);
  else if (rule !== "default") throw new FormatError(config.file, `key "${rope!.path}": expected a rope_type of default, linear, llama3 or yarn, found ${quote(rule)}`);

  const tied = optional(at(config, "tie_word_embeddings"), asBoolean, architecture.tied);
  return { architecture, metadata, nLayers, headDim, vocabSize, tied, ropeFactors };
}

/** Without the windows that Mistral's first version slides, positions up to the window are exact, and no further. */
function contextLength(config: JsonNode): number {
  const positions = asCount(at(config, "max_position_embeddings"));
  const slides = optional(at(config, "use_sliding_window"), asBoolean, true);
  return slides ? Math.min(positions, optional(at(config, "sliding_window"), asCount, positions)) : positions;
}

/** Integers with scales beside them are read; whatever packs, shifts or permutes weights is not. @throws FormatError */
function checkQuantisation(config: JsonNode): void {
  if (!given(config)) return;
  const text = (key: string) => optional(at(config, key), asString);
  const [method, format] = [text("quant_method"), text("format")];
  if (method === "compressed-tensors" && format === "int-quantized") return;
  if (method === "bitsandbytes" && optional(at(config, "load_in_8bit"), asBoolean, false)) return;
  const found = method === undefined ? "some quantisation" : `${quote(method)}${format === undefined ? "" : ` (${format})`}`;
  throw new FormatError(config.file, `key "quantization_config": expected plain weights, or int8 ones of compressed-tensors (int-quantized) or bitsandbytes (8 bits), found those of ${found}`);
}

function ropeRule(rope: JsonNode): string {
  const type = at(rope, "rope_type");
  return optional(given(type) ? type : at(rope, "type"), asString, "default");
}

/** Llama 3.1's rule as one divisor per rotating pair, the form in which GGUF files carry it (`rope_freqs.weight`). */
function llama3Factors(rope: JsonNode, base: number, headDim: number): Float32Array<ArrayBuffer> {
  const [factor, low, high] = ["factor", "low_freq_factor", "high_freq_factor"].map((key) => asNumber(at(rope, key)));
  const original = asCount(at(rope, "original_max_position_embeddings"));
  if (!(factor >= 1) || !(high > low) || headDim > 1 << 16) throw new FormatError(rope.file, `key "${rope.path}": expected factor from 1 and high_freq_factor above low_freq_factor, found ${factor}, ${high} and ${low}`);
  return Float32Array.from({ length: Math.floor(headDim / 2) }, (_, i) => {
    const wavelength = 2 * Math.PI * base ** ((2 * i) / headDim);
    const kept = Math.min(1, Math.max(0, (original / wavelength - low) / (high - low)));
    return 1 / ((1 - kept) / factor + kept);
  });
}
