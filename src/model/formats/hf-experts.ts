import { FormatError, quote } from "./errors.ts";
import { asBoolean, asCount, asItems, asNumber, at, given, optional, type JsonNode } from "./json.ts";
import { composedSource, type Part } from "./parts.ts";

/** How a `model_type` with a mixture of experts says so in its config.json. */
export interface HfExperts {
  /** The keys of the number of experts and of one expert's inner width. */
  readonly count: "num_local_experts" | "num_experts";
  readonly width: "intermediate_size" | "moe_intermediate_size";
  /** Whether the chosen experts' weights sum to 1: what GGUF's architecture always does. */
  readonly normalised: boolean;
  readonly shared: boolean;
}

/**
 * A mixture's part of config.json, under GGUF's keys.
 * @throws FormatError for mixtures in some layers only, weights that are treated otherwise than GGUF's architecture does, or clamped q, k and v.
 */
export function readExperts(config: JsonNode, { count, width, normalised, shared }: HfExperts): Record<string, number> {
  const key = (name: string) => at(config, name);
  const refuse = (name: string, expected: string, found: unknown): never => {
    throw new FormatError(config.file, `key "${name}": expected ${expected}, found ${String(found)}`);
  };
  const step = optional(key("decoder_sparse_step"), asCount, 1);
  if (step !== 1) refuse("decoder_sparse_step", "1, experts in every layer", step);
  const dense = given(key("mlp_only_layers")) ? asItems(key("mlp_only_layers")).length : 0;
  if (dense > 0) refuse("mlp_only_layers", "none, experts in every layer", `${dense} layers`);
  const norm = optional(key("norm_topk_prob"), asBoolean, normalised);
  if (norm !== normalised) refuse("norm_topk_prob", `${normalised}, as models of this type have it`, norm);
  if (given(key("clip_qkv"))) refuse("clip_qkv", "none", asNumber(key("clip_qkv")));
  return {
    expert_count: asCount(key(count)),
    expert_used_count: asCount(key("num_experts_per_tok")),
    expert_feed_forward_length: asCount(key(width)),
    ...(shared && { expert_shared_feed_forward_length: asCount(key("shared_expert_intermediate_size")) }),
  };
}

const MIXTRAL: Readonly<Record<string, string>> = { w1: "gate", w2: "down", w3: "up" };

/** GGUF's name of a layer's tensor that belongs to a mixture, one expert's as `ffn_up.3`; undefined for others. */
export function expertPart(part: string): string | undefined {
  if (part === "mlp.gate" || part === "block_sparse_moe.gate") return "ffn_gate_inp";
  if (part === "mlp.shared_expert_gate") return "ffn_gate_inp_shexp";
  const [, qwenId, qwen] = /^mlp\.experts\.(\d{1,5})\.(gate|up|down)_proj$/.exec(part) ?? [];
  if (qwen) return `ffn_${qwen}.${Number(qwenId)}`;
  const [, mixtralId, mixtral] = /^block_sparse_moe\.experts\.(\d{1,5})\.(w[123])$/.exec(part) ?? [];
  if (mixtral) return `ffn_${MIXTRAL[mixtral]}.${Number(mixtralId)}`;
  const [, shared] = /^mlp\.shared_expert\.(gate|up|down)_proj$/.exec(part) ?? [];
  return shared && `ffn_${shared}_shexp`;
}

interface Piece {
  readonly shape: readonly number[];
  readonly type: string;
  readonly part: Part;
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
