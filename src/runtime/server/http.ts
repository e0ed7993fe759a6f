/** A request, as whoever listens on the network hands it over. */
export interface HttpRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly authorization: string | undefined;
  /** The body's text. @throws ApiError when it is larger than allowed (413) or not UTF-8 (400). */
  body(): Promise<string>;
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal;
}

export interface HttpReply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Parts are asked for one by one, as fast as the client takes them. */
  readonly body: string | AsyncIterable<string>;
}

/** Never throws: an error is a reply too. */
export type HttpHandler = (request: HttpRequest) => Promise<HttpReply>;

export interface ListenOptions {
  readonly host: string;
  /** 0 takes any free one. */
  readonly port: number;
  /** Bytes. */
  readonly maxBody: number;
  /** Milliseconds that a client may take nothing of a reply that is ready for it. */
  readonly stallMs: number;
}

export interface Listening {
  readonly host: string;
  readonly port: number;
  /** Takes no more connections; resolves when the running requests are answered. */
  close(): Promise<void>;
}

export function jsonReply(status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): HttpReply {
  return { status, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(value) };
}

/** One event of a stream (HTML standard, section 9.2, server-sent events). */
export function sseEvent(data: unknown): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}

/** What ends a stream of the OpenAI API. */
export const SSE_DONE = "data: [DONE]\n\n";
