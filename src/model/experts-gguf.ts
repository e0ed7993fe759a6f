import type { ExpertsConfig } from "./experts.ts";
import { FormatError } from "./formats/errors.ts";
import { getBool, getNumber, type HasMetadata } from "./formats/gguf-values.ts";
import type { TensorInfo } from "./formats/source.ts";

/** How an architecture's mixtures choose. */
export interface ExpertDefaults {
  readonly normaliseWeights: boolean;
  /** Default `softmax`. */
  readonly gating?: ExpertsConfig["gating"];
  /** Whether a sigmoid of the token weighs the shared expert. */
  readonly sharedGate?: boolean;
  /** Whether a file says otherwise, with its keys `expert_gating_func`, `expert_weights_norm`, `expert_weights_scale` and `expert_group_count`. */
  readonly fromKeys?: boolean;
  /** Whether `interleave_moe_layer_step` is read, of which memwall has only 1. */
  readonly step?: boolean;
}

/** llama.cpp's numbers of `expert_gating_func`; 0 leaves it to the architecture. */
const GATINGS = [undefined, "softmax", "sigmoid", "softmax-after-top-k"] as const;

/**
 * The mixture of experts that a GGUF file's metadata and tensors describe; undefined where it has none.
 * @throws FormatError for a gating that is not known, or where the architecture has no mixtures and so leaves open how they choose.
 */
export function expertsFromGguf(file: HasMetadata & { readonly tensors: ReadonlyMap<string, TensorInfo> }, architecture: string, defaults: ExpertDefaults | undefined): ExpertsConfig | undefined {
  const number = (key: string, fallback?: number) => getNumber(file, `${architecture}.${key}`, fallback);
  const count = number("expert_count", 0);
  if (count === 0) return undefined;
  if (!defaults) throw new FormatError(file.name, `key "${architecture}.expert_count": expected no mixture of experts in this architecture, found ${count}`);
  const step = defaults.step ? number("interleave_moe_layer_step", 1) : 1;
  if (step !== 1) throw new FormatError(file.name, `key "${architecture}.interleave_moe_layer_step": expected 1, experts in every layer, found ${step}`);
  return {
    count,
    used: number("expert_used_count"),
    ffnDim: number("expert_feed_forward_length", inputsOf(file.tensors, /^blk\.\d+\.ffn_down(_exps|\.\d+)\.weight$/) || undefined),
    sharedFfnDim: number("expert_shared_feed_forward_length", inputsOf(file.tensors, /^blk\.\d+\.ffn_down_shexp\.weight$/)),
    sharedGate: defaults.sharedGate ?? false,
    denseLayers: number("leading_dense_block_count", 0),
    ...{ gating: defaults.gating ?? "softmax", normaliseWeights: defaults.normaliseWeights, scale: 1 },
    ...(defaults.fromKeys && routingKeys(file, architecture, defaults)),
  };
}

function routingKeys(file: HasMetadata, architecture: string, defaults: ExpertDefaults): Partial<ExpertsConfig> {
  const number = (key: string, fallback: number) => getNumber(file, `${architecture}.${key}`, fallback);
  const gating = number("expert_gating_func", 0);
  if (!(gating in GATINGS)) throw new FormatError(file.name, `key "${architecture}.expert_gating_func": expected 1 (softmax), 2 (sigmoid) or 3 (softmax of the chosen), found ${gating}`);
  const groups = { count: number("expert_group_count", 1), used: number("expert_group_used_count", 1) };
  return {
    ...(gating > 0 && { gating: GATINGS[gating] }),
    normaliseWeights: getBool(file, `${architecture}.expert_weights_norm`, defaults.normaliseWeights),
    scale: number("expert_weights_scale", 0) || 1,
    ...(groups.count > 1 && { groups }),
  };
}

/** Columns of the first tensor of that name, 0 without one. */
function inputsOf(tensors: ReadonlyMap<string, TensorInfo>, pattern: RegExp): number {
  for (const [name, { shape }] of tensors) if (pattern.test(name)) return shape[shape.length - 1];
  return 0;
}
