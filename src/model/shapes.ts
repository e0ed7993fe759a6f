import { zeros } from "../tensor/tensor.ts";
import type { Kernels } from "../tensor/kernels.ts";
import type { Linear } from "../tensor/ops.ts";
import { gaussian, random } from "../tensor/random.ts";
import { quantiseRows } from "../quant/groups.ts";
import { type ModelConfig, type RopeScaling, validateConfig } from "./config.ts";
import type { LayerWeights, Norm, Weights } from "./weights.ts";

/** A published model's dimensions, without its weights. */
export interface NamedShape {
  readonly config: ModelConfig;
  readonly tied: boolean;
}

type LlamaDims = Pick<ModelConfig, "dim" | "nLayers" | "nHeads" | "nKvHeads" | "ffnDim" | "vocabSize" | "contextLength"> & {
  architecture?: string;
  ropeBase?: number;
  ropeScaling?: RopeScaling;
  normEps?: number;
  tied: boolean;
};

function llama(name: string, { architecture = "llama", ropeBase = 10000, ropeScaling, normEps = 1e-5, tied, ...dims }: LlamaDims): NamedShape {
  const headDim = dims.dim / dims.nHeads;
  const rope = { style: architecture === "llama" ? "interleaved" : "halves", base: ropeBase, dims: headDim, scaling: ropeScaling ?? { type: "none" } } as const;
  return { tied, config: validateConfig({ ...dims, architecture, name, headDim, norm: "rms", normEps, rope, ffn: "gated", activation: "silu" }) };
}

/** Radford et al. 2019, Brown et al. 2020: one vocabulary, feed-forward blocks of four times the width. */
function gpt(name: string, dims: Pick<ModelConfig, "dim" | "nLayers" | "nHeads" | "contextLength">): NamedShape {
  const { dim, nHeads } = dims;
  const rest = { architecture: "gpt2", norm: "layer", normEps: 1e-5, rope: undefined, ffn: "plain", activation: "gelu" } as const;
  return { tied: true, config: validateConfig({ ...dims, ...rest, name, nKvHeads: nHeads, headDim: dim / nHeads, ffnDim: 4 * dim, vocabSize: 50257 }) };
}

const LLAMA_31 = { type: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 8192 } as const;

/** Dimensions as in each model's published config. */
export const SHAPES: Readonly<Record<string, NamedShape>> = {
  "stories260k": llama("stories260k", { dim: 64, nLayers: 5, nHeads: 8, nKvHeads: 4, ffnDim: 172, vocabSize: 512, contextLength: 512, tied: true }),
  "stories15m": llama("stories15m", { dim: 288, nLayers: 6, nHeads: 6, nKvHeads: 6, ffnDim: 768, vocabSize: 32000, contextLength: 256, tied: true }),
  "smollm-135m": llama("smollm-135m", { dim: 576, nLayers: 30, nHeads: 9, nKvHeads: 3, ffnDim: 1536, vocabSize: 49152, contextLength: 2048, tied: true }),
  "qwen2.5-0.5b": llama("qwen2.5-0.5b", {
    ...{ architecture: "qwen2", ropeBase: 1e6, normEps: 1e-6 },
    ...{ dim: 896, nLayers: 24, nHeads: 14, nKvHeads: 2, ffnDim: 4864, vocabSize: 151936, contextLength: 32768, tied: true },
  }),
  "tinyllama-1.1b": llama("tinyllama-1.1b", { dim: 2048, nLayers: 22, nHeads: 32, nKvHeads: 4, ffnDim: 5632, vocabSize: 32000, contextLength: 2048, tied: false }),
  "llama-2-7b": llama("llama-2-7b", { dim: 4096, nLayers: 32, nHeads: 32, nKvHeads: 32, ffnDim: 11008, vocabSize: 32000, contextLength: 4096, tied: false }),
  "llama-2-13b": llama("llama-2-13b", { dim: 5120, nLayers: 40, nHeads: 40, nKvHeads: 40, ffnDim: 13824, vocabSize: 32000, contextLength: 4096, tied: false }),
  "llama-2-70b": llama("llama-2-70b", { dim: 8192, nLayers: 80, nHeads: 64, nKvHeads: 8, ffnDim: 28672, vocabSize: 32000, contextLength: 4096, tied: false }),
  "mistral-7b": llama("mistral-7b", {
    ...{ ropeBase: 1e6, dim: 4096, nLayers: 32, nHeads: 32, nKvHeads: 8, ffnDim: 14336, vocabSize: 32000, contextLength: 32768, tied: false },
  }),
  "llama-3-8b": llama("llama-3-8b", {
    ...{ ropeBase: 500000, dim: 4096, nLayers: 32, nHeads: 32, nKvHeads: 8, ffnDim: 14336, vocabSize: 128256, contextLength: 8192, tied: false },
  }),
  "llama-3.1-70b": llama("llama-3.1-70b", {
    ...{ ropeBase: 500000, ropeScaling: LLAMA_31 },
    ...{ dim: 8192, nLayers: 80, nHeads: 64, nKvHeads: 8, ffnDim: 28672, vocabSize: 128256, contextLength: 131072, tied: false },
  }),
  "llama-3.1-405b": llama("llama-3.1-405b", {
    ...{ ropeBase: 500000, ropeScaling: LLAMA_31 },
    ...{ dim: 16384, nLayers: 126, nHeads: 128, nKvHeads: 8, ffnDim: 53248, vocabSize: 128256, contextLength: 131072, tied: false },
  }),
  "gpt2": gpt("gpt2", { dim: 768, nLayers: 12, nHeads: 12, contextLength: 1024 }),
  "gpt2-medium": gpt("gpt2-medium", { dim: 1024, nLayers: 24, nHeads: 16, contextLength: 1024 }),
  "gpt2-large": gpt("gpt2-large", { dim: 1280, nLayers: 36, nHeads: 20, contextLength: 1024 }),
  "gpt2-xl": gpt("gpt2-xl", { dim: 1600, nLayers: 48, nHeads: 25, contextLength: 1024 }),
  "gpt-3-6.7b": gpt("gpt-3-6.7b", { dim: 4096, nLayers: 32, nHeads: 32, contextLength: 2048 }),
  "gpt-3-13b": gpt("gpt-3-13b", { dim: 5120, nLayers: 40, nHeads: 40, contextLength: 2048 }),
  "gpt-3-175b": gpt("gpt-3-175b", { dim: 12288, nLayers: 96, nHeads: 96, contextLength: 2048 }),
};

/**
 * Weights drawn from a seeded normal distribution, scaled so that activations keep their size through the layers. They say nothing,
 * but they move the same bytes as real ones. With cost-only kernels nothing is drawn at all.
 * @param dtype Format of the matrices; norms and biases are f32.
 */
export function randomWeights({ config, tied }: NamedShape, kernels: Kernels, dtype: "f32" | "int8" | "int4", seed = 1): Weights {
  const { dim, nHeads, nKvHeads, headDim, ffnDim, vocabSize } = config;
  const draw = kernels.name === "shapes" ? undefined : gaussian(random(seed));
  const biased = config.architecture === "gpt2";
  const qkvBiased = biased || config.architecture === "qwen2";

  const matrix = (name: string, rows: number, cols: number) => {
    const kept = dtype === "int4" && cols % 32 !== 0 ? "int8" : dtype;
    const packer = kernels.packer({ name, dtype: kept, shape: [rows, cols], group: 32 });
    const step = Math.max(8, Math.floor((1 << 18) / cols));
    // One block of noise, repeated: drawing every weight of a large model would take minutes and change no measurement.
    const noise = draw && noiseBlock(draw, Math.min(step, rows), cols, kept);
    for (let row = 0; noise && row < rows; row += step) packer.write(noise.slice(0, Math.min(step, rows - row)));
    return packer.finish();
  };
  const vector = (name: string, size: number, value: number) => {
    const tensor = kernels.alloc("f32", [size]);
    tensor.name = name;
    tensor.f32.fill(value);
    return tensor;
  };
  const linear = (name: string, rows: number, cols: number, bias: boolean): Linear => ({
    weight: matrix(`${name}.weight`, rows, cols),
    ...(bias && { bias: vector(`${name}.bias`, rows, 0.01) }),
  });
  const norm = (name: string): Norm => ({
    weight: vector(`${name}.weight`, dim, 1),
    ...(config.norm === "layer" && { bias: vector(`${name}.bias`, dim, 0) }),
  });

  const tokenEmbedding = matrix("token_embd.weight", vocabSize, dim);
  const layers: LayerWeights[] = [];
  for (let i = 0; i < config.nLayers; i++) {
    const at = (part: string) => `blk.${i}.${part}`;
    layers.push({
      attnNorm: norm(at("attn_norm")),
      q: linear(at("attn_q"), nHeads * headDim, dim, qkvBiased),
      k: linear(at("attn_k"), nKvHeads * headDim, dim, qkvBiased),
      v: linear(at("attn_v"), nKvHeads * headDim, dim, qkvBiased),
      o: linear(at("attn_output"), dim, nHeads * headDim, biased),
      ffnNorm: norm(at("ffn_norm")),
      ...(config.ffn === "gated" && { gate: linear(at("ffn_gate"), ffnDim, dim, biased) }),
      up: linear(at("ffn_up"), ffnDim, dim, biased),
      down: linear(at("ffn_down"), dim, ffnDim, biased),
    });
  }
  return {
    tokenEmbedding,
    ...(!config.rope && { positionEmbedding: matrix("position_embd.weight", config.contextLength, dim) }),
    layers,
    outputNorm: norm("output_norm"),
    output: tied ? { weight: tokenEmbedding } : linear("output", vocabSize, dim, false),
  };
}

function noiseBlock(draw: () => number, rows: number, cols: number, dtype: "f32" | "int8" | "int4") {
  const floats = zeros("f32", [rows, cols]);
  const scale = 1 / Math.sqrt(cols);
  for (let i = 0; i < floats.f32.length; i++) floats.f32[i] = draw() * scale;
  return dtype === "f32" ? floats : quantiseRows(floats, dtype);
}
