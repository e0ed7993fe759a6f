import type { Activation } from "../tensor/kernels.ts";
import type { Linear, Ops } from "../tensor/ops.ts";
import { expectedExperts, type Routing } from "../tensor/routing.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** The mixture of experts that stands in place of the feed-forward block (Shazeer et al. 2017; Jiang et al. 2024, "Mixtral of Experts"). */
export interface ExpertsConfig extends Routing {
  /** Inner width of one expert. */
  readonly ffnDim: number;
  /** Inner width of the expert that every token meets besides the chosen ones (Dai et al. 2024, "DeepSeekMoE"); 0: there is none. */
  readonly sharedFfnDim: number;
  /** Whether a sigmoid of the token weighs the shared expert's output (Qwen 2). */
  readonly sharedGate: boolean;
  /** The first layers, which have an ordinary feed-forward block. */
  readonly denseLayers: number;
}

/** The three matrices of a gated feed-forward block. */
export interface GatedFfn {
  /** [ffnDim, dim] */
  readonly gate: Linear;
  readonly up: Linear;
  /** [dim, ffnDim] */
  readonly down: Linear;
}

export interface ExpertsWeights {
  /** [count, dim] */
  readonly router: Linear;
  /** [count], added to the scores that choose, not to those that weigh. */
  readonly choiceBias?: Tensor;
  /** By id. */
  readonly experts: readonly GatedFfn[];
  readonly shared?: GatedFfn;
  /** [1, dim] */
  readonly sharedGate?: Linear;
}

/** One weight a token: the sigmoid of one logit. */
const SIGMOID: Routing = { count: 1, used: 1, gating: "sigmoid", normaliseWeights: false, scale: 1 };

/**
 * The mixture's output for h [tokens, dim], normed and in the engine's activation format -> [tokens, dim]. A router chooses experts for each token; the tokens of one expert go
 * through it together, so a batch reads each chosen expert's weights once, and no others. Experts add up in the order of their ids,
 * the shared one last, so a token's sum does not depend on what else is in its batch.
 */
export function mixture(config: ExpertsConfig, activation: Activation, ops: Ops, layer: ExpertsWeights, h: Tensor): Tensor {
  const out = ops.zeros("ffn_experts", h.shape);
  const scratch = ops.arena.mark();
  const { weights, choices } = ops.route("ffn_route", ops.linear("ffn_gate_inp", h, layer.router), config, layer.choiceBias);
  for (const { expert, places } of choices) {
    const mark = ops.arena.mark();
    const own = places.length === h.rows ? h : ops.gather("ffn_exps_rows", h, places.map((place) => place / config.used));
    ops.scatterAdd("ffn_mix", out, gatedFfn("ffn_exps", activation, ops, layer.experts[expert], own), weights, places);
    ops.arena.release(mark);
  }
  if (layer.shared) {
    const shared = gatedFfn("ffn_shexp", activation, ops, layer.shared, h);
    if (layer.sharedGate) {
      const gate = ops.route("ffn_shexp_gate", ops.linear("ffn_gate_inp_shexp", h, layer.sharedGate), SIGMOID);
      ops.scatterAdd("ffn_shexp_mix", out, shared, gate.weights, gate.choices[0].places);
    } else ops.add("ffn_shexp_add", out, shared);
  }
  ops.arena.release(scratch);
  return out;
}

function gatedFfn(block: "ffn_exps" | "ffn_shexp", activation: Activation, ops: Ops, { gate, up, down }: GatedFfn, x: Tensor): Tensor {
  return ops.linear(`${block}_down`, ops.quantize(`${block}_act`, ops.gatedLinear(block, x, gate, up, activation)), down);
}

/** The linears of a mixture that every token meets: the router, and what belongs to the shared expert. */
export function commonLinears({ router, shared, sharedGate }: ExpertsWeights): Linear[] {
  return [router, ...(shared ? [shared.gate, shared.up, shared.down] : []), ...(sharedGate ? [sharedGate] : [])];
}

/** The linears of all experts that a router chooses from. */
export function expertLinears({ experts }: ExpertsWeights): Linear[] {
  return experts.flatMap(({ gate, up, down }) => [gate, up, down]);
}

/** How many experts `rows` rows meet together, most likely, and how many of the rows each of them serves. */
export function expertLoad(config: ExpertsConfig, rows: number): { experts: number; rows: number } {
  const experts = Math.max(config.used, Math.round(expectedExperts(config, rows)));
  return { experts, rows: Math.max(1, Math.round((rows * config.used) / experts)) };
}

/** One layer's mixture, its parts by GGUF's names. @param linear The matrix of a part, with its bias if there is one. */
export function expertWeights(config: ExpertsConfig, dim: number, linear: (part: string, shape: readonly [number, number]) => Linear, choiceBias?: Tensor): ExpertsWeights {
  const { count, ffnDim, sharedFfnDim, sharedGate } = config;
  const block = (width: number, nameOf: (part: string) => string): GatedFfn => ({
    gate: linear(nameOf("ffn_gate"), [width, dim]),
    up: linear(nameOf("ffn_up"), [width, dim]),
    down: linear(nameOf("ffn_down"), [dim, width]),
  });
  return {
    router: linear("ffn_gate_inp", [count, dim]),
    ...(choiceBias && { choiceBias }),
    experts: Array.from({ length: count }, (_, id) => block(ffnDim, (part) => `${part}.${id}`)),
    ...(sharedFfnDim > 0 && { shared: block(sharedFfnDim, (part) => `${part}_shexp`) }),
    ...(sharedFfnDim > 0 && sharedGate && { sharedGate: linear("ffn_gate_inp_shexp", [1, dim]) }),
  };
}

/** @throws RangeError naming the field and what is wrong with it. */
export function validateExperts(experts: ExpertsConfig): void {
  const whole = (field: string, value: number, least: number, most: number) => {
    if (!Number.isSafeInteger(value) || value < least || value > most) throw new RangeError(`${field}: expected a whole number from ${least} to ${most}, found ${value}`);
  };
  whole("experts", experts.count, 1, 1 << 16);
  whole("experts used", experts.used, 1, experts.count);
  whole("expert ffnDim", experts.ffnDim, 1, 1 << 24);
  whole("shared expert ffnDim", experts.sharedFfnDim, 0, 1 << 24);
  whole("dense layers", experts.denseLayers, 0, 1 << 14);
  if (!(experts.scale > 0 && Number.isFinite(experts.scale))) throw new RangeError(`expert weights scale: expected a positive number, found ${experts.scale}`);
  const { groups } = experts;
  if (!groups) return;
  whole("expert groups", groups.count, 1, experts.count);
  whole("expert groups used", groups.used, 1, groups.count);
  const size = experts.count / groups.count;
  if (!Number.isInteger(size)) throw new RangeError(`expert groups: expected a divisor of ${experts.count} experts, found ${groups.count}`);
  if (groups.used * size < experts.used) throw new RangeError(`expert groups used: expected room for ${experts.used} experts, found ${groups.used} of ${size}`);
}
