import { FormatError, quote } from "../formats/errors.ts";
import { asObject, asString, at, isObject, wrong, type JsonNode } from "../formats/json.ts";
import { literalPattern, PatternError, translatePattern } from "./regex.ts";

/** Steps of a tokenizer.json, such as normalizers, stand inside of sequences; more than this many are no tokenizer. */
const MAX_STEPS = 64;

/**
 * The steps of a normalizer, pre-tokenizer or decoder with its sequences laid flat, in order; none for null.
 * @param list The member of a `Sequence` that holds its steps.
 */
export function flatSteps(node: JsonNode, list: string): JsonNode[] {
  const steps: JsonNode[] = [];
  const walk = (step: JsonNode): void => {
    if (asString(at(step, "type")) !== "Sequence") steps.push(step);
    else {
      const { value } = at(step, list);
      if (!Array.isArray(value)) wrong(at(step, list), "an array");
      else value.forEach((_, i) => walk(at(at(step, list), i)));
    }
    if (steps.length > MAX_STEPS) throw new FormatError(node.file, `key ${quote(node.path)}: expected at most ${MAX_STEPS} steps`);
  };
  if (node.value !== null && node.value !== undefined) walk(node);
  return steps;
}

/** `{"String": ...}` or `{"Regex": ...}`, as Split and Replace have it. @throws FormatError */
export function readPattern(node: JsonNode): RegExp {
  asObject(node);
  try {
    if (isObject(node.value) && "String" in node.value) return literalPattern(asString(at(node, "String")));
    return translatePattern(asString(at(node, "Regex")));
  } catch (error) {
    if (error instanceof PatternError) throw new FormatError(node.file, `key ${quote(node.path)}: ${error.message}`);
    throw error;
  }
}

/** @throws FormatError naming a type that memwall has no code for, and those it has. */
export function unknownType(node: JsonNode, known: readonly string[]): never {
  throw new FormatError(node.file, `key ${quote(`${node.path}.type`)}: expected one of ${known.join(", ")}, found ${quote(asString(at(node, "type")))}`);
}
