/**
 * A file cannot be read, or is not what it claims to be. The message is one line: the file's name first, then where
 * (byte offset, key or tensor), what was expected and what was found.
 */
export class FormatError extends Error {
  override readonly name = "FormatError";

  /** @param file The file's name. @param problem The rest of the line. */
  constructor(file: string, problem: string) {
    super(`${file}: ${problem}`);
  }
}

/** A string from a file, made safe for a one-line message: quoted, control characters escaped, cut after 60 characters. */
export function quote(text: string): string {
  const cut = text.length > 60 ? `${text.slice(0, 60)}…` : text;
  return JSON.stringify(cut);
}
