import { decodeRows, ggmlBytes } from "../quant/ggml.ts";
import { zeros } from "../tensor/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { FormatError } from "./formats/errors.ts";
import { getNumber, type HasMetadata } from "./formats/gguf-values.ts";
import type { ByteSource, TensorInfo } from "./formats/source.ts";
import type { RopeConfig } from "./rope.ts";
import type { WeightFile } from "./tensor-reader.ts";

/**
 * Latent attention as a GGUF file's metadata has it, and what follows from it for the rest of the config. Files from 2025 on name the dimensions of the
 * cache's single head as key_length, and those of a head as key_length_mla and value_length_mla; older ones have key_length and value_length of a head.
 * @throws FormatError naming the key that is missing or wrong.
 */
export function latentFromGguf(
  file: HasMetadata & { readonly tensors: ReadonlyMap<string, TensorInfo> },
  architecture: string,
  rope: RopeConfig,
): Required<Pick<ModelConfig, "latent" | "headDim" | "nKvHeads" | "attentionScale">> {
  const number = (key: string, fallback?: number) => getNumber(file, `${architecture}.${key}`, fallback);
  const temperature = number("attention.temperature_scale", 0);
  if (temperature !== 0) throw new FormatError(file.name, `key "${architecture}.attention.temperature_scale": expected none, for no such scale of queries is computed, found ${temperature}`);
  const kvRank = number("attention.kv_lora_rank");
  const [keyDim, valueDim] = ["key", "value"].map((part) => number(`attention.${part}_length_mla`, 0) || number(`attention.${part}_length`));
  if (keyDim <= rope.dims) throw new FormatError(file.name, `key "${architecture}.attention.key_length": expected more than the ${rope.dims} values that rotate, found ${keyDim}`);
  const qRank = file.tensors.has("blk.0.attn_q.weight") ? 0 : number("attention.q_lora_rank", 0);
  return {
    latent: { ...(qRank > 0 && { qRank }), kvRank, nopeDim: keyDim - rope.dims, valueDim },
    ...{ headDim: rope.dims + kvRank, nKvHeads: 1 },
    attentionScale: scoreScale(rope, keyDim, number("rope.scaling.yarn_log_multiplier", 0)),
  };
}

/**
 * The factor on scores: 1 / sqrt(keyDim), and with YaRN the square of DeepSeek's `mscale_all_dim` rule, which is for the whole of a key where YaRN's own
 * factor is for what rotates (DeepSeek-V3's `yarn_get_mscale`). @param logMultiplier 0.1 * mscale_all_dim, as files have it.
 */
function scoreScale({ scaling, magnitude = 1 }: RopeConfig, keyDim: number, logMultiplier: number): number {
  const mscale = magnitude * (scaling.type === "yarn" ? 1 + logMultiplier * Math.log(scaling.factor) : 1);
  return mscale ** 2 / Math.sqrt(keyDim);
}

/**
 * A file with the parts of latent attention apart: attn_kv_a_mqa as attn_kv_a and attn_k_rope, and attn_k_b and attn_v_b by head. These are ranges of whole
 * rows, and nothing is copied. Older files have a head's keys and values on top of each other in attn_kv_b; there the keys' matrices stand the other way
 * round, and are transposed when they are read, into F32.
 * @throws FormatError for a stack of another height.
 */
export function unlatent(file: WeightFile, config: ModelConfig): WeightFile {
  const { latent, nHeads, headDim } = config;
  if (!latent) return file;
  const { kvRank, nopeDim, valueDim } = latent;
  const found = new Map<string, TensorInfo>();
  const turned: TensorInfo[] = [];
  const turnedBytes = 4 * kvRank * nopeDim;
  /** Rows [row, row + height) of a tensor, as a tensor of their own. */
  const part = ({ type, shape, offset }: TensorInfo, name: string, row: number, height: number): TensorInfo => {
    const cols = shape[shape.length - 1];
    return { name, type, shape: [height, cols], offset: offset + ggmlBytes(type, row, cols), bytes: ggmlBytes(type, height, cols) };
  };
  const keep = (info: TensorInfo) => found.set(info.name, info);
  for (const info of file.tensors.values()) {
    const [, block, name] = /^(blk\.\d+\.)(attn_kv_a_mqa|attn_k_b|attn_v_b|attn_kv_b)\.weight$/.exec(info.name) ?? [];
    if (name === undefined) {
      keep(info);
      continue;
    }
    // Some files bring both forms of the same matrices.
    if (name === "attn_kv_b" && file.tensors.has(`${block}attn_k_b.weight`)) continue;
    const height = { attn_kv_a_mqa: headDim, attn_k_b: nHeads * kvRank, attn_v_b: nHeads * valueDim, attn_kv_b: nHeads * (nopeDim + valueDim) }[name];
    const cols = info.shape[info.shape.length - 1];
    const rows = info.shape.slice(0, -1).reduce((a, b) => a * b, 1);
    if (rows !== height) throw new FormatError(file.source.name, `tensor "${info.name}": expected ${height} rows of ${cols}, found [${info.shape.join(", ")}]`);
    if (name === "attn_kv_a_mqa") {
      keep(part(info, `${block}attn_kv_a.weight`, 0, kvRank));
      keep(part(info, `${block}attn_k_rope.weight`, kvRank, headDim - kvRank));
    } else if (name === "attn_kv_b") {
      if (cols !== kvRank) throw new FormatError(file.source.name, `tensor "${info.name}": expected [${height}, ${kvRank}], found [${info.shape.join(", ")}]`);
      for (let head = 0; head < nHeads; head++) {
        const row = head * (nopeDim + valueDim);
        keep({ name: `${block}attn_k_b.${head}.weight`, type: "F32", shape: [kvRank, nopeDim], offset: file.source.size + turned.length * turnedBytes, bytes: turnedBytes });
        turned.push(part(info, info.name, row, nopeDim));
        keep(part(info, `${block}attn_v_b.${head}.weight`, row + nopeDim, valueDim));
      }
    } else {
      for (let head = 0; head < nHeads; head++) keep(part(info, `${block}${name}.${head}.weight`, (head * height) / nHeads, height / nHeads));
    }
  }
  return { source: turned.length === 0 ? file.source : withTransposes(file.source, turned, turnedBytes), tensors: found };
}

/** A source that goes on behind its end with the transposes of some of its tensors, as F32, `each` bytes apart. */
function withTransposes(source: ByteSource, tensors: readonly TensorInfo[], each: number): ByteSource {
  let [known, bytes]: [number, Uint8Array] = [-1, new Uint8Array(0)];
  const transpose = ({ name, type, shape, offset, bytes: length }: TensorInfo): Uint8Array => {
    const stored = new Uint8Array(length);
    source.read(offset, stored);
    const matrix = zeros("f32", shape, 0, name);
    try {
      decodeRows(type, stored, matrix);
    } catch (error) {
      throw new FormatError(source.name, `tensor "${name}": ${(error as Error).message}`);
    }
    const [rows, cols] = shape;
    const view = new DataView(new ArrayBuffer(each));
    for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) view.setFloat32(4 * (c * rows + r), matrix.f32[r * cols + c], true);
    return new Uint8Array(view.buffer);
  };
  return {
    name: source.name,
    size: source.size + tensors.length * each,
    read(offset, target) {
      if (offset < source.size) return source.read(offset, target);
      const index = Math.floor((offset - source.size) / each);
      if (index !== known) [known, bytes] = [index, transpose(tensors[index])];
      const from = offset - source.size - index * each;
      target.set(bytes.subarray(from, from + target.length));
    },
    close: () => source.close(),
  };
}
