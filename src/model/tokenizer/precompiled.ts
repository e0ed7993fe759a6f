import { FormatError } from "../formats/errors.ts";

/**
 * SentencePiece's compiled normalisation (`precompiled_charsmap`): a double-array trie (Aoe 1989, in the layout of darts-clone) from UTF-8
 * strings to places in a blob of zero-ended replacements. As in tokenizers, a short grapheme is looked up as a whole, then character by character,
 * and of several prefixes that the trie knows the shortest counts.
 */
export function precompiledNormalizer(file: string, base64: string): (text: string) => string {
  const bytes = fromBase64(file, base64);
  const trieBytes = bytes.length >= 4 ? new DataView(bytes.buffer).getUint32(0, true) : 0;
  if (bytes.length < 4 || trieBytes % 4 !== 0 || trieBytes > bytes.length - 4) {
    throw new FormatError(file, `key "precompiled_charsmap": expected a trie within its ${bytes.length} bytes, found one of ${trieBytes}`);
  }
  const units = new Uint32Array(bytes.slice(4, 4 + trieBytes).buffer);
  const blob = bytes.subarray(4 + trieBytes);
  const utf8 = new TextEncoder();
  const text8 = new TextDecoder("utf-8", { ignoreBOM: true });

  const search = (key: string): string | undefined => {
    let node = offsetOf(units[0] ?? 0);
    for (const byte of utf8.encode(key)) {
      node = (node ^ byte) >>> 0;
      const unit = units[node] ?? 0;
      if ((unit & 0x800000ff) !== byte || byte === 0) return undefined;
      node = (node ^ offsetOf(unit)) >>> 0;
      if (((unit >>> 8) & 1) === 0) continue;
      const start = (units[node] ?? 0) & 0x7fffffff;
      if (start > blob.length) return undefined;
      const end = blob.indexOf(0, start);
      return text8.decode(blob.subarray(start, end < 0 ? blob.length : end));
    }
    return undefined;
  };
  const known = new Map<string, string | undefined>();
  const replacement = (key: string): string | undefined => {
    if (!known.has(key)) {
      if (known.size > 1 << 16) known.clear();
      known.set(key, search(key));
    }
    return known.get(key);
  };

  const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });
  return (text) => {
    const out: string[] = [];
    for (const { segment } of graphemes.segment(text)) {
      const whole = segment.length < 6 && utf8.encode(segment).length < 6 ? replacement(segment) : undefined;
      if (whole !== undefined) out.push(whole);
      else for (const character of segment) out.push(replacement(character) ?? character);
    }
    return out.join("");
  };
}

function offsetOf(unit: number): number {
  return ((unit >>> 10) << ((unit & 0x200) >>> 6)) >>> 0;
}

function fromBase64(file: string, base64: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    throw new FormatError(file, 'key "precompiled_charsmap": expected base64');
  }
}
