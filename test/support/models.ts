import { type ModelConfig, type RopeConfig, type RopeScaling, validateConfig } from "../../src/model/config.ts";
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
  readonly qkNorm?: boolean;
  readonly ropeFactors?: boolean;
}

type AllOptions = Required<Omit<ModelOptions, "rope">> & { readonly rope: RopeConfig | undefined };

const LINEARS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "output"] as const;

/** Any small decoder of the llama family or of GPT-2's kind, odd sizes included. */
export function drawOptions(seed: number): AllOptions {
  const d = dice(seed);
  const matrices = d.pick(["f32", "f32", "int8", "int4"] as const);
  const nHeads = d.pick([1, 1, 2, 3, 4, 6, 8]);
  const nKvHeads = d.pick([1, 2, 3, 4, 6, 8].filter((n) => nHeads % n === 0));
  const roped = d.chance(0.8);
  const headDim = roped ? d.pick([2, 3, 4, 6, 7, 8, 16]) : d.pick([1, 3, 4, 5, 8]);
  const dims = d.chance(0.7) ? headDim - (headDim % 2) : 2 * d.between(1, Math.floor(headDim / 2));
  const style = d.pick(["interleaved", "halves"] as const);
  const scaling = d.pick<RopeScaling>([
    { type: "none" },
    { type: "linear", factor: 1 + 7 * d.real() },
    { type: "llama3", factor: 1 + 7 * d.real(), lowFreqFactor: 1, highFreqFactor: 2 + 4 * d.real(), originalContext: d.between(8, 64) },
  ]);
  const layerNorm = d.chance(0.25);
  const size = (): number => (matrices === "int4" && d.chance(0.8) ? 32 * d.between(1, 2) : d.between(1, 40));
  return {
    ...{ architecture: "llama", name: `drawn-${seed}`, contextLength: 128 },
    ...{ dim: Math.max(2, size()), ffnDim: size(), vocabSize: d.between(2, 50), nLayers: d.between(1, 3), nHeads, nKvHeads, headDim },
    ...{ norm: layerNorm ? "layer" : "rms", normEps: d.pick([1e-6, 1e-5, 1e-2]), normBias: layerNorm && d.chance(0.8) },
    rope: roped ? { style, base: d.pick([100, 10000, 500000]), dims, scaling } : undefined,
    ropeFactors: roped && d.chance(0.3),
    ...{ ffn: d.chance(0.75) ? "gated" : "plain", activation: d.pick(["silu", "gelu"] as const), qkNorm: d.chance(0.3) },
    ...{ tied: d.chance(0.4), biases: LINEARS.filter(() => d.chance(0.3)), matrices, group: d.pick([1, 7, 32, 64]) },
  };
}

/** The options as a config. */
function configOf(options: AllOptions): ModelConfig {
  const { architecture, name, dim, nLayers, nHeads, nKvHeads, headDim, ffnDim, vocabSize, contextLength, norm, normEps, rope, ffn, activation } = options;
  return validateConfig({ architecture, name, dim, nLayers, nHeads, nKvHeads, headDim, ffnDim, vocabSize, contextLength, norm, normEps, rope, ffn, activation });
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
  const vector = (name: string, length: number, mean: number, spread: number) => {
    const tensor = zeros("f32", [length], 0, name);
    for (let i = 0; i < length; i++) tensor.f32[i] = mean + spread * d.normal();
    keep(tensor);
  };
  const linear = (name: string, rows: number, cols: number) => {
    matrix(`${name}.weight`, rows, cols);
    if (options.biases.some((part) => name.endsWith(part))) vector(`${name}.bias`, rows, 0, 0.3);
  };
  const norm = (name: string, length: number) => {
    vector(`${name}.weight`, length, 1, 0.2);
    if (options.normBias) vector(`${name}.bias`, length, 0, 0.2);
  };

  matrix("token_embd.weight", vocabSize, dim, 1);
  if (!config.rope) matrix("position_embd.weight", config.contextLength, dim, 0.5);
  for (let i = 0; i < config.nLayers; i++) {
    norm(`blk.${i}.attn_norm`, dim);
    linear(`blk.${i}.attn_q`, nHeads * headDim, dim);
    linear(`blk.${i}.attn_k`, nKvHeads * headDim, dim);
    linear(`blk.${i}.attn_v`, nKvHeads * headDim, dim);
    if (options.qkNorm) for (const part of ["attn_q_norm", "attn_k_norm"]) norm(`blk.${i}.${part}`, headDim);
    linear(`blk.${i}.attn_output`, dim, nHeads * headDim);
    norm(`blk.${i}.ffn_norm`, dim);
    if (config.ffn === "gated") linear(`blk.${i}.ffn_gate`, ffnDim, dim);
    linear(`blk.${i}.ffn_up`, ffnDim, dim);
    linear(`blk.${i}.ffn_down`, dim, ffnDim);
  }
  norm("output_norm", dim);
  if (!options.tied) linear("output", vocabSize, dim);
  if (config.rope && options.ropeFactors) {
    vector("rope_freqs.weight", config.rope.dims / 2, 0, 0);
    const factors = tensors.get("rope_freqs.weight")!.f32;
    for (let i = 0; i < factors.length; i++) factors[i] = 1 + 4 * d.real();
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
    if (plain.shape.length === 1) {
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
      ...{ attnNorm: part("attn_norm"), q: part("attn_q"), k: part("attn_k"), v: part("attn_v"), o: part("attn_output") },
      ...{ qNorm: maybe("attn_q_norm"), kNorm: maybe("attn_k_norm") },
      ...{ ffnNorm: part("ffn_norm"), gate: maybe("ffn_gate"), up: part("ffn_up"), down: part("ffn_down") },
    };
  };
  const tokenEmbedding = one("token_embd.weight");
  const weights: Weights = {
    tokenEmbedding,
    ...(tensors.has("position_embd.weight") && { positionEmbedding: one("position_embd.weight") }),
    layers: Array.from({ length: config.nLayers }, (_, i) => layer(i)),
    outputNorm: withBias("output_norm"),
    output: tensors.has("output.weight") ? withBias("output") : { weight: tokenEmbedding },
    ...(tensors.has("rope_freqs.weight") && { ropeFactors: one("rope_freqs.weight").f32 }),
  };
  return createModel(config, weights);
}

/** A small llama with nothing unusual about it. */
export const SMALL: ModelOptions = {
  ...{ dim: 32, nLayers: 2, nHeads: 4, nKvHeads: 2, headDim: 8, ffnDim: 48, vocabSize: 40, contextLength: 128, norm: "rms", normEps: 1e-5 },
  rope: { style: "interleaved", base: 10000, dims: 8, scaling: { type: "none" } },
  ...{ ffn: "gated", activation: "silu", matrices: "f32", group: 32, tied: false, biases: [], normBias: false, qkNorm: false, ropeFactors: false },
};
