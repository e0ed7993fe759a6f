import type { OpRecord, Traffic } from "../../tensor/ledger.ts";
import { expertLinears } from "../../model/experts.ts";
import { type LayerWeights, layerNorms, type Norm } from "../../model/weights.ts";
import type { Linear } from "../../tensor/ops.ts";
import type { Hardware } from "./hardware.ts";
import { type OpWork, type RoofOptions, stepTime } from "./roof.ts";
import type { Traced } from "./trace.ts";

/** A group of equal devices and what joins them. */
export interface Cluster {
  readonly hardware: Hardware;
  /** 10^9 bytes per second out of a device, and as many into it. */
  readonly linkGBs: number;
  /** Microseconds to start a transfer, and for each step of a ring. */
  readonly startUs: number;
  readonly hopUs: number;
}

/** NCCL's own tuning model for rings over NVLink in its low-latency protocol: baseLat and hwLat in src/graph/tuning.cc at commit 01afd20 (later versions have other figures). */
export const NCCL_LATENCY = { startUs: 3.6, hopUs: 0.47 } as const;

/** `tp` devices share every layer, `pp` stages hold a part of the layers each. */
export interface Split {
  readonly tp: number;
  readonly pp: number;
}

/** Seconds that one stage's devices spend on one step. */
export interface StageTime {
  readonly memory: number;
  readonly compute: number;
  readonly launch: number;
  /** All-reduces and all-gathers among the stage's devices, and sending on to the next stage. */
  readonly link: number;
  readonly total: number;
}

/** Linears whose rows are divided: each device has a part of the outputs. All other linears have their columns divided. */
const ROW_SPLIT = new Set(["attn_q", "attn_q_b", "attn_k", "attn_v", "ffn_gate", "ffn_up", "ffn_exps_gate", "ffn_exps_up", "ffn_shexp_gate", "ffn_shexp_up", "output"]);
/** Linears that every device does by itself: dividing a router would cost more than it saves, and all heads read the same latent vectors. */
const WHOLE = new Set(["ffn_gate_inp", "ffn_gate_inp_shexp", "attn_q_a", "attn_k_rope", "attn_kv_a"]);
/** Ops that divide by heads or by columns of the feed-forward block. */
const DIVIDED = new Set(["attention", "q_nope", "q_rope", "q_latent", "attention_latent", "attention_values", "attention_scores", "softmax", "attention_mix", "kv_write", "rope_q", "rope_k", "attn_q_norm", "attn_k_norm", "ffn_act", "ffn_exps_act", "ffn_shexp_act"]);
/** Linears that each head has of its own: inputs and outputs divide with them. */
const BY_HEAD = new Set(["attn_k_b", "attn_v_b"]);
const OF_KV_HEADS = new Set(["attn_k", "attn_v", "kv_write", "rope_k", "attn_k_norm"]);

/**
 * A recorded op's part on one of `tp` devices (Shoeybi et al. 2019, Megatron-LM): linears and attention divide, norms, residuals and
 * look-ups are done by every device. With more devices than KV heads, a head's keys and values are kept by several devices.
 */
export function partOf(op: OpWork, tp: number, nKvHeads: number): OpWork {
  const kvShare = 1 / Math.min(tp, nKvHeads);
  const share = OF_KV_HEADS.has(op.name) ? kvShare : 1 / tp;
  const linear = (op.kind === "gemv" || op.kind === "gemm") && !WHOLE.has(op.name);
  if (!linear && !DIVIDED.has(op.name)) return op;
  const wholeInput = linear && ROW_SPLIT.has(op.name);
  const wholeOutput = linear && !wholeInput && !BY_HEAD.has(op.name);
  const part = (traffic: Traffic, whole: boolean): Traffic => ({
    weights: traffic.weights * share,
    kv: traffic.kv * kvShare,
    activations: traffic.activations * (whole ? 1 : share),
  });
  return { ...op, flops: op.flops * share, read: part(op.read, wholeInput), written: part(op.written, wholeOutput) };
}

/** Ring all-reduce of a tensor over n devices: 2 (n - 1) / n of its bytes leave each device, in 2 (n - 1) steps. Seconds. */
export function allReduce(bytes: number, n: number, { linkGBs, startUs, hopUs }: Cluster): number {
  return n === 1 ? 0 : (2 * (n - 1) * bytes) / n / (linkGBs * 1e9) + (startUs + 2 * (n - 1) * hopUs) * 1e-6;
}

/** Ring all-gather of a tensor whose parts lie on n devices. Seconds. */
export function allGather(bytes: number, n: number, { linkGBs, startUs, hopUs }: Cluster): number {
  return n === 1 ? 0 : ((n - 1) * bytes) / n / (linkGBs * 1e9) + (startUs + (n - 1) * hopUs) * 1e-6;
}

/** From one device to another. Seconds. */
export function send(bytes: number, { linkGBs, startUs, hopUs }: Cluster): number {
  return bytes / (linkGBs * 1e9) + (startUs + hopUs) * 1e-6;
}

/** Layers [first, end) of each stage: as even as can be, what remains in the first stages, for the last one has the output head. */
export function stagesOf(nLayers: number, pp: number): { readonly first: number; readonly end: number }[] {
  const [least, more] = [Math.floor(nLayers / pp), nLayers % pp];
  let first = 0;
  return Array.from({ length: pp }, (_, stage) => {
    const end = first + least + (stage < more ? 1 : 0);
    const range = { first, end };
    first = end;
    return range;
  });
}

/** What a recorded step takes in each stage. */
export function stageTimes(records: readonly OpRecord[], { model }: Traced, { tp, pp }: Split, cluster: Cluster, options: RoofOptions = {}): StageTime[] {
  const { nLayers, nKvHeads } = model.config;
  const firstLayer = records.findIndex(({ layer }) => layer >= 0);
  return stagesOf(nLayers, pp).map(({ first, end }, stage) => {
    const own = records.filter(({ layer }, i) => (layer >= 0 ? layer >= first && layer < end : i < firstLayer ? stage === 0 : stage === pp - 1));
    let link = 0;
    for (const { name, written } of own) {
      // Experts, each divided over all devices, are summed there first: what is reduced is as large as the zeros that the sum begins with.
      if (name === "attn_output" || name === "ffn_down" || name === "ffn_experts") link += allReduce(written.activations, tp, cluster);
      if (name === "output") link += allGather(written.activations, tp, cluster);
    }
    const last = own.findLast(({ name }) => name === "ffn_residual");
    if (stage < pp - 1 && last) link += send(last.written.activations, cluster);
    const { by, seconds } = stepTime(own.map((op) => partOf(op, tp, nKvHeads)), cluster.hardware, options);
    return { ...by, link, total: seconds + link };
  });
}

const normBytes = (norm: Norm | undefined) => (norm ? norm.weight.bytes + (norm.bias?.bytes ?? 0) : 0);
const linearBytes = (linear: Linear | undefined) => (linear ? linear.weight.bytes + (linear.bias?.bytes ?? 0) : 0);

function layerBytes(layer: LayerWeights, tp: number, nKvHeads: number): number {
  const { q, k, v, latent, o, gate, up, down, experts, sinkLogits } = layer;
  const shared = experts?.shared ? [experts.shared.gate, experts.shared.up, experts.shared.down] : [];
  const divided = [q, ...(latent ? [...latent.kUp, ...latent.vUp] : []), o, gate, up, down, ...shared, ...(experts ? expertLinears(experts) : [])].reduce((sum, linear) => sum + linearBytes(linear), 0) / tp;
  const whole = linearBytes(latent?.qDown?.linear) + linearBytes(experts?.router) + linearBytes(experts?.sharedGate) + (experts?.choiceBias?.bytes ?? 0) + (sinkLogits?.bytes ?? 0);
  const kv = (linearBytes(k) + linearBytes(v)) / Math.min(tp, nKvHeads);
  return divided + kv + whole + layerNorms(layer).reduce((sum, norm) => sum + normBytes(norm), 0);
}

/** Bytes of weights on one device of each stage. A tied output head is kept twice if its stages differ. */
export function stageWeights({ model }: Traced, { tp, pp }: Split): number[] {
  const { weights, config } = model;
  const head = linearBytes(weights.output) / tp;
  const table = weights.tokenEmbedding.bytes / tp;
  const tied = weights.output.weight === weights.tokenEmbedding;
  return stagesOf(config.nLayers, pp).map(({ first, end }, stage) => {
    const layers = weights.layers.slice(first, end).reduce((sum, layer) => sum + layerBytes(layer, tp, config.nKvHeads), 0);
    const start = stage === 0 ? table + (weights.positionEmbedding?.bytes ?? 0) + normBytes(weights.embeddingNorm) : 0;
    const finish = stage === pp - 1 ? normBytes(weights.outputNorm) + (tied && stage === 0 ? 0 : head) : 0;
    return layers + start + finish;
  });
}
