import type { DrawnCheckpoint, JsonObject } from "./hf-checkpoint.ts";
import { type Experts, mixture } from "./hf-reference-experts.ts";
import {
  alibiSlopes, attend, chunk, clamp, concat, dequantised, gelu, headsOf, inverseFrequencies, layerNorm, type Matrix, matrix, mptSlopes, multiply, num, plus, reshape,
  rmsNorm, rotateHalf, rotatePairs, silu, type Vector,
} from "./hf-reference-parts.ts";

/**
 * The logits of a checkpoint after every token, in float64, straight from its own tensors: what the published model code (the classes of
 * transformers, by `model_type`) does with them, views, chunks and strides as they stand there. It shares nothing with src, and knows nothing of
 * GGUF. GELU is its tanh form throughout.
 */
export function checkpointLogits({ config, values, tensors }: DrawnCheckpoint, tokens: readonly number[]): Vector[] {
  const model = MODELS[String(config.model_type)](config);
  const find = (name: string) => (values.has(name) ? matrix(values.get(name)!, tensors[name].shape) : undefined);
  const need = (name: string): Matrix => find(name) ?? missing(name);
  const eps = num(config, model.eps);
  const linear = (name: string) => (x: Vector) => plus(multiply(need(`${name}.weight`), x), find(`${name}.bias`)?.data);
  const norm = (name: string) => (x: Vector) => (model.norm === "rms" ? rmsNorm(x, need(`${name}.weight`).data, eps) : layerNorm(x, need(`${name}.weight`).data, find(`${name}.bias`)?.data, eps));
  const tools = (prefix: string): Tools => ({
    ...{ config, linear: (name) => linear(prefix + name), norm: (name) => norm(prefix + name), has: (name) => values.has(prefix + name) },
    tensor: (name) => need(prefix + name),
  });
  const root = tools("");
  let stream = tokens.map((id) => model.embed(root, need(model.embedding).row(id)));
  for (let layer = 0; layer < num(config, model.layerCount); layer++) stream = model.block(tools(`${model.layers}${layer}.`), stream, layer);
  const head = find(model.head) ?? need(model.embedding);
  return stream.map((x) => multiply(head, norm(model.finalNorm)(x)).map((value) => value / (model.logitDivisor ?? 1)));
}

function missing(name: string): never {
  throw new Error(`reference: no tensor ${name}`);
}

/** What a module's forward has at hand: the config and the tensors below its prefix. */
export interface Tools {
  readonly config: JsonObject;
  linear(name: string): (x: Vector) => Vector;
  norm(name: string): (x: Vector) => Vector;
  tensor(name: string): Matrix;
  has(name: string): boolean;
}

interface Module {
  readonly layers: string;
  readonly layerCount: string;
  readonly embedding: string;
  readonly finalNorm: string;
  readonly head: string;
  readonly norm: "rms" | "layer";
  readonly eps: string;
  readonly logitDivisor?: number;
  embed(t: Tools, x: Vector): Vector;
  block(t: Tools, x: readonly Vector[], layer: number): Vector[];
}

const plain = (_: Tools, x: Vector) => x;

/** A block one after the other: x + f(n1(x)), then x + g(n2(x)). */
function sequential(x: readonly Vector[], attention: (x: readonly Vector[]) => Vector[], ffn: (x: Vector) => Vector, scale = 1): Vector[] {
  const attended = attention(x);
  return x.map((each, i) => plus(each, attended[i].map((value) => value * scale))).map((each) => plus(each, ffn(each).map((value) => value * scale)));
}

/** GPTNeoXAttention, GPTNeoXLayer. */
const gptNeoX = (config: JsonObject): Module => ({
  ...{ layers: "gpt_neox.layers.", layerCount: "num_hidden_layers", embedding: "gpt_neox.embed_in.weight", finalNorm: "gpt_neox.final_layer_norm", head: "embed_out.weight" },
  ...{ norm: "layer", eps: "layer_norm_eps", embed: plain },
  block(t, x) {
    const nHeads = num(config, "num_attention_heads");
    const headDim = num(config, "hidden_size") / nHeads;
    const rotating = Math.floor(headDim * num(config, "rotary_pct"));
    const frequencies = inverseFrequencies(rotating, num(config, "rotary_emb_base"));
    const attention = (h: readonly Vector[]) => {
      const qkv = h.map((row) => reshape(t.linear("attention.query_key_value")(row), nHeads, 3 * headDim).map((head) => chunk(head, 3)));
      const turned = (head: Vector, i: number) => concat(rotateHalf(head.slice(0, rotating), i, frequencies), head.slice(rotating));
      const [q, k, v] = [0, 1, 2].map((which) => qkv.map((heads, i) => heads.map((head) => (which < 2 ? turned(head[which], i) : head[which]))));
      return attend(q, k, v, headDim ** -0.5).map(t.linear("attention.dense"));
    };
    const mlp = (row: Vector) => t.linear("mlp.dense_4h_to_h")(gelu(t.linear("mlp.dense_h_to_4h")(row)));
    const attended = attention(x.map(t.norm("input_layernorm")));
    if (config.use_parallel_residual === false) return sequential(x, () => attended, (row) => mlp(t.norm("post_attention_layernorm")(row)));
    return x.map((row, i) => plus(plus(row, attended[i]), mlp(t.norm("post_attention_layernorm")(row))));
  },
});

/** FalconAttention._split_heads, FalconDecoderLayer. */
const falcon = (config: JsonObject): Module => ({
  ...{ layers: "transformer.h.", layerCount: "num_hidden_layers", embedding: "transformer.word_embeddings.weight", finalNorm: "transformer.ln_f", head: "lm_head.weight" },
  ...{ norm: "layer", eps: "layer_norm_epsilon", embed: plain },
  block(t, x) {
    const nHeads = num(config, "num_attention_heads");
    const headDim = num(config, "hidden_size") / nHeads;
    const frequencies = inverseFrequencies(headDim, num(config, "rope_theta"));
    const split = (fused: Vector): Vector[][] => {
      if (config.new_decoder_architecture) {
        const nKv = num(config, "num_kv_heads");
        const groups = reshape(fused, nKv, fused.length / nKv).map((group) => reshape(group, nHeads / nKv + 2, headDim));
        return [groups.flatMap((group) => group.slice(0, -2)), groups.map((group) => group[group.length - 2]), groups.map((group) => group[group.length - 1])];
      }
      if (config.multi_query === false) {
        const heads = reshape(fused, nHeads, 3 * headDim).map((head) => reshape(head, 3, headDim));
        return [0, 1, 2].map((which) => heads.map((head) => head[which]));
      }
      const rows = reshape(fused, nHeads + 2, headDim);
      return [rows.slice(0, -2), [rows[nHeads]], [rows[nHeads + 1]]];
    };
    const attention = (h: readonly Vector[]) => {
      const parts = h.map((row) => split(t.linear("self_attention.query_key_value")(row)));
      const [q, k] = [0, 1].map((which) => parts.map((part, i) => part[which].map((head) => rotateHalf(head, i, frequencies))));
      return attend(q, k, parts.map((part) => part[2]), headDim ** -0.5).map(t.linear("self_attention.dense"));
    };
    const mlp = (row: Vector) => t.linear("mlp.dense_4h_to_h")(gelu(t.linear("mlp.dense_h_to_4h")(row)));
    const two = t.has("ln_attn.weight");
    const attended = attention(x.map(t.norm(two ? "ln_attn" : "input_layernorm")));
    return x.map((row, i) => plus(plus(row, attended[i]), mlp(t.norm(two ? "ln_mlp" : "input_layernorm")(row))));
  },
});

/** BloomAttention._split_heads, build_alibi_tensor; `bare`: without the prefix of BloomForCausalLM, as the published files are. */
const bloom = (config: JsonObject): Module => {
  const prefix = config.n_embed === undefined ? "transformer." : "";
  const [dim, heads] = config.n_embed === undefined ? ["hidden_size", "n_head"] : ["n_embed", "num_attention_heads"];
  return {
    ...{ layers: `${prefix}h.`, layerCount: "n_layer", embedding: `${prefix}word_embeddings.weight`, finalNorm: `${prefix}ln_f`, head: "lm_head.weight" },
    ...{ norm: "layer", eps: "layer_norm_epsilon", embed: (t, x) => t.norm(`${prefix}word_embeddings_layernorm`)(x) },
    block(t, x) {
      const nHeads = num(config, heads);
      const headDim = num(config, dim) / nHeads;
      const slopes = alibiSlopes(nHeads);
      const attention = (h: readonly Vector[]) => {
        const qkv = h.map((row) => reshape(t.linear("self_attention.query_key_value")(row), nHeads, 3 * headDim).map((head) => reshape(head, 3, headDim)));
        const [q, k, v] = [0, 1, 2].map((which) => qkv.map((row) => row.map((head) => head[which])));
        return attend(q, k, v, headDim ** -0.5, { bias: (head, _, j) => slopes[head] * j }).map(t.linear("self_attention.dense"));
      };
      const mlp = (row: Vector) => t.linear("mlp.dense_4h_to_h")(gelu(t.linear("mlp.dense_h_to_4h")(row)));
      return sequential(x, (all) => attention(all.map(t.norm("input_layernorm"))), (row) => mlp(t.norm("post_attention_layernorm")(row)));
    },
  };
};

/** MptAttention, build_mpt_alibi_tensor; grouped queries as MosaicML's own code has them. */
const mpt = (config: JsonObject): Module => ({
  ...{ layers: "transformer.blocks.", layerCount: "n_layers", embedding: "transformer.wte.weight", finalNorm: "transformer.norm_f", head: "lm_head.weight" },
  ...{ norm: "layer", eps: "layer_norm_epsilon", embed: plain },
  block(t, x) {
    const own = config.attn_config as JsonObject;
    const nHeads = num(config, "n_heads");
    const dim = num(config, "d_model");
    const headDim = dim / nHeads;
    const kv = headDim * (own.kv_n_heads ? num(own, "kv_n_heads") : nHeads);
    const slopes = mptSlopes(nHeads, num(own, "alibi_bias_max"));
    const attention = (h: readonly Vector[]) => {
      const rows = h.map((row) => clamp(t.linear("attn.Wqkv")(row), num(own, "clip_qkv")));
      const [q, k, v] = [[0, dim], [dim, dim + kv], [dim + kv, dim + 2 * kv]].map(([from, to]) => rows.map((row) => headsOf(row.slice(from, to), headDim)));
      return attend(q, k, v, headDim ** -0.5, { bias: (head, i, j) => slopes[head] * (j - i) }).map(t.linear("attn.out_proj"));
    };
    return sequential(x, (all) => attention(all.map(t.norm("norm_1"))), (row) => t.linear("ffn.down_proj")(gelu(t.linear("ffn.up_proj")(t.norm("norm_2")(row)))));
  },
});

const LLAMA: Omit<Module, "block"> = {
  ...{ layers: "model.layers.", layerCount: "num_hidden_layers", embedding: "model.embed_tokens.weight", finalNorm: "model.norm", head: "lm_head.weight" },
  ...{ norm: "rms", eps: "rms_norm_eps", embed: plain },
};

interface Attention {
  readonly scale?: number;
  readonly window?: number;
  readonly sinks?: Vector;
  readonly headNorms?: boolean;
}

/** LlamaAttention, and with norms of heads Qwen3Attention, where part of a head rotates Glm4MoeAttention. */
function llamaAttention(t: Tools, h: readonly Vector[], headDim: number, { scale = headDim ** -0.5, window, sinks, headNorms }: Attention = {}): Vector[] {
  const rotating = t.config.partial_rotary_factor ? headDim * num(t.config, "partial_rotary_factor") : headDim;
  const { frequencies, factor } = yarn(t.config, rotating, num(t.config, "rope_theta"));
  const turned = (name: "q" | "k") =>
    h.map((row, i) =>
      headsOf(t.linear(`self_attn.${name}_proj`)(row), headDim)
        .map((head) => (headNorms ? t.norm(`self_attn.${name}_norm`)(head) : head))
        .map((head) => concat(rotateHalf(head.slice(0, rotating), i, frequencies, factor), head.slice(rotating))),
    );
  const v = h.map((row) => headsOf(t.linear("self_attn.v_proj")(row), headDim));
  return attend(turned("q"), turned("k"), v, scale, { window, sinks }).map(t.linear("self_attn.o_proj"));
}

/** Frequencies and the factor on cosines and sines: `_compute_yarn_parameters` where there is such a scaling. */
function yarn(config: JsonObject, dims: number, base: number): { frequencies: Vector; factor: number } {
  const rope = config.rope_scaling as JsonObject | undefined;
  const frequencies = inverseFrequencies(dims, base);
  if (!rope) return { frequencies, factor: 1 };
  const [factor, original] = [num(rope, "factor"), num(rope, "original_max_position_embeddings")];
  const correction = (rotations: number) => (dims * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(base));
  const [low, high] = [Math.max(0, Math.floor(correction(32))), Math.min(dims - 1, Math.ceil(correction(1)))];
  const scaled = frequencies.map((frequency, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)));
    return (frequency / factor) * ramp + frequency * (1 - ramp);
  });
  const magnitude = (mscale: number) => 0.1 * mscale * Math.log(factor) + 1;
  return { frequencies: scaled, factor: rope.mscale ? magnitude(num(rope, "mscale")) / magnitude(num(rope, "mscale_all_dim")) : magnitude(1) };
}

/** DeepseekV3Attention: rotating parts as (even, odd) made halves; V2 has them as complex numbers. */
function latentAttention(t: Tools, h: readonly Vector[]): Vector[] {
  const { config } = t;
  const [nHeads, nope, rotating, valueDim, rank] = ["num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"].map((key) => num(config, key));
  const { frequencies, factor } = yarn(config, rotating, num(config, "rope_theta"));
  const turn = config.model_type === "deepseek_v2" ? rotatePairs : (x: Vector, i: number, f: Vector, m: number) => rotateHalf(concat(x.filter((_, at) => at % 2 === 0), x.filter((_, at) => at % 2 === 1)), i, f, m);
  const queries = (row: Vector) => (config.q_lora_rank === null ? t.linear("self_attn.q_proj")(row) : t.linear("self_attn.q_b_proj")(t.norm("self_attn.q_a_layernorm")(t.linear("self_attn.q_a_proj")(row))));
  const q = h.map((row, i) => headsOf(queries(row), nope + rotating).map((head) => concat(head.slice(0, nope), turn(head.slice(nope), i, frequencies, factor))));
  const compressed = h.map(t.linear("self_attn.kv_a_proj_with_mqa"));
  const shared = compressed.map((row, i) => turn(row.slice(rank), i, frequencies, factor));
  const both = compressed.map((row) => headsOf(t.linear("self_attn.kv_b_proj")(t.norm("self_attn.kv_a_layernorm")(row.slice(0, rank))), nope + valueDim));
  const k = both.map((heads, i) => heads.map((head) => concat(head.slice(0, nope), shared[i])));
  const rope = config.rope_scaling as JsonObject | undefined;
  const mscale = rope ? 0.1 * num(rope, "mscale_all_dim") * Math.log(num(rope, "factor")) + 1 : 1;
  if (both[0].length !== nHeads) throw new Error("reference: heads");
  return attend(q, k, both.map((heads) => heads.map((head) => head.slice(nope))), (nope + rotating) ** -0.5 * mscale * mscale).map(t.linear("self_attn.o_proj"));
}

const gated = (t: Tools, stem: string) => (x: Vector): Vector => {
  const up = t.linear(`${stem}.up_proj`)(x);
  return t.linear(`${stem}.down_proj`)(silu(t.linear(`${stem}.gate_proj`)(x)).map((value, i) => value * up[i]));
};

/** DeepseekV3MoE and its forerunners: leading dense layers, shared experts. */
const deepseek = (attention: (t: Tools, h: readonly Vector[]) => Vector[], scoring: Experts["scoring"]) => (config: JsonObject): Module => ({
  ...LLAMA,
  block(t, x, layer) {
    const experts: Experts = { scoring, used: num(config, "num_experts_per_tok"), normalise: config.norm_topk_prob === true, scale: config.routed_scaling_factor ? num(config, "routed_scaling_factor") : 1, ...(scoring === "sigmoid" && { groups: [num(config, "n_group"), num(config, "topk_group")] }) };
    const ffn = (row: Vector) => {
      if (layer < num(config, "first_k_dense_replace")) return gated(t, "mlp")(row);
      const bias = scoring === "sigmoid" ? t.tensor("mlp.gate.e_score_correction_bias").data : undefined;
      const chosen = mixture(experts, t.linear("mlp.gate")(row), bias, (id) => gated(t, `mlp.experts.${id}`)(row));
      return plus(chosen, gated(t, "mlp.shared_experts")(row));
    };
    return sequential(x, (all) => attention(t, all.map(t.norm("input_layernorm"))), (row) => ffn(t.norm("post_attention_layernorm")(row)));
  },
});

const headDimOf = (config: JsonObject) => (config.head_dim ? num(config, "head_dim") : num(config, "hidden_size") / num(config, "num_attention_heads"));

/** GraniteMoeMoE: one matrix of gate and up, chunked. */
const granite = (config: JsonObject): Module => ({
  ...{ ...LLAMA, logitDivisor: num(config, "logits_scaling"), embed: (_, x) => x.map((value) => value * num(config, "embedding_multiplier")) },
  block(t, x) {
    const both = (input: Vector, output: (x: Vector) => Vector) => {
      const [gate, up] = chunk(input, 2);
      return output(silu(gate).map((value, i) => value * up[i]));
    };
    const expert = (row: Vector) => (id: number) =>
      both(multiply(t.tensor("block_sparse_moe.input_linear.weight").slab(id), row), (inner) => multiply(t.tensor("block_sparse_moe.output_linear.weight").slab(id), inner));
    const ffn = (row: Vector) => {
      const chosen = mixture({ scoring: "chosen", used: num(config, "num_experts_per_tok"), normalise: false, scale: 1 }, t.linear("block_sparse_moe.router.layer")(row), undefined, expert(row));
      return t.has("shared_mlp.input_linear.weight") ? plus(chosen, both(t.linear("shared_mlp.input_linear")(row), t.linear("shared_mlp.output_linear"))) : chosen;
    };
    const attention = (all: readonly Vector[]) => llamaAttention(t, all.map(t.norm("input_layernorm")), headDimOf(config), { scale: num(config, "attention_multiplier") });
    return sequential(x, attention, (row) => ffn(t.norm("post_attention_layernorm")(row)), num(config, "residual_multiplier"));
  },
});

/** GptOssExperts (`[..., ::2]` and `[..., 1::2]`, x W), GptOssAttention's sinks; weights of MXFP4 by convert_moe_packed_tensors. */
const gptOss = (config: JsonObject): Module => ({
  ...LLAMA,
  block(t, x, layer) {
    /** [inputs, outputs] of one expert, transposed: multiply takes [outputs, inputs]. */
    const weight = (name: string, id: number): Matrix => {
      const stem = `mlp.experts.${name}`;
      return t.has(`${stem}_blocks`) ? dequantised(t.tensor(`${stem}_blocks`).slab(id), t.tensor(`${stem}_scales`).slab(id)) : t.tensor(stem).slab(id).transposed();
    };
    const expert = (row: Vector) => (id: number) => {
      const both = plus(multiply(weight("gate_up_proj", id), row), t.tensor("mlp.experts.gate_up_proj_bias").row(id));
      const gate = both.filter((_, i) => i % 2 === 0).map((value) => Math.min(value, 7));
      const up = clamp(both.filter((_, i) => i % 2 === 1), 7);
      const inner = up.map((value, i) => ((value + 1) * gate[i]) / (1 + Math.exp(-1.702 * gate[i])));
      return plus(multiply(weight("down_proj", id), inner), t.tensor("mlp.experts.down_proj_bias").row(id));
    };
    const ffn = (row: Vector) => mixture({ scoring: "chosen", used: num(config, "num_experts_per_tok"), normalise: false, scale: 1 }, t.linear("mlp.router")(row), undefined, expert(row));
    const window = layer % 2 === 0 ? num(config, "sliding_window") : undefined;
    const attention = (all: readonly Vector[]) => llamaAttention(t, all.map(t.norm("input_layernorm")), headDimOf(config), { window, sinks: t.tensor("self_attn.sinks").data });
    return sequential(x, attention, (row) => ffn(t.norm("post_attention_layernorm")(row)));
  },
});

const MODELS: Readonly<Record<string, (config: JsonObject) => Module>> = {
  ...{ falcon, bloom, mpt, gpt_neox: gptNeoX, granitemoe: granite, granitemoeshared: granite, gpt_oss: gptOss },
  deepseek: deepseek((t, h) => llamaAttention(t, h, headDimOf(t.config)), "softmax"),
  deepseek_v2: deepseek(latentAttention, "softmax"),
  deepseek_v3: deepseek(latentAttention, "sigmoid"),
  dots1: deepseek((t, h) => llamaAttention(t, h, headDimOf(t.config), { headNorms: true }), "sigmoid"),
  glm4_moe: deepseek((t, h) => llamaAttention(t, h, headDimOf(t.config), { headNorms: t.config.use_qk_norm === true }), "sigmoid"),
};
