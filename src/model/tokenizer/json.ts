import { FormatError, quote } from "../formats/errors.ts";
import { asBoolean, asCount, asItems, asObject, asString, at, optional, wrong, type JsonNode } from "../formats/json.ts";
import { addedSplitter, type AddedToken } from "./added.ts";
import { detokenizer } from "./detokenize.ts";
import { bpeModel, type WordEncoder } from "./json-bpe.ts";
import { readDecoder } from "./json-decode.ts";
import { readNormalizer } from "./json-normalize.ts";
import { readPreTokenizer } from "./json-pretokenize.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { unigramEncoder } from "./unigram.ts";
import { checkId, wellFormed } from "./vocabulary.ts";

/** What a tokenizer.json does not say, or not alone: it stands in the files beside it. */
export interface JsonTokenizerOptions {
  /** Rows of the model's embedding: every id must be below; ids without a token show nothing. */
  readonly vocabSize: number;
  readonly bos?: number;
  readonly eos?: readonly number[];
  readonly addBos?: boolean;
}

/** A tokenizer.json's tokens. */
export interface JsonVocabulary {
  /** By id; "" where there is none. */
  readonly tokens: readonly string[];
  /** Those of the model by name, without the tokens that were added to it. */
  readonly ids: ReadonlyMap<string, number>;
  readonly added: readonly (AddedToken & { readonly normalized: boolean })[];
  /** `BPE` or `Unigram`. */
  readonly model: string;
  /** Log probabilities by id, of a Unigram model. */
  readonly scores: Float64Array | undefined;
}

/** Words of at most this many UTF-16 units are remembered, up to this many words. */
const WORD_LENGTH = 32;
const WORD_COUNT = 1 << 16;

/**
 * The tokenizer that a tokenizer.json describes (github.com/huggingface/tokenizers). Without `special`, control tokens in a text are ordinary text,
 * as with that library's `encode_special_tokens`; with it they are the tokens.
 * @throws FormatError naming the key: a step that memwall lacks, a token beyond the embedding, a merge of no tokens.
 */
export function tokenizerFromJson(root: JsonNode, options: JsonTokenizerOptions): Tokenizer {
  const vocab = readVocabulary(root, options.vocabSize);
  const { tokens, added } = vocab;
  const normalizer = readNormalizer(at(root, "normalizer"));
  const pre = readPreTokenizer(at(root, "pre_tokenizer"));
  const decoder = readDecoder(at(root, "decoder"));
  const encodeWord = remembered(wordEncoder(root, vocab));
  const raw = addedSplitter(added.filter(({ normalized }) => !normalized));
  const normal = addedSplitter(
    added.filter(({ normalized }) => normalized).map((token) => ({ ...token, content: normalizer.apply(token.content) })).filter(({ content }) => content !== ""),
  );
  for (const id of [options.bos, ...(options.eos ?? [])]) if (id !== undefined) checkId(id, options.vocabSize);

  const control = new Set(added.filter(({ special }) => special).map(({ id }) => id));
  // The unknown token is made of text: what follows it had no space put before it.
  const unknown = unknownToken(at(root, "model"), vocab);
  const isAdded = new Set(added.map(({ id }) => id).filter((id) => id !== unknown));
  const shown: Uint8Array[] = [];
  const spaceAfterAdded = decoder.dropsSpace && (normalizer.prepends || pre.prepends === "always");
  const { decode, stream } = detokenizer({
    bytes(id) {
      checkId(id, tokens.length);
      return (shown[id] ??= control.has(id) ? new Uint8Array(0) : decoder.bytes(tokens[id]));
    },
    prefixAtStart: decoder.dropsSpace,
    prefixAfter: (id) => spaceAfterAdded && isAdded.has(id),
  });
  return {
    vocabSize: tokens.length,
    bos: options.bos,
    eos: [...new Set(options.eos ?? [])].sort((a, b) => a - b),
    addBos: options.addBos === true && options.bos !== undefined,
    encode(text, { special = false } = {}) {
      const clean = wellFormed(text);
      const out: number[] = [];
      for (const part of raw(clean, special)) {
        if ("id" in part) {
          out.push(part.id);
          continue;
        }
        const normalised = normalizer.apply(clean.slice(part.start, part.end));
        for (const inner of normal(normalised, special)) {
          if ("id" in inner) out.push(inner.id);
          else for (const word of pre.apply(normalised.slice(inner.start, inner.end), part.start + inner.start === 0)) encodeWord(word, out);
        }
      }
      return out;
    },
    decode,
    piece(id) {
      checkId(id, tokens.length);
      return tokens[id];
    },
    stream,
  };
}

function unknownToken(model: JsonNode, { ids }: JsonVocabulary): number | undefined {
  const name = at(model, "unk_token").value;
  return typeof name === "string" ? ids.get(name) : optional(at(model, "unk_id"), asCount);
}

function remembered(encode: WordEncoder): WordEncoder {
  const known = new Map<string, readonly number[]>();
  return (word, out) => {
    if (word.length > WORD_LENGTH) return encode(word, out);
    let ids = known.get(word);
    if (ids === undefined) {
      const fresh: number[] = [];
      encode(word, fresh);
      if (known.size >= WORD_COUNT) known.clear();
      known.set(word, (ids = fresh));
    }
    for (const id of ids) out.push(id);
  };
}

function wordEncoder(root: JsonNode, { model, ids, tokens, scores }: JsonVocabulary): WordEncoder {
  const node = at(root, "model");
  if (model === "BPE") return bpeModel(node, ids);
  const unk = optional(at(node, "unk_id"), asCount);
  if (unk !== undefined && unk >= scores!.length) wrong(at(node, "unk_id"), `an id below ${scores!.length}`);
  return unigramEncoder({ pieces: tokens.slice(0, scores!.length), scores: scores!, unk, byteFallback: optional(at(node, "byte_fallback"), asBoolean, false) });
}

/** The tokens of a tokenizer.json. @param vocabSize Every id must be below. @throws FormatError */
export function readVocabulary(root: JsonNode, vocabSize: number): JsonVocabulary {
  asObject(root);
  const node = at(root, "model");
  asObject(node);
  const list = at(node, "vocab");
  // Files from before models had a type are told by what they hold.
  const model = optional(at(node, "type"), asString, Array.isArray(list.value) ? "Unigram" : "BPE");
  if (model !== "BPE" && model !== "Unigram") throw new FormatError(root.file, `key "model.type": expected BPE or Unigram, found ${quote(model)}`);
  const tokens: string[] = new Array<string>(vocabSize).fill("");
  const ids = new Map<string, number>();
  const put = (name: string, id: number): void => {
    if (!Number.isSafeInteger(id) || id < 0 || id >= vocabSize) {
      throw new FormatError(root.file, `token ${quote(name)}: expected an id below ${vocabSize}, the rows of the embedding, found ${id}`);
    }
    tokens[id] = name;
  };
  const putModel = (name: string, id: number): void => {
    put(name, id);
    ids.set(name, id);
  };
  let scores: Float64Array | undefined;
  if (model === "BPE") for (const [name, id] of Object.entries(asObject(list))) putModel(name, typeof id === "number" ? id : NaN);
  else scores = readPieces(list, putModel);
  const added = optional(at(root, "added_tokens"), asItems, []).map((token) => readAdded(token));
  for (const { content, id } of added) put(content, id);
  if (ids.size === 0) throw new FormatError(root.file, 'key "model.vocab": expected tokens, found none');
  return { tokens, ids, added, model, scores };
}

function readPieces(list: JsonNode, put: (name: string, id: number) => void): Float64Array {
  const { value } = list;
  if (!Array.isArray(value)) return wrong(list, "an array of pieces with their scores");
  return Float64Array.from(value, (entry: unknown, id) => {
    const [name, score] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (typeof name !== "string" || typeof score !== "number") return wrong(at(list, id), "a piece and its score");
    put(name, id);
    return score;
  });
}

function readAdded(node: JsonNode): AddedToken & { normalized: boolean } {
  const flag = (key: string, fallback = false) => optional(at(node, key), asBoolean, fallback);
  const content = asString(at(node, "content"));
  if (content === "") wrong(at(node, "content"), "a token's name");
  const special = flag("special");
  return { id: asCount(at(node, "id")), content, special, lstrip: flag("lstrip"), rstrip: flag("rstrip"), singleWord: flag("single_word"), normalized: flag("normalized", !special) };
}
