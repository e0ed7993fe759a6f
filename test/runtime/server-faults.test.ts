import { request } from "node:http";
import process from "node:process";
import { afterEach, describe, expect, it } from "vitest";
import type { Generation } from "../../src/runtime/generation.ts";
import { listen } from "../../src/runtime/node-server.ts";
import { gather } from "../../src/runtime/server/gather.ts";
import { post, type Served, serveStories, silentClient, until } from "../support/http.ts";

interface Failure {
  error: { message: string; type: string; param: string | null; code: string | null };
}

let served: Served;
afterEach(() => served.end());

/** Generates as long as the context lets it: the text is never ended by the model itself. */
const LONG = { prompt: "Once upon a time", max_tokens: 450, temperature: 2, seed: 1 };
const completions = () => `${served.url}/v1/completions`;
const idle = () => until(() => served.engine.stats().running + served.engine.stats().waiting === 0 && served.engine.cache.stats().used === 0, "an idle engine");
const works = async () => expect((await post(completions(), { prompt: "a", max_tokens: 3 })).status).toBe(200);

/** Sends `megabytes` of a body, unless the answer comes first. */
function upload(port: number, megabytes: number, headers: Record<string, string | number>): Promise<{ status: number; text: string; sent: number }> {
  return new Promise((resolve, reject) => {
    let [sent, status, text] = [0, 0, ""];
    const chunk = new Uint8Array(1 << 20).fill(0x20);
    const client = request({ host: "127.0.0.1", port, path: "/v1/completions", method: "POST", agent: false, headers }, (response) => {
      status = response.statusCode!;
      response.setEncoding("utf8");
      response.on("data", (part: string) => (text += part));
      response.on("end", () => {
        client.destroy();
        resolve({ status, text, sent });
      });
    });
    client.on("error", (error: Error) => (status === 0 ? reject(error) : undefined));
    const push = () => {
      while (sent < megabytes && status === 0) {
        sent++;
        if (!client.write(chunk)) return void client.once("drain", push);
      }
      if (status === 0) client.end();
    };
    push();
  });
}

describe("a client that vanishes", () => {
  it("ends its generation in the middle of the stream, and its pages are free again", async () => {
    served = await serveStories();
    for (let i = 0; i < 5; i++) {
      const client = silentClient(served.port, "/v1/completions", { ...LONG, n: 3, stream: true });
      await client.answered;
      expect(served.engine.cache.stats().used).toBeGreaterThan(0);
      client.end();
      await idle();
    }
    expect(served.engine.stats().requests.cancelled).toBe(15);
    await works();
  });

  it("ends it while it waits for the whole answer", async () => {
    served = await serveStories();
    const gone = new AbortController();
    const answer = fetch(completions(), { method: "POST", body: JSON.stringify({ ...LONG, n: 8 }), signal: gone.signal });
    await until(() => served.engine.stats().running > 0, "a running request");
    gone.abort();
    await expect(answer).rejects.toThrow();
    await idle();
    expect(served.engine.stats().requests.cancelled).toBe(8);
    await works();
  });

  it("a hundred in a row leave nothing behind", async () => {
    served = await serveStories();
    for (let i = 0; i < 100; i++) {
      const client = silentClient(served.port, "/v1/completions", { ...LONG, stream: i % 2 === 0 });
      if (i % 3 > 0) await until(() => served.engine.stats().running > 0, "a running request");
      client.end();
    }
    await idle();
    await works();
  });

  it("in the middle of its own request is no harm", async () => {
    served = await serveStories();
    const client = request({ host: "127.0.0.1", port: served.port, path: "/v1/completions", method: "POST", agent: false, headers: { "content-length": 1000 } });
    client.on("error", () => {});
    client.write('{"prompt":');
    await new Promise((resolve) => setTimeout(resolve, 50));
    client.destroy();
    await works();
  });
});

describe("readers that do not read", () => {
  it("a thousand of them do not keep others waiting, and their places are free when the engine is done", async () => {
    served = await serveStories({ maxConcurrent: 1000 }, { maxQueue: 2000 });
    const clients = Array.from({ length: 1000 }, (_, i) => silentClient(served.port, "/v1/completions", { ...LONG, max_tokens: 4, seed: i, stream: true }));
    await Promise.all(clients.map(({ answered }) => answered));
    await idle();
    await works();
    expect(served.engine.stats().requests.finished).toBe(1001);
    for (const client of clients) client.end();
  });

  it("get what waits for them in one piece", async () => {
    served = await serveStories();
    const generations = [1, 2].map((seed) => served.engine.generate("Once", { seed, maxTokens: 200, temperature: 1 }));
    const pieces = gather(generations);
    const seen = [(await pieces.next()).value!];
    const results = await Promise.all(generations.map(({ result }: Generation) => result));
    await new Promise((resolve) => setTimeout(resolve, 10));
    for await (const piece of pieces) seen.push(piece);
    for (const index of [0, 1]) expect(seen.filter((piece) => piece.index === index).map(({ text }) => text).join("")).toBe(results[index].text);
    expect(seen.length).toBeLessThanOrEqual(6);
    await idle();
  });

  it("are disconnected in the end", async () => {
    served = await serveStories();
    let [written, returned] = [0, false];
    const listening = await listen(async () => ({ status: 200, headers: {}, body: endless() }), { host: "127.0.0.1", port: 0, maxBody: 100, stallMs: 200 });
    async function* endless() {
      try {
        for (;;) {
          written += 1 << 16;
          yield "x".repeat(1 << 16);
        }
      } finally {
        returned = true;
      }
    }
    const client = silentClient(listening.port, "/", {});
    await client.answered;
    await until(() => returned, "the reader's end");
    expect(written).toBeLessThan(64 << 20); // What the system itself buffers, and little more.
    client.end();
    await listening.close();
  });
});

describe("limits", () => {
  it("refuse a body of 100 MB without keeping it", async () => {
    served = await serveStories();
    const before = process.memoryUsage();
    const ways: Record<string, string | number>[] = [{ "content-length": 100 << 20 }, { "transfer-encoding": "chunked" }, { "content-length": 100 << 20, expect: "100-continue" }];
    for (const headers of ways) {
      const { status, text } = await upload(served.port, 100, headers);
      expect(status).toBe(413);
      expect((JSON.parse(text) as Failure).error).toMatchObject({ code: "body_too_large", message: expect.stringMatching(/^body: expected at most 1048576 bytes/) });
      expect(process.memoryUsage().arrayBuffers - before.arrayBuffers).toBeLessThan(50 << 20);
    }
    await works();
  });

  it("refuse what is more than may run at once, and only that", async () => {
    served = await serveStories({ maxConcurrent: 2 });
    const running = [1, 2].map(() => silentClient(served.port, "/v1/completions", { ...LONG, stream: true }));
    await Promise.all(running.map(({ answered }) => answered));
    const { status, body, headers } = await post<Failure>(completions(), { prompt: "a" });
    expect([status, body.error.type, headers.get("retry-after")]).toEqual([429, "rate_limit_error", "1"]);
    expect((await fetch(`${served.url}/health`)).status).toBe(200);
    for (const client of running) client.end();
    await idle();
    await works();
  });

  it("refuse what the engine's queue has no room for, all of it", async () => {
    served = await serveStories({}, { maxQueue: 4 });
    const { status, body } = await post<Failure>(completions(), { prompt: ["a", "b", "c"], n: 2 });
    expect([status, body.error.code]).toEqual([503, "queue_full"]);
    await idle();
    await works();
  });

  it("refuse more tokens than the server gives", async () => {
    served = await serveStories({ maxTokens: 8 });
    const { status, body } = await post<Failure>(completions(), { prompt: "a", max_tokens: 9 });
    expect([status, body.error.param]).toEqual([400, "max_tokens"]);
    await works();
  });

  it("let in who has the token", async () => {
    served = await serveStories({ token: "open sesame" });
    const status = async (path: string, authorization?: string) => (await fetch(served.url + path, { headers: authorization === undefined ? {} : { authorization } })).status;
    expect(await status("/health")).toBe(200);
    for (const path of ["/v1/models", "/metrics", "/nothing"]) expect(await status(path)).toBe(401);
    for (const wrong of ["", "Bearer", "Bearer open", "Bearer open sesame!", "Basic open sesame", "bearer OPEN SESAME"]) expect(await status("/v1/models", wrong)).toBe(401);
    expect(await status("/v1/models", "Bearer open sesame")).toBe(200);
    const refused = await post<Failure>(completions(), { prompt: "a" });
    expect(refused).toMatchObject({ status: 401, body: { error: { type: "authentication_error", code: "invalid_api_key" } } });
    expect((await upload(served.port, 20, { "content-length": 20 << 20 })).status).toBe(401);
    expect((await post(completions(), { prompt: "a" }, { authorization: "Bearer open sesame" })).status).toBe(200);
  });
});

describe("an end", () => {
  it("waits for the running request, whole or streamed, and takes no new one", async () => {
    served = await serveStories();
    const expected = await served.engine.complete(LONG.prompt, { temperature: 2, topP: 1, topK: 0, minP: 0, seed: 1, maxTokens: 200 });
    const whole = post<{ choices: { text: string }[] }>(completions(), { ...LONG, max_tokens: 200 });
    const streamed = await fetch(completions(), { method: "POST", body: JSON.stringify({ ...LONG, max_tokens: 200, stream: true }) });
    await until(() => served.engine.stats().running === 2, "two running requests");
    served.app.stop();
    const refused = await post<Failure>(completions(), { prompt: "a" });
    expect([refused.status, refused.body.error.code]).toEqual([503, "stopping"]);
    expect((await fetch(`${served.url}/health`)).status).toBe(503);
    const closed = served.listening.close();
    await expect(fetch(`${served.url}/health`)).rejects.toThrow();
    expect((await whole).body.choices[0].text).toBe(expected.text);
    expect((await streamed.text()).endsWith("data: [DONE]\n\n")).toBe(true);
    await closed;
    await idle();
  });

  it("does not wait for a request that is still being sent", async () => {
    served = await serveStories();
    const client = request({ host: "127.0.0.1", port: served.port, path: "/v1/completions", method: "POST", agent: false, headers: { "content-length": 1000 } });
    const lost = new Promise<void>((resolve) => client.on("error", () => resolve()));
    client.write('{"prompt":');
    await new Promise((resolve) => setTimeout(resolve, 50));
    await served.listening.close();
    await lost;
  });

  it("of the engine in the middle of a stream is said in the stream", async () => {
    served = await serveStories();
    const response = await fetch(completions(), { method: "POST", body: JSON.stringify({ ...LONG, stream: true }) });
    served.engine.close();
    expect(await response.text()).toMatch(/data: \{"error":\{"message":"engine: closed while generating","type":"server_error".*\}\n\n$/);
  });
});
