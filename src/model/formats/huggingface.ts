import { FormatError, quote } from "./errors.ts";
import type { ModelFolder } from "./folder.ts";
import type { GgufValue, HasMetadata } from "./gguf-values.ts";
import { readHfConfig, type HfConfig } from "./hf-config.ts";
import { ggufTensorName, isLessOne } from "./hf-tensors.ts";
import { ExpertStacks } from "./hf-experts.ts";
import { besideInt8, int8Rows } from "./hf-int8.ts";
import { laidOut, type Piece } from "./hf-layout.ts";
import { besideBlocks, mxfp4Rows } from "./hf-mxfp4.ts";
import { asObject, asString, at, readJson, type JsonNode } from "./json.ts";
import { composedSource, memoryPart, type Part, plusOne, sourcePart, widened } from "./parts.ts";
import { type Found, readSafeTensors } from "./safetensors.ts";
import type { ByteSource, TensorInfo } from "./source.ts";

/**
 * A Hugging Face model as the GGUF file that it would be converted to: the same keys, tensor names and order of rows. The bytes stay in the
 * safetensors files until they are read from `source`, in whose offsets `tensors` speak. So whatever reads a GGUF file reads a folder,
 * and both compute the same bits.
 */
export interface HfModel extends HasMetadata {
  readonly source: ByteSource;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly config: HfConfig;
  /** The names of the files that hold the weights. */
  readonly weightFiles: readonly string[];
  /** config.json and, where the folder has them, the files beside it. */
  readonly files: { readonly config: JsonNode; readonly generation?: JsonNode; readonly tokenizer?: JsonNode };
}

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** safetensors' names for what GGUF also has; I8 becomes what its scales make of it. */
const DTYPES = ["F32", "F16", "BF16", "I8"];

/**
 * Opens a folder with a config.json and safetensors, one file or shards with their index. Weights are not read yet.
 * @throws FormatError naming the file: one that is missing or damaged, a shard or tensor that the index promises and that is not there,
 * a tensor that is no part of such a model.
 */
export function openHuggingFace(folder: ModelFolder): HfModel {
  const name = folder.name;
  const config = folderJson(folder, "config.json");
  if (!config) throw new FormatError(name, "expected a Hugging Face model folder with a config.json, found no such file");
  const hf = readHfConfig(config, /([^/\\]*)[/\\]*$/.exec(name)![1] || name);
  const shards: ByteSource[] = [];
  const close = () => shards.forEach((shard) => shard.close());
  try {
    const found = locateAll(folder, shards);
    const { parts, tensors } = arrange(name, found, hf);
    const files = { config, generation: folderJson(folder, "generation_config.json"), tokenizer: folderJson(folder, "tokenizer_config.json") };
    return { name, source: composedSource(name, parts, close), metadata: hf.metadata, tensors, config: hf, weightFiles: shards.map((shard) => shard.name), files };
  } catch (error) {
    close();
    throw error;
  }
}

/** A JSON file of a folder, or undefined. @throws FormatError when it is no JSON. */
export function folderJson(folder: ModelFolder, file: string): JsonNode | undefined {
  const source = folder.open(file);
  try {
    return source && readJson(source);
  } finally {
    source?.close();
  }
}

/** Every tensor by its name in the checkpoint, with its file. Opened files are pushed to `shards`. */
function locateAll(folder: ModelFolder, shards: ByteSource[]): Map<string, Found> {
  const found = new Map<string, Found>();
  const add = (file: string): void => {
    const source = folder.open(file);
    if (!source) throw new FormatError(folder.name, `expected the shard ${quote(file)} that ${INDEX} names, found no such file`);
    shards.push(source);
    for (const tensor of readSafeTensors(source).tensors.values()) {
      const other = found.get(tensor.name);
      if (other) throw new FormatError(source.name, `tensor ${quote(tensor.name)}: expected every tensor once, found it in ${other.source.name} too`);
      found.set(tensor.name, { tensor, source });
    }
  };
  const single = folder.open(SINGLE);
  if (single) {
    single.close();
    add(SINGLE);
    return found;
  }
  const index = folderJson(folder, INDEX);
  if (!index) throw new FormatError(folder.name, `expected weights in ${SINGLE} or in shards with ${INDEX}, found neither`);
  const map = at(index, "weight_map");
  const shardOf = Object.keys(asObject(map)).map((tensor) => [tensor, shardName(at(map, tensor))] as const);
  for (const file of new Set(shardOf.map(([, file]) => file))) add(file);
  for (const [tensor, file] of shardOf) {
    const place = found.get(tensor);
    if (!place) throw new FormatError(index.file, `tensor ${quote(tensor)}: expected in ${quote(file)}, found in no shard`);
    if (!place.source.name.endsWith(file)) throw new FormatError(index.file, `tensor ${quote(tensor)}: expected in ${quote(file)}, found in ${place.source.name}`);
  }
  return found;
}

/** An index may name files beside it, and nothing else on the disk. */
function shardName(node: JsonNode): string {
  const file = asString(node);
  if (/^[^/\\:\0]+\.safetensors$/.test(file) && !file.startsWith(".")) return file;
  throw new FormatError(node.file, `key "weight_map": expected the name of a .safetensors file in the folder, found ${quote(file)}`);
}

function arrange(file: string, found: ReadonlyMap<string, Found>, hf: HfConfig): { parts: Part[]; tensors: Map<string, TensorInfo> } {
  const parts: Part[] = [];
  const tensors = new Map<string, TensorInfo>();
  const stacks = new ExpertStacks();
  let offset = 0;
  const add = (name: string, { shape, type, part }: Piece): void => {
    tensors.set(name, { name, shape, type, offset, bytes: part.bytes });
    parts.push(part);
    offset += part.bytes;
  };
  for (const one of found.values()) {
    const { tensor, source } = one;
    const { shape, dtype, bytes } = tensor;
    if (besideInt8(tensor.name, found) || besideBlocks(tensor.name, found)) continue;
    const name = ggufTensorName(tensor.name, hf);
    const what = `tensor ${quote(tensor.name)}`;
    if (name === "ignored") continue;
    if (name === undefined) throw new FormatError(source.name, `${what}: expected only tensors of a ${hf.architecture.gguf} model with ${hf.nLayers} layers, found this one too`);
    const isBlocks = tensor.name.endsWith("_blocks") && dtype === "U8";
    if (!DTYPES.includes(dtype) && !isBlocks) throw new FormatError(source.name, `${what}: expected a dtype of ${DTYPES.join(", ")}, found ${dtype}`);
    if (shape.length < 1 || shape.length > 4 || bytes === 0) throw new FormatError(source.name, `${what}: expected 1 to 4 dimensions of at least 1, found [${shape.join(", ")}]`);
    if (name === "token_embd.weight" && shape[0] !== hf.vocabSize) {
      throw new FormatError(source.name, `${what}: expected ${hf.vocabSize} rows, the vocab_size of config.json, found ${shape[0]}`);
    }
    const piece: Piece = isBlocks ? mxfp4Rows(one, found) : dtype === "I8" ? { shape, ...int8Rows(one, found) } : { shape, type: dtype, part: sourcePart(source, tensor.offset, bytes) };
    try {
      for (const [own, each] of arranged(name, piece, hf)) if (!stacks.take(own, each)) add(own, asStored(own, each, hf));
    } catch (error) {
      throw error instanceof RangeError ? new FormatError(source.name, `${what}: ${error.message}`) : error;
    }
  }
  for (const { name, ...piece } of stacks.stacked(file, hf.nExperts)) add(name, piece);
  if (tensors.size === 0) throw new FormatError(file, "expected the tensors of a model, found none");
  for (const [name, values] of hf.computed) add(name, { shape: [values.length], type: "F32", part: memoryPart(new Uint8Array(values.buffer)) });
  return { parts, tensors };
}

/** A tensor in GGUF's layout, by its names there. @throws RangeError saying what was expected of it. */
function arranged(name: string, piece: Piece, hf: HfConfig): (readonly [name: string, piece: Piece])[] {
  const [, block, part, kind] = /^(blk\.\d+\.)(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const { layouts = {} } = hf.architecture;
  if (part === undefined || !Object.hasOwn(layouts, part)) return [[name, piece]];
  return laidOut(layouts[part], part, kind as "weight" | "bias", piece, hf).map(([own, each]) => [`${block}${own}.${kind}`, each]);
}

/** Vectors and biases are 32-bit floats in every GGUF file. */
function asStored(name: string, { shape: found, type, part }: Piece, hf: HfConfig): Piece {
  // GGUF files have this row as a vector.
  const shape = name.endsWith(".ffn_gate_inp_shexp.weight") ? found.slice(-1) : found;
  const wide = (shape.length === 1 || name.endsWith("norm.weight") || name.endsWith(".bias")) && (type === "F16" || type === "BF16");
  const part32 = wide ? widened(part, type) : part;
  return { shape, type: wide ? "F32" : type, part: isLessOne(name, hf) ? plusOne(part32) : part32 };
}
