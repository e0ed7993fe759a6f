/** A part of a text that has been searched for special tokens: a token, or a span [start, end) of ordinary text. */
export type Fragment = { readonly id: number } | { readonly start: number; readonly end: number };

interface TrieNode {
  readonly children: Map<number, TrieNode>;
  id: number;
}

/** Finds special tokens in a text. */
export type SpecialSplitter = (text: string) => Fragment[];

/**
 * A splitter for the given token names. Where names overlap, the longest name (in UTF-8 bytes) anywhere in the text comes first, then
 * the leftmost: llama.cpp takes one token after the other in that order out of the whole text (`tokenizer_st_partition`). One walk
 * down a trie for each position: time grows with the text, not with the number of names.
 * @param names Token ids by name; names are not empty.
 */
export function specialSplitter(names: ReadonlyMap<string, number>): SpecialSplitter {
  const root: TrieNode = { children: new Map(), id: -1 };
  const byteLength = new Map<number, number>();
  const utf8 = new TextEncoder();
  for (const [name, id] of names) {
    let node = root;
    for (let i = 0; i < name.length; i++) {
      const unit = name.charCodeAt(i);
      let child = node.children.get(unit);
      if (child === undefined) node.children.set(unit, (child = { children: new Map(), id: -1 }));
      node = child;
    }
    node.id = id;
    byteLength.set(id, utf8.encode(name).length);
  }

  /** The longest name at `at` of at most `limit` UTF-16 units. */
  const longest = (text: string, at: number, limit: number): { id: number; length: number } | undefined => {
    let node: TrieNode | undefined = root;
    let best: { id: number; length: number } | undefined;
    for (let length = 1; length <= limit && at + length <= text.length; length++) {
      node = node.children.get(text.charCodeAt(at + length - 1));
      if (node === undefined) break;
      if (node.id >= 0) best = { id: node.id, length };
    }
    return best;
  };

  return (text) => {
    if (names.size === 0) return text === "" ? [] : [{ start: 0, end: text.length }];
    // Candidates by length in bytes; a position holds one at a time, its longest that can still fit.
    const byLength: { at: number; id: number; length: number }[][] = [];
    const add = (at: number, limit: number): void => {
      const match = longest(text, at, limit);
      if (match !== undefined) (byLength[byteLength.get(match.id)!] ??= []).push({ at, ...match });
    };
    for (let at = 0; at < text.length; at++) if (root.children.has(text.charCodeAt(at))) add(at, text.length);
    if (byLength.length === 0) return text === "" ? [] : [{ start: 0, end: text.length }];

    const taken = new Uint8Array(text.length);
    const chosen: { at: number; id: number; length: number }[] = [];
    for (let bytes = byLength.length - 1; bytes > 0; bytes--) {
      // Shorter second choices were added after the list's own, so the order by position has to be restored.
      for (const candidate of (byLength[bytes] ?? []).sort((a, b) => a.at - b.at)) {
        const { at, length } = candidate;
        let free = 0;
        while (free < length && taken[at + free] === 0) free++;
        if (free === length) {
          taken.fill(1, at, at + length);
          chosen.push(candidate);
        } else if (free > 0) add(at, free);
      }
    }
    return fragments(text.length, chosen.sort((a, b) => a.at - b.at));
  };
}

function fragments(length: number, tokens: readonly { at: number; id: number; length: number }[]): Fragment[] {
  const parts: Fragment[] = [];
  let start = 0;
  for (const token of tokens) {
    if (token.at > start) parts.push({ start, end: token.at });
    parts.push({ id: token.id });
    start = token.at + token.length;
  }
  if (start < length) parts.push({ start, end: length });
  return parts;
}
