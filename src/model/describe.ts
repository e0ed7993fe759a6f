import { type AttentionKind, attentionKinds, kindOfLayer, learnsPositions, type ModelConfig, type RopeConfig } from "./config.ts";
import type { ExpertsConfig } from "./experts.ts";
import type { LatentConfig } from "./latent.ts";
import type { Norm, Weights } from "./weights.ts";

/** What a model's layers are, in words: one line for each part. */
export function describeBlocks(config: ModelConfig, weights: Weights): string[] {
  return [layers(config, weights), attention(config, weights), ...kinds(config), ...positions(config), feedForward(config), ends(config, weights)];
}

const n = (value: number) => value.toLocaleString("en");
const number = (value: number) => String(Number(value.toPrecision(6)));
const list = (parts: readonly (string | false)[]) => parts.filter(Boolean).join("; ");

function layers({ nLayers, norm, normPlacement = "before", normWeights = true, parallelResidual, guessingLayers = 0 }: ModelConfig, { layers: [first] }: Weights): string {
  const order = parallelResidual ? "attention and feed-forward block side by side on the same input" : "attention, then a feed-forward block";
  const place = { before: "before each block", after: "after each block, on what it adds", both: "before and after each block" }[normPlacement];
  const shared = parallelResidual && !first.ffnNorm ? "before both, one for the two" : place;
  return `layers: ${n(nLayers)} of ${order}; ${norm === "rms" ? "RMSNorm" : "LayerNorm"} ${shared}${normWeights ? "" : ", without weights"}${guessingLayers > 0 ? `; ${n(guessingLayers)} more, for guessing further tokens, left out` : ""}`;
}

function attention(config: ModelConfig, { layers: [first] }: Weights): string {
  const { nHeads, nKvHeads, headDim, latent, attentionScale, attentionCap, qkvClamp, alibi } = config;
  const kind = nKvHeads === nHeads ? "multi-head" : nKvHeads === 1 ? "multi-query" : "grouped-query";
  const biased = Object.entries({ q: first.q, k: first.k, v: first.v, output: first.o }).filter(([, { bias }]) => bias).map(([name]) => name);
  return `attention: ${list([
    latent ? latentAttention(config, latent) : `${kind}, ${n(nHeads)} heads of ${n(headDim)} on ${n(nKvHeads)} of keys and values`,
    attentionScale !== undefined && `scores times ${number(attentionScale)}`,
    attentionCap !== undefined && `scores capped at ${number(attentionCap)}`,
    alibi !== undefined && `ALiBi, at most 2^-${number(alibi / 2 ** Math.floor(Math.log2(nHeads)))} for each position back`,
    qkvClamp !== undefined && `q, k and v clamped at ${number(qkvClamp)}`,
    first.qNorm !== undefined && `norms of q and k ${headNorms(first.qNorm, config)}${config.normsRotated ? ", behind the rotation" : ""}`,
    first.sinkLogits !== undefined && "a sink in every head's softmax",
    biased.length > 0 && `biases on ${biased.join(", ")}`,
  ])}`;
}

function latentAttention({ nHeads, headDim }: ModelConfig, { qRank, kvRank, nopeDim, valueDim }: LatentConfig): string {
  const ropeDims = headDim - kvRank;
  return list([
    `multi-head latent, ${n(nHeads)} heads of ${n(nopeDim)} + ${n(ropeDims)} rotating and values of ${n(valueDim)}, on a latent vector of ${n(kvRank)}`,
    `the cache keeps ${n(headDim)} values a token and layer, keys and values in one`,
    qRank === undefined ? "queries projected directly" : `queries through ${n(qRank)} values`,
  ]);
}

function headNorms({ weight }: Norm, { headDim, nHeads }: ModelConfig): string {
  if (weight.cols > headDim) return "over whole rows";
  return weight.rows > 1 && nHeads > 1 ? "by head, each its own" : "by head";
}

/** Where layers differ, which are which. */
function kinds(config: ModelConfig): string[] {
  const [usual, other] = attentionKinds(config);
  if (!other) return usual.window === undefined ? [] : [`window: ${sees(usual)}`];
  const those = Array.from({ length: config.nLayers }, (_, layer) => layer).filter((layer) => kindOfLayer(config, layer) === 1);
  const say = (kind: AttentionKind) => list([sees(kind), other.rope !== usual.rope && (kind.rope ? rope(kind.rope) : "no positions")]);
  return [`layers ${ranges(those)} of 0-${config.nLayers - 1}: ${say(other)}`, `all other layers: ${say(usual)}`];
}

/** "0-4, 6" */
function ranges(numbers: readonly number[]): string {
  const starts = numbers.filter((x) => !numbers.includes(x - 1));
  const ends = numbers.filter((x) => !numbers.includes(x + 1));
  return starts.map((start, i) => (start === ends[i] ? `${start}` : `${start}-${ends[i]}`)).join(", ") || "none";
}

function sees({ window }: AttentionKind): string {
  return window === undefined ? "see everything before" : `see a sliding window of ${n(window)} positions`;
}

function positions(config: ModelConfig): string[] {
  if (learnsPositions(config)) return [`positions: learned, ${n(config.contextLength)} of them, added to the embedding`];
  if (!config.rope) return [`positions: none${config.alibi === undefined ? "" : " but what ALiBi gives"}`];
  return config.alternate && config.alternate.rope !== config.rope ? [] : [`positions: ${rope(config.rope)}`];
}

function rope({ style, base, dims, scaling, magnitude }: RopeConfig): string {
  const stretch = {
    none: () => false as const,
    linear: ({ factor }: { factor: number }) => `linear scaling by ${number(factor)}`,
    llama3: ({ factor }: { factor: number }) => `Llama 3's scaling by ${number(factor)}`,
    yarn: ({ factor }: { factor: number }) => `YaRN by ${number(factor)}`,
    longrope: () => "LongRoPE",
  }[scaling.type](scaling as { factor: number });
  return [
    `rotary over ${n(dims)} values of a head (${style === "halves" ? "halves" : "neighbours"} turn together), base ${number(base)}`,
    stretch,
    magnitude !== undefined && `cosines and sines times ${number(magnitude)}`,
  ].filter(Boolean).join(", ");
}

function feedForward({ ffn, ffnDim, activation, experts }: ModelConfig): string {
  const act = { silu: "SiLU", gelu: "GELU (tanh form)", relu2: "ReLU squared", swiglu_oai: "clamped SwiGLU" }[activation];
  if (experts) return mixture(experts, act);
  return `feed-forward: ${ffn === "gated" ? `gated, ${act}(gate) times up` : `plain, ${act}`}, ${n(ffnDim)} wide`;
}

function mixture({ count, used, ffnDim, sharedFfnDim, sharedGate, denseLayers, gating, normaliseWeights, scale, groups }: ExpertsConfig, act: string): string {
  const weights = { softmax: "softmax over all", sigmoid: "sigmoids", "softmax-after-top-k": "softmax over the chosen" }[gating];
  return `experts: ${list([
    `each token meets ${n(used)} of ${n(count)}, ${n(ffnDim)} wide, gated by ${act}`,
    `weights by ${weights}${normaliseWeights ? ", made to sum to 1" : ""}${scale === 1 ? "" : `, times ${number(scale)}`}`,
    groups !== undefined && `from ${n(groups.used)} of ${n(groups.count)} groups`,
    sharedFfnDim > 0 && `a shared one for all tokens, ${n(sharedFfnDim)} wide${sharedGate ? ", weighed by a sigmoid" : ""}`,
    denseLayers > 0 && `ordinary feed-forward blocks in the first ${n(denseLayers)} layers`,
  ])}`;
}

function ends({ embeddingScale, residualScale, logitScale, logitCap }: ModelConfig, { output, tokenEmbedding, embeddingNorm }: Weights): string {
  return `ends: ${list([
    output.weight === tokenEmbedding ? "the embedding is the output head too" : "an output head of its own",
    embeddingNorm !== undefined && "a norm on the embedding",
    embeddingScale !== undefined && `embedding times ${number(embeddingScale)}`,
    residualScale !== undefined && `blocks add ${number(residualScale)} of their result`,
    logitScale !== undefined && `logits times ${number(logitScale)}`,
    logitCap !== undefined && `logits capped at ${number(logitCap)}`,
  ])}`;
}
