import type { HfConfig } from "./hf-config.ts";

/** A layer's tensors: the name in the checkpoint, after `model.layers.N.`, and GGUF's. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

const OTHER_NAMES: Readonly<Record<string, string>> = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
};

/** Tables that old checkpoints carry along and that follow from the config. */
const COMPUTED = /(?:^|\.)(?:rotary_emb\.inv_freq|attn\.masked_bias|attn\.bias)$/;

/** What becomes of a checkpoint's tensor: GGUF's name, "ignored" where it adds nothing, undefined where it has no place in the model. */
export function ggufTensorName(name: string, { nLayers, tied, architecture }: HfConfig): string | "ignored" | undefined {
  if (COMPUTED.test(name) || (tied && name === "lm_head.weight")) return "ignored";
  const parts = /^(.*)\.(weight|bias)$/.exec(name);
  if (!parts) return undefined;
  const [, stem, kind] = parts;
  if (Object.hasOwn(OTHER_NAMES, stem)) return `${OTHER_NAMES[stem]}.${kind}`;
  const layer = /^model\.layers\.(0|[1-9]\d{0,5})\.(.*)$/.exec(stem);
  if (!layer || !Object.hasOwn(LAYER_NAMES, layer[2]) || Number(layer[1]) >= nLayers) return undefined;
  if (layer[2].endsWith("_norm") && !architecture.qkNorm && layer[2].startsWith("self_attn")) return undefined;
  return `blk.${layer[1]}.${LAYER_NAMES[layer[2]]}.${kind}`;
}

/**
 * The order of a head's rows in GGUF's `llama`, as indices of rows in the checkpoint; undefined for tensors whose rows stay. Checkpoints
 * rotate row i with row i + headDim / 2, GGUF's `llama` neighbouring rows.
 */
export function headRowOrder(ggufName: string, { architecture, headDim }: HfConfig): Int32Array | undefined {
  if (!architecture.permuted || !/\.attn_[qk]\.(?:weight|bias)$/.test(ggufName)) return undefined;
  return Int32Array.from({ length: headDim }, (_, row) => (row >> 1) + (row & 1) * (headDim / 2));
}
