import { FormatError, quote } from "../formats/errors.ts";
import { asCount, asString, at, optional, type JsonNode } from "../formats/json.ts";
import { bytesOf } from "./byte-characters.ts";
import { metaspaceScheme } from "./json-pretokenize.ts";
import { flatSteps, readPattern, unknownType } from "./json-spec.ts";
import { byteOf } from "./vocabulary.ts";

export interface JsonDecoder {
  /** What a token shows in a text, as UTF-8. */
  bytes(name: string): Uint8Array;
  /** Whether a space at the very beginning is dropped. */
  readonly dropsSpace: boolean;
}

/** A step on one token's name: another name, or bytes, which no later step changes. */
type Step = (name: string) => string | Uint8Array;

const utf8 = new TextEncoder();
const KNOWN = ["Sequence", "ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"];

/**
 * A tokenizer.json's `decoder`, as far as it works token by token: all that is left for the whole text is a space at its beginning.
 * @throws FormatError for one that memwall lacks.
 */
export function readDecoder(node: JsonNode): JsonDecoder {
  const steps: Step[] = [];
  let dropsSpace = false;
  for (const step of flatSteps(node, "decoders")) {
    const type = asString(at(step, "type"));
    if (type === "ByteLevel") steps.push((name) => bytesOf(name) ?? utf8.encode(name));
    else if (type === "ByteFallback") steps.push(byteOrName);
    else if (type === "Replace") {
      const pattern = readPattern(at(step, "pattern"));
      const content = asString(at(step, "content"));
      steps.push((name) => name.replace(pattern, () => content));
    } else if (type === "Metaspace") {
      const space = asString(at(step, "replacement"));
      dropsSpace ||= metaspaceScheme(step) !== "never";
      steps.push((name) => name.replaceAll(space, " "));
    } else if (type === "Strip") {
      const [start, stop] = [optional(at(step, "start"), asCount, 0), optional(at(step, "stop"), asCount, 0)];
      if (asString(at(step, "content")) !== " " || start > 1 || stop > 0) {
        throw new FormatError(step.file, `key ${quote(step.path)}: expected Strip to drop one space at the start, found another rule`);
      }
      dropsSpace ||= start === 1;
    } else if (type !== "Fuse") unknownType(step, KNOWN);
  }
  return {
    dropsSpace,
    bytes(name) {
      let so: string | Uint8Array = name;
      for (const step of steps) if (typeof so === "string") so = step(so);
      return typeof so === "string" ? utf8.encode(so) : so;
    },
  };
}

function byteOrName(name: string): string | Uint8Array {
  const byte = byteOf(name);
  return byte === undefined ? name : Uint8Array.of(byte);
}
