import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { breatheAgain } from "./breathe.ts";
import { ApiError, errorBody, errorReply } from "./server/errors.ts";
import type { HttpHandler, HttpReply, Listening, ListenOptions } from "./server/http.ts";

/** How long a client may go on sending a body that is refused already, so that it comes to read why. */
const LINGER_MS = 5000;

/** Connections that may wait to be taken while a step of the decoder runs; those beyond try again a second later, by TCP's own rules. */
const BACKLOG = 4096;

/** Answers HTTP requests with `handler`. @throws Error in one line when the address cannot be listened on. */
export async function listen(handler: HttpHandler, options: ListenOptions): Promise<Listening> {
  const running = new Map<IncomingMessage, Promise<void>>();
  let closing = false;
  const take = (request: IncomingMessage, response: ServerResponse) => {
    const answered = reply(handler, request, response, options, () => closing).catch(() => void response.destroy());
    running.set(request, answered);
    void answered.then(() => running.delete(request));
  };
  const server = createServer(take);
  server.on("connection", breatheAgain);
  server.on("clientError", ({ code }, socket) => {
    if (code === "ECONNRESET" || !socket.writable) return void socket.destroy();
    const status = code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
    const body = JSON.stringify(errorBody(new ApiError(Number(status.slice(0, 3)), "expected a well-formed HTTP request, found something else")));
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  });
  // A client that asks first whether it may send its body is not told to send what will be refused.
  server.on("checkContinue", (request, response) => {
    if (declaredLength(request) <= options.maxBody) response.writeContinue();
    take(request, response);
  });
  await new Promise<void>((resolve, reject) => {
    const { host, port } = options;
    server.once("error", ({ code, message }) => reject(new Error(`serve: cannot listen on ${host}:${port}: ${code === "EADDRINUSE" ? "the port is in use" : (code ?? message)}`)));
    server.listen(port, host, BACKLOG, resolve);
  });
  const address = server.address();
  const { port } = typeof address === "object" && address !== null ? address : options;
  return {
    host: options.host,
    port,
    close: async () => {
      closing = true;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      // Who is still sending a request is not waited for.
      for (const request of running.keys()) if (!request.complete) request.destroy();
      while (running.size > 0) await Promise.all(running.values());
      server.closeAllConnections();
      await closed;
    },
  };
}

async function reply(handler: HttpHandler, request: IncomingMessage, response: ServerResponse, { maxBody, stallMs }: ListenOptions, isClosing: () => boolean): Promise<void> {
  const gone = new AbortController();
  const closed = new Promise<void>((resolve) => response.once("close", () => resolve()));
  response.once("close", () => gone.abort(new Error("client: gone")));
  const { method = "", url = "", headers } = request;
  const authorization = typeof headers.authorization === "string" ? headers.authorization : undefined;
  const answer = await handler({ method, path: url.split("?")[0], authorization, signal: gone.signal, body: () => readBody(request, maxBody) }).catch(errorReply);
  const refused = !request.complete && (declaredLength(request) > 0 || headers["transfer-encoding"] !== undefined);
  if (gone.signal.aborted) return;
  response.writeHead(answer.status, { ...answer.headers, ...lengthOf(answer), ...((refused || isClosing()) && { connection: "close" }) });
  await send(answer.body, response, gone.signal, stallMs);
  if (refused) await drainRequest(request, closed);
  // The last bytes of a reply may stall as well; Node sets its own timeout for the connection when they are through.
  response.socket?.setTimeout(stallMs);
  const finished = new Promise<void>((resolve) => response.end(undefined, resolve));
  await Promise.race([finished, closed]);
}

function lengthOf({ body }: HttpReply): Record<string, number> {
  return typeof body === "string" ? { "content-length": new TextEncoder().encode(body).length } : {};
}

/** Writes the parts of a body, the next one only when the one before went out. */
async function send(body: HttpReply["body"], response: ServerResponse, gone: AbortSignal, stallMs: number): Promise<void> {
  if (typeof body === "string") return void response.write(body);
  response.flushHeaders();
  for await (const part of body) {
    if (gone.aborted) return;
    if (!response.write(part)) await drained(response, gone, stallMs);
    if (gone.aborted) return;
  }
}

/** Resolves when there is room to write again, or nobody to write to: a client that takes nothing for `stallMs` is disconnected. */
async function drained(response: ServerResponse, gone: AbortSignal, stallMs: number): Promise<void> {
  response.socket?.setTimeout(stallMs);
  await new Promise<void>((resolve) => {
    const done = () => {
      response.off("drain", done);
      gone.removeEventListener("abort", done);
      resolve();
    };
    response.once("drain", done);
    gone.addEventListener("abort", done);
    if (gone.aborted) done();
  });
  response.socket?.setTimeout(0);
}

const declaredLength = ({ headers }: IncomingMessage) => Number(headers["content-length"] ?? 0);

/** @throws ApiError. */
async function readBody(request: IncomingMessage, maxBody: number): Promise<string> {
  const tooLarge = (found: string) => new ApiError(413, `body: expected at most ${maxBody} bytes, found ${found}`, { code: "body_too_large" });
  if (declaredLength(request) > maxBody) throw tooLarge(`${declaredLength(request)}`);
  const chunks: Uint8Array[] = [];
  let size = 0;
  await new Promise<void>((resolve, reject) => {
    const take = (chunk: Uint8Array) => {
      size += chunk.length;
      if (size <= maxBody) return void chunks.push(chunk);
      request.off("data", take);
      reject(tooLarge("more"));
    };
    request.on("data", take);
    request.once("end", resolve);
    request.once("error", reject);
    request.once("close", () => reject(new ApiError(400, "body: ends early")));
  });
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new ApiError(400, "body: expected UTF-8 text, found other bytes", { code: "invalid_utf8" });
  }
}

/** Lets a refused body pass by, unread: a connection closed at once would take the reply with it. */
async function drainRequest(request: IncomingMessage, closed: Promise<void>): Promise<void> {
  let timer = 0;
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, LINGER_MS)));
  const ended = new Promise<void>((resolve) => request.once("end", () => resolve()));
  request.resume();
  await Promise.race([ended, closed, late]);
  clearTimeout(timer);
}
