import type { Activation } from "../tensor/kernels.ts";
import type { ModelConfig, RopeConfig } from "./config.ts";
import type { ExpertDefaults } from "./experts-gguf.ts";

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
  /** Undefined: no rotary positions. */
  readonly ropeStyle?: RopeConfig["style"];
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
  /** Layers at which queries are scaled by dim / heads, not by headDim. */
  readonly wideScaleAt?: number;
  /** Whether attn_logit_softcapping and final_logit_softcapping are read, with the defaults `attentionCap` and `logitCap`. */
  readonly caps?: boolean;
  /** Whether attention.clamp_kqv is read. */
  readonly clamps?: boolean;
  /** Default of attention.max_alibi_bias; 0: none. */
  readonly alibi?: number;
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
  deepseek2: { ...LLAMA, latent: true, experts: { ...AS_THEY_ARE, fromKeys: true } },
  dots1: { ...QWEN, qkNorm: "head", experts: { ...AS_THEY_ARE, fromKeys: true } },
  gemma: GEMMA,
  gemma2: { ...GEMMA, normPlacement: "both", caps: true, attentionCap: 50, logitCap: 30, wideScaleAt: 46, sliding: { window: 4096, period: 2 } },
  gemma3: { ...GEMMA, qkNorm: "head", normPlacement: "both", caps: true, wideScaleAt: 62, sliding: { period: 6, ropeBase: 10000, scaling: "global" } },
  // Files of Phi 3 name a window that llama.cpp does not slide; nor does memwall.
  phi3: QWEN,
  gpt2: GPT,
  granite: { ...LLAMA, scales: true, logitScale: "divisor" },
  "gpt-oss": { ...QWEN, biases: "all", sinks: true, activation: "swiglu_oai", sliding: { period: 2 }, experts: { normaliseWeights: false, gating: "softmax-after-top-k" } },
  granitemoe: { ...LLAMA, scales: true, logitScale: "divisor", experts: NORMALISED },
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
  nemotron: { ...NEOX, biases: undefined, activation: "relu2" },
};
