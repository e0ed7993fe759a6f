import type { Activation } from "../tensor/kernels.ts";
import type { ModelConfig, RopeConfig } from "./config.ts";
import type { ExpertDefaults } from "./experts-gguf.ts";
import type { YarnKeys } from "./rope-gguf.ts";

/** Where an architecture's layers slide a window, and what is particular about those that do not. */
export interface Sliding {
  /** Positions in the window; default what the file says, and without that no window. */
  readonly window?: number;
  /** The last layer of every `period` sees everything, unless the file says otherwise. */
  readonly period: number;
  /** Only models with this many layers slide. */
  readonly onlyLayers?: number;
  /** Base of the sliding layers' rotations, unless the file says otherwise; default that of the others. */
  readonly ropeBase?: number;
  /** Whether rope scaling is for all layers or for those that see everything; default all. */
  readonly scaling?: "all" | "global";
  /** False: layers that see everything do not rotate. */
  readonly globalRope?: boolean;
}

/** What is particular to one `general.architecture`; everything else is read from the metadata. */
export interface Architecture extends Pick<ModelConfig, "norm" | "normPlacement" | "normWeights" | "ffn" | "attentionCap" | "logitCap"> {
  readonly activation: Activation;
  /** Of published models: which linears have biases, and over what q and k have norms. Files say it themselves. */
  readonly biases?: "qkv" | "all";
  readonly qkNorm?: "head" | "row";
  /** Whether those norms stand behind the rotation. */
  readonly normsRotated?: boolean;
  /** Undefined: no rotary positions. */
  readonly ropeStyle?: RopeConfig["style"];
  /** What it makes of YaRN's keys beyond the usual ones; default nothing. */
  readonly yarnKeys?: YarnKeys;
  readonly sliding?: Sliding;
  /** Every n-th layer does not rotate. */
  readonly ropelessEvery?: number;
  /** Whether both blocks read a layer's input: always, when layers have no `ffn_norm`, or as `use_parallel_residual` says. */
  readonly parallel?: "always" | "without ffn_norm" | "by key";
  /** Whether embeddings are multiplied by sqrt(dim). */
  readonly scaledEmbedding?: boolean;
  /** Whether `logit_scale` multiplies or divides. */
  readonly logitScale?: "factor" | "divisor";
  /** Whether `embedding_scale`, `residual_scale` and `attention.scale` are read. */
  readonly scales?: boolean;
  /** What those keys and `logit_scale` are where a file lacks them. */
  readonly usualScales?: (dim: number, nLayers: number) => Readonly<Record<"embedding" | "residual" | "logit", number>>;
  /** Whether `rope.scaling.finetuned` says that nothing rotates. */
  readonly ropeSwitch?: boolean;
  /** Layers at which queries are scaled by dim / heads, not by headDim. */
  readonly wideScaleAt?: number;
  /** Whether attn_logit_softcapping and final_logit_softcapping are read, with the defaults `attentionCap` and `logitCap`. */
  readonly caps?: boolean;
  /** Whether attention.clamp_kqv is read. */
  readonly clamps?: boolean;
  /** Default of attention.max_alibi_bias; 0: none. */
  readonly alibi?: number;
  /** What models of that many layers have in place of some of this; other numbers of layers are refused. */
  readonly byLayers?: Readonly<Record<number, Partial<Architecture>>>;
  /** Queries are scaled by 1 / headDim, not by its root. */
  readonly scaledByHeadDim?: boolean;
  /** What `feed_forward_length` counts, of the block's width; default 1. */
  readonly ffnShare?: number;
  /** Whether `attention.temperature_scale` is read. */
  readonly temperature?: boolean;
  /** Whether `nextn_predict_layers` of its layers are for guessing further tokens. */
  readonly guesses?: boolean;
  /** Whether every head's softmax has a sink (see AttentionShape). */
  readonly sinks?: boolean;
  /** Whether attention is multi-head latent attention. */
  readonly latent?: boolean;
  /** How its mixtures of experts choose, where it may have them. */
  readonly experts?: ExpertDefaults;
}

const LLAMA: Architecture = { norm: "rms", ropeStyle: "interleaved", ffn: "gated", activation: "silu" };
const QWEN: Architecture = { ...LLAMA, ropeStyle: "halves" };
const GEMMA: Architecture = { ...QWEN, activation: "gelu", scaledEmbedding: true };
const GPT: Architecture = { norm: "layer", ffn: "plain", activation: "gelu", biases: "all" };
const NEOX: Architecture = { ...GPT, ropeStyle: "halves" };
const GRANITE: Architecture = { ...LLAMA, scales: true, ropeSwitch: true, logitScale: "divisor" };
const COHERE: Architecture = { ...LLAMA, norm: "layer", parallel: "always", logitScale: "factor" };

/** Whether the weights of the chosen experts are made to sum to 1. */
const [NORMALISED, AS_THEY_ARE]: ExpertDefaults[] = [{ normaliseWeights: true }, { normaliseWeights: false }];

/**
 * The architectures by their names in GGUF, with the defaults that llama.cpp has for keys that a file lacks. GGUF files of `llama` carry q and k
 * permuted for interleaved rotation; most others rotate halves.
 */
export const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama: { ...LLAMA, experts: NORMALISED },
  qwen2: { ...QWEN, biases: "qkv" },
  qwen3: { ...QWEN, qkNorm: "head" },
  qwen2moe: { ...QWEN, biases: "qkv", experts: { ...AS_THEY_ARE, sharedGate: true } },
  qwen3moe: { ...QWEN, qkNorm: "head", experts: NORMALISED },
  olmoe: { ...QWEN, qkNorm: "row", experts: AS_THEY_ARE },
  deepseek: { ...LLAMA, experts: { ...AS_THEY_ARE, fromKeys: true } },
  deepseek2: { ...LLAMA, latent: true, yarnKeys: "whole keys", experts: { ...AS_THEY_ARE, fromKeys: true } },
  dots1: { ...QWEN, qkNorm: "head", experts: { ...AS_THEY_ARE, fromKeys: true } },
  "ernie4_5-moe": { ...LLAMA, experts: { ...NORMALISED, step: true } },
  bailingmoe: { ...LLAMA, experts: { ...AS_THEY_ARE, fromKeys: true } },
  bailingmoe2: { ...QWEN, qkNorm: "head", guesses: true, experts: { ...AS_THEY_ARE, fromKeys: true } },
  glm4moe: { ...QWEN, biases: "qkv", guesses: true, experts: { ...AS_THEY_ARE, gating: "sigmoid", fromKeys: true } },
  "hunyuan-moe": { ...QWEN, qkNorm: "head", normsRotated: true, experts: NORMALISED },
  qwen3vlmoe: { ...QWEN, qkNorm: "head", experts: NORMALISED },
  "minimax-m2": { ...QWEN, qkNorm: "row", experts: { ...NORMALISED, fromKeys: true } },
  dbrx: { ...QWEN, norm: "layer", clamps: true, experts: NORMALISED },
  gemma: GEMMA,
  gemma2: { ...GEMMA, normPlacement: "both", caps: true, attentionCap: 50, logitCap: 30, wideScaleAt: 46, sliding: { window: 4096, period: 2 } },
  gemma3: { ...GEMMA, qkNorm: "head", normPlacement: "both", caps: true, wideScaleAt: 62, sliding: { period: 6, ropeBase: 10000, scaling: "global" } },
  // Files of Phi 3 name a window that llama.cpp does not slide; nor does memwall.
  phi3: QWEN,
  gpt2: GPT,
  granite: GRANITE,
  "gpt-oss": { ...QWEN, biases: "all", sinks: true, activation: "swiglu_oai", sliding: { period: 2 }, experts: { normaliseWeights: false, gating: "softmax-after-top-k" } },
  granitemoe: { ...GRANITE, experts: NORMALISED },
  smollm3: { ...LLAMA, ropelessEvery: 4 },
  olmo: { ...LLAMA, norm: "layer", normWeights: false, clamps: true },
  olmo2: { ...QWEN, qkNorm: "row", normPlacement: "after", sliding: { period: 4, scaling: "global" } },
  stablelm: { ...QWEN, norm: "layer", parallel: "without ffn_norm" },
  starcoder2: NEOX,
  phi2: { ...NEOX, parallel: "always" },
  falcon: { ...NEOX, biases: undefined, parallel: "always" },
  gptneox: { ...NEOX, parallel: "by key" },
  "command-r": COHERE,
  cohere2: { ...COHERE, sliding: { period: 4, globalRope: false } },
  glm4: { ...LLAMA, biases: "qkv", normPlacement: "both" },
  exaone4: { ...QWEN, qkNorm: "head", normPlacement: "after", sliding: { window: 4096, period: 4, onlyLayers: 64, globalRope: false } },
  bloom: { ...GPT, alibi: 8 },
  mpt: { ...GPT, biases: undefined, alibi: 0, clamps: true },
  mistral3: { ...LLAMA, yarnKeys: "all", temperature: true },
  internlm2: LLAMA,
  xverse: LLAMA,
  ernie4_5: LLAMA,
  chatglm: { ...LLAMA, biases: "qkv" },
  arcee: { ...LLAMA, ffn: "plain", activation: "relu2" },
  minicpm: { ...LLAMA, scales: true, logitScale: "divisor", usualScales: (dim, nLayers) => ({ embedding: 12, residual: 1.4 / Math.sqrt(nLayers), logit: 256 / dim }) },
  baichuan: { ...LLAMA, byLayers: { 32: {}, 40: { ropeStyle: undefined, alibi: 8 } } },
  refact: { ...LLAMA, ropeStyle: undefined, alibi: 8 },
  qwen: { ...QWEN, biases: "qkv", ffnShare: 0.5 },
  qwen2vl: { ...QWEN, biases: "qkv" },
  qwen3vl: { ...QWEN, qkNorm: "head" },
  exaone: QWEN,
  seed_oss: { ...QWEN, biases: "qkv" },
  "hunyuan-dense": { ...QWEN, qkNorm: "head", normsRotated: true },
  "pangu-embedded": { ...QWEN, biases: "all" },
  plamo: { ...QWEN, parallel: "always" },
  orion: { ...QWEN, norm: "layer" },
  codeshell: NEOX,
  starcoder: GPT,
  jais: { ...GPT, ffn: "gated", activation: "silu", alibi: 8, scaledByHeadDim: true },
  jais2: { ...NEOX, activation: "relu2" },
  nemotron: { ...NEOX, biases: undefined, activation: "relu2" },
};
