import type { HfExperts } from "./hf-experts.ts";
import type { Layout } from "./hf-layout.ts";

/** The names of config.json's numbers, the usual one first; keys of objects within as `attn_config.clip_qkv`. */
export type HfFields = Readonly<Record<"dim" | "nLayers" | "nHeads" | "nKvHeads" | "ffnDim" | "context", readonly string[]>>;

/** A key of config.json that has a place of its own in GGUF's metadata. */
export interface HfKey {
  readonly name: string;
  readonly gguf: string;
  readonly kind: "float" | "integer" | "boolean";
  /** Default of the configuration class; without one the key is left out where config.json lacks it. */
  readonly fallback?: number | boolean;
}

/** What a `model_type` of config.json is called and how it differs, as far as memwall reads Hugging Face folders. */
export interface HfArchitecture {
  /** As in GGUF's `general.architecture`. */
  readonly gguf: string;
  readonly fields: HfFields;
  /** Dimensions that config.json may leave to the configuration class. */
  readonly defaults?: Readonly<Record<string, number>>;
  /** What the checkpoint keeps otherwise than GGUF does, by the part of a layer. */
  readonly layouts?: Readonly<Record<string, Layout>>;
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
  /** Keys that GGUF's architecture has no other values of than these, where config.json has them; none: the key is refused. */
  readonly only?: Readonly<Record<string, readonly (string | number | boolean)[]>>;
  /** Whether the feed-forward block is `expansion_ratio` (4) times as wide as the model where config.json does not say. */
  readonly expands?: boolean;
  /** Whether attention is multi-head latent attention. */
  readonly latent?: boolean;
  /** Whether `layer_types` or `sliding_window_pattern` say which layers slide their window; the usual period. */
  readonly slidingPeriod?: number;
  /** Whether norms are kept less 1. */
  readonly normsLessOne?: boolean;
  /** Tensor names without `.weight` and `.bias`: a layer's after `layers`, all others as they are. */
  readonly layers: readonly string[];
  readonly layerNames: Readonly<Record<string, string>>;
  readonly otherNames: Readonly<Record<string, string>>;
  /** A layer's tensors whose names end otherwise, with GGUF's whole name. */
  readonly bareNames?: Readonly<Record<string, string>>;
  readonly experts?: HfExperts;
  /** Prefixes of tensors that are no part of the language model. */
  readonly foreign?: readonly string[];
}

const FIELDS: HfFields = {
  ...{ dim: ["hidden_size"], nLayers: ["num_hidden_layers"], nHeads: ["num_attention_heads"], nKvHeads: ["num_key_value_heads"] },
  ...{ ffnDim: ["intermediate_size"], context: ["max_position_embeddings"] },
};
/** Falcon's and BLOOM's configurations have changed names. */
const OLD_FIELDS: HfFields = {
  ...{ dim: ["hidden_size", "n_embed"], nLayers: ["num_hidden_layers", "n_layer"], nHeads: ["num_attention_heads", "n_head"], nKvHeads: ["num_kv_heads", "n_head_kv"] },
  ...{ ffnDim: ["ffn_hidden_size", "n_inner"], context: ["max_position_embeddings", "seq_length"] },
};

const ATTENTION = { "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output" };
const QK_NORMS = { "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm" };
const GATED = { "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down" };
const NORMS = { input_layernorm: "attn_norm", post_attention_layernorm: "ffn_norm" };
const POST_NORMS = { post_attention_layernorm: "post_attention_norm", post_feedforward_layernorm: "post_ffw_norm" };
const SILU = { keys: ["hidden_act"], names: ["silu", "swish"], fallback: "silu" } as const;
const GELU = { keys: ["hidden_act"], names: ["gelu_pytorch_tanh", "gelu_new", "gelu_fast"], fallback: "gelu_pytorch_tanh" } as const;

const LLAMA: HfArchitecture = {
  ...{ gguf: "llama", fields: FIELDS, layouts: { attn_q: "halves", attn_k: "halves" }, tied: false, ropeBase: 10000, activation: SILU },
  eps: { key: "rms_norm_eps", fallback: 1e-6, gguf: "layer_norm_rms_epsilon" },
  layers: ["model.layers."],
  layerNames: { ...NORMS, ...ATTENTION, ...GATED },
  otherNames: { "model.embed_tokens": "token_embd", "model.norm": "output_norm", lm_head: "output" },
};
const QWEN: HfArchitecture = { ...LLAMA, layouts: {} };
const layerNorm = (key: string, fallback = 1e-5) => ({ key, fallback, gguf: "layer_norm_epsilon" }) as const;
/** Gemma's configurations before its third call the tanh form "gelu"; `hidden_activation` came to say it rightly. */
const GEMMA_GELU = { keys: ["hidden_activation", "hidden_act"], names: [...GELU.names, "gelu"], fallback: GELU.fallback };
const GEMMA: HfArchitecture = { ...QWEN, gguf: "gemma", tied: true, activation: GEMMA_GELU, normsLessOne: true };
const SANDWICH = { ...POST_NORMS, input_layernorm: "attn_norm", pre_feedforward_layernorm: "ffn_norm" };
const SHARED = { gate_proj: "ffn_gate_shexp", up_proj: "ffn_up_shexp", down_proj: "ffn_down_shexp" };
/** The parts of a shared expert. */
const shared = (stem: string) => Object.fromEntries(Object.entries(SHARED).map(([part, gguf]) => [`${stem}.${part}`, gguf]));
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

/** The language model of one that also sees pictures. */
const WITHIN_VISION = {
  layers: ["language_model.model.layers.", "model.language_model.layers."],
  otherNames: {
    ...{ "language_model.model.embed_tokens": "token_embd", "language_model.model.norm": "output_norm", "language_model.lm_head": "output" },
    ...{ "model.language_model.embed_tokens": "token_embd", "model.language_model.norm": "output_norm", lm_head: "output" },
  },
  foreign: ["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."],
};

const GRANITE: HfArchitecture = {
  ...{ ...LLAMA, gguf: "granite" },
  keys: [
    ...[float("embedding_multiplier", "embedding_scale", 1), float("residual_multiplier", "residual_scale", 1)],
    ...[float("attention_multiplier", "attention.scale", 1), float("logits_scaling", "logit_scale", 1)],
  ],
};
const GRANITE_MOE: HfArchitecture = {
  ...{ ...GRANITE, gguf: "granitemoe" },
  layouts: { ...LLAMA.layouts, ffn_gate_up_exps: "gate over up", ffn_gate_up_shexp: "gate over up" },
  layerNames: {
    ...{ ...NORMS, ...ATTENTION, "block_sparse_moe.router.layer": "ffn_gate_inp" },
    ...{ "block_sparse_moe.input_linear": "ffn_gate_up_exps", "block_sparse_moe.output_linear": "ffn_down_exps" },
  },
  experts: { count: "num_local_experts", width: "intermediate_size", normalised: true },
};

/** The first of DeepSeek's mixtures (Dai et al. 2024), and with latent attention V2. */
const DEEPSEEK: HfArchitecture = {
  ...{ ...LLAMA, gguf: "deepseek", only: { scoring_func: ["softmax"], topk_method: ["greedy"], moe_layer_freq: [1], routed_scaling_factor: [1] } },
  layerNames: { ...NORMS, ...ATTENTION, ...GATED, "mlp.gate": "ffn_gate_inp", ...shared("mlp.shared_experts") },
  experts: { count: "n_routed_experts", width: "moe_intermediate_size", normalised: false, shared: "n_shared_experts", routing: { gating: "softmax", scale: 1 } },
};
const DEEPSEEK2: HfArchitecture = {
  ...{ ...DEEPSEEK, gguf: "deepseek2", latent: true, layouts: { attn_kv_b: "keys and values" } },
  only: { scoring_func: ["softmax"], topk_method: ["greedy"], moe_layer_freq: [1] },
  layerNames: {
    ...{ ...NORMS, ...GATED, "mlp.gate": "ffn_gate_inp", ...shared("mlp.shared_experts"), "self_attn.q_proj": "attn_q", "self_attn.o_proj": "attn_output" },
    ...{ "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b" },
    ...{ "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm", "self_attn.kv_b_proj": "attn_kv_b" },
  },
};
const CHOICE_BIAS = { "mlp.gate.e_score_correction_bias": "exp_probs_b.bias" };

const OPEN_GELU = [...GELU.names, "gelu"];
/** Blocks of the first half of 2023: q, k and v in one matrix, by KV head. */
const GROUPED = { "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down" };
const FALCON: HfArchitecture = {
  ...{ ...QWEN, gguf: "falcon", fields: OLD_FIELDS, tied: true, expands: true, layouts: { attn_qkv: "grouped" }, eps: layerNorm("layer_norm_epsilon") },
  activation: { keys: ["activation"], names: OPEN_GELU, fallback: "gelu" },
  defaults: { max_position_embeddings: 2048 },
  only: { alibi: [false], bias: [false], parallel_attn: [true] },
  layers: ["transformer.h."],
  layerNames: {
    ...{ input_layernorm: "attn_norm", ln_mlp: "attn_norm", ln_attn: "attn_norm_2" },
    ...{ ...GROUPED, "self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output" },
  },
  otherNames: { "transformer.word_embeddings": "token_embd", "transformer.ln_f": "output_norm", lm_head: "output" },
};

/** By `model_type`. The defaults are those of the configuration classes in the transformers library. */
export const HF_ARCHITECTURES: Readonly<Record<string, HfArchitecture>> = {
  llama: LLAMA,
  mistral: LLAMA,
  qwen2: { ...QWEN, gguf: "qwen2" },
  qwen3: { ...QWEN, gguf: "qwen3", layerNames: { ...QWEN.layerNames, ...QK_NORMS } },
  mixtral: {
    ...{ ...LLAMA, ropeBase: 1e6, eps: { ...LLAMA.eps, fallback: 1e-5 }, layerNames: { ...NORMS, ...ATTENTION, "block_sparse_moe.gate": "ffn_gate_inp" } },
    experts: { count: "num_local_experts", width: "intermediate_size", normalised: true },
  },
  qwen2_moe: {
    ...{ ...QWEN, gguf: "qwen2moe" },
    layerNames: { ...NORMS, ...ATTENTION, "mlp.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp", ...shared("mlp.shared_expert") },
    experts: { count: "num_experts", width: "moe_intermediate_size", normalised: false, shared: "shared_expert_intermediate_size" },
  },
  qwen3_moe: {
    ...{ ...QWEN, gguf: "qwen3moe", layerNames: { ...NORMS, ...ATTENTION, ...QK_NORMS, "mlp.gate": "ffn_gate_inp" } },
    experts: { count: "num_experts", width: "moe_intermediate_size", normalised: true },
  },
  olmoe: {
    ...{ ...QWEN, gguf: "olmoe", eps: { ...QWEN.eps, fallback: 1e-5 }, layerNames: { ...NORMS, ...ATTENTION, ...QK_NORMS, "mlp.gate": "ffn_gate_inp" } },
    experts: { count: "num_experts", width: "intermediate_size", normalised: false },
  },
  gemma: GEMMA,
  gemma2: {
    ...{ ...GEMMA, gguf: "gemma2", slidingPeriod: 2, layerNames: { ...SANDWICH, ...ATTENTION, ...GATED } },
    keys: [window(4096), float("attn_logit_softcapping", "attn_logit_softcapping", 50), float("final_logit_softcapping", "final_logit_softcapping", 30)],
  },
  gemma3_text: GEMMA3,
  gemma3: { ...GEMMA3, ...WITHIN_VISION },
  phi3: {
    ...{ ...QWEN, gguf: "phi3", eps: { ...QWEN.eps, fallback: 1e-5 } },
    layerNames: { ...NORMS, "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down" },
  },
  gpt2: {
    ...{ gguf: "gpt2", tied: true, ropeBase: undefined, expands: true, eps: layerNorm("layer_norm_epsilon") },
    layouts: { attn_qkv: "inputs first", attn_output: "inputs first", ffn_up: "inputs first", ffn_down: "inputs first" },
    fields: { dim: ["n_embd"], nLayers: ["n_layer"], nHeads: ["n_head"], nKvHeads: ["n_head"], ffnDim: ["n_inner"], context: ["n_positions"] },
    activation: { keys: ["activation_function"], names: GELU.names, fallback: "gelu_new" },
    layers: ["transformer.h.", "h."],
    layerNames: { ln_1: "attn_norm", ln_2: "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down" },
    otherNames: {
      ...{ "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", lm_head: "output" },
      ...{ wte: "token_embd", wpe: "position_embd", ln_f: "output_norm" },
    },
  },
  granite: GRANITE,
  granitemoe: GRANITE_MOE,
  granitemoeshared: {
    ...GRANITE_MOE,
    layerNames: { ...GRANITE_MOE.layerNames, "shared_mlp.input_linear": "ffn_gate_up_shexp", "shared_mlp.output_linear": "ffn_down_shexp" },
    experts: { ...GRANITE_MOE.experts!, shared: "shared_intermediate_size" },
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
  // What sees pictures and has one of the older Mistrals within; Ministral's text model is another.
  mistral3: { ...LLAMA, ...WITHIN_VISION, only: { model_type: ["mistral"] } },
  arcee: {
    ...{ ...LLAMA, gguf: "arcee", eps: { ...LLAMA.eps, fallback: 1e-5 }, activation: { keys: ["hidden_act"], names: ["relu2"], fallback: "relu2" } },
    layerNames: { ...NORMS, ...ATTENTION, "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down" },
  },
  ernie4_5: { ...QWEN, gguf: "ernie4_5", tied: true, ropeBase: 500000, eps: { ...LLAMA.eps, fallback: 1e-5 } },
  seed_oss: { ...QWEN, gguf: "seed_oss", layerNames: { ...ATTENTION, ...GATED, input_layernorm: "attn_norm", post_attention_layernorm: "post_attention_norm" } },
  exaone: {
    ...{ ...QWEN, gguf: "exaone", fields: { ...FIELDS, nLayers: ["num_layers"] }, eps: { ...LLAMA.eps, key: "layer_norm_epsilon", fallback: 1e-5 } },
    ...{ activation: { ...SILU, keys: ["activation_function"] }, layers: ["transformer.h."] },
    layerNames: {
      ...{ ln_1: "attn_norm", ln_2: "ffn_norm", "attn.attention.q_proj": "attn_q", "attn.attention.k_proj": "attn_k", "attn.attention.v_proj": "attn_v" },
      ...{ "attn.attention.out_proj": "attn_output", "mlp.c_fc_0": "ffn_gate", "mlp.c_fc_1": "ffn_up", "mlp.c_proj": "ffn_down" },
    },
    otherNames: { "transformer.wte": "token_embd", "transformer.ln_f": "output_norm", lm_head: "output" },
  },
  deepseek: DEEPSEEK,
  deepseek_v2: DEEPSEEK2,
  deepseek_v3: {
    ...{ ...DEEPSEEK2, bareNames: CHOICE_BIAS },
    only: { scoring_func: ["sigmoid"], topk_method: ["noaux_tc"], moe_layer_freq: [1], rope_interleave: [true] },
    experts: { ...DEEPSEEK2.experts!, normalised: true, routing: { gating: "sigmoid", byKey: true, groups: [8, 4], scale: 2.5 } },
  },
  glm4_moe: {
    ...{ ...DEEPSEEK, gguf: "glm4moe", layouts: {}, only: {}, rotates: 0.5, bareNames: CHOICE_BIAS, eps: { ...LLAMA.eps, fallback: 1e-5 } },
    layerNames: { ...DEEPSEEK.layerNames, ...QK_NORMS, post_attention_layernorm: "post_attention_norm" },
    experts: { ...DEEPSEEK.experts!, normalised: true, routing: { gating: "sigmoid", byKey: true, groups: [1, 1], scale: 1 } },
  },
  dots1: {
    ...{ ...DEEPSEEK, gguf: "dots1", layouts: {}, only: { scoring_func: ["noaux_tc", "sigmoid"], moe_layer_freq: [1] }, bareNames: CHOICE_BIAS },
    layerNames: { ...DEEPSEEK.layerNames, ...QK_NORMS },
    experts: { ...DEEPSEEK.experts!, routing: { gating: "sigmoid", byKey: true, groups: [1, 1], scale: 1 } },
  },
  gpt_oss: {
    ...{ ...QWEN, gguf: "gpt-oss", ropeBase: 150000, slidingPeriod: 2, keys: [window(128)], eps: { ...QWEN.eps, fallback: 1e-5 } },
    ...{ defaults: { head_dim: 64 }, only: { swiglu_limit: [7], swiglu_alpha: [1.702] }, layouts: { ffn_gate_up_exps: "gate beside up", ffn_down_exps: "inputs first" } },
    layerNames: { ...ATTENTION, input_layernorm: "attn_norm", post_attention_layernorm: "post_attention_norm", "mlp.router": "ffn_gate_inp" },
    bareNames: {
      ...{ "self_attn.sinks": "attn_sinks.weight", "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight", "mlp.experts.down_proj": "ffn_down_exps.weight" },
      ...{ "mlp.experts.gate_up_proj_blocks": "ffn_gate_up_exps.weight", "mlp.experts.down_proj_blocks": "ffn_down_exps.weight" },
      ...{ "mlp.experts.gate_up_proj_bias": "ffn_gate_up_exps.bias", "mlp.experts.down_proj_bias": "ffn_down_exps.bias" },
    },
    experts: { count: "num_local_experts", width: "intermediate_size", normalised: false },
  },
  falcon: FALCON,
  gpt_neox: {
    ...{ ...QWEN, gguf: "gptneox", layouts: { attn_qkv: "grouped" }, rotates: 0.25, eps: layerNorm("layer_norm_eps") },
    activation: { keys: ["hidden_act"], names: OPEN_GELU, fallback: "gelu" },
    keys: [{ name: "use_parallel_residual", gguf: "use_parallel_residual", kind: "boolean", fallback: true }],
    layers: ["gpt_neox.layers."],
    layerNames: { ...NORMS, ...GROUPED, "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output" },
    otherNames: { "gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", embed_out: "output" },
  },
  bloom: {
    ...{ ...FALCON, gguf: "bloom", ropeBase: undefined, defaults: { seq_length: 2048 }, only: { apply_residual_connection_post_layernorm: [false] } },
    fields: { ...OLD_FIELDS, nKvHeads: OLD_FIELDS.nHeads, context: ["seq_length"] },
    activation: { keys: ["activation_function"], names: OPEN_GELU, fallback: "gelu" },
    layers: ["transformer.h.", "h."],
    layerNames: { ...NORMS, ...GROUPED, "self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output" },
    otherNames: {
      ...{ ...FALCON.otherNames, "transformer.word_embeddings_layernorm": "token_embd_norm" },
      ...{ word_embeddings: "token_embd", word_embeddings_layernorm: "token_embd_norm", ln_f: "output_norm" },
    },
  },
  mpt: {
    ...{ ...FALCON, gguf: "mpt", ropeBase: undefined, defaults: {}, layouts: {} },
    fields: { dim: ["d_model"], nLayers: ["n_layers"], nHeads: ["n_heads"], nKvHeads: ["attn_config.kv_n_heads"], ffnDim: ["ffn_hidden_size"], context: ["max_seq_len"] },
    activation: { keys: ["ffn_act_fn.name"], names: OPEN_GELU, fallback: "gelu" },
    keys: [float("attn_config.clip_qkv", "attention.clamp_kqv"), float("attn_config.alibi_bias_max", "attention.max_alibi_bias", 8)],
    only: {
      ...{ "attn_config.alibi": [true], "attn_config.rope": [false], "attn_config.qk_ln": [false], "attn_config.prefix_lm": [false], "attn_config.softmax_scale": [], logit_scale: [] },
      "attn_config.attn_type": ["multihead_attention", "grouped_query_attention"],
    },
    layers: ["transformer.blocks."],
    layerNames: { norm_1: "attn_norm", norm_2: "ffn_norm", "attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output", "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down" },
    otherNames: { "transformer.wte": "token_embd", "transformer.norm_f": "output_norm", lm_head: "output" },
  },
};
