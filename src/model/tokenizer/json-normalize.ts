import { asBoolean, asString, at, optional, type JsonNode } from "../formats/json.ts";
import { spelled } from "./byte-characters.ts";
import { flatSteps, readPattern, unknownType } from "./json-spec.ts";
import { normalForm } from "./normal-form.ts";
import { precompiledNormalizer } from "./precompiled.ts";

export interface Normalizer {
  apply(text: string): string;
  /** Whether something is put before every text. */
  readonly prepends: boolean;
}

type Step = (text: string) => string;

const WHITE_START = /^\p{White_Space}+/u;

const STEPS: Readonly<Record<string, (node: JsonNode) => Step>> = {
  NFC: () => (text) => normalForm(text, "NFC"),
  NFD: () => (text) => normalForm(text, "NFD"),
  NFKC: () => (text) => normalForm(text, "NFKC"),
  NFKD: () => (text) => normalForm(text, "NFKD"),
  // Character by character: JavaScript's own rule for a whole text knows a sigma at the end of a word.
  Lowercase: () => (text) => text.replace(/[\p{Lu}\p{Lt}\p{Lm}\p{Nl}\p{So}]/gu, (character) => character.toLowerCase()),
  StripAccents: () => (text) => text.replace(/\p{M}/gu, ""),
  Strip: (node) => {
    const left = optional(at(node, "strip_left"), asBoolean, true);
    const right = optional(at(node, "strip_right"), asBoolean, true);
    return (text) => trimEnd(left ? text.replace(WHITE_START, "") : text, right);
  },
  Prepend: (node) => {
    const prefix = asString(at(node, "prepend"));
    return (text) => (text === "" ? "" : prefix + text);
  },
  Replace: (node) => {
    const pattern = readPattern(at(node, "pattern"));
    const content = asString(at(node, "content"));
    return (text) => text.replace(pattern, () => content);
  },
  ByteLevel: () => spelled,
  Nmt: () => nmt,
  Precompiled: (node) => precompiledNormalizer(node.file, asString(at(node, "precompiled_charsmap"))),
};

/** A tokenizer.json's `normalizer`. @throws FormatError for one that memwall lacks. */
export function readNormalizer(node: JsonNode): Normalizer {
  const nodes = flatSteps(node, "normalizers");
  const steps = nodes.map((step) => {
    const type = asString(at(step, "type"));
    return Object.hasOwn(STEPS, type) ? STEPS[type](step) : unknownType(step, ["Sequence", ...Object.keys(STEPS)]);
  });
  return {
    apply: (text) => steps.reduce((so, step) => step(so), text),
    prepends: nodes.some((step) => at(step, "type").value === "Prepend"),
  };
}

/** A search for white space up to the end would look at every run of it on its way. */
function trimEnd(text: string, wanted: boolean): string {
  let end = text.length;
  while (wanted && end > 0 && /\p{White_Space}/u.test(text[end - 1])) end--;
  return text.slice(0, end);
}

/** SentencePiece's cleaning before its normal forms: control characters go, odd spaces become plain ones (tokenizers' `Nmt`). */
function nmt(text: string): string {
  const gone = /[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]/g;
  return text.replace(gone, "").replace(/[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g, " ");
}
