import { quantiseRows } from "../quant/groups.ts";
import type { Kernels } from "../tensor/kernels.ts";
import type { Linear } from "../tensor/ops.ts";
import { gaussian, random } from "../tensor/random.ts";
import { zeros } from "../tensor/tensor.ts";
import { ARCHITECTURES } from "./architecture-table.ts";
import { learnsPositions } from "./config.ts";
import { expertWeights } from "./experts.ts";
import { attentionParts, latentWeights } from "./latent.ts";
import type { NamedShape } from "./shapes.ts";
import type { LayerWeights, Norm, Weights } from "./weights.ts";

/**
 * Weights drawn from a seeded normal distribution, scaled so that activations keep their size through the layers. They say nothing,
 * but they move the same bytes as real ones. With cost-only kernels nothing is drawn at all.
 * @param dtype Format of the matrices; norms and biases are f32.
 */
export function randomWeights({ config, tied }: NamedShape, kernels: Kernels, dtype: "f32" | "int8" | "int4", seed = 1): Weights {
  const { dim, nHeads, nKvHeads, headDim, ffnDim, vocabSize } = config;
  const draw = kernels.name === "shapes" ? undefined : gaussian(random(seed));
  const { biases, qkNorm, sinks } = ARCHITECTURES[config.architecture];
  const [biased, qkvBiased] = [biases === "all", biases !== undefined];
  const { normPlacement = "before", parallelResidual, experts, latent } = config;
  const { q, k, v, o } = attentionParts(config);
  const [before, after] = [normPlacement !== "after", normPlacement !== "before"];

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
    if (draw) tensor.f32.fill(value);
    return tensor;
  };
  const linear = (name: string, rows: number, cols: number, bias: boolean): Linear => ({
    weight: matrix(`${name}.weight`, rows, cols),
    ...(bias && { bias: vector(`${name}.bias`, rows, 0.01) }),
  });
  const norm = (name: string, size = dim): Norm => ({
    weight: vector(`${name}.weight`, size, 1),
    ...(config.norm === "layer" && { bias: vector(`${name}.bias`, size, 0) }),
  });
  const headNorm = (name: string, heads: number) => qkNorm && norm(name, qkNorm === "row" ? heads * headDim : headDim);

  const tokenEmbedding = matrix("token_embd.weight", vocabSize, dim);
  const layers: LayerWeights[] = [];
  for (let i = 0; i < config.nLayers; i++) {
    const at = (part: string) => `blk.${i}.${part}`;
    layers.push({
      ...(before && { attnNorm: norm(at("attn_norm")) }),
      q: linear(at(q[0]), ...q[1], qkvBiased),
      k: linear(at(k[0]), ...k[1], qkvBiased),
      v: linear(at(v[0]), ...v[1], qkvBiased),
      ...(latent && { latent: latentWeights(config, latent, (part, [rows, cols]) => linear(at(part), rows, cols, false), (part, size) => norm(at(part), size)) }),
      qNorm: headNorm(at("attn_q_norm"), nHeads),
      kNorm: headNorm(at("attn_k_norm"), nKvHeads),
      o: linear(at(o[0]), ...o[1], biased),
      ...(after && { attnPostNorm: norm(at("post_attention_norm")) }),
      ...(before && !parallelResidual && { ffnNorm: norm(at("ffn_norm")) }),
      ...(sinks && { sinkLogits: vector(at("attn_sinks.weight"), nHeads, 0) }),
      ...(experts && i >= experts.denseLayers
        ? { experts: expertWeights(experts, dim, (part, [rows, cols]) => linear(at(part), rows, cols, biased)) }
        : {
            ...(config.ffn === "gated" && { gate: linear(at("ffn_gate"), ffnDim, dim, biased) }),
            up: linear(at("ffn_up"), ffnDim, dim, biased),
            down: linear(at("ffn_down"), dim, ffnDim, biased),
          }),
      ...(after && { ffnPostNorm: norm(at("post_ffw_norm")) }),
    });
  }
  return {
    tokenEmbedding,
    ...(learnsPositions(config) && { positionEmbedding: matrix("position_embd.weight", config.contextLength, dim) }),
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
