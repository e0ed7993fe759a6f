import { buildTrie } from "./trie.ts";

/** A token that stands in the text as it is written, whatever the model of the vocabulary makes of its characters. */
export interface AddedToken {
  readonly id: number;
  /** What is looked for; not empty. */
  readonly content: string;
  /** Whether white space before it belongs to it, and after it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Whether it counts only where no letter or digit touches it. */
  readonly singleWord: boolean;
  /** Whether it is a control token, which text from a user cannot spell. */
  readonly special: boolean;
}

/** A part of a text: a token, or a span [start, end) of ordinary text. */
export type AddedPart = { readonly id: number } | { readonly start: number; readonly end: number };

const WORD_BEFORE = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const WORD_AFTER = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const SPACE = /^\p{White_Space}$/u;

/**
 * Cuts a text at added tokens as the tokenizers library does (`AddedVocabulary::find_matches`): from the left, the longest that matches; one
 * that is passed over, for being special or no single word, takes its characters out of the search all the same.
 */
export function addedSplitter(tokens: readonly AddedToken[]): (text: string, special: boolean) => AddedPart[] {
  const trie = buildTrie(tokens.map(({ content }, index) => [content, index]));
  const whole = (text: string): AddedPart[] => (text === "" ? [] : [{ start: 0, end: text.length }]);
  if (tokens.length === 0) return whole;

  return (text, special) => {
    const parts: AddedPart[] = [];
    let taken = 0;
    for (let at = 0; at < text.length; ) {
      let found = -1;
      let end = at;
      for (let node = 0, i = at; i < text.length; ) {
        node = trie.child(node, text.charCodeAt(i++));
        if (node < 0) break;
        if (trie.value[node] >= 0) [found, end] = [trie.value[node], i];
      }
      if (found < 0) {
        at++;
        continue;
      }
      const { id, lstrip, rstrip, singleWord, special: isSpecial } = tokens[found];
      let [start, stop] = [at, end];
      at = end;
      if (isSpecial && !special) continue;
      if (singleWord && (WORD_BEFORE.test(text.slice(Math.max(0, start - 2), start)) || WORD_AFTER.test(text.slice(stop, stop + 2)))) continue;
      if (lstrip) while (start > taken && SPACE.test(text[start - 1])) start--;
      if (rstrip) while (stop < text.length && SPACE.test(text[stop])) stop++;
      if (taken < start) parts.push({ start: taken, end: start });
      parts.push({ id });
      taken = stop;
    }
    if (taken < text.length) parts.push({ start: taken, end: text.length });
    return parts;
  };
}
