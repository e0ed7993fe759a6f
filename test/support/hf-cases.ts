import type { JsonObject, Shapes } from "./hf-checkpoint.ts";
import { VOCAB } from "./hf-folder.ts";

/** A checkpoint of a published kind: its config.json, and the names and shapes of its tensors. */
export interface HfCase {
  readonly name: string;
  readonly config: JsonObject;
  readonly shapes: Shapes;
}

const LAYERS = 2;
const [DIM, HEADS, FFN] = [48, 4, 72];

/** Tensors of every layer after those of the whole. */
function withLayers(others: Shapes, prefix: string, layer: (index: number) => Shapes, layers = LAYERS): Shapes {
  const entries = Array.from({ length: layers }, (_, i) => Object.entries(layer(i)).map(([name, shape]) => [`${prefix}${i}.${name}`, shape] as const)).flat();
  return { ...others, ...Object.fromEntries(entries) };
}

/** A linear or norm with its bias. */
const biased = (name: string, ...shape: number[]): Shapes => ({ [`${name}.weight`]: shape, [`${name}.bias`]: [shape[0]] });

const NEOX = { ...{ model_type: "gpt_neox", hidden_size: DIM, num_hidden_layers: LAYERS, num_attention_heads: HEADS, intermediate_size: FFN, vocab_size: VOCAB }, ...{ max_position_embeddings: 512, layer_norm_eps: 1e-5, rotary_emb_base: 10000, hidden_act: "gelu", tie_word_embeddings: false } };
const neoxShapes = withLayers({ "gpt_neox.embed_in.weight": [VOCAB, DIM], ...biased("gpt_neox.final_layer_norm", DIM), "embed_out.weight": [VOCAB, DIM] }, "gpt_neox.layers.", () => ({
  ...{ ...biased("input_layernorm", DIM), ...biased("post_attention_layernorm", DIM), ...biased("attention.query_key_value", 3 * DIM, DIM), ...biased("attention.dense", DIM, DIM) },
  ...{ ...biased("mlp.dense_h_to_4h", FFN, DIM), ...biased("mlp.dense_4h_to_h", DIM, FFN) },
}));

const FALCON = { model_type: "falcon", hidden_size: DIM, num_hidden_layers: LAYERS, num_attention_heads: HEADS, vocab_size: VOCAB, layer_norm_epsilon: 1e-5, rope_theta: 10000, alibi: false, bias: false, parallel_attn: true };
const falconShapes = (qkvRows: number, norms: readonly string[]): Shapes =>
  withLayers({ "transformer.word_embeddings.weight": [VOCAB, DIM], ...biased("transformer.ln_f", DIM) }, "transformer.h.", () => ({
    ...norms.reduce((all, norm) => ({ ...all, ...biased(norm, DIM) }), {}),
    ...{ "self_attention.query_key_value.weight": [qkvRows, DIM], "self_attention.dense.weight": [DIM, DIM], "mlp.dense_h_to_4h.weight": [4 * DIM, DIM], "mlp.dense_4h_to_h.weight": [DIM, 4 * DIM] },
  }));

const bloomShapes = (prefix: string, dim: number): Shapes =>
  withLayers({ [`${prefix}word_embeddings.weight`]: [VOCAB, dim], ...biased(`${prefix}word_embeddings_layernorm`, dim), ...biased(`${prefix}ln_f`, dim) }, `${prefix}h.`, () => ({
    ...{ ...biased("input_layernorm", dim), ...biased("post_attention_layernorm", dim), ...biased("self_attention.query_key_value", 3 * dim, dim), ...biased("self_attention.dense", dim, dim) },
    ...{ ...biased("mlp.dense_h_to_4h", 4 * dim, dim), ...biased("mlp.dense_4h_to_h", dim, 4 * dim) },
  }));

const mptCase = (name: string, nHeads: number, kv: number, attention: JsonObject): HfCase => ({
  name,
  config: {
    ...{ model_type: "mpt", d_model: DIM, n_layers: LAYERS, n_heads: nHeads, expansion_ratio: 3, max_seq_len: 512, vocab_size: VOCAB, layer_norm_epsilon: 1e-5, no_bias: true },
    attn_config: { alibi: true, alibi_bias_max: 8, clip_qkv: 1.5, prefix_lm: false, qk_ln: false, softmax_scale: null, ...attention },
  },
  shapes: withLayers({ "transformer.wte.weight": [VOCAB, DIM], "transformer.norm_f.weight": [DIM] }, "transformer.blocks.", () => ({
    ...{ "norm_1.weight": [DIM], "norm_2.weight": [DIM], "attn.Wqkv.weight": [DIM + (2 * kv * DIM) / nHeads, DIM], "attn.out_proj.weight": [DIM, DIM] },
    ...{ "ffn.up_proj.weight": [3 * DIM, DIM], "ffn.down_proj.weight": [DIM, 3 * DIM] },
  })),
});

const LLAMA_LIKE = {
  ...{ hidden_size: DIM, num_hidden_layers: LAYERS, num_attention_heads: HEADS, num_key_value_heads: 2, intermediate_size: FFN, vocab_size: VOCAB, max_position_embeddings: 512 },
  ...{ rms_norm_eps: 1e-6, rope_theta: 10000, hidden_act: "silu", tie_word_embeddings: false },
};
const rootShapes = (dim = DIM): Shapes => ({ "model.embed_tokens.weight": [VOCAB, dim], "model.norm.weight": [dim], "lm_head.weight": [VOCAB, dim] });
const normShapes = (dim = DIM): Shapes => ({ "input_layernorm.weight": [dim], "post_attention_layernorm.weight": [dim] });
const attentionShapes = (kv = 2): Shapes => {
  const rows = (kv * DIM) / HEADS;
  return { "self_attn.q_proj.weight": [DIM, DIM], "self_attn.k_proj.weight": [rows, DIM], "self_attn.v_proj.weight": [rows, DIM], "self_attn.o_proj.weight": [DIM, DIM] };
};
const gatedShapes = (stem: string, width: number): Shapes => ({ [`${stem}.gate_proj.weight`]: [width, DIM], [`${stem}.up_proj.weight`]: [width, DIM], [`${stem}.down_proj.weight`]: [DIM, width] });

const WIDTH = 40;
const DEEPSEEK = { ...LLAMA_LIKE, num_hidden_layers: 3, n_routed_experts: 8, n_shared_experts: 2, num_experts_per_tok: 3, moe_intermediate_size: WIDTH, first_k_dense_replace: 1, moe_layer_freq: 1, norm_topk_prob: false };
const SIGMOID = { norm_topk_prob: true, routed_scaling_factor: 1.5 };
function deepseekShapes(attention: Shapes, bias: boolean, layers = 3): Shapes {
  return withLayers(rootShapes(), "model.layers.", (i) => {
    const experts = Array.from({ length: 8 }, (_, id) => gatedShapes(`mlp.experts.${id}`, WIDTH)).reduce((a, b) => ({ ...a, ...b }));
    const sparse = { "mlp.gate.weight": [8, DIM], ...(bias && { "mlp.gate.e_score_correction_bias": [8] }), ...gatedShapes("mlp.shared_experts", 2 * WIDTH), ...experts };
    return { ...normShapes(), ...attention, ...(i === 0 ? gatedShapes("mlp", FFN) : sparse) };
  }, layers);
}

const LATENT = { kv_lora_rank: 24, q_lora_rank: 20, qk_nope_head_dim: 10, qk_rope_head_dim: 6, v_head_dim: 14, num_key_value_heads: HEADS };
function latentShapes(qRank: number | null): Shapes {
  const queries: Shapes = qRank === null ? { "self_attn.q_proj.weight": [HEADS * 16, DIM] } : { "self_attn.q_a_proj.weight": [qRank, DIM], "self_attn.q_a_layernorm.weight": [qRank], "self_attn.q_b_proj.weight": [HEADS * 16, qRank] };
  return {
    ...queries,
    ...{ "self_attn.kv_a_proj_with_mqa.weight": [30, DIM], "self_attn.kv_a_layernorm.weight": [24], "self_attn.kv_b_proj.weight": [HEADS * 24, 24], "self_attn.o_proj.weight": [DIM, HEADS * 14] },
  };
}
const YARN = { type: "yarn", factor: 8, original_max_position_embeddings: 64, beta_fast: 32, beta_slow: 1, mscale: 0.707, mscale_all_dim: 0.707 };

const GRANITE = { ...LLAMA_LIKE, intermediate_size: WIDTH, num_local_experts: 6, num_experts_per_tok: 3, embedding_multiplier: 3, residual_multiplier: 0.5, attention_multiplier: 0.2, logits_scaling: 2 };
const graniteShapes = (shared: number): Shapes =>
  withLayers(rootShapes(), "model.layers.", () => ({
    ...{ ...normShapes(), ...attentionShapes(), "block_sparse_moe.router.layer.weight": [6, DIM], "block_sparse_moe.input_linear.weight": [6, 2 * WIDTH, DIM], "block_sparse_moe.output_linear.weight": [6, DIM, WIDTH] },
    ...(shared > 0 && { "shared_mlp.input_linear.weight": [2 * shared, DIM], "shared_mlp.output_linear.weight": [DIM, shared] }),
  }));

const OSS = { ...LLAMA_LIKE, model_type: "gpt_oss", hidden_size: 64, head_dim: 16, intermediate_size: 96, rms_norm_eps: 1e-5, rope_theta: 150000, sliding_window: 5, num_local_experts: 4, num_experts_per_tok: 2, swiglu_limit: 7 };
const ossShapes = (packed: boolean): Shapes => {
  const [dim, inner, count] = [64, 96, 4];
  const experts: Shapes = packed
    ? {
        ...{ "mlp.experts.gate_up_proj_blocks": [count, 2 * inner, dim / 32, 16], "mlp.experts.gate_up_proj_scales": [count, 2 * inner, dim / 32] },
        ...{ "mlp.experts.down_proj_blocks": [count, dim, inner / 32, 16], "mlp.experts.down_proj_scales": [count, dim, inner / 32] },
      }
    : { "mlp.experts.gate_up_proj": [count, dim, 2 * inner], "mlp.experts.down_proj": [count, inner, dim] };
  return withLayers(rootShapes(dim), "model.layers.", () => ({
    ...{ ...normShapes(dim), ...biased("self_attn.q_proj", 64, dim), ...biased("self_attn.k_proj", 32, dim), ...biased("self_attn.v_proj", 32, dim), ...biased("self_attn.o_proj", dim, 64) },
    ...{ "self_attn.sinks": [HEADS], ...biased("mlp.router", count, dim), ...experts, "mlp.experts.gate_up_proj_bias": [count, 2 * inner], "mlp.experts.down_proj_bias": [count, dim] },
  }));
};

/** One checkpoint of each kind; what llama.cpp makes of their conversions stands in fixtures/folders.golden.json under the same names. */
export const CASES: readonly HfCase[] = [
  { name: "gpt_neox", config: { ...NEOX, rotary_pct: 0.5 }, shapes: neoxShapes },
  { name: "gpt_neox: one after the other", config: { ...NEOX, rotary_pct: 0.5, rotary_emb_base: 500, use_parallel_residual: false }, shapes: neoxShapes },
  { name: "falcon: one KV head", config: { ...FALCON, multi_query: true, num_kv_heads: HEADS }, shapes: falconShapes(DIM + 24, ["input_layernorm"]) },
  { name: "falcon: as many KV heads as heads", config: { ...FALCON, multi_query: false }, shapes: falconShapes(3 * DIM, ["input_layernorm"]) },
  { name: "falcon: groups, two norms", config: { ...FALCON, new_decoder_architecture: true, num_kv_heads: 2 }, shapes: falconShapes(2 * DIM, ["ln_attn", "ln_mlp"]) },
  { name: "falcon: groups, one norm", config: { ...FALCON, new_decoder_architecture: true, num_kv_heads: 2 }, shapes: falconShapes(2 * DIM, ["input_layernorm"]) },
  { name: "bloom", config: { model_type: "bloom", hidden_size: DIM, n_layer: LAYERS, n_head: HEADS, vocab_size: VOCAB, layer_norm_epsilon: 1e-5 }, shapes: bloomShapes("transformer.", DIM) },
  { name: "bloom: bare names, six heads", config: { model_type: "bloom", n_embed: 60, n_layer: LAYERS, num_attention_heads: 6, n_inner: null, seq_length: 512, vocab_size: VOCAB, layer_norm_epsilon: 1e-5 }, shapes: bloomShapes("", 60) },
  mptCase("mpt: six heads, clamped", 6, 6, {}),
  mptCase("mpt: grouped queries", 4, 2, { attn_type: "grouped_query_attention", kv_n_heads: 2 }),
  { name: "deepseek", config: { ...DEEPSEEK, model_type: "deepseek" }, shapes: deepseekShapes(attentionShapes(), false) },
  { name: "deepseek_v2", config: { ...DEEPSEEK, ...LATENT, model_type: "deepseek_v2", topk_method: "greedy", routed_scaling_factor: 1.5 }, shapes: deepseekShapes(latentShapes(20), false) },
  { name: "deepseek_v2: YaRN for whole keys", config: { ...DEEPSEEK, ...LATENT, model_type: "deepseek_v2", routed_scaling_factor: 1, rope_scaling: YARN }, shapes: deepseekShapes(latentShapes(20), false) },
  {
    name: "deepseek_v3: groups, a layer that guesses further",
    config: { ...DEEPSEEK, ...LATENT, ...SIGMOID, model_type: "deepseek_v3", head_dim: 6, n_group: 4, topk_group: 2, num_nextn_predict_layers: 1 },
    shapes: deepseekShapes(latentShapes(20), true, 4),
  },
  { name: "dots1", config: { ...DEEPSEEK, ...SIGMOID, model_type: "dots1", num_key_value_heads: HEADS, n_group: 1, topk_group: 1 }, shapes: deepseekShapes({ ...attentionShapes(HEADS), "self_attn.q_norm.weight": [12], "self_attn.k_norm.weight": [12] }, true) },
  { name: "granitemoe", config: { ...GRANITE, model_type: "granitemoe" }, shapes: graniteShapes(0) },
  { name: "granitemoeshared", config: { ...GRANITE, model_type: "granitemoeshared", shared_intermediate_size: 24 }, shapes: graniteShapes(24) },
  { name: "gpt_oss: floats", config: OSS, shapes: ossShapes(false) },
  {
    name: "gpt_oss: MXFP4, YaRN",
    config: { ...OSS, quantization_config: { quant_method: "mxfp4", modules_to_not_convert: ["lm_head"] }, rope_scaling: { rope_type: "yarn", factor: 32, original_max_position_embeddings: 64, beta_fast: 32, beta_slow: 1, truncate: false } },
    shapes: ossShapes(true),
  },
  /** llama.cpp takes models of 27 layers for DeepSeek-V2-Lite, whose queries are projected directly, and no others. */
  { name: "deepseek_v2: direct queries", config: { ...DEEPSEEK, ...LATENT, model_type: "deepseek_v2", num_hidden_layers: 27, first_k_dense_replace: 1, q_lora_rank: null, routed_scaling_factor: 1 }, shapes: deepseekShapes(latentShapes(null), false, 27) },
  {
    name: "glm4_moe: norms of heads, half of them rotating, a layer that guesses further",
    config: { ...DEEPSEEK, ...SIGMOID, model_type: "glm4_moe", partial_rotary_factor: 0.5, use_qk_norm: true, n_group: 1, topk_group: 1, num_nextn_predict_layers: 1 },
    shapes: deepseekShapes({ ...attentionShapes(), ...biased("self_attn.q_proj", DIM, DIM), ...biased("self_attn.k_proj", 24, DIM), ...biased("self_attn.v_proj", 24, DIM), "self_attn.q_norm.weight": [12], "self_attn.k_norm.weight": [12] }, true, 4),
  },
];

/** The tokens that cases are asked about. */
export const CASE_TOKENS = [1, 50, 99, 120, 7, 201, 33, 64, 180, 5, 90, 17];
