import type { Kernels } from "../tensor/kernels.ts";
import type { Linear } from "../tensor/ops.ts";
import { learnsPositions, type ModelConfig } from "./config.ts";
import { unfused } from "./fused.ts";
import { unstacked } from "./unstacked.ts";
import { expertWeights } from "./experts.ts";
import { attentionParts, latentWeights } from "./latent.ts";
import { unlatent } from "./latent-gguf.ts";
import { type LoadOptions, type TensorReader, tensorReader, type WeightFile } from "./tensor-reader.ts";
import type { LayerWeights, Norm, Weights } from "./weights.ts";

export { chooseFolds, columnImportance, type LoadOptions, matrixReader, rowReader, type WeightFile } from "./tensor-reader.ts";

/**
 * Reads all weights of a decoder into the kernels' memory, a chunk of rows at a time. What each matrix becomes is `matrixFormat`'s to say;
 * vectors become f32. For cost-only kernels no weight is read at all.
 * @throws FormatError naming the tensor that is missing, misshapen, unsupported or not finite; RangeError for options that do not fit.
 */
export function loadWeights(file: WeightFile, config: ModelConfig, kernels: Kernels, options: LoadOptions = {}): Weights {
  const { source, tensors } = unlatent(plainFile(file, config), config);
  const reader = tensorReader({ source, tensors: unstacked(source.name, tensors, config.experts) }, config, kernels, options);
  const { matrix, vector } = reader;
  const { dim, vocabSize, nLayers, contextLength } = config;
  const parts = partReader(reader, config, kernels);
  const { has } = parts;
  const tokenEmbedding = matrix("token_embd.weight", [vocabSize, dim]);
  const [factors, short, long] = ["rope_freqs", "rope_factors_short", "rope_factors_long"].map((name) => {
    return config.rope && has(name) ? vector(`${name}.weight`, [config.rope.dims / 2]).f32 : undefined;
  });
  const weights: Weights = {
    tokenEmbedding,
    ...(learnsPositions(config) && { positionEmbedding: matrix("position_embd.weight", [contextLength, dim]) }),
    ...(has("token_embd_norm") && { embeddingNorm: parts.norm("token_embd_norm") }),
    layers: Array.from({ length: nLayers }, (_, i) => layerWeights(config, parts, i)),
    outputNorm: parts.norm("output_norm"),
    output: has("output") ? parts.linear("output", [vocabSize, dim]) : { weight: tokenEmbedding },
    ...(factors && { ropeFactors: factors }),
    ...(short && long && { longRopeFactors: { short, long } }),
  };
  reader.finish();
  return weights;
}

/** A file's tensors as the decoder's linears want them: see `unfused`. */
export function plainFile(file: WeightFile, config: ModelConfig): WeightFile {
  return { source: file.source, tensors: unfused(file.source.name, file.tensors, config) };
}

/** What layers are made of, each part with its bias and times its scale where the file has them. */
type PartReader = ReturnType<typeof partReader>;

function partReader({ shapeOf, matrix, vector }: TensorReader, { dim, headDim, normWeights = true }: ModelConfig, kernels: Kernels) {
  const has = (name: string) => shapeOf(`${name}.weight`) !== undefined;
  const bias = (name: string, shape: readonly number[]) => (shapeOf(`${name}.bias`) ? { bias: vector(`${name}.bias`, shape) } : {});
  const linear = (name: string, shape: readonly [number, number]): Linear => ({ weight: matrix(`${name}.weight`, shape, `${name}.scale`), ...bias(name, [shape[0]]) });
  const norm = (name: string, shape: readonly number[] = [dim]): Norm => {
    if (normWeights) return { weight: vector(`${name}.weight`, shape), ...bias(name, shape) };
    const weight = kernels.alloc("f32", shape);
    weight.name = `${name}.weight`;
    weight.f32.fill(1);
    return { weight };
  };
  /** A norm of q or k, if the file has one: for all heads, for each, or over the whole row. */
  const headNorm = (name: string, heads: number): Norm | undefined => {
    if (!has(name)) return undefined;
    const found = String(shapeOf(`${name}.weight`));
    return norm(name, [[heads, headDim], [heads * headDim]].find((shape) => String(shape) === found) ?? [headDim]);
  };
  const optional = (name: string, shape: readonly number[]) => (shapeOf(name) ? vector(name, shape) : undefined);
  return { has, linear, optional, norm, headNorm };
}

function layerWeights(config: ModelConfig, { has, linear, optional, norm, headNorm }: PartReader, layer: number): LayerWeights {
  const at = (part: string) => `blk.${layer}.${part}`;
  const { dim, nHeads, nKvHeads, ffnDim, experts, latent, normPlacement = "before", parallelResidual } = config;
  const { q, k, v, o } = attentionParts(config);
  const [before, after] = [normPlacement !== "after", normPlacement !== "before"];
  // Falcon 40B calls the norm before attention attn_norm_2, and the one before the feed-forward block attn_norm.
  const [attnNorm, usual] = has(at("attn_norm_2")) ? ["attn_norm_2", "attn_norm"] : ["attn_norm", "ffn_norm"];
  // gpt-oss, GLM 4.5 and Seed call it by what it stands behind, and so does DBRX.
  const ffnNorm = (after ? [] : ["post_attention_norm", "attn_output_norm"]).find((name) => has(at(name))) ?? usual;
  return {
    ...(before && { attnNorm: norm(at(attnNorm)) }),
    q: linear(at(q[0]), q[1]),
    k: linear(at(k[0]), k[1]),
    v: linear(at(v[0]), v[1]),
    ...(latent && { latent: latentWeights(config, latent, (part, shape) => linear(at(part), shape), (part, size) => norm(at(part), [size])) }),
    qNorm: headNorm(at("attn_q_norm"), nHeads),
    kNorm: headNorm(at("attn_k_norm"), nKvHeads),
    sinkLogits: optional(at("attn_sinks.weight"), [nHeads]),
    o: linear(at(o[0]), o[1]),
    ...(after && { attnPostNorm: norm(at("post_attention_norm")) }),
    ...(before && !(parallelResidual && !has(at(ffnNorm))) && { ffnNorm: norm(at(ffnNorm)) }),
    ...(experts && layer >= experts.denseLayers
      ? { experts: expertWeights(experts, dim, (part, shape) => linear(at(part), shape), optional(at("exp_probs_b.bias"), [experts.count])) }
      : {
          ...(config.ffn === "gated" && { gate: linear(at("ffn_gate"), [ffnDim, dim]) }),
          up: linear(at("ffn_up"), [ffnDim, dim]),
          down: linear(at("ffn_down"), [dim, ffnDim]),
        }),
    ...(after && { ffnPostNorm: norm(at("post_ffw_norm")) }),
  };
}
