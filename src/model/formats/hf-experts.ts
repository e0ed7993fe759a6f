import { FormatError, quote } from "./errors.ts";
import type { GgufValue } from "./gguf-values.ts";
import type { Piece } from "./hf-layout.ts";
import { asBoolean, asCount, asItems, asNumber, at, given, optional, type JsonNode } from "./json.ts";
import { composedSource } from "./parts.ts";

/** How a `model_type` with a mixture of experts says so in its config.json. */
export interface HfExperts {
  /** The keys of the number of experts and of one expert's inner width. */
  readonly count: "num_local_experts" | "num_experts" | "n_routed_experts";
  readonly width: "intermediate_size" | "moe_intermediate_size";
  /** Whether the chosen experts' weights sum to 1: what GGUF's architecture always does, or the default where `routing` leaves it to the file. */
  readonly normalised: boolean;
  /** The key of the shared expert's width, or of how many experts' width it has. */
  readonly shared?: "shared_expert_intermediate_size" | "shared_intermediate_size" | "n_shared_experts";
  /** DeepSeek's way (Dai et al. 2024): dense layers first, a scale, and what GGUF has keys for. */
  readonly routing?: {
    readonly gating: "softmax" | "sigmoid";
    /** Whether `norm_topk_prob` is the file's to say. */
    readonly byKey?: boolean;
    /** Defaults of `n_group` and `topk_group`; without them the model has no groups. */
    readonly groups?: readonly [count: number, used: number];
    /** Default of `routed_scaling_factor`. */
    readonly scale: number;
  };
}

/**
 * A mixture's part of config.json, under GGUF's keys.
 * @throws FormatError for mixtures in some layers only, weights that are treated otherwise than GGUF's architecture does, or clamped q, k and v.
 */
export function readExperts(config: JsonNode, { count, width, normalised, shared, routing }: HfExperts): ReadonlyMap<string, GgufValue> {
  const key = (name: string) => at(config, name);
  const number = (name: string, fallback: number) => optional(key(name), asCount, fallback);
  const refuse = (name: string, expected: string, found: unknown): never => {
    throw new FormatError(config.file, `key "${name}": expected ${expected}, found ${String(found)}`);
  };
  const step = number("decoder_sparse_step", 1);
  if (step !== 1) refuse("decoder_sparse_step", "1, experts in every layer", step);
  const dense = given(key("mlp_only_layers")) ? asItems(key("mlp_only_layers")).length : 0;
  if (dense > 0) refuse("mlp_only_layers", "none, experts in every layer", `${dense} layers`);
  const norm = optional(key("norm_topk_prob"), asBoolean, normalised);
  if (norm !== normalised && !routing?.byKey) refuse("norm_topk_prob", `${normalised}, as models of this type have it`, norm);
  if (given(key("clip_qkv"))) refuse("clip_qkv", "none", asNumber(key("clip_qkv")));
  const found = new Map<string, GgufValue>();
  const integer = (name: string, value: number) => found.set(name, { type: "uint32", value });
  integer("expert_count", asCount(key(count)));
  integer("expert_used_count", asCount(key("num_experts_per_tok")));
  integer("expert_feed_forward_length", asCount(key(width)));
  if (shared === "n_shared_experts") integer("expert_shared_count", number(shared, 0));
  else if (shared) integer("expert_shared_feed_forward_length", asCount(key(shared)));
  if (!routing) return found;
  const { gating, groups, scale } = routing;
  integer("leading_dense_block_count", number("first_k_dense_replace", 0));
  integer("expert_gating_func", gating === "softmax" ? 1 : 2);
  found.set("expert_weights_norm", { type: "bool", value: norm });
  found.set("expert_weights_scale", { type: "float32", value: Math.fround(optional(key("routed_scaling_factor"), asNumber, scale)) });
  if (groups) {
    integer("expert_group_count", number("n_group", groups[0]));
    integer("expert_group_used_count", number("topk_group", groups[1]));
  }
  return found;
}

const MIXTRAL: Readonly<Record<string, string>> = { w1: "gate", w2: "down", w3: "up" };

/** GGUF's name of a tensor of a single expert, as `ffn_up.3`; undefined for others. */
export function expertPart(part: string): string | undefined {
  const [, id, name] = /^(?:mlp|block_sparse_moe)\.experts\.(\d{1,5})\.(w[123]|(?:gate|up|down)_proj)$/.exec(part) ?? [];
  return name && `ffn_${MIXTRAL[name] ?? name.replace("_proj", "")}.${Number(id)}`;
}

/** Gathers the tensors of single experts into one for all, as GGUF wants them: their bytes one after the other, none of them copied. */
export class ExpertStacks {
  private readonly stacks = new Map<string, Map<number, Piece>>();

  /** Whether the tensor was one of an expert, by its GGUF name (`blk.0.ffn_up.3.weight`). */
  take(name: string, piece: Piece): boolean {
    const [, stem, id, kind] = /^(blk\.\d+\.ffn_(?:gate|up|down))\.(\d+)\.(weight|bias)$/.exec(name) ?? [];
    if (!stem) return false;
    const stack = `${stem}_exps.${kind}`;
    const pieces = this.stacks.get(stack) ?? new Map<number, Piece>();
    this.stacks.set(stack, pieces.set(Number(id), piece));
    return true;
  }

  /** @throws FormatError naming the stack: an expert missing, too many, or unlike the first. */
  *stacked(file: string, count: number): Generator<Piece & { readonly name: string }> {
    for (const [name, pieces] of this.stacks) {
      const all = Array.from({ length: count }, (_, id) => {
        const piece = pieces.get(id);
        if (!piece) throw new FormatError(file, `tensor ${quote(name)}: expected ${count} experts, found none with number ${id}`);
        const { shape, type } = pieces.get(0)!;
        if (piece.type !== type || String(piece.shape) !== String(shape)) {
          throw new FormatError(file, `tensor ${quote(name)}: expected experts of [${shape.join(", ")}] ${type}, found expert ${id} of [${piece.shape.join(", ")}] ${piece.type}`);
        }
        return piece;
      });
      if (pieces.size > count) throw new FormatError(file, `tensor ${quote(name)}: expected ${count} experts, found ${pieces.size}`);
      const whole = composedSource(name, all.map(({ part }) => part));
      yield { name, type: all[0].type, shape: [count, ...all[0].shape], part: { bytes: whole.size, read: whole.read } };
    }
  }
}
