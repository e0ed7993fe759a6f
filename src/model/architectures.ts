import { type Architecture, ARCHITECTURES, type Sliding } from "./architecture-table.ts";
import { type AttentionKind, type ModelConfig, MOST_LAYERS, type RopeConfig, validateConfig } from "./config.ts";
import { expertsFromGguf } from "./experts-gguf.ts";
import { FormatError, quote } from "./formats/errors.ts";
import { getBool, getNumber, getString, type HasMetadata } from "./formats/gguf-values.ts";
import type { TensorInfo } from "./formats/source.ts";
import { latentFromGguf } from "./latent-gguf.ts";
import { ropeFromGguf } from "./rope-gguf.ts";

/** What is read of a file: its metadata and the names and shapes of its tensors. */
type File = HasMetadata & { readonly tensors: ReadonlyMap<string, TensorInfo> };

/** The decoder's config from a GGUF file's metadata and tensors. @throws FormatError naming the key that is missing or wrong. */
export function configFromGguf(file: File): ModelConfig {
  const architecture = getString(file, "general.architecture");
  if (!Object.hasOwn(ARCHITECTURES, architecture)) {
    const known = Object.keys(ARCHITECTURES).join(", ");
    throw new FormatError(file.name, `key "general.architecture": expected one of ${known}, found ${quote(architecture)}`);
  }
  const number = (key: string, fallback?: number) => getNumber(file, `${architecture}.${key}`, fallback);
  /** Undefined where the key is missing or 0, which stands for "not used". */
  const factor = (key: string, fallback = 0) => number(key, fallback) || undefined;
  const embedding = file.tensors.get("token_embd.weight");
  if (!embedding) throw new FormatError(file.name, `tensor "token_embd.weight": expected in the file, found no such tensor`);

  const dim = number("embedding_length");
  const nHeads = number("attention.head_count");
  const guessing = ARCHITECTURES[architecture].guesses ? number("nextn_predict_layers", 0) : 0;
  const nLayers = number("block_count") - guessing;
  const kind = kindOf(file, architecture, nLayers);
  const headDim = number("attention.key_length", dim / nHeads);
  const valueDim = number("attention.value_length", headDim);
  if (valueDim !== headDim && !kind.latent) throw new FormatError(file.name, `key "${architecture}.attention.value_length": expected ${headDim}, the key length, found ${valueDim}`);
  const scales = kind.usualScales?.(dim, nLayers);
  const positions = attentionOf(file, architecture, kind, nLayers, headDim);
  const experts = expertsFromGguf(file, architecture, kind.experts);
  const logitScale = kind.logitScale && factor("logit_scale", scales?.logit);
  const alibi = kind.alibi === undefined ? undefined : factor("attention.max_alibi_bias", kind.alibi);
  try {
    return validateConfig({
      ...{ architecture, name: getString(file, "general.name", architecture), dim, nLayers, nHeads, headDim },
      nKvHeads: number("attention.head_count_kv", nHeads),
      ffnDim: number("feed_forward_length", experts?.ffnDim) * (kind.ffnShare ?? 1),
      vocabSize: embedding.shape[0],
      contextLength: contextOf(file, architecture, kind),
      norm: kind.norm,
      normEps: number(kind.norm === "rms" ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"),
      ...{ ffn: kind.ffn, activation: kind.activation },
      ...positions,
      ...defined({
        experts,
        guessingLayers: guessing || undefined,
        normsRotated: kind.normsRotated,
        normPlacement: kind.normPlacement,
        normWeights: kind.normWeights,
        parallelResidual: isParallel(file, architecture, kind) || undefined,
        alibi,
        learnedPositions: kind.ropeStyle && !rotates(file, architecture, kind) ? false : undefined,
        attentionScale: kind.wideScaleAt === nLayers ? 1 / Math.sqrt(dim / nHeads) : kind.scaledByHeadDim ? 1 / headDim : kind.scales ? factor("attention.scale") : undefined,
        attentionCap: kind.caps ? factor("attn_logit_softcapping", kind.attentionCap) : undefined,
        qkvClamp: kind.clamps ? factor("attention.clamp_kqv") : undefined,
        embeddingScale: kind.scaledEmbedding ? Math.sqrt(dim) : kind.scales ? factor("embedding_scale", scales?.embedding) : undefined,
        residualScale: kind.scales ? factor("residual_scale", scales?.residual) : undefined,
        logitScale: logitScale && (kind.logitScale === "divisor" ? 1 / logitScale : logitScale),
        logitCap: kind.caps ? factor("final_logit_softcapping", kind.logitCap) : undefined,
      }),
      ...(kind.latent && positions.rope && latentFromGguf(file, architecture, positions.rope)),
    });
  } catch (error) {
    throw error instanceof FormatError ? error : new FormatError(file.name, (error as Error).message);
  }
}

/** The entries that have a value: a config says nothing of what its model lacks. */
function defined<T extends object>(entries: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

function isParallel(file: File, architecture: string, { parallel }: Architecture): boolean {
  if (parallel === "without ffn_norm") return !file.tensors.has("blk.0.ffn_norm.weight");
  if (parallel === "by key") return getBool(file, `${architecture}.use_parallel_residual`);
  return parallel === "always";
}

/** What is particular to an architecture, or to its models of that many layers. */
function kindOf(file: File, architecture: string, nLayers: number): Architecture {
  const { byLayers, ...kind } = ARCHITECTURES[architecture];
  if (byLayers && !Object.hasOwn(byLayers, nLayers)) {
    throw new FormatError(file.name, `key "${architecture}.block_count": expected ${Object.keys(byLayers).join(" or ")}, which tells how positions are known, found ${nLayers}`);
  }
  return { ...kind, ...byLayers?.[nLayers] };
}

/** Ministral's queries grow with their position (`attention.temperature_scale`), from the original context on: there its context ends here. */
function contextOf(file: File, architecture: string, { temperature }: Architecture): number {
  const context = getNumber(file, `${architecture}.context_length`);
  if (!temperature || getNumber(file, `${architecture}.attention.temperature_scale`, 0) === 0) return context;
  return Math.min(context, getNumber(file, `${architecture}.rope.scaling.original_context_length`, context));
}

/** Granite's switch for rotary positions, whose name says what else it was meant for. */
function rotates(file: File, architecture: string, { ropeSwitch }: Architecture): boolean {
  return !ropeSwitch || getBool(file, `${architecture}.rope.scaling.finetuned`, true);
}

/** Rotations and windows of the usual layers, and of the alternate ones. */
function attentionOf(file: File, architecture: string, kind: Architecture, nLayers: number, headDim: number): Pick<ModelConfig, "rope" | "window" | "alternate"> {
  const rope = kind.ropeStyle && rotates(file, architecture, kind) ? ropeFromGguf(file, architecture, kind.ropeStyle, headDim, kind.yarnKeys) : undefined;
  if (kind.ropelessEvery) {
    return { rope, alternate: { rope: undefined, layers: byLayer(nLayers, (i) => (i + 1) % kind.ropelessEvery! === 0) } };
  }
  const window = kind.sliding && getNumber(file, `${architecture}.attention.sliding_window`, kind.sliding.window ?? 0);
  if (!kind.sliding || !window || (kind.sliding.onlyLayers ?? nLayers) !== nLayers) return { rope };
  const slides = slidingLayers(file, architecture, kind.sliding, nLayers);
  const local: AttentionKind = { rope: rope && localRope(file, architecture, kind.sliding, rope), window };
  if (kind.sliding.globalRope === false) return { ...local, rope: local.rope, alternate: { rope: undefined, layers: slides.map((slide) => !slide) } };
  return { rope, alternate: { ...local, layers: slides } };
}

/** By layer: whether it slides its window. The file has a list, or a period other than the usual one, or neither. */
function slidingLayers(file: File, architecture: string, { period: usual }: Sliding, nLayers: number): boolean[] {
  const key = `${architecture}.attention.sliding_window_pattern`;
  const found = file.metadata.get(key);
  if (found?.type === "array") {
    const layers = Array.from(found.value as ArrayLike<unknown>, (value) => value === true || (typeof value === "number" && value !== 0));
    if (layers.length !== nLayers) throw new FormatError(file.name, `key ${quote(key)}: expected ${nLayers} items, one for each layer, found ${layers.length}`);
    return layers;
  }
  const period = getNumber(file, key, usual);
  return byLayer(nLayers, (i) => period === 0 || i % period < period - 1);
}

/** Nothing for a number of layers that `validateConfig` will refuse. */
function byLayer(nLayers: number, of: (layer: number) => boolean): boolean[] {
  return Array.from({ length: nLayers >= 1 && nLayers <= MOST_LAYERS ? nLayers : 0 }, (_, layer) => of(layer));
}

function localRope(file: File, architecture: string, { ropeBase, scaling }: Sliding, rope: RopeConfig): RopeConfig {
  const base = getNumber(file, `${architecture}.rope.freq_base_swa`, ropeBase ?? rope.base);
  if (scaling !== "global") return base === rope.base ? rope : { ...rope, base };
  return { style: rope.style, base, dims: rope.dims, scaling: { type: "none" } };
}
