import { FormatError } from "../formats/errors.ts";
import type { GgufValue } from "../formats/gguf-values.ts";
import { asBoolean, asString, at, optional, type JsonNode } from "../formats/json.ts";
import { spelled } from "./byte-characters.ts";
import { type FolderTokenizer, specialTokenMetadata } from "./from-folder.ts";
import { readPreTokenizer } from "./json-pretokenize.ts";
import { readNormalizer } from "./json-normalize.ts";
import { PRE_TOKENIZERS, words } from "./pretokenize.ts";
import { byteName, byteOf, TokenType } from "./vocabulary.ts";

/**
 * A folder's tokenizer under the keys of a GGUF file, for conversion.
 * @throws FormatError for one that GGUF has no name for.
 */
export function tokenizerMetadata(own: FolderTokenizer): Map<string, GgufValue> {
  const { document, vocabulary } = own;
  if (vocabulary.model !== "BPE") throw new FormatError(document.file, `expected a BPE tokenizer to convert, found ${vocabulary.model}`);
  const model = at(document, "model");
  const unkName = optional(at(model, "unk_token"), asString);
  const unk = unkName === undefined ? undefined : vocabulary.ids.get(unkName);
  const types = tokenTypes(own, unk);
  const strings = (value: readonly string[]): GgufValue => ({ type: "array", itemType: "string", value });
  const kind = vocabulary.ids.has(byteName(0)) ? sentencePiece(own, types) : byteLevel(document);
  return new Map<string, GgufValue>([
    ...kind,
    ["tokenizer.ggml.tokens", strings(vocabulary.tokens.map((name, id) => (name === "" ? `[PAD${id}]` : name)))],
    ["tokenizer.ggml.token_type", { type: "array", itemType: "int32", value: types }],
    ...(unk === undefined ? [] : [["tokenizer.ggml.unknown_token_id", { type: "uint32", value: unk }] as const]),
    ...specialTokenMetadata(own),
  ]);
}

function tokenTypes({ vocabulary }: FolderTokenizer, unk: number | undefined): Int32Array {
  const { tokens, added } = vocabulary;
  const types = Int32Array.from(tokens, (name) => (name === "" ? TokenType.unused : byteOf(name) === undefined ? TokenType.normal : TokenType.byte));
  for (const { id, special } of added) types[id] = special ? TokenType.control : TokenType.userDefined;
  if (unk !== undefined) types[unk] = TokenType.unknown;
  return types;
}

type Entries = [string, GgufValue][];

/** Texts at whose words the rules of the known pre-tokenizers differ. */
const PROBES: readonly string[] = [
  "Hello world, it's 12345678 o'clock! I'M we'LL They'd",
  "  two\n\n three \r\n\t tabs   \n  x  ",
  "fooBar HTTPServer iPhone12 a_b-c (x) [y]; path/to//file/\n#tag $5 +3 =x <y> ~z ^w |v `u`",
  "Größe señor ПРИВЕТ мир καλημέρα 你好世界 こんにちは 123 한국어 ไทย १२३ e\u0301a\u0308 क्षि 中文abc",
  "... !!! ?!\n--- 😀👍🏽 €100 3.14 1,000 ' 's'T ١٢٣ ½ ² ! next",
];

function byteLevel(document: JsonNode): Entries {
  const pre = readPreTokenizer(at(document, "pre_tokenizer"));
  const normalised = readNormalizer(at(document, "normalizer")).apply("a b");
  const cut = PROBES.map((probe) => pre.apply(probe, true).join("\0"));
  const same = [...PRE_TOKENIZERS].filter(([, rule]) => PROBES.every((probe, i) => words(probe, rule).map(spelled).join("\0") === cut[i]));
  const wholeWords = optional(at(at(document, "model"), "ignore_merges"), asBoolean, false);
  const [name] = same.find(([, rule]) => (rule.wholeWords === true) === wholeWords) ?? same[0] ?? [];
  if (name === undefined || normalised !== "a b") throw new FormatError(document.file, 'key "pre_tokenizer": expected rules that GGUF has a name for, found others');
  const merges = at(at(document, "model"), "merges").value as readonly (string | readonly string[])[];
  const lines = merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")));
  return [
    ["tokenizer.ggml.model", { type: "string", value: "gpt2" }],
    ["tokenizer.ggml.pre", { type: "string", value: name }],
    ["tokenizer.ggml.merges", { type: "array", itemType: "string", value: lines }],
  ];
}

/** A vocabulary that was SentencePiece's before it became a list of merges: a piece's score is the place of the first merge that makes it. */
function sentencePiece({ document, vocabulary }: FolderTokenizer, types: Int32Array): Entries {
  const merges = at(at(document, "model"), "merges").value as readonly (string | readonly string[])[];
  const scores = new Float32Array(vocabulary.tokens.length);
  const made = new Set<number>();
  merges.forEach((merge, order) => {
    const id = vocabulary.ids.get(typeof merge === "string" ? merge.replace(" ", "") : merge.join(""));
    if (id === undefined || made.has(id)) return;
    made.add(id);
    scores[id] = -order;
  });
  // What no merge makes is never the better choice.
  for (let id = 0; id < scores.length; id++) if (!made.has(id) && types[id] === TokenType.normal) scores[id] = -merges.length - 1;
  const prefix = readNormalizer(at(document, "normalizer")).prepends || readPreTokenizer(at(document, "pre_tokenizer")).prepends !== "never";
  return [
    ["tokenizer.ggml.model", { type: "string", value: "llama" }],
    ["tokenizer.ggml.pre", { type: "string", value: "default" }],
    ["tokenizer.ggml.scores", { type: "array", itemType: "float32", value: scores }],
    ["tokenizer.ggml.add_space_prefix", { type: "bool", value: prefix }],
  ];
}
