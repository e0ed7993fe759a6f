import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { events, post, type Served, serveStories } from "../support/http.ts";

interface Choice {
  index: number;
  text: string;
  message: { role: string; content: string };
  delta: { role?: string; content?: string };
  finish_reason: string | null;
}
interface Reply {
  id: string;
  object: string;
  model: string;
  choices: Choice[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number } | null;
}
interface Failure {
  error: { message: string; type: string; param: string | null; code: string | null };
}

let served: Served;
beforeAll(async () => void (served = await serveStories({}, { ledger: true })));
afterAll(async () => {
  expect(served.engine.stats()).toMatchObject({ running: 0, waiting: 0, kv: { used: 0 } });
  await served.end();
});

const PROMPT = "Once upon a time";
const ask = (body: object) => post<Reply>(`${served.url}/v1/completions`, body);
const refuse = async (body: unknown, path = "completions") => {
  const { status, body: { error } } = await post<Failure>(`${served.url}/v1/${path}`, body);
  return { status, ...error };
};
/** What the engine gives for the API's defaults. */
const direct = (seed: number, maxTokens: number, prompt: string | number[] = PROMPT) => served.engine.complete(prompt, { temperature: 1, topP: 1, topK: 0, minP: 0, seed, maxTokens });
const chunks = async (path: string, body: object) => {
  const all = await events<Reply>(`${served.url}/v1/${path}`, body);
  expect(all.pop()).toBe("[DONE]");
  return all.filter((one) => one !== "[DONE]");
};

describe("completions", () => {
  it("give the engine's own text for a seed, whole and streamed", async () => {
    for (const seed of [1, 2, 3]) {
      const expected = await direct(seed, 40);
      const whole = await ask({ model: "whatever", prompt: PROMPT, max_tokens: 40, seed });
      expect(whole).toMatchObject({ status: 200, body: { object: "text_completion", model: "stories", choices: [{ index: 0, text: expected.text, finish_reason: expected.finishReason, logprobs: null }] } });
      const { promptTokens, tokens } = expected;
      expect(whole.body.usage).toMatchObject({ prompt_tokens: promptTokens, completion_tokens: tokens.length, total_tokens: promptTokens + tokens.length });
      const parts = await chunks("completions", { prompt: PROMPT, max_tokens: 40, seed, stream_options: { include_usage: true } });
      const last = parts.pop()!;
      expect(last).toMatchObject({ choices: [], usage: { completion_tokens: tokens.length } });
      expect(parts.every(({ usage, id }) => usage === null && id === last.id)).toBe(true);
      expect(parts.map(({ choices }) => choices[0].text).join("")).toBe(expected.text);
      expect(parts.map(({ choices }) => choices[0].finish_reason)).toEqual([...parts.slice(1).map(() => null), expected.finishReason]);
    }
  });

  it("take text, texts, token ids and lists of them, n times each", async () => {
    const tokens = served.engine.promptTokens(PROMPT);
    const texts = async (prompt: unknown, n = 1) => (await ask({ prompt, n, seed: 5, max_tokens: 8 })).body.choices.map(({ text }) => text);
    const [five, six] = [(await direct(5, 8)).text, (await direct(6, 8)).text];
    const other = (await direct(5, 8, "The dog")).text;
    expect(await texts(PROMPT)).toEqual([five]);
    expect(await texts(tokens)).toEqual([five]);
    expect(await texts([tokens])).toEqual([five]);
    expect(await texts([PROMPT, "The dog"])).toEqual([five, other]);
    const both = await ask({ prompt: [PROMPT, "The dog"], n: 2, seed: 5, max_tokens: 8 });
    expect(both.body.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(both.body.choices.slice(0, 3).map(({ text }) => text)).toEqual([five, six, other]);
    expect(both.body.usage!.prompt_tokens).toBe(tokens.length + served.engine.promptTokens("The dog").length);
    const parts = await chunks("completions", { prompt: [PROMPT, "The dog"], n: 2, seed: 5, max_tokens: 8 });
    const joined = [0, 1, 2, 3].map((i) => parts.flatMap(({ choices }) => choices).filter(({ index }) => index === i).map(({ text }) => text).join(""));
    expect(joined).toEqual(both.body.choices.map(({ text }) => text));
  });

  it("stop at a text, which is not part of the answer", async () => {
    const { text } = await direct(4, 40);
    const word = text.split(" ")[4];
    const expected = text.slice(0, text.indexOf(word));
    for (const stop of [word, ["never there", word]]) {
      expect((await ask({ prompt: PROMPT, max_tokens: 40, seed: 4, stop })).body.choices[0]).toMatchObject({ text: expected, finish_reason: "stop" });
    }
  });

  it("have the reference's defaults, and leave unknown fields and null alone", async () => {
    const { body } = await ask({ prompt: PROMPT, temperature: null, stop: null, n: null, stream: null, user: "someone", unheard_of: { of: [1] }, logit_bias: {}, presence_penalty: 0, best_of: 1 });
    expect(body.usage!.completion_tokens).toBeLessThanOrEqual(16);
    const greedy = await Promise.all([{ temperature: 0 }, { temperature: 0, seed: 5 }, { top_p: 0 }].map((params) => ask({ prompt: PROMPT, ...params })));
    for (const { body: { choices } } of greedy) expect(choices).toEqual(greedy[0].body.choices);
  });

  it("are the same beside many others", async () => {
    const alone = await Promise.all([11, 12, 13].map((seed) => direct(seed, 24)));
    const answers = await Promise.all(Array.from({ length: 24 }, (_, i) => ask({ prompt: PROMPT, seed: 11 + (i % 3), max_tokens: 24 })));
    answers.forEach(({ body }, i) => expect(body.choices[0].text).toBe(alone[i % 3].text));
  });
});

describe("chat completions", () => {
  const messages = [{ role: "system", content: "Tell stories." }, { role: "user", content: [{ type: "text", text: "A dog" }, { type: "text", text: ", please" }] }];

  it("answer as the assistant, whole and streamed alike", async () => {
    const { body, status } = await post<Reply>(`${served.url}/v1/chat/completions`, { messages, seed: 3, max_completion_tokens: 20 });
    expect(status).toBe(200);
    expect(body).toMatchObject({ object: "chat.completion", choices: [{ index: 0, message: { role: "assistant" } }] });
    expect(body.id).toMatch(/^chatcmpl-/);
    const parts = await chunks("chat/completions", { messages, seed: 3, max_tokens: 20 });
    expect(parts[0]).toMatchObject({ object: "chat.completion.chunk", choices: [{ delta: { role: "assistant", content: "" } }] });
    expect(parts.map(({ choices }) => choices[0].delta.content ?? "").join("")).toBe(body.choices[0].message.content);
    expect(parts.at(-1)!.choices[0]).toMatchObject({ delta: {}, finish_reason: body.choices[0].finish_reason });
    expect(body.choices[0].message.content).not.toBe("");
  });

  it("are what engine.chat gives for a seed", async () => {
    const turns = [{ role: "user", content: "Hello" }, { role: "assistant", content: "Hi" }, { role: "user", content: "A dog" }];
    const expected = await served.engine.chat(turns, { temperature: 0.7, topP: 0.9, topK: 0, minP: 0, seed: 9, maxTokens: 30 }).result;
    const { body } = await post<Reply>(`${served.url}/v1/chat/completions`, { messages: turns, temperature: 0.7, top_p: 0.9, seed: 9, max_tokens: 30 });
    expect(body.choices[0].message.content).toBe(expected.text);
    expect(body.usage!.prompt_tokens).toBe(expected.promptTokens);
  });

  it("are limited by the context when nobody says otherwise", async () => {
    const { body } = await post<Reply>(`${served.url}/v1/chat/completions`, { messages, seed: 3 });
    expect(body.usage!.total_tokens).toBeLessThanOrEqual(served.engine.context);
  });
});

describe("what is wrong is said", () => {
  it.each([
    [{}, "prompt", /^prompt: expected a string.* found nothing$/],
    [{ prompt: 5 }, "prompt", /found 5$/],
    [{ prompt: [] }, "prompt", /found \[\]$/],
    [{ prompt: ["a", 1] }, "prompt[1]", /^prompt\[1\]: expected a string/],
    [{ prompt: [1, "a"] }, "prompt[1]", /expected a token id, found "a"$/],
    [{ prompt: [1, 99_999_999] }, "prompt", /found 99999999/],
    [{ prompt: "a", temperature: "hot" }, "temperature", /^temperature: expected a number from 0 to 2, found "hot"$/],
    [{ prompt: "a", temperature: 3 }, "temperature", /found 3$/],
    [{ prompt: "a", top_p: -0.1 }, "top_p", /found -0.1$/],
    [{ prompt: "a", seed: 1.5 }, "seed", /expected a whole number/],
    [{ prompt: "a", n: 0 }, "n", /found 0$/],
    [{ prompt: Array(80).fill("a"), n: 2 }, "n", /at most 128/],
    [{ prompt: "a", max_tokens: 0 }, "max_tokens", /found 0$/],
    [{ prompt: "a", max_tokens: 1e9 }, "max_tokens", /found 1000000000$/],
    [{ prompt: "a", stop: 1 }, "stop", /expected a string or up to/],
    [{ prompt: "a", stop: ["x", 1] }, "stop[1]", /found 1$/],
    [{ prompt: "a", stream: "yes" }, "stream", /expected true or false, found "yes"$/],
    [{ prompt: "a", stream: true, stream_options: { include_usage: 1 } }, "stream_options.include_usage", /found 1$/],
    [{ prompt: "a", stream_options: [] }, "stream_options", /an object/],
    [{ prompt: "a", logprobs: 3 }, "logprobs", /not supported/],
    [{ prompt: "a", echo: true }, "echo", /not supported/],
    [{ prompt: "a", frequency_penalty: 0.5 }, "frequency_penalty", /not supported/],
    [{ prompt: "word ".repeat(3000) }, "prompt", /the context\)/],
    [{ prompt: "x".repeat(900_000) }, "prompt", /the context\), found \d+ or more$/],
    [{ prompt: Array(5000).fill(1) }, "prompt", /the context\)/],
  ])("of a completion: %#", async (body, param, message) => {
    const found = await refuse(body);
    expect(found).toMatchObject({ status: 400, type: "invalid_request_error", param });
    expect(found.message).toMatch(message);
  });

  it.each([
    [{}, "messages", /found nothing$/],
    [{ messages: [] }, "messages", /at least one/],
    [{ messages: "hi" }, "messages", /found "hi"$/],
    [{ messages: [5] }, "messages[0]", /an object/],
    [{ messages: [{ role: "king", content: "a" }] }, "messages[0].role", /found "king"$/],
    [{ messages: [{ role: "user" }] }, "messages[0].content", /found nothing$/],
    [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "messages[0].content[0]", /nothing else/],
    [{ messages: [{ role: "user", content: "a" }], logprobs: true }, "logprobs", /not supported/],
    [{ messages: [{ role: "user", content: "a" }], tools: [{}] }, "tools", /not supported/],
    [{ messages: [{ role: "user", content: "word ".repeat(3000) }] }, "messages", /the context\)/],
  ])("of a chat: %#", async (body, param, message) => {
    const found = await refuse(body, "chat/completions");
    expect(found).toMatchObject({ status: 400, param });
    expect(found.message).toMatch(message);
  });

  it("of the body itself", async () => {
    for (const body of ["", "{", "nonsense", '{"prompt":', "[".repeat(100_000), "\u0000"]) expect(await refuse(body)).toMatchObject({ status: 400, code: "invalid_json" });
    for (const body of ["[]", "null", "5", '"text"']) expect((await refuse(body)).message).toMatch(/^body: expected a JSON object/);
    const notText = await fetch(`${served.url}/v1/completions`, { method: "POST", body: new Uint8Array([0x7b, 0xff, 0x7d]) });
    expect([notText.status, ((await notText.json()) as Failure).error.code]).toEqual([400, "invalid_utf8"]);
  });

  it("of the context, with the code that clients look for", async () => {
    expect(await refuse({ prompt: "word ".repeat(3000) })).toMatchObject({ code: "context_length_exceeded" });
  });

  it("of paths and methods", async () => {
    const get = async (path: string, method = "GET") => {
      const response = await fetch(served.url + path, { method });
      return [response.status, ((await response.json()) as Failure).error.code];
    };
    expect(await get("/")).toEqual([404, "not_found"]);
    expect(await get("/v1/models/other")).toEqual([404, "model_not_found"]);
    expect(await get("/v1/completions")).toEqual([405, "method_not_allowed"]);
    expect(await get("/v1/models", "DELETE")).toEqual([405, "method_not_allowed"]);
  });
});

describe("what is said about the server", () => {
  it("models and health", async () => {
    const get = async (path: string) => (await fetch(served.url + path)).json();
    expect(await get("/v1/models")).toMatchObject({ object: "list", data: [{ id: "stories", object: "model" }] });
    expect(await get("/v1/models/stories?x=1")).toMatchObject({ id: "stories", object: "model" });
    expect(await get("/health")).toEqual({ status: "ok" });
  });

  it("metrics agree with the engine, line by line in Prometheus's format", async () => {
    await ask({ prompt: PROMPT, max_tokens: 4 });
    const response = await fetch(`${served.url}/metrics`);
    expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
    const lines = (await response.text()).trimEnd().split("\n");
    for (const line of lines) expect(line).toMatch(/^(# (HELP|TYPE) memwall_\w+ .+|memwall_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.e+-]+)$/);
    const value = (name: string) => Number(lines.find((line) => line.startsWith(`memwall_${name} `))?.split(" ")[1]);
    const { requests, generatedTokens, promptTokens, kv } = served.engine.stats();
    expect(value("generated_tokens_total")).toBe(generatedTokens);
    expect(value("prompt_tokens_total")).toBe(promptTokens);
    expect(value('requests_total{outcome="finished"}')).toBe(requests.finished);
    expect(value('kv_pages{state="free"}')).toBe(kv.free);
    expect(value('kv_pages{state="used"}')).toBe(0);
    expect(value("time_to_first_token_seconds_count")).toBe(requests.finished);
    expect(value('time_to_first_token_seconds_bucket{le="+Inf"}')).toBe(requests.finished);
    const moved = lines.filter((line) => line.startsWith("memwall_bytes_moved_total{")).map((line) => Number(line.split(" ")[1]));
    const phases = Object.values(served.engine.breakdown()).map(({ total }) => total.bytesRead + total.bytesWritten);
    expect(moved.reduce((a, b) => a + b)).toBe(phases.reduce((a, b) => a + b));
    const buckets = lines.filter((line) => line.startsWith("memwall_time_per_output_token_seconds_bucket")).map((line) => Number(line.split(" ")[1]));
    expect(buckets).toEqual([...buckets].sort((a, b) => a - b));
  });
});
