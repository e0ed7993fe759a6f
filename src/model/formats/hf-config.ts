import { FormatError, quote } from "./errors.ts";
import type { GgufValue } from "./gguf-values.ts";
import { HF_ARCHITECTURES, type HfArchitecture } from "./hf-architectures.ts";
import { readExperts } from "./hf-experts.ts";
import { readLatent } from "./hf-latent.ts";
import { readRope } from "./hf-rope.ts";
import { asBoolean, asCount, asItems, asNumber, asString, at, describeJson, given, optional, type JsonNode } from "./json.ts";

/** config.json, read. */
export interface HfConfig {
  readonly architecture: HfArchitecture;
  /** The same facts under GGUF's keys, in the types that a GGUF file would give them. */
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly nLayers: number;
  /** Layers behind those, which guess further tokens (DeepSeek-V3's multi-token prediction) and are left out. */
  readonly nExtraLayers: number;
  readonly nHeads: number;
  readonly nKvHeads: number;
  readonly headDim: number;
  /** What of a head's key does not rotate, and its value, where attention is latent. */
  readonly latent?: { readonly nopeDim: number; readonly valueDim: number };
  readonly vocabSize: number;
  /** Experts in a mixture, 0 without one. */
  readonly nExperts: number;
  /** Whether the output head is the embedding. */
  readonly tied: boolean;
  /** Tensors that follow from the config: divisors of rope's frequencies. */
  readonly computed: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
}

/**
 * Reads a config.json.
 * @param name What the model is called in messages and tables.
 * @throws FormatError naming the key: an unknown model_type, a missing number, an activation or rope rule that memwall lacks.
 */
export function readHfConfig(whole: JsonNode, name: string): HfConfig {
  const type = asString(at(whole, "model_type"));
  if (!Object.hasOwn(HF_ARCHITECTURES, type)) {
    throw new FormatError(whole.file, `key "model_type": expected one of ${Object.keys(HF_ARCHITECTURES).join(", ")}, found ${quote(type)}`);
  }
  const architecture = HF_ARCHITECTURES[type];
  checkQuantisation(at(whole, "quantization_config"));
  // Models that also see pictures keep the language model's part by itself.
  const config = given(at(whole, "text_config")) ? at(whole, "text_config") : whole;
  checkActivation(config, architecture);
  checkOnly(config, architecture);

  const { fields, defaults = {}, gguf, eps } = architecture;
  const keyOf = (names: readonly string[]) => names.find((name) => given(within(config, name))) ?? names[0];
  const count = (...names: readonly string[]) => {
    const key = keyOf(names);
    return Object.hasOwn(defaults, key) ? optional(within(config, key), asCount, defaults[key]) : asCount(within(config, key));
  };
  const dim = count(...fields.dim);
  const nLayers = count(...fields.nLayers);
  const nHeads = count(...fields.nHeads);
  const latent = architecture.latent ? readLatent(config) : undefined;
  const ownHeadDim = Object.hasOwn(defaults, "head_dim") ? count("head_dim") : optional(at(config, "head_dim"), asCount, dim / nHeads);
  const headDim = latent ? latent.nopeDim + latent.ropeDim : ownHeadDim;
  if (!Number.isInteger(headDim) || headDim < 1 || headDim > 1 << 16) {
    throw new FormatError(config.file, `expected a whole head_dim, or ${keyOf(fields.dim)} a multiple of ${keyOf(fields.nHeads)}, found ${headDim} per head`);
  }
  const nKvHeads = gguf === "falcon" ? falconKvHeads(config, keyOf(fields.nKvHeads), nHeads) : optional(within(config, keyOf(fields.nKvHeads)), asCount, defaults[fields.nKvHeads[0]] ?? nHeads);
  const vocabSize = count("vocab_size");

  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: gguf }],
    ["general.name", { type: "string", value: name }],
  ]);
  const put = (key: string, value: GgufValue) => metadata.set(`${gguf}.${key}`, value);
  const integer = (key: string, value: number) => put(key, { type: "uint32", value });
  // A GGUF file holds these as 32-bit floats: rounded here too, so that a folder computes what its conversion computes.
  const float = (key: string, value: number) => put(key, { type: "float32", value: Math.fround(value) });
  integer("vocab_size", vocabSize);
  integer("context_length", architecture.slidingPeriod ? count(...fields.context) : exactContext(config, count(...fields.context)));
  integer("embedding_length", dim);
  integer("block_count", nLayers);
  const ffnKey = keyOf(fields.ffnDim);
  const expanded = architecture.expands && !given(within(config, ffnKey));
  integer("feed_forward_length", expanded ? optional(at(config, "expansion_ratio"), asNumber, 4) * dim : count(ffnKey));
  integer("attention.head_count", nHeads);
  integer("attention.head_count_kv", nKvHeads);
  integer("attention.key_length", headDim);
  integer("attention.value_length", headDim);
  float(`attention.${eps.gguf}`, optional(at(config, eps.key), asNumber, eps.fallback));
  for (const { name: key, gguf: to, kind, fallback } of architecture.keys ?? []) {
    const value = optional<number | boolean, number | boolean | undefined>(within(config, key), kind === "boolean" ? asBoolean : asNumber, fallback);
    if (typeof value === "boolean") put(to, { type: "bool", value });
    else if (value !== undefined) (kind === "float" ? float : integer)(to, value);
  }
  const experts = architecture.experts ? readExperts(config, architecture.experts) : new Map<string, never>();
  for (const [key, value] of [...experts, ...(latent?.keys ?? [])]) put(key, value);
  const sliding = slidingLayers(config, architecture, nLayers);
  if (sliding) put("attention.sliding_window_pattern", { type: "array", itemType: "bool", value: sliding });
  checkScale(config, architecture, { dim, nLayers, nHeads, headDim });
  checkRopeless(config, architecture, nLayers);

  const dims = architecture.ropeBase === undefined ? 0 : (latent?.ropeDim ?? Math.floor(headDim * optional(rotatingShare(config), asNumber, architecture.rotates ?? 1)));
  const rope = architecture.ropeBase === undefined ? undefined : readRope(config, dims, architecture.ropeBase, keyOf(fields.context), latent !== undefined);
  for (const [key, value] of rope?.keys ?? []) put(key, value);

  return {
    ...{ architecture, metadata, nLayers, nHeads, nKvHeads, headDim, latent, vocabSize },
    nExtraLayers: optional(at(config, "num_nextn_predict_layers"), asCount, 0),
    nExperts: (experts.get("expert_count")?.value as number | undefined) ?? 0,
    tied: optional(at(whole, "tie_word_embeddings"), asBoolean, architecture.tied),
    computed: rope?.tensors ?? new Map<string, never>(),
  };
}

/** A key of an object within, as `attn_config.clip_qkv`. */
function within(config: JsonNode, path: string): JsonNode {
  return path.split(".").reduce<JsonNode>(at, config);
}

/** Where config.json says which share of a head rotates; transformers 5 keeps it with the other facts about positions. */
function rotatingShare(config: JsonNode): JsonNode {
  const [own, older, rope] = ["partial_rotary_factor", "rotary_pct", "rope_parameters"].map((key) => at(config, key));
  return [own, older].find(given) ?? at(rope, "partial_rotary_factor");
}

function checkActivation(config: JsonNode, { activation: { keys, names, fallback } }: HfArchitecture): void {
  const key = keys.find((each) => given(within(config, each))) ?? keys[0];
  const found = optional(within(config, key), asString, fallback);
  if (!names.includes(found)) throw new FormatError(config.file, `key "${key}": expected ${names[0]}, found ${quote(found)}`);
}

function checkOnly(config: JsonNode, { only = {} }: HfArchitecture): void {
  for (const [key, values] of Object.entries(only)) {
    const { value } = within(config, key);
    if (value === undefined || value === null || values.some((each) => each === value)) continue;
    throw new FormatError(config.file, `key "${key}": expected ${values.length > 0 ? values.join(" or ") : "none"}, found ${describeJson(value)}`);
  }
}

/** Falcon's first architecture has one KV head, or as many as heads, whatever `num_kv_heads` says. */
function falconKvHeads(config: JsonNode, key: string, nHeads: number): number {
  if (optional(at(config, "new_decoder_architecture"), asBoolean, false)) return optional(at(config, key), asCount, nHeads);
  return optional(at(config, "multi_query"), asBoolean, true) ? 1 : nHeads;
}

/** Without the windows that Mistral's first version slides, positions up to the window are exact, and no further. */
function exactContext(config: JsonNode, positions: number): number {
  const slides = optional(at(config, "use_sliding_window"), asBoolean, true);
  return slides ? Math.min(positions, optional(at(config, "sliding_window"), asCount, positions)) : positions;
}

/** Integers and MXFP4 with scales beside them are read; whatever packs, shifts or permutes weights is not. @throws FormatError */
function checkQuantisation(config: JsonNode): void {
  if (!given(config)) return;
  const text = (key: string) => optional(at(config, key), asString);
  const [method, format] = [text("quant_method"), text("format")];
  if (method === "compressed-tensors" && format === "int-quantized") return;
  if (method === "mxfp4") return;
  if (method === "bitsandbytes" && optional(at(config, "load_in_8bit"), asBoolean, false)) return;
  const found = method === undefined ? "some quantisation" : `${quote(method)}${format === undefined ? "" : ` (${format})`}`;
  throw new FormatError(config.file, `key "quantization_config": expected plain weights, mxfp4, or int8 of compressed-tensors (int-quantized) or bitsandbytes (8 bits), found those of ${found}`);
}

/** By layer whether it slides its window, where that is not as usual. */
function slidingLayers(config: JsonNode, { slidingPeriod: usual }: HfArchitecture, nLayers: number): boolean[] | undefined {
  if (usual === undefined || nLayers > 1 << 14) return undefined;
  const byPeriod = (period: number) => Array.from({ length: nLayers }, (_, i) => (i + 1) % period !== 0);
  const types = at(config, "layer_types");
  const found = given(types) ? asItems(types).map((type) => asString(type) === "sliding_attention") : byPeriod(Math.max(1, optional(at(config, "sliding_window_pattern"), asCount, usual)));
  return String(found) === String(byPeriod(usual)) ? undefined : found;
}

/** Gemma's `query_pre_attn_scalar`: GGUF has no key for it, and readers take headDim, or dim / heads in the largest models. */
function checkScale(config: JsonNode, { gguf }: HfArchitecture, { dim, nLayers, nHeads, headDim }: Record<"dim" | "nLayers" | "nHeads" | "headDim", number>): void {
  if (gguf !== "gemma2" && gguf !== "gemma3") return;
  const expected = nLayers === (gguf === "gemma2" ? 46 : 62) ? dim / nHeads : headDim;
  const found = optional(at(config, "query_pre_attn_scalar"), asNumber, 256);
  if (found !== expected) throw new FormatError(config.file, `key "query_pre_attn_scalar": expected ${expected}, which is what GGUF's readers take, found ${found}`);
}

/** SmolLM 3's layers without positions: GGUF has no key for them, and readers take every fourth. */
function checkRopeless(config: JsonNode, { gguf }: HfArchitecture, nLayers: number): void {
  const list = at(config, "no_rope_layers");
  if (gguf !== "smollm3" || !given(list)) return;
  const rotates = asItems(list).map(asNumber);
  const odd = rotates.findIndex((value, layer) => (value !== 0) !== ((layer + 1) % 4 !== 0));
  if (rotates.length !== nLayers || odd >= 0) throw new FormatError(config.file, `key "no_rope_layers": expected every fourth of ${nLayers} layers without, found ${odd >= 0 ? `another value for layer ${odd}` : `${rotates.length} layers`}`);
}
