import { buildTrie } from "./trie.ts";
import { byteName } from "./vocabulary.ts";

/** A unigram vocabulary. */
export interface UnigramInit {
  /** By id: the piece. */
  readonly pieces: readonly string[];
  /** By id: the piece's log probability. */
  readonly scores: ArrayLike<number>;
  readonly unk: number | undefined;
  /** Whether a piece that is no token becomes its bytes' tokens. */
  readonly byteFallback: boolean;
}

/** How much worse than the worst piece an unknown character is (SentencePiece's kUnkPenalty). */
const UNKNOWN_PENALTY = 10;

/**
 * The most probable way to cut a text into pieces (Kudo 2018, "Subword regularization"), by Viterbi's algorithm along a trie: a step for
 * each position and each piece that begins there. Of equally probable ways, the one that was found first. A run of unknown characters is one piece.
 * @returns A function that appends the ids of a text; it throws RangeError for a text that cannot be spelled without an unknown token.
 */
export function unigramEncoder({ pieces, scores, unk, byteFallback }: UnigramInit): (text: string, out: number[]) => void {
  const ids = new Map(pieces.map((piece, id) => [piece, id]));
  const trie = buildTrie(pieces.map((piece, id) => [piece, id] as const).filter(([piece]) => piece !== ""));
  let worst = Infinity;
  for (let id = 0; id < pieces.length; id++) worst = Math.min(worst, scores[id]);
  const unknownScore = worst - UNKNOWN_PENALTY;
  const bytes = Array.from({ length: 256 }, (_, byte) => ids.get(byteName(byte)));
  const utf8 = new TextEncoder();

  const emit = (piece: string, out: number[]): void => {
    const id = ids.get(piece);
    const spelling = id === undefined && byteFallback ? Array.from(utf8.encode(piece), (byte) => bytes[byte]) : [undefined];
    if (id !== undefined) out.push(id);
    else if (!spelling.includes(undefined)) for (const byte of spelling) out.push(byte!);
    else if (unk !== undefined) out.push(unk);
    else throw new RangeError(`expected text that the vocabulary can spell, as it has no unknown token, found ${JSON.stringify(piece.slice(0, 20))}`);
  };

  return (text, out) => {
    const size = text.length;
    const score = new Float64Array(size + 1);
    const from = new Int32Array(size + 1).fill(-1);
    const by = new Int32Array(size + 1);
    const reach = (end: number, start: number, id: number, gain: number): void => {
      if (from[end] >= 0 && score[start] + gain <= score[end]) return;
      [score[end], from[end], by[end]] = [score[start] + gain, start, id];
    };
    for (let start = 0; start < size; ) {
      const next = start + (text.codePointAt(start)! > 0xffff ? 2 : 1);
      let single = false;
      for (let node = 0, end = start; end < size; ) {
        node = trie.child(node, text.charCodeAt(end++));
        if (node < 0) break;
        const id = trie.value[node];
        if (id < 0) continue;
        reach(end, start, id, scores[id]);
        single ||= end === next;
      }
      if (!single) reach(next, start, unk ?? -1, unknownScore);
      start = next;
    }
    const found: string[] = [];
    for (let end = size; end > 0; ) {
      const last = end;
      do end = from[end];
      while (by[last] === (unk ?? -1) && end > 0 && by[end] === by[last]);
      found.push(text.slice(end, last));
    }
    for (let i = found.length - 1; i >= 0; i--) emit(found[i], out);
  };
}
