/** Tokens that end a generation in the vocabularies that have them: llama.cpp knows them by name, whatever the metadata says. */
const END_NAMES: ReadonlySet<string> = new Set([
  "<|eot_id|>",
  "<|eom_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<|calls|>",
  "<|flush|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<EOT>",
  "_<EOT>",
  "<end_of_utterance>",
  "<｜end▁of▁sentence｜>",
  // Where one file or repository ends and the next begins, in vocabularies for code.
  "<|fim_pad|>",
  "<fim-pad>",
  "<fim_pad>",
  "<PAD>",
  "<|fim_repo|>",
  "<|repo_name|>",
  "<fim-repo>",
  "<REPO>",
  "<reponame>",
  "<|file_sep|>",
]);

/** The ids of the vocabulary's tokens with such names. */
export function namedEnds(tokens: readonly string[]): number[] {
  const ids: number[] = [];
  for (let id = 0; id < tokens.length; id++) if (END_NAMES.has(tokens[id])) ids.push(id);
  return ids;
}

/** The ids without those that only look like an end: in the vocabularies that have both a return and a call token (o200k_harmony, solar-open), "<|end|>" ends a message, not a generation. */
export function endIds(tokens: readonly string[], ids: readonly number[]): number[] {
  const has = (...names: string[]): boolean => ids.some((id) => names.includes(tokens[id]));
  const endIsInner = has("<|call|>", "<|calls|>") && has("<|return|>", "<|flush|>");
  return ids.filter((id) => !(endIsInner && tokens[id] === "<|end|>"));
}
