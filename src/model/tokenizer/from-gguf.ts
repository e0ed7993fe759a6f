import { FormatError, quote } from "../formats/errors.ts";
import { getBool, getNumber, getNumbers, getString, getStrings, type HasMetadata, laterStrings } from "../formats/gguf-values.ts";
import { bpeTokenizer } from "./bpe.ts";
import { endIds, namedEnds } from "./ends.ts";
import { PRE_TOKENIZERS } from "./pretokenize.ts";
import { spmTokenizer } from "./spm.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { TokenType } from "./vocabulary.ts";

const END_KEYS: readonly string[] = ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"];

/**
 * The tokenizer that a GGUF file describes under `tokenizer.ggml.*`.
 * @throws FormatError when the file has none, its model is not supported, or its vocabulary is not consistent.
 */
export function tokenizerFromGguf(file: HasMetadata): Tokenizer {
  const model = getString(file, "tokenizer.ggml.model");
  const read = MODELS[model];
  if (read !== undefined) return read(file);
  const known = Object.keys(MODELS).join(", ");
  throw new FormatError(file.name, `key "tokenizer.ggml.model": expected one of ${known}, found ${quote(model)}`);
}

const MODELS: Readonly<Record<string, ((file: HasMetadata) => Tokenizer) | undefined>> = { llama: llamaModel, gpt2: gpt2Model };

/** SentencePiece BPE. Defaults are those of llama.cpp: ids 0, 1, 2 are unk, bos, eos; bos and a space come first. */
function llamaModel(file: HasMetadata): Tokenizer {
  const common = readCommon(file);
  const size = common.tokens.length;
  const bos = common.bos ?? (size > 1 ? 1 : undefined);
  return spmTokenizer({
    ...common,
    scores: getNumbers(file, "tokenizer.ggml.scores", new Float32Array(size)),
    unk: common.unk ?? 0,
    bos,
    eos: file.metadata.has("tokenizer.ggml.eos_token_id") || size < 3 ? common.eos : [2, ...common.eos],
    addBos: bos !== undefined && getBool(file, "tokenizer.ggml.add_bos_token", true),
    addSpacePrefix: getBool(file, "tokenizer.ggml.add_space_prefix", true),
  });
}

/** Byte-level BPE. */
function gpt2Model(file: HasMetadata): Tokenizer {
  const common = readCommon(file);
  const name = getString(file, "tokenizer.ggml.pre", "default");
  const pre = PRE_TOKENIZERS.get(name);
  if (pre === undefined) {
    const known = [...PRE_TOKENIZERS.keys()].join(", ");
    throw new FormatError(file.name, `key "tokenizer.ggml.pre": expected one of ${known}, found ${quote(name)}`);
  }
  const addBos = getBool(file, "tokenizer.ggml.add_bos_token", pre.addBos === true);
  return bpeTokenizer({ ...common, merges: laterStrings(file, "tokenizer.ggml.merges"), pre, addBos: addBos && common.bos !== undefined });
}

/** What the vocabularies of all models have. */
function readCommon(file: HasMetadata) {
  const tokens = getStrings(file, "tokenizer.ggml.tokens");
  const id = (name: string): number | undefined => {
    const key = `tokenizer.ggml.${name}_token_id`;
    return file.metadata.has(key) ? getNumber(file, key) : undefined;
  };
  const types = file.metadata.has("tokenizer.ggml.token_type")
    ? new Uint8Array(getNumbers(file, "tokenizer.ggml.token_type"))
    : undefined;
  const named = namedEnds(tokens);
  // Such a token is control, also where a file calls it something else.
  if (types !== undefined) for (const end of named) if (end < types.length) types[end] = TokenType.control;
  const given = END_KEYS.map(id).filter((end) => end !== undefined);
  return { tokens, types, bos: id("bos"), eos: endIds(tokens, [...given, ...named]), unk: id("unknown"), source: file.name };
}
