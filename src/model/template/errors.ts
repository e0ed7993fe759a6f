/** A template cannot be read or rendered, or refuses the conversation (`raise_exception`). The message is one line. */
export class TemplateError extends Error {
  override readonly name = "TemplateError";

  /** @param line Of the template, counted from 1, where it is known. */
  constructor(problem: string, line?: number) {
    super(`chat template${line === undefined ? "" : `, line ${line}`}: ${problem.replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ")}`);
  }
}
