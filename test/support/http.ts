import { request } from "node:http";
import { fileURLToPath } from "node:url";
import { Engine, type EngineOptions } from "../../src/runtime/engine.ts";
import { listen } from "../../src/runtime/node-server.ts";
import { type App, type AppOptions, createApp } from "../../src/runtime/server/app.ts";
import type { Listening, ListenOptions } from "../../src/runtime/server/http.ts";

export const STORIES = fileURLToPath(new URL("../../fixtures/stories.gguf", import.meta.url));

/** The shipped model behind a port of its own. */
export interface Served {
  readonly engine: Engine;
  readonly app: App;
  readonly listening: Listening;
  readonly port: number;
  /** http://127.0.0.1:port */
  readonly url: string;
  end(): Promise<void>;
}

export async function serveStories(app: Partial<AppOptions> = {}, options: Partial<ListenOptions> & EngineOptions = {}): Promise<Served> {
  const { host = "127.0.0.1", port = 0, maxBody = 1 << 20, stallMs = 30_000, ...engineOptions } = options;
  const engine = await Engine.load(STORIES, { threads: 1, ...engineOptions });
  const made = createApp(engine, { model: "stories", ...app });
  const listening = await listen(made.handle, { host, port, maxBody, stallMs });
  const end = async () => {
    await listening.close();
    engine.close();
  };
  return { engine, app: made, listening, port: listening.port, url: `http://127.0.0.1:${listening.port}`, end };
}

export interface Answer<T> {
  readonly status: number;
  readonly headers: Headers;
  readonly body: T;
}

export async function post<T>(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer<T>> {
  const response = await fetch(url, { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body), headers: { "content-type": "application/json", ...headers } });
  return { status: response.status, headers: response.headers, body: (await response.json()) as T };
}

/** The data of all events of a stream, `[DONE]` as it is. */
export async function events<T>(url: string, body: object): Promise<(T | "[DONE]")[]> {
  const response = await fetch(url, { method: "POST", body: JSON.stringify({ ...body, stream: true }) });
  if (response.status !== 200) throw new Error(`status ${response.status}: ${await response.text()}`);
  const blocks = (await response.text()).split("\n\n");
  if (blocks.pop() !== "") throw new Error("the last event is not ended by an empty line");
  return blocks.map((block) => (block === "data: [DONE]" ? "[DONE]" : (JSON.parse(block.replace(/^data: /, "")) as T)));
}

/** A client that sends a request and reads nothing of the reply; `end` makes it vanish without a word. */
export function silentClient(port: number, path: string, body: object): { answered: Promise<void>; end(): void } {
  let answer = () => {};
  const answered = new Promise<void>((resolve) => (answer = resolve));
  const text = JSON.stringify(body);
  const client = request({ host: "127.0.0.1", port, path, method: "POST", agent: false, headers: { "content-length": new TextEncoder().encode(text).length } }, (response) => {
    response.on("error", () => {});
    response.pause();
    answer();
  });
  client.on("error", () => {});
  client.end(text);
  return { answered, end: () => void client.destroy() };
}

/** Waits until something holds. */
export async function until(holds: () => boolean, what: string, ms = 20_000): Promise<void> {
  for (const end = performance.now() + ms; !holds(); ) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
