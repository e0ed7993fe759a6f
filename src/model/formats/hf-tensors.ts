import type { HfConfig } from "./hf-config.ts";
import { expertPart } from "./hf-experts.ts";

/** Tables that old checkpoints carry along and that follow from the config. */
const COMPUTED = /(?:^|\.)(?:rotary(?:_emb)?\.inv_freq|(?:attn|attention)\.(?:masked_)?bias)$/;

/** What becomes of a checkpoint's tensor: GGUF's name, "ignored" where it adds nothing, undefined where it has no place in the model. */
export function ggufTensorName(name: string, { nLayers, nExtraLayers, tied, architecture }: HfConfig): string | "ignored" | undefined {
  const { layers, layerNames, otherNames, bareNames = {}, foreign = [] } = architecture;
  if (COMPUTED.test(name) || foreign.some((prefix) => name.startsWith(prefix))) return "ignored";
  const [, stem, kind] = /^(.*)\.(weight|bias)$/.exec(name) ?? [];
  if (stem !== undefined && Object.hasOwn(otherNames, stem)) return tied && otherNames[stem] === "output" && kind === "weight" ? "ignored" : `${otherNames[stem]}.${kind}`;
  const prefix = layers.find((each) => name.startsWith(each));
  const [, layer, part] = (prefix !== undefined && /^(0|[1-9]\d{0,5})\.(.*)$/.exec(name.slice(prefix.length))) || [];
  if (layer === undefined || Number(layer) >= nLayers + nExtraLayers) return undefined;
  if (Number(layer) >= nLayers) return "ignored";
  if (Object.hasOwn(bareNames, part)) return `blk.${layer}.${bareNames[part]}`;
  if (kind === undefined) return undefined;
  const own = part.slice(0, -kind.length - 1);
  const found = (architecture.experts && expertPart(own)) ?? (Object.hasOwn(layerNames, own) ? layerNames[own] : undefined);
  return found && `blk.${layer}.${found}.${kind}`;
}

/** Whether a tensor is kept less 1: the weights of norms, where the architecture says so. */
export function isLessOne(ggufName: string, { architecture }: HfConfig): boolean {
  return architecture.normsLessOne === true && ggufName.endsWith("norm.weight");
}
