import type { HfExperts } from "./hf-experts.ts";

/** The names of config.json's numbers. */
export interface HfFields {
  readonly dim: string;
  readonly nLayers: string;
  readonly nHeads: string;
  readonly nKvHeads: string;
  readonly ffnDim: string;
  readonly context: string;
}

/** A key of config.json that has a place of its own in GGUF's metadata. */
export interface HfKey {
  readonly name: string;
  readonly gguf: string;
  readonly kind: "float" | "integer";
  /** Default of the configuration class; without one the key is left out where config.json lacks it. */
  readonly fallback?: number;
}

/** What a `model_type` of config.json is called and how it differs, as far as memwall reads Hugging Face folders. */
export interface HfArchitecture {
  /** As in GGUF's `general.architecture`. */
  readonly gguf: string;
  readonly fields: HfFields;
  /** Dimensions that config.json may leave to the configuration class. */
  readonly defaults?: Readonly<Record<string, number>>;
  /** Whether GGUF wants the rows of q and k reordered, from rotating halves of a head to rotating neighbours. */
  readonly permuted: boolean;
  /** Default of `tie_word_embeddings`. */
  readonly tied: boolean;
  /** The key of the norms' epsilon, its default, and GGUF's name for it. */
  readonly eps: { readonly key: string; readonly fallback: number; readonly gguf: "layer_norm_rms_epsilon" | "layer_norm_epsilon" };
  /** Default of `rope_theta`; undefined where positions are learned. */
  readonly ropeBase: number | undefined;
  /** Default of `partial_rotary_factor`. */
  readonly rotates?: number;
  /** Keys that name the activation, the names that are understood, and the default. */
  readonly activation: { readonly keys: readonly string[]; readonly names: readonly string[]; readonly fallback: string };
  readonly keys?: readonly HfKey[];
  /** Whether `layer_types` or `sliding_window_pattern` say which layers slide their window; the usual period. */
  readonly slidingPeriod?: number;
  /** Whether norms are kept less 1. */
  readonly normsLessOne?: boolean;
  /** Matrices are kept as [inputs, outputs] (GPT-2's Conv1D). */
  readonly transposed?: boolean;
  /** Tensor names without `.weight` and `.bias`: a layer's after `layers`, all others as they are. */
  readonly layers: readonly string[];
  readonly layerNames: Readonly<Record<string, string>>;
  readonly otherNames: Readonly<Record<string, string>>;
  readonly experts?: HfExperts;
  /** Prefixes of tensors that are no part of the language model. */
  readonly foreign?: readonly string[];
}

const FIELDS: HfFields = {
  ...{ dim: "hidden_size", nLayers: "num_hidden_layers", nHeads: "num_attention_heads", nKvHeads: "num_key_value_heads" },
  ...{ ffnDim: "intermediate_size", context: "max_position_embeddings" },
};

const ATTENTION = { "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output" };
const QK_NORMS = { "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm" };
const GATED = { "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down" };
const NORMS = { input_layernorm: "attn_norm", post_attention_layernorm: "ffn_norm" };
const POST_NORMS = { post_attention_layernorm: "post_attention_norm", post_feedforward_layernorm: "post_ffw_norm" };
const SILU = { keys: ["hidden_act"], names: ["silu", "swish"], fallback: "silu" } as const;
const GELU = { keys: ["hidden_act"], names: ["gelu_pytorch_tanh", "gelu_new", "gelu_fast"], fallback: "gelu_pytorch_tanh" } as const;

const LLAMA: HfArchitecture = {
  ...{ gguf: "llama", fields: FIELDS, permuted: true, tied: false, ropeBase: 10000, activation: SILU },
  eps: { key: "rms_norm_eps", fallback: 1e-6, gguf: "layer_norm_rms_epsilon" },
  layers: ["model.layers."],
  layerNames: { ...NORMS, ...ATTENTION, ...GATED },
  otherNames: { "model.embed_tokens": "token_embd", "model.norm": "output_norm", lm_head: "output" },
};
const QWEN: HfArchitecture = { ...LLAMA, permuted: false };
const layerNorm = (key: string, fallback = 1e-5) => ({ key, fallback, gguf: "layer_norm_epsilon" }) as const;
/** Gemma's configurations before its third call the tanh form "gelu"; `hidden_activation` came to say it rightly. */
const GEMMA_GELU = { keys: ["hidden_activation", "hidden_act"], names: [...GELU.names, "gelu"], fallback: GELU.fallback };
const GEMMA: HfArchitecture = { ...QWEN, gguf: "gemma", tied: true, activation: GEMMA_GELU, normsLessOne: true };
const SANDWICH = { ...POST_NORMS, input_layernorm: "attn_norm", pre_feedforward_layernorm: "ffn_norm" };
const float = (name: string, gguf: string, fallback?: number): HfKey => ({ name, gguf, kind: "float", fallback });
const window = (fallback?: number): HfKey => ({ name: "sliding_window", gguf: "attention.sliding_window", kind: "integer", fallback });

const GEMMA3: HfArchitecture = {
  ...{ ...GEMMA, gguf: "gemma3", ropeBase: 1e6, slidingPeriod: 6 },
  layerNames: { ...SANDWICH, ...ATTENTION, ...QK_NORMS, ...GATED },
  keys: [window(4096), float("rope_local_base_freq", "rope.freq_base_swa", 10000), float("final_logit_softcapping", "final_logit_softcapping")],
  defaults: {
    ...{ hidden_size: 2304, intermediate_size: 9216, num_hidden_layers: 26, num_attention_heads: 8, num_key_value_heads: 4, head_dim: 256 },
    ...{ max_position_embeddings: 131072, vocab_size: 262208 },
  },
};

/** By `model_type`. The defaults are those of the configuration classes in the transformers library. */
export const HF_ARCHITECTURES: Readonly<Record<string, HfArchitecture>> = {
  llama: LLAMA,
  mistral: LLAMA,
  qwen2: { ...QWEN, gguf: "qwen2" },
  qwen3: { ...QWEN, gguf: "qwen3", layerNames: { ...QWEN.layerNames, ...QK_NORMS } },
  mixtral: {
    ...{ ...LLAMA, ropeBase: 1e6, eps: { ...LLAMA.eps, fallback: 1e-5 }, layerNames: { ...NORMS, ...ATTENTION } },
    experts: { count: "num_local_experts", width: "intermediate_size", normalised: true, shared: false },
  },
  qwen2_moe: {
    ...{ ...QWEN, gguf: "qwen2moe", layerNames: { ...NORMS, ...ATTENTION } },
    experts: { count: "num_experts", width: "moe_intermediate_size", normalised: false, shared: true },
  },
  qwen3_moe: {
    ...{ ...QWEN, gguf: "qwen3moe", layerNames: { ...NORMS, ...ATTENTION, ...QK_NORMS } },
    experts: { count: "num_experts", width: "moe_intermediate_size", normalised: true, shared: false },
  },
  olmoe: {
    ...{ ...QWEN, gguf: "olmoe", eps: { ...QWEN.eps, fallback: 1e-5 }, layerNames: { ...NORMS, ...ATTENTION, ...QK_NORMS } },
    experts: { count: "num_experts", width: "intermediate_size", normalised: false, shared: false },
  },
  gemma: GEMMA,
  gemma2: {
    ...{ ...GEMMA, gguf: "gemma2", slidingPeriod: 2, layerNames: { ...SANDWICH, ...ATTENTION, ...GATED } },
    keys: [window(4096), float("attn_logit_softcapping", "attn_logit_softcapping", 50), float("final_logit_softcapping", "final_logit_softcapping", 30)],
  },
  gemma3_text: GEMMA3,
  gemma3: {
    ...{ ...GEMMA3, layers: ["language_model.model.layers.", "model.language_model.layers."] },
    otherNames: {
      ...{ "language_model.model.embed_tokens": "token_embd", "language_model.model.norm": "output_norm", "language_model.lm_head": "output" },
      ...{ "model.language_model.embed_tokens": "token_embd", "model.language_model.norm": "output_norm", lm_head: "output" },
    },
    foreign: ["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."],
  },
  phi3: {
    ...{ ...QWEN, gguf: "phi3", eps: { ...QWEN.eps, fallback: 1e-5 } },
    layerNames: { ...NORMS, "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down" },
  },
  gpt2: {
    ...{ gguf: "gpt2", permuted: false, tied: true, ropeBase: undefined, transposed: true, eps: layerNorm("layer_norm_epsilon") },
    fields: { dim: "n_embd", nLayers: "n_layer", nHeads: "n_head", nKvHeads: "n_head", ffnDim: "n_inner", context: "n_positions" },
    activation: { keys: ["activation_function"], names: GELU.names, fallback: "gelu_new" },
    layers: ["transformer.h.", "h."],
    layerNames: { ln_1: "attn_norm", ln_2: "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down" },
    otherNames: {
      ...{ "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", lm_head: "output" },
      ...{ wte: "token_embd", wpe: "position_embd", ln_f: "output_norm" },
    },
  },
  granite: {
    ...{ ...LLAMA, gguf: "granite" },
    keys: [
      ...[float("embedding_multiplier", "embedding_scale", 1), float("residual_multiplier", "residual_scale", 1)],
      ...[float("attention_multiplier", "attention.scale", 1), float("logits_scaling", "logit_scale", 1)],
    ],
  },
  smollm3: { ...LLAMA, gguf: "smollm3", tied: true, ropeBase: 2e6 },
  olmo: {
    ...{ ...LLAMA, gguf: "olmo", layerNames: { ...ATTENTION, ...GATED }, eps: layerNorm("layer_norm_eps") },
    keys: [float("clip_qkv", "attention.clamp_kqv")],
  },
  olmo2: { ...QWEN, gguf: "olmo2", eps: { ...QWEN.eps, fallback: 1e-5 }, layerNames: { ...POST_NORMS, ...ATTENTION, ...QK_NORMS, ...GATED } },
  starcoder2: {
    ...{ ...QWEN, gguf: "starcoder2", tied: true, activation: GELU, eps: layerNorm("norm_epsilon") },
    layerNames: { ...NORMS, ...ATTENTION, "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down" },
  },
  stablelm: { ...QWEN, gguf: "stablelm", eps: layerNorm("layer_norm_eps"), rotates: 0.25 },
  phi: {
    ...{ ...QWEN, gguf: "phi2", activation: { ...GELU, fallback: "gelu_new" }, eps: layerNorm("layer_norm_eps"), rotates: 0.5 },
    layerNames: { input_layernorm: "attn_norm", ...ATTENTION, "self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down" },
    otherNames: { "model.embed_tokens": "token_embd", "model.final_layernorm": "output_norm", lm_head: "output" },
  },
  nemotron: {
    ...{ ...QWEN, gguf: "nemotron", eps: layerNorm("norm_eps"), rotates: 0.5, normsLessOne: true },
    activation: { keys: ["hidden_act"], names: ["relu2"], fallback: "relu2" },
    layerNames: { ...NORMS, ...ATTENTION, "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down" },
  },
  cohere: {
    ...{ ...QWEN, gguf: "command-r", tied: true, eps: layerNorm("layer_norm_eps") },
    layerNames: { input_layernorm: "attn_norm", ...ATTENTION, ...QK_NORMS, ...GATED },
    keys: [float("logit_scale", "logit_scale", 0.0625)],
  },
  cohere2: {
    ...{ ...QWEN, gguf: "cohere2", tied: true, eps: layerNorm("layer_norm_eps"), slidingPeriod: 4 },
    layerNames: { input_layernorm: "attn_norm", ...ATTENTION, ...GATED },
    keys: [float("logit_scale", "logit_scale", 0.0625), window(4096)],
  },
  exaone4: {
    ...{ ...QWEN, gguf: "exaone4", eps: { ...QWEN.eps, fallback: 1e-5 }, slidingPeriod: 4, keys: [window()] },
    layerNames: { ...POST_NORMS, ...ATTENTION, ...QK_NORMS, ...GATED },
  },
  glm4: {
    ...{ ...QWEN, gguf: "glm4", eps: { ...QWEN.eps, fallback: 1.5625e-7 }, rotates: 0.5 },
    layerNames: {
      ...{ ...ATTENTION, ...NORMS, post_self_attn_layernorm: "post_attention_norm", post_mlp_layernorm: "post_ffw_norm" },
      ...{ "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down" },
    },
  },
};
