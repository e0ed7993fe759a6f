import { ggufBytes, type GgufOutTensor } from "../../src/model/formats/gguf-write.ts";
import type { GgufValue } from "../../src/model/formats/gguf-values.ts";
import { type EncodableType, encodeRows } from "../../src/quant/ggml-encode.ts";
import { f32 as floats, type Tensor, zeros } from "../../src/tensor/tensor.ts";
import { dice } from "./dice.ts";
import { drawnMetadata } from "./drawn-metadata.ts";

export const u32 = (value: number): GgufValue => ({ type: "uint32", value });
export const f32 = (value: number): GgufValue => ({ type: "float32", value });
export const bool = (value: boolean): GgufValue => ({ type: "bool", value });
export const i32s = (value: readonly number[]): GgufValue => ({ type: "array", itemType: "int32", value: Int32Array.from(value) });
export const text = (value: string): GgufValue => ({ type: "string", value });

/** How a file holds its experts: all of them in one tensor, gate and up together, or (before 2024) a tensor each. */
export type ExpertLayout = "stacked" | "gate and up" | "split";

/** Multi-head latent attention in an ExpertModel. */
export interface LatentModel {
  readonly qRank?: number;
  readonly kvRank: number;
  readonly nopeDim: number;
  readonly ropeDim: number;
  readonly valueDim: number;
  /** Keys' and values' matrices in one tensor, as before 2025, or in two: the same numbers in both. */
  readonly form: "attn_kv_b" | "attn_k_b and attn_v_b";
}

/** A small mixture of experts with weights drawn from a seed. */
export interface ExpertModel {
  readonly architecture: string;
  readonly seed: number;
  readonly dim?: number;
  readonly nLayers?: number;
  readonly nHeads?: number;
  readonly nKvHeads?: number;
  readonly headDim?: number;
  readonly vocabSize?: number;
  readonly experts?: number;
  readonly used?: number;
  /** Of one expert. */
  readonly ffnDim?: number;
  /** Of the shared expert; 0 (default): there is none. */
  readonly sharedFfnDim?: number;
  readonly sharedGate?: boolean;
  /** Leading layers without experts, `denseFfnDim` wide. */
  readonly denseLayers?: number;
  readonly denseFfnDim?: number;
  readonly qkNorm?: "shared" | "row";
  readonly fusedQkv?: boolean;
  /** Default `rms`. */
  readonly norm?: "rms" | "layer";
  /** How many of headDim's values rotate; default all. */
  readonly ropeDims?: number;
  /** Layers behind the others, with tensors for guessing further tokens. */
  readonly guessingLayers?: number;
  readonly latent?: LatentModel;
  /** Linears with a bias. */
  readonly biases?: readonly string[];
  readonly choiceBias?: boolean;
  /** Name of the norm before the experts; default `ffn_norm`. */
  readonly ffnNorm?: string;
  readonly sinks?: boolean;
  readonly tied?: boolean;
  /** Experts' gates and ups grow by this, to reach what clamps them. */
  readonly gateGain?: number;
  /** Of the experts' and other matrices whose columns are whole blocks; the others, and routers, are F32. */
  readonly type?: EncodableType;
  /** Experts as MXFP4, which no encoder here writes: random blocks of plausible size. */
  readonly mxfp4?: boolean;
  readonly layout?: ExpertLayout;
  /** Whether the matrices of experts have a factor each, in tensors of their own. */
  readonly scales?: boolean;
  /** Metadata without the architecture's prefix. */
  readonly keys?: Readonly<Record<string, GgufValue>>;
}

/** The model as a GGUF file that llama.cpp loads (unless its layout is `split`), and memwall. The same bytes every time. */
export function expertModel(model: ExpertModel): Uint8Array {
  const { architecture, seed, dim = 48, nLayers = 2, nHeads = 4, nKvHeads = 2, vocabSize = 264, experts = 5, used = 2, ffnDim = 40 } = model;
  const { headDim = dim / nHeads, sharedFfnDim = 0, denseLayers = 0, denseFfnDim = 56, biases = [], type = "F32", layout = "stacked", ffnNorm = "ffn_norm", gateGain = 1, guessingLayers = 0 } = model;
  const d = dice(seed);
  const tensors: GgufOutTensor[] = [];

  const values = (shape: readonly number[], mean: number, spread: number): Tensor => {
    const tensor = zeros("f32", shape);
    for (let i = 0; i < tensor.f32.length; i++) tensor.f32[i] = mean + spread * d.normal();
    return tensor;
  };
  const put = (name: string, tensor: Tensor, as: EncodableType): void => {
    const { shape, cols } = tensor;
    const fits = as === "F32" || as === "F16" || as === "BF16" || cols % (as === "Q6_K" ? 256 : 32) === 0;
    tensors.push({ name, shape, type: fits ? as : "F32", data: encodeRows(fits ? as : "F32", tensor) });
  };
  const draw = (name: string, shape: readonly number[], mean: number, spread: number, as: EncodableType = "F32") => put(name, values(shape, mean, spread), as);
  const blocks = (name: string, shape: readonly number[]): void => {
    const count = shape.reduce((a, b) => a * b, 1) / 32;
    // The 16 values have a root mean square of 2.2 (4.4 doubled); an exponent byte of 127 stands for 1.
    const exponent = 127 + Math.round(Math.log2(1.2 / Math.sqrt(shape[shape.length - 1]) / 2.2));
    const data = new Uint8Array(17 * count);
    for (let i = 0; i < data.length; i++) data[i] = i % 17 === 0 ? exponent + d.between(-1, 1) : d.below(256);
    tensors.push({ name, shape, type: "MXFP4", data });
  };
  const linear = (name: string, shape: readonly number[], gain = 1.2, as = type): void => {
    if (model.mxfp4 && name.endsWith("_exps")) blocks(`${name}.weight`, shape);
    else draw(`${name}.weight`, shape, 0, gain / Math.sqrt(shape[shape.length - 1]), as);
    if (model.scales && /_(exps|shexp)$/.test(name)) draw(`${name}.scale`, [shape.length > 2 ? experts : 1], 1, 0.2);
    if (biases.some((part) => name.endsWith(part))) draw(`${name}.bias`, shape.slice(0, -1), 0, 0.3);
  };
  const norm = (name: string, size: number) => draw(`${name}.weight`, [size], 1, 0.3);
  const latentAttention = (at: (part: string) => string, { qRank, kvRank, nopeDim, ropeDim, valueDim, form }: LatentModel): void => {
    if (qRank === undefined) linear(at("attn_q"), [nHeads * (nopeDim + ropeDim), dim]);
    else {
      linear(at("attn_q_a"), [qRank, dim]);
      norm(at("attn_q_a_norm"), qRank);
      linear(at("attn_q_b"), [nHeads * (nopeDim + ropeDim), qRank]);
    }
    linear(at("attn_kv_a_mqa"), [kvRank + ropeDim, dim]);
    norm(at("attn_kv_a_norm"), kvRank);
    const both = values([nHeads, nopeDim + valueDim, kvRank], 0, 1.2 / Math.sqrt(kvRank));
    if (form === "attn_kv_b") return put(at("attn_kv_b.weight"), floats([nHeads * (nopeDim + valueDim), kvRank], both.f32), type);
    const [keys, ups] = [zeros("f32", [nHeads, kvRank, nopeDim]), zeros("f32", [nHeads, valueDim, kvRank])];
    both.f32.forEach((value, i) => {
      const [head, row, col] = [Math.floor(i / kvRank / (nopeDim + valueDim)), Math.floor(i / kvRank) % (nopeDim + valueDim), i % kvRank];
      if (row < nopeDim) keys.f32[(head * kvRank + col) * nopeDim + row] = value;
      else ups.f32[(head * valueDim + row - nopeDim) * kvRank + col] = value;
    });
    put(at("attn_k_b.weight"), keys, type);
    put(at("attn_v_b.weight"), ups, type);
  };

  draw("token_embd.weight", [vocabSize, dim], 0, 1, type);
  for (let i = 0; i < nLayers + guessingLayers; i++) {
    const at = (part: string) => `blk.${i}.${part}`;
    norm(at("attn_norm"), dim);
    if (i >= nLayers) {
      linear(at("nextn.eh_proj"), [dim, 2 * dim]);
      for (const part of ["nextn.enorm", "nextn.hnorm", architecture === "bailingmoe2" ? "layer_output_norm" : "nextn.shared_head_norm"]) norm(at(part), dim);
    }
    if (model.latent) latentAttention(at, model.latent);
    else if (model.fusedQkv) linear(at("attn_qkv"), [(nHeads + 2 * nKvHeads) * headDim, dim]);
    else {
      linear(at("attn_q"), [nHeads * headDim, dim]);
      linear(at("attn_k"), [nKvHeads * headDim, dim]);
      linear(at("attn_v"), [nKvHeads * headDim, dim]);
    }
    if (model.qkNorm) {
      norm(at("attn_q_norm"), model.qkNorm === "row" ? nHeads * headDim : headDim);
      norm(at("attn_k_norm"), model.qkNorm === "row" ? nKvHeads * headDim : headDim);
    }
    if (model.sinks) draw(at("attn_sinks.weight"), [nHeads], 0, 1);
    linear(at("attn_output"), [dim, nHeads * (model.latent?.valueDim ?? headDim)]);
    norm(at(ffnNorm), dim);
    if (i < denseLayers) {
      linear(at("ffn_gate"), [denseFfnDim, dim]);
      linear(at("ffn_up"), [denseFfnDim, dim]);
      linear(at("ffn_down"), [dim, denseFfnDim]);
      continue;
    }
    // Wide logits, so that experts differ in weight and few choices are close.
    linear(at("ffn_gate_inp"), [experts, dim], 2.5, "F32");
    if (model.choiceBias) draw(at("exp_probs_b.bias"), [experts], 0, 0.3);
    if (layout === "stacked") {
      linear(at("ffn_gate_exps"), [experts, ffnDim, dim], 1.2 * gateGain);
      linear(at("ffn_up_exps"), [experts, ffnDim, dim], 1.2 * gateGain);
      linear(at("ffn_down_exps"), [experts, dim, ffnDim]);
    } else {
      const [gate, up] = [0, 1].map(() => values([experts, ffnDim, dim], 0, 1.2 / Math.sqrt(dim)));
      const down = values([experts, dim, ffnDim], 0, 1.2 / Math.sqrt(ffnDim));
      const both = Array.from({ length: experts }, (_, id) => [...gate.slice(id, id + 1).f32, ...up.slice(id, id + 1).f32]).flat();
      if (layout === "gate and up") {
        put(at("ffn_gate_up_exps.weight"), floats([experts, 2 * ffnDim, dim], both), type);
        if (model.scales) draw(at("ffn_gate_up_exps.scale"), [experts], 1, 0.2);
        put(at("ffn_down_exps.weight"), down, type);
      } else {
        for (let id = 0; id < experts; id++) {
          const one = (tensor: Tensor) => floats(tensor.shape.slice(1), tensor.slice(id, id + 1).f32);
          put(at(`ffn_gate.${id}.weight`), one(gate), type);
          put(at(`ffn_up.${id}.weight`), one(up), type);
          put(at(`ffn_down.${id}.weight`), one(down), type);
        }
      }
    }
    if (sharedFfnDim === 0) continue;
    if (model.sharedGate) draw(at("ffn_gate_inp_shexp.weight"), [dim], 0, 1 / Math.sqrt(dim));
    linear(at("ffn_gate_shexp"), [sharedFfnDim, dim]);
    linear(at("ffn_up_shexp"), [sharedFfnDim, dim]);
    linear(at("ffn_down_shexp"), [dim, sharedFfnDim]);
  }
  norm("output_norm", dim);
  if (!model.tied) linear("output", [vocabSize, dim], 2);

  const keys: Record<string, GgufValue> = {
    ...{ context_length: u32(512), embedding_length: u32(dim), block_count: u32(nLayers + guessingLayers), feed_forward_length: u32(denseLayers > 0 ? denseFfnDim : ffnDim) },
    ...(guessingLayers > 0 && { nextn_predict_layers: u32(guessingLayers) }),
    ...{ "attention.head_count": u32(nHeads), "attention.head_count_kv": u32(nKvHeads), [model.norm === "layer" ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"]: f32(1e-5) },
    ...(headDim !== dim / nHeads && { "attention.key_length": u32(headDim), "attention.value_length": u32(headDim) }),
    ...(model.latent && latentKeys(model.latent)),
    ...{ "rope.dimension_count": u32(model.latent?.ropeDim ?? model.ropeDims ?? headDim), expert_count: u32(experts), expert_used_count: u32(used) },
    ...(denseLayers > 0 && { leading_dense_block_count: u32(denseLayers) }),
    ...model.keys,
  };
  return ggufBytes({ metadata: drawnMetadata(architecture, keys, vocabSize), tensors });
}

function latentKeys({ qRank, kvRank, nopeDim, ropeDim, valueDim, form }: LatentModel): Record<string, GgufValue> {
  const lengths = (suffix: string, key: number, value: number) => ({ [`attention.key_length${suffix}`]: u32(key), [`attention.value_length${suffix}`]: u32(value) });
  const ofHeads = (suffix: string) => lengths(suffix, nopeDim + ropeDim, valueDim);
  return {
    ...(qRank !== undefined && { "attention.q_lora_rank": u32(qRank) }),
    "attention.kv_lora_rank": u32(kvRank),
    ...(form === "attn_kv_b" ? ofHeads("") : { "attention.head_count_kv": u32(1), ...lengths("", kvRank + ropeDim, kvRank), ...ofHeads("_mla") }),
  };
}


/** Token ids for a model, drawn from its seed. */
export function expertTokens({ seed, vocabSize = 264 }: ExpertModel, count: number): number[] {
  const d = dice(seed + 7919);
  return [1, ...Array.from({ length: count - 1 }, () => d.between(3, vocabSize - 1))];
}
