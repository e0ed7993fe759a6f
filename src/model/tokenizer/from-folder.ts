import { FormatError, quote } from "../formats/errors.ts";
import type { ModelFolder } from "../formats/folder.ts";
import type { GgufValue } from "../formats/gguf-values.ts";
import { folderJson, type HfModel } from "../formats/huggingface.ts";
import { asBoolean, asCount, asItems, asString, at, given, isObject, type JsonNode, optional } from "../formats/json.ts";
import { endIds, namedEnds } from "./ends.ts";
import { readVocabulary, tokenizerFromJson, type JsonVocabulary } from "./json.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What the files of a folder say about its tokens, together. */
export interface FolderTokenizer {
  /** tokenizer.json */
  readonly document: JsonNode;
  readonly vocabulary: JsonVocabulary;
  readonly tokenizer: Tokenizer;
  /** The end token that templates speak of; `tokenizer.eos` has all that end a generation. */
  readonly eos: number | undefined;
  readonly chatTemplate: string | undefined;
}

/**
 * The tokenizer of a Hugging Face folder: tokenizer.json, with the special tokens of tokenizer_config.json, generation_config.json and
 * config.json, and the chat template.
 * @throws FormatError naming the file: no tokenizer.json, a token that the files name and the vocabulary lacks, ids beyond the embedding.
 */
export function tokenizerFromFolder(folder: ModelFolder, model: HfModel): FolderTokenizer {
  const document = folderJson(folder, "tokenizer.json");
  if (!document) throw new FormatError(folder.name, "expected a tokenizer.json, found no such file (a tokenizer.model is not read: save the tokenizer as a fast one)");
  const { config, generation, tokenizer: settings } = model.files;
  const { vocabSize } = model.config;
  const vocabulary = readVocabulary(document, vocabSize);
  const idOf = (name: string) => vocabulary.added.find(({ content }) => content === name)?.id ?? vocabulary.ids.get(name);

  /** A special token: by name where tokenizer_config.json has it, even as null, else by the id in config.json. */
  const special = (name: "bos" | "eos"): number | undefined => {
    const named = settings && at(settings, `${name}_token`);
    if (named === undefined || named.value === undefined) return optional(at(config, `${name}_token_id`), (node) => ids(node, vocabSize)[0]);
    if (named.value === null) return undefined;
    const text = asString(isObject(named.value) ? at(named, "content") : named);
    return idOf(text) ?? unknown(named, text);
  };
  const bos = special("bos");
  const eos = special("eos");
  const given = [generation, config].flatMap((file) => (file ? optional(at(file, "eos_token_id"), (node) => ids(node, vocabSize), []) : []));
  const ends = endIds(vocabulary.tokens, [...(eos === undefined ? [] : [eos]), ...given, ...namedEnds(vocabulary.tokens)]);
  const addBos = bos !== undefined && startsWithBos(document, settings, vocabulary.tokens[bos]);
  const tokenizer = tokenizerFromJson(document, { vocabSize, bos, eos: ends, addBos });
  return { document, vocabulary, tokenizer, eos: eos ?? given[0], chatTemplate: chatTemplate(folder, settings) };
}

/** What a GGUF file would say of these tokens, without the vocabulary itself. */
export function specialTokenMetadata({ tokenizer, eos, chatTemplate }: FolderTokenizer): Map<string, GgufValue> {
  return new Map<string, GgufValue>([
    ...(tokenizer.bos === undefined ? [] : [["tokenizer.ggml.bos_token_id", { type: "uint32", value: tokenizer.bos }] as const]),
    ...(eos === undefined ? [] : [["tokenizer.ggml.eos_token_id", { type: "uint32", value: eos }] as const]),
    ["tokenizer.ggml.add_bos_token", { type: "bool", value: tokenizer.addBos }],
    ...(chatTemplate === undefined ? [] : [["tokenizer.chat_template", { type: "string", value: chatTemplate }] as const]),
  ]);
}

function unknown(node: JsonNode, token: string): never {
  throw new FormatError(node.file, `key ${quote(node.path)}: expected a token of tokenizer.json, found ${quote(token)}`);
}

/** One id or several. */
function ids(node: JsonNode, vocabSize: number): number[] {
  const found = Array.isArray(node.value) ? asItems(node).map(asCount) : [asCount(node)];
  const beyond = found.find((id) => id >= vocabSize);
  if (beyond === undefined) return found;
  throw new FormatError(node.file, `key ${quote(node.path)}: expected ids below ${vocabSize}, the rows of the embedding, found ${beyond}`);
}

/** Classes of transformers that go by `add_bos_token`, whatever the post-processor says; its default there is true. */
const OWN_RULE = /^(?:Llama|CodeLlama|Gemma|Cohere)Tokenizer/;

function startsWithBos(document: JsonNode, settings: JsonNode | undefined, bos: string): boolean {
  const asked = settings && at(settings, "add_bos_token");
  const kind = settings && optional(at(settings, "tokenizer_class"), asString, "");
  if (asked && given(asked) && kind && OWN_RULE.test(kind)) return asBoolean(asked);
  const post = at(document, "post_processor");
  const steps = at(post, "type").value === "Sequence" ? asItems(at(post, "processors")) : [post];
  const template = steps.find((step) => at(step, "type").value === "TemplateProcessing");
  if (template) {
    const [first] = asItems(at(template, "single"));
    return first !== undefined && at(at(first, "SpecialToken"), "id").value === bos;
  }
  return asked && given(asked) ? asBoolean(asked) : Boolean(kind && OWN_RULE.test(kind));
}

/** In a file of its own, or in tokenizer_config.json: one template, or several of which one is called "default". */
function chatTemplate(folder: ModelFolder, settings: JsonNode | undefined): string | undefined {
  const source = folder.open("chat_template.jinja");
  if (source) {
    const bytes = new Uint8Array(source.size);
    source.read(0, bytes);
    source.close();
    return new TextDecoder().decode(bytes);
  }
  const file = folderJson(folder, "chat_template.json");
  const node = [file, settings].map((one) => one && at(one, "chat_template")).find((found) => found && given(found));
  if (!node || typeof node.value === "string") return node?.value as string | undefined;
  const named = asItems(node);
  const chosen = named.find((one) => at(one, "name").value === "default") ?? named[0];
  return chosen && asString(at(chosen, "template"));
}
