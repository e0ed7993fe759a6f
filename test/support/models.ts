import { learnsPositions, type ModelConfig, type RopeConfig, type RopeScaling, validateConfig } from "../../src/model/config.ts";
import { createModel, type Model } from "../../src/model/decoder.ts";
import type { LayerWeights, Norm, Weights } from "../../src/model/weights.ts";
import type { Kernels } from "../../src/tensor/kernels.ts";
import type { Linear } from "../../src/tensor/ops.ts";
import { type Tensor, zeros } from "../../src/tensor/tensor.ts";
import { type Dice, dice } from "./dice.ts";

/** A model as a file holds it: a config, and tensors in plain layouts under their GGUF names. */
export interface PlainModel {
  readonly config: ModelConfig;
  readonly tensors: ReadonlyMap<string, Tensor>;
}

export type MatrixType = "f32" | "int8" | "int4";

/** What is not said is drawn. */
export interface ModelOptions extends Partial<ModelConfig> {
  readonly matrices?: MatrixType;
  /** Columns per scale of int8 matrices. */
  readonly group?: number;
  readonly tied?: boolean;
  /** Which linears have a bias. */
  readonly biases?: readonly ("attn_q" | "attn_k" | "attn_v" | "attn_output" | "ffn_gate" | "ffn_up" | "ffn_down" | "output")[];
  readonly normBias?: boolean;
  /** Norms of q and k: one for all heads, one for each, or one over the whole row. */
  readonly qkNorm?: boolean | "by head" | "row";
  /** With a parallel residual: the feed-forward block reads what attention reads. */
  readonly sharedNorm?: boolean;
  readonly embeddingNorm?: boolean;
  readonly ropeFactors?: boolean;
}

type Needed = "matrices" | "group" | "tied" | "biases" | "normBias" | "qkNorm" | "sharedNorm" | "embeddingNorm" | "ropeFactors";
type AllOptions = ModelConfig & Required<Pick<ModelOptions, Needed>>;

const LINEARS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "output"] as const;

/** Any small decoder of the llama family or of GPT-2's kind, odd sizes included. */
export function drawOptions(seed: number): AllOptions {
  const d = dice(seed);
  const matrices = d.pick(["f32", "f32", "int8", "int4"] as const);
  const nHeads = d.pick([1, 1, 2, 3, 4, 6, 8]);
  const nKvHeads = d.pick([1, 2, 3, 4, 6, 8].filter((n) => nHeads % n === 0));
  const roped = d.chance(0.7);
  const headDim = roped ? d.pick([2, 3, 4, 6, 7, 8, 16]) : d.pick([1, 3, 4, 5, 8]);
  const dims = d.chance(0.7) ? headDim - (headDim % 2) : 2 * d.between(1, Math.floor(headDim / 2));
  const style = d.pick(["interleaved", "halves"] as const);
  const yarn = { factor: 1 + 7 * d.real(), originalContext: d.between(8, 64), betaFast: 4 + 8 * d.real(), betaSlow: 0.1 + d.real() };
  const scaling = d.pick<RopeScaling>([
    { type: "yarn", ...yarn },
    { type: "longrope", factor: d.pick([1, 2]), originalContext: d.pick([16, 1000]) },
    { type: "none" },
    { type: "linear", factor: 1 + 7 * d.real() },
    { type: "llama3", factor: 1 + 7 * d.real(), lowFreqFactor: 1, highFreqFactor: 2 + 4 * d.real(), originalContext: d.between(8, 64) },
  ]);
  const layerNorm = d.chance(0.4);
  const nLayers = d.between(1, 3);
  const rope: RopeConfig | undefined = roped ? { style, base: d.pick([100, 10000, 500000]), dims, scaling, ...(d.chance(0.3) && { magnitude: 0.5 + d.real() }) } : undefined;
  const local = rope && { ...rope, base: 50, scaling: { type: "none" as const } };
  const some = <T extends object>(entries: T): Partial<T> => Object.fromEntries(Object.entries(entries).filter(() => d.chance(0.2))) as Partial<T>;
  const size = (): number => (matrices === "int4" && d.chance(0.8) ? 32 * d.between(1, 2) : d.between(1, 40));
  return {
    ...{ architecture: "llama", name: `drawn-${seed}`, contextLength: 128 },
    ...{ dim: Math.max(2, size()), ffnDim: size(), vocabSize: d.between(2, 50), nLayers, nHeads, nKvHeads, headDim },
    ...{ norm: layerNorm ? "layer" : "rms", normEps: d.pick([1e-6, 1e-5, 1e-2]), normBias: layerNorm && d.chance(0.8) },
    rope,
    ...(!roped && d.pick<Partial<ModelConfig>>([{}, { alibi: 4 }, { alibi: 8 }, { learnedPositions: false }])),
    ...(d.chance(0.2) && { window: d.between(1, 12) }),
    ...(d.chance(0.4) && { alternate: { layers: Array.from({ length: nLayers }, () => d.chance(0.5)), rope: d.pick([rope, rope && local, undefined]), ...(d.chance(0.7) && { window: d.between(1, 12) }) } }),
    ...some({ attentionCap: 0.5 + 3 * d.real(), attentionScale: d.real() + 0.05, qkvClamp: 0.5 + d.real(), logitCap: 1 + 5 * d.real() }),
    ...some({ embeddingScale: 0.5 + 4 * d.real(), residualScale: 0.2 + d.real(), logitScale: 0.2 + d.real() }),
    ...d.pick<Partial<ModelConfig>>([{}, {}, { normPlacement: "after" }, { normPlacement: "both" }, { parallelResidual: true }, { parallelResidual: true, normPlacement: "both" }]),
    ...some({ normWeights: false }),
    ...{ sharedNorm: d.chance(0.5), embeddingNorm: d.chance(0.2) },
    ropeFactors: roped && d.chance(0.3),
    ...{ ffn: d.chance(0.75) ? "gated" : "plain", activation: d.pick(["silu", "gelu", "relu2"] as const), qkNorm: d.chance(0.3) && d.pick([true, "by head", "row"] as const) },
    ...{ tied: d.chance(0.4), biases: LINEARS.filter(() => d.chance(0.3)), matrices, group: d.pick([1, 7, 32, 64]) },
  };
}

/** The options as a config. */
function configOf({ matrices: _1, group: _2, tied: _3, biases: _4, normBias: _5, qkNorm: _6, sharedNorm: _7, embeddingNorm: _8, ropeFactors: _9, ...config }: AllOptions): ModelConfig {
  return validateConfig(config);
}

/** A model with random weights, of the shape that `given` leaves open drawn from the seed. */
export function drawModel(seed: number, given: ModelOptions = {}): PlainModel {
  const options = { ...drawOptions(seed), ...given };
  const config = configOf(options);
  const { dim, nHeads, nKvHeads, headDim, ffnDim, vocabSize } = config;
  const d = dice(seed + 1_000_003);
  const tensors = new Map<string, Tensor>();
  const keep = (tensor: Tensor) => void tensors.set(tensor.name, tensor);

  const matrix = (name: string, rows: number, cols: number, size = 1 / Math.sqrt(cols)) => keep(drawMatrix(d, name, rows, cols, size, options));
  const vector = (name: string, shape: number | readonly number[], mean: number, spread: number) => {
    const tensor = zeros("f32", typeof shape === "number" ? [shape] : shape, 0, name);
    for (let i = 0; i < tensor.f32.length; i++) tensor.f32[i] = mean + spread * d.normal();
    keep(tensor);
  };
  const linear = (name: string, rows: number, cols: number) => {
    matrix(`${name}.weight`, rows, cols);
    if (options.biases.some((part) => name.endsWith(part))) vector(`${name}.bias`, rows, 0, 0.3);
  };
  const norm = (name: string, shape: number | readonly number[]) => {
    vector(`${name}.weight`, shape, 1, options.normWeights === false ? 0 : 0.2);
    if (options.normBias && options.normWeights !== false) vector(`${name}.bias`, shape, 0, 0.2);
  };
  const headNorm = (heads: number) => (options.qkNorm === "row" ? heads * headDim : options.qkNorm === "by head" ? [heads, headDim] : headDim);
  const { normPlacement = "before", parallelResidual } = config;

  matrix("token_embd.weight", vocabSize, dim, 1);
  if (options.embeddingNorm) norm("token_embd_norm", dim);
  if (learnsPositions(config)) matrix("position_embd.weight", config.contextLength, dim, 0.5);
  for (let i = 0; i < config.nLayers; i++) {
    if (normPlacement !== "after") norm(`blk.${i}.attn_norm`, dim);
    if (normPlacement !== "before") for (const part of ["post_attention_norm", "post_ffw_norm"]) norm(`blk.${i}.${part}`, dim);
    linear(`blk.${i}.attn_q`, nHeads * headDim, dim);
    linear(`blk.${i}.attn_k`, nKvHeads * headDim, dim);
    linear(`blk.${i}.attn_v`, nKvHeads * headDim, dim);
    if (options.qkNorm) for (const [part, heads] of [["attn_q_norm", nHeads], ["attn_k_norm", nKvHeads]] as const) norm(`blk.${i}.${part}`, headNorm(heads));
    linear(`blk.${i}.attn_output`, dim, nHeads * headDim);
    if (normPlacement !== "after" && !(parallelResidual && options.sharedNorm)) norm(`blk.${i}.ffn_norm`, dim);
    if (config.ffn === "gated") linear(`blk.${i}.ffn_gate`, ffnDim, dim);
    linear(`blk.${i}.ffn_up`, ffnDim, dim);
    linear(`blk.${i}.ffn_down`, dim, ffnDim);
  }
  norm("output_norm", dim);
  if (!options.tied) linear("output", vocabSize, dim);
  const long = config.rope?.scaling.type === "longrope";
  if (config.rope && options.ropeFactors) {
    for (const name of long ? ["rope_factors_short", "rope_factors_long"] : ["rope_freqs"]) {
      vector(`${name}.weight`, config.rope.dims / 2, 0, 0);
      const factors = tensors.get(`${name}.weight`)!.f32;
      for (let i = 0; i < factors.length; i++) factors[i] = 1 + 4 * d.real();
    }
  }
  return { config, tensors };
}

function drawMatrix(d: Dice, name: string, rows: number, cols: number, size: number, { matrices, group }: AllOptions): Tensor {
  const dtype = matrices === "int4" && cols % 32 !== 0 ? "int8" : matrices;
  const tensor = zeros(dtype, [rows, cols], dtype === "int4" ? 32 : group, name);
  const { data, scales } = tensor;
  for (let i = 0; i < data.length; i++) data[i] = dtype === "f32" ? size * d.normal() : dtype === "int8" ? d.between(-127, 127) : d.below(256);
  const spread = dtype === "int8" ? 73 : 4.6;
  if (scales) for (let i = 0; i < scales.length; i++) scales[i] = (size / spread) * (0.5 + d.real());
  return tensor;
}

/** The model in some kernels' own memory and layout. */
export function packModel({ config, tensors }: PlainModel, kernels: Kernels): Model {
  const one = (name: string): Tensor => {
    const plain = tensors.get(name);
    if (!plain) throw new Error(`no tensor ${name}`);
    if (plain.shape.length === 1 || name.endsWith("_norm.weight") || name.endsWith("_norm.bias")) {
      const copy = kernels.alloc("f32", plain.shape);
      if (copy.f32.length > 0) copy.f32.set(plain.f32); // Cost-only tensors hold nothing.
      copy.name = name;
      return copy;
    }
    const packer = kernels.packer({ name, dtype: plain.dtype as MatrixType, shape: plain.shape, group: plain.group });
    packer.write(plain);
    return packer.finish();
  };
  const withBias = (name: string): Linear & Norm => ({ weight: one(`${name}.weight`), ...(tensors.has(`${name}.bias`) && { bias: one(`${name}.bias`) }) });
  const layer = (i: number): LayerWeights => {
    const part = (name: string) => withBias(`blk.${i}.${name}`);
    const maybe = (name: string) => (tensors.has(`blk.${i}.${name}.weight`) ? part(name) : undefined);
    return {
      ...{ attnNorm: maybe("attn_norm"), attnPostNorm: maybe("post_attention_norm"), ffnPostNorm: maybe("post_ffw_norm"), q: part("attn_q"), k: part("attn_k"), v: part("attn_v"), o: part("attn_output") },
      ...{ qNorm: maybe("attn_q_norm"), kNorm: maybe("attn_k_norm") },
      ...{ ffnNorm: maybe("ffn_norm"), gate: maybe("ffn_gate"), up: part("ffn_up"), down: part("ffn_down") },
    };
  };
  const tokenEmbedding = one("token_embd.weight");
  const weights: Weights = {
    tokenEmbedding,
    ...(tensors.has("position_embd.weight") && { positionEmbedding: one("position_embd.weight") }),
    layers: Array.from({ length: config.nLayers }, (_, i) => layer(i)),
    outputNorm: withBias("output_norm"),
    output: tensors.has("output.weight") ? withBias("output") : { weight: tokenEmbedding },
    ...(tensors.has("token_embd_norm.weight") && { embeddingNorm: withBias("token_embd_norm") }),
    ...(tensors.has("rope_freqs.weight") && { ropeFactors: one("rope_freqs.weight").f32 }),
    ...(tensors.has("rope_factors_long.weight") && { longRopeFactors: { short: one("rope_factors_short.weight").f32, long: one("rope_factors_long.weight").f32 } }),
  };
  return createModel(config, weights);
}

/** A small llama with nothing unusual about it. */
export const SMALL: ModelOptions = {
  ...{ dim: 32, nLayers: 2, nHeads: 4, nKvHeads: 2, headDim: 8, ffnDim: 48, vocabSize: 40, contextLength: 128, norm: "rms", normEps: 1e-5 },
  rope: { style: "interleaved", base: 10000, dims: 8, scaling: { type: "none" } },
  ...{ ffn: "gated", activation: "silu", matrices: "f32", group: 32, tied: false, biases: [], normBias: false, qkNorm: false, ropeFactors: false },
  ...{ sharedNorm: false, embeddingNorm: false, window: undefined, alternate: undefined, alibi: undefined, learnedPositions: undefined, attentionScale: undefined, attentionCap: undefined, qkvClamp: undefined },
  ...{ embeddingScale: undefined, residualScale: undefined, logitScale: undefined, logitCap: undefined, normPlacement: undefined, normWeights: undefined, parallelResidual: undefined },
};
