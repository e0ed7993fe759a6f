import { ApiError } from "./errors.ts";

/** A JSON object from a client. A field that is null counts as absent, as the API reference has it ("or null"). */
export type Fields = Readonly<Record<string, unknown>>;

/** @throws ApiError 400: what is wrong with the value of a field. */
export function wrong(param: string, expected: string, found: unknown): never {
  throw new ApiError(400, `${param}: expected ${expected}, found ${shown(found)}`, { param });
}

/** @throws ApiError 400 when the text is not one JSON object. */
export function parseFields(text: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ApiError(400, `body: expected JSON, found ${text === "" ? "nothing" : `other text (${(error as Error).message.split("\n")[0]})`}`, { code: "invalid_json" });
  }
  return isObject(value) ? value : wrong("body", "a JSON object", value);
}

export function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export interface Range {
  readonly min: number;
  readonly max: number;
  readonly whole?: boolean;
}

export function numberField(fields: Fields, name: string, { min, max, whole = false }: Range): number | undefined {
  const value = fields[name] ?? undefined;
  if (value === undefined) return undefined;
  if (typeof value === "number" && value >= min && value <= max && (!whole || Number.isSafeInteger(value))) return value;
  const range = max < Infinity ? ` from ${min} to ${max}` : `, ${min} or more`;
  return wrong(name, `a ${whole ? "whole " : ""}number${range}`, value);
}

export function booleanField(fields: Fields, name: string, path = name): boolean {
  const value = fields[name] ?? false;
  return typeof value === "boolean" ? value : wrong(path, "true or false", value);
}

/** A text, or a list of at most `most` texts. */
export function textsField(fields: Fields, name: string, most: number): string[] {
  const value = fields[name] ?? [];
  const list = typeof value === "string" ? [value] : value;
  const expected = `a string or up to ${most} of them`;
  if (!Array.isArray(list) || list.length > most) return wrong(name, expected, value);
  return list.map((item: unknown, i) => (typeof item === "string" ? item : wrong(`${name}[${i}]`, "a string", item)));
}

/** A value as an error message shows it. */
function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value) && value.length > 8) return `an array of ${value.length}`;
  if (typeof value === "number") return String(value);
  const text = typeof value === "string" && value.length > 60 ? JSON.stringify(`${value.slice(0, 57)}...`) : JSON.stringify(value);
  return text.length <= 80 ? text : Array.isArray(value) ? `an array of ${value.length}` : "an object";
}
