import { type HttpReply, jsonReply } from "./http.ts";

export interface ApiErrorDetails {
  /** The field that is wrong. */
  readonly param?: string;
  readonly code?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** An answer other than what was asked for, in the shape that OpenAI's clients read (API reference, "Error codes"). */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly details: ApiErrorDetails;

  constructor(status: number, message: string, details: ApiErrorDetails = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }
}

const TYPES: Readonly<Record<number, string>> = { 401: "authentication_error", 429: "rate_limit_error" };

/** `{ error: { message, type, param, code } }`. */
export function errorBody(error: unknown) {
  const { status, details, message } = asApiError(error);
  const type = TYPES[status] ?? (status >= 500 ? "server_error" : "invalid_request_error");
  return { error: { message, type, param: details.param ?? null, code: details.code ?? null } };
}

export function errorReply(error: unknown): HttpReply {
  const { status, details } = asApiError(error);
  return jsonReply(status, errorBody(error), details.headers);
}

function asApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError(500, error instanceof Error ? error.message : String(error));
}
