import type { ExpertCase } from "./expert-cases.ts";
import { bool, type ExpertModel, f32, type LatentModel, text, u32 } from "./expert-model.ts";

const HEADS: LatentModel = { kvRank: 24, nopeDim: 10, ropeDim: 6, valueDim: 14, form: "attn_k_b and attn_v_b" };
const experts = (ffnDim: number) => ({ expert_feed_forward_length: u32(ffnDim), expert_shared_count: u32(1), expert_weights_scale: f32(1.5) });
/** DeepSeek-V2: a softmax over all experts. */
const V2: ExpertModel = { architecture: "deepseek2", seed: 201, nLayers: 3, nKvHeads: 4, denseLayers: 1, experts: 6, used: 3, sharedFfnDim: 40, latent: { ...HEADS, qRank: 20 }, keys: experts(40) };
/** DeepSeek-V3: sigmoids, a bias that chooses, weights that sum to the scale, groups. */
const V3: ExpertModel = {
  ...{ ...V2, seed: 202, experts: 8, choiceBias: true },
  keys: { ...experts(40), expert_weights_norm: bool(true), expert_gating_func: u32(2), expert_group_count: u32(4), expert_group_used_count: u32(2), "rope.freq_base": f32(50000) },
};
/** llama.cpp takes models of 27 layers for DeepSeek-V2-Lite, whose queries are projected directly, and no others. */
const LITE: ExpertModel = { ...V2, seed: 203, dim: 32, nLayers: 27, denseLayers: 25, denseFfnDim: 24, ffnDim: 24, sharedFfnDim: 24, latent: HEADS, keys: experts(24) };
const QUANTISED: Partial<ExpertModel> = { dim: 64, ffnDim: 96, sharedFfnDim: 96, denseFfnDim: 64, type: "Q8_0", keys: experts(96) };
const WIDE: LatentModel = { qRank: 32, kvRank: 64, nopeDim: 32, ropeDim: 16, valueDim: 32, form: "attn_k_b and attn_v_b" };
const older = (model: ExpertModel): ExpertModel => ({ ...model, latent: { ...model.latent!, form: "attn_kv_b" } });
const yarn = (logMultiplier?: number) => ({
  ...{ "rope.scaling.type": text("yarn"), "rope.scaling.factor": f32(40), "rope.scaling.original_context_length": u32(64) },
  ...(logMultiplier !== undefined && { "rope.scaling.yarn_log_multiplier": f32(logMultiplier) }),
});

/** Models with latent attention; what llama.cpp makes of them stands in fixtures/latent.golden.json under the same names. */
export const LATENT_CASES: readonly ExpertCase[] = [
  { name: "deepseek2: low-rank queries", model: V2, tokens: 20 },
  { name: "deepseek2: low-rank queries, attn_kv_b", model: older(V2), tokens: 20 },
  { name: "deepseek2: sigmoids, groups", model: V3, tokens: 20 },
  { name: "deepseek2: direct queries", model: LITE, tokens: 7 },
  { name: "deepseek2: direct queries, attn_kv_b", model: older(LITE), tokens: 7 },
  { name: "deepseek2: YaRN for whole keys", model: { ...V2, seed: 204, keys: { ...V2.keys, ...yarn(0.1) } }, tokens: 20 },
  { name: "deepseek2: YaRN for whole keys at 0.707, attn_kv_b", model: older({ ...V2, seed: 205, keys: { ...V2.keys, ...yarn(0.0707) } }), tokens: 20 },
  { name: "deepseek2: YaRN without that", model: { ...V2, seed: 206, keys: { ...V2.keys, ...yarn() } } },
  { name: "deepseek2: Q8_0", model: { ...V2, seed: 212, ...QUANTISED, latent: WIDE } },
  { name: "deepseek2: Q8_0, attn_kv_b", model: older({ ...V2, seed: 208, ...QUANTISED, latent: WIDE }) },
  { name: "deepseek2: Q8_0, direct queries", model: { ...LITE, seed: 209, ...QUANTISED, latent: { ...WIDE, qRank: undefined } }, tokens: 8 },
  { name: "deepseek2: Q4_0, seven heads", model: { ...V2, seed: 210, ...QUANTISED, type: "Q4_0", nHeads: 7, nKvHeads: 7, latent: WIDE } },
];
