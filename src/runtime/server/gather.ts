import type { FinishReason, Generation } from "../generation.ts";

/** News of one of several generations: text, or its end. */
export interface Piece {
  readonly index: number;
  readonly text: string;
  readonly finishReason?: FinishReason;
}

/**
 * The texts of several generations as they come, each ending with a piece that says why. Generations do not wait for their reader: what a
 * slow one has not taken yet is joined into one piece, so that waiting text is all that it costs, and `maxTokens` bounds it.
 * Leaving the loop early cancels what still runs. @throws what a generation throws.
 */
export async function* gather(generations: readonly Generation[]): AsyncGenerator<Piece, void, undefined> {
  const texts = generations.map(() => "");
  const ends = new Map<number, FinishReason>();
  let failure: { readonly error: unknown } | undefined;
  let wake = () => {};
  const follow = async (generation: Generation, index: number) => {
    try {
      for await (const text of generation) {
        texts[index] += text;
        wake();
      }
      ends.set(index, (await generation.result).finishReason);
    } catch (error) {
      failure ??= { error };
    }
    wake();
  };
  generations.forEach((generation, index) => void follow(generation, index));
  try {
    for (let open = generations.length; open > 0; ) {
      let news = false;
      for (let index = 0; index < texts.length; index++) {
        const [text, finishReason] = [texts[index], ends.get(index)];
        if (text === "" && finishReason === undefined) continue;
        news = true;
        texts[index] = "";
        if (text !== "") yield { index, text };
        if (finishReason === undefined) continue;
        ends.delete(index);
        open--;
        yield { index, text: "", finishReason };
      }
      if (failure) throw failure.error;
      if (!news) await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    for (const generation of generations) generation.cancel();
  }
}
