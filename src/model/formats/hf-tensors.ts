import type { HfConfig } from "./hf-config.ts";
import { expertPart } from "./hf-experts.ts";

/** Tables that old checkpoints carry along and that follow from the config. */
const COMPUTED = /(?:^|\.)(?:rotary_emb\.inv_freq|attn\.masked_bias|attn\.bias)$/;

/** What becomes of a checkpoint's tensor: GGUF's name, "ignored" where it adds nothing, undefined where it has no place in the model. */
export function ggufTensorName(name: string, { nLayers, tied, architecture }: HfConfig): string | "ignored" | undefined {
  const { layers, layerNames, otherNames, foreign = [] } = architecture;
  if (COMPUTED.test(name) || foreign.some((prefix) => name.startsWith(prefix))) return "ignored";
  const parts = /^(.*)\.(weight|bias)$/.exec(name);
  if (!parts) return undefined;
  const [, stem, kind] = parts;
  if (Object.hasOwn(otherNames, stem)) return tied && otherNames[stem] === "output" && kind === "weight" ? "ignored" : `${otherNames[stem]}.${kind}`;
  const prefix = layers.find((each) => stem.startsWith(each));
  const layer = prefix === undefined ? null : /^(0|[1-9]\d{0,5})\.(.*)$/.exec(stem.slice(prefix.length));
  if (!layer || Number(layer[1]) >= nLayers) return undefined;
  const expert = architecture.experts && expertPart(layer[2]);
  if (expert) return `blk.${layer[1]}.${expert}.${kind}`;
  if (!Object.hasOwn(layerNames, layer[2])) return undefined;
  return `blk.${layer[1]}.${layerNames[layer[2]]}.${kind}`;
}

/**
 * The order of a head's rows in GGUF's `llama`, as indices of rows in the checkpoint; undefined for tensors whose rows stay. Checkpoints
 * rotate row i with row i + headDim / 2, GGUF's `llama` neighbouring rows.
 */
export function headRowOrder(ggufName: string, { architecture, headDim }: HfConfig): Int32Array | undefined {
  if (!architecture.permuted || !/\.attn_[qk]\.(?:weight|bias)$/.test(ggufName)) return undefined;
  return Int32Array.from({ length: headDim }, (_, row) => (row >> 1) + (row & 1) * (headDim / 2));
}

/** Whether a tensor is kept less 1: the weights of norms, where the architecture says so. */
export function isLessOne(ggufName: string, { architecture }: HfConfig): boolean {
  return architecture.normsLessOne === true && ggufName.endsWith("norm.weight");
}

/** Whether a matrix is kept as [inputs, outputs]. */
export function isTransposed(ggufName: string, { architecture }: HfConfig): boolean {
  return architecture.transposed === true && /^blk\.\d+\.(?:attn|ffn)_(?:qkv|output|up|down)\.weight$/.test(ggufName);
}
