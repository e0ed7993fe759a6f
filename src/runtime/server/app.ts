import { hex, sha256 } from "../../kvcache/sha256.ts";
import type { Engine } from "../engine.ts";
import type { Generation } from "../generation.ts";
import { answer, type Asked } from "./answer.ts";
import { chatPrompt } from "./chat-prompt.ts";
import { ApiError, errorReply } from "./errors.ts";
import { parseFields } from "./fields.ts";
import { type HttpHandler, type HttpReply, type HttpRequest, jsonReply } from "./http.ts";
import { countAnswer, createMetrics, prometheusText } from "./metrics.ts";
import { maxTokensOf, parseParameters } from "./parameters.ts";
import { parseMessages, parsePrompts } from "./prompts.ts";
import { CHAT, COMPLETIONS } from "./shapes.ts";

export interface AppOptions {
  /** The name that the model goes by. */
  readonly model: string;
  /** Every request but /health must bring it: `Authorization: Bearer ...`. */
  readonly token?: string;
  /** Most tokens that a request may ask for, each completion for itself; default the context, or 4096 where that has no end. */
  readonly maxTokens?: number;
  /** Requests that may generate or wait for it at once; default 256. */
  readonly maxConcurrent?: number;
}

export interface App {
  readonly handle: HttpHandler;
  /** From now on nothing new is generated; what runs goes on. */
  stop(): void;
}

/** Tokens of a completion when the request does not say (API reference, "Create completion", max_tokens). */
const DEFAULT_COMPLETION_TOKENS = 16;
const ENDLESS_TOKENS = 4096;
/** No standard status, but what servers write down for a request that nobody waits for any more. */
const CLIENT_GONE = 499;

type Route = Readonly<Record<string, (request: HttpRequest) => HttpReply | Promise<HttpReply>>>;

/** The OpenAI API over one engine (https://platform.openai.com/docs/api-reference), without the network. */
export function createApp(engine: Engine, { model, token, maxTokens, maxConcurrent = 256 }: AppOptions): App {
  const metrics = createMetrics(engine);
  const mostTokens = maxTokens ?? (engine.context < Infinity ? engine.context : ENDLESS_TOKENS);
  const modelObject = { id: model, object: "model", created: Math.floor(Date.now() / 1000), owned_by: "memwall" };
  const isToken = token === undefined ? () => true : tokenCheck(token);
  let [busy, stopping] = [0, false];

  const admit = () => {
    if (stopping) throw new ApiError(503, "server: stopping", { code: "stopping" });
    const headers = { "retry-after": "1" };
    if (busy >= maxConcurrent) throw new ApiError(429, `server: ${busy} requests run already, at most ${maxConcurrent} may: try again later`, { code: "too_many_requests", headers });
  };

  const generate = async (request: HttpRequest, ask: (text: string) => Asked): Promise<HttpReply> => {
    admit();
    const asked = ask(await request.body());
    admit();
    // A place is taken as long as the engine works on the request, not as long as a slow client reads.
    return answer(engine, model, asked, request.signal, (generations) => {
      busy++;
      void over(generations).then(() => busy--);
    });
  };

  const askCompletion = (text: string): Asked => {
    const fields = parseFields(text);
    const prompts = parsePrompts(fields);
    const tokens = maxTokensOf(fields, ["max_tokens"], mostTokens) ?? Math.min(DEFAULT_COMPLETION_TOKENS, mostTokens);
    return { ...parseParameters(fields), prompts, maxTokens: tokens, dialect: COMPLETIONS, param: "prompt" };
  };

  const askChat = (text: string): Asked => {
    const fields = parseFields(text);
    const messages = parseMessages(fields);
    const tokens = maxTokensOf(fields, ["max_completion_tokens", "max_tokens"], mostTokens) ?? mostTokens;
    const parameters = parseParameters(fields);
    const { prompt, stop } = chatPrompt(engine, messages);
    return { ...parameters, stop: [...parameters.stop, ...stop], prompts: [prompt], maxTokens: tokens, dialect: CHAT, param: "messages" };
  };

  const routes = new Map<string, Route>([
    ["/health", { GET: () => (stopping ? jsonReply(503, { status: "stopping" }) : jsonReply(200, { status: "ok" })) }],
    ["/metrics", { GET: () => ({ status: 200, headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" }, body: prometheusText(engine, metrics) }) }],
    ["/v1/models", { GET: () => jsonReply(200, { object: "list", data: [modelObject] }) }],
    [`/v1/models/${encodeURIComponent(model)}`, { GET: () => jsonReply(200, modelObject) }],
    ["/v1/completions", { POST: (request) => generate(request, askCompletion) }],
    ["/v1/chat/completions", { POST: (request) => generate(request, askChat) }],
  ]);

  const route = (request: HttpRequest) => {
    const { method, path, authorization } = request;
    if (path !== "/health" && !isToken(authorization)) {
      throw new ApiError(401, "authorization: expected the server's bearer token, found none or another", { code: "invalid_api_key", headers: { "www-authenticate": "Bearer" } });
    }
    const methods = routes.get(path);
    if (methods === undefined) {
      if (path.startsWith("/v1/models/")) throw new ApiError(404, `model: expected ${JSON.stringify(model)}, found ${JSON.stringify(path.slice("/v1/models/".length))}`, { param: "model", code: "model_not_found" });
      throw new ApiError(404, `path: expected one of ${[...routes.keys()].join(", ")}, found ${JSON.stringify(path)}`, { code: "not_found" });
    }
    const answerer = Object.hasOwn(methods, method) ? methods[method] : undefined;
    const allow = Object.keys(methods).join(", ");
    if (answerer === undefined) throw new ApiError(405, `${path}: expected the method ${allow}, found ${method}`, { code: "method_not_allowed", headers: { allow } });
    return answerer(request);
  };

  return {
    handle: async (request) => {
      const path = routes.has(request.path) ? request.path : "other";
      try {
        const reply = await route(request);
        countAnswer(metrics, path, reply.status);
        return reply;
      } catch (error) {
        const reply = errorReply(request.signal.aborted ? new ApiError(CLIENT_GONE, "client: gone") : error);
        countAnswer(metrics, path, reply.status);
        return reply;
      }
    },
    stop: () => void (stopping = true),
  };
}

async function over(generations: readonly Generation[]): Promise<void> {
  await Promise.allSettled(generations.map(({ result }) => result));
}

/** Compares digests, all of their characters each time: how long it takes says nothing about the token. */
function tokenCheck(token: string): (authorization: string | undefined) => boolean {
  const digest = (text: string) => hex(sha256(new TextEncoder().encode(text)));
  const expected = digest(token);
  return (authorization = "") => {
    const found = digest(authorization.replace(/^bearer /i, ""));
    let difference = 0;
    for (let i = 0; i < expected.length; i++) difference |= expected.charCodeAt(i) ^ found.charCodeAt(i);
    return difference === 0;
  };
}
