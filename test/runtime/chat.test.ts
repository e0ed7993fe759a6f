import { describe, expect, it } from "vitest";
import { memoryFolder } from "../../src/model/formats/folder.ts";
import { TemplateError } from "../../src/model/template/errors.ts";
import { DEFAULT_TEMPLATE } from "../../src/runtime/chat.ts";
import { Engine } from "../../src/runtime/engine.ts";
import { folderFiles, folderModel, SPECIAL, tokenizerJson, TOKENIZER_CONFIG } from "../support/hf-folder.ts";

const load = (settings: object = {}) =>
  Engine.load(memoryFolder("model", folderFiles(folderModel("llama"), { "tokenizer_config.json": JSON.stringify({ ...TOKENIZER_CONFIG, ...settings }) })), { backend: "scalar" });

const HELLO = [{ role: "user", content: "the" }];

describe("engine.chat", () => {
  it("feeds what the model's own template writes, control tokens as tokens", async () => {
    const engine = await load();
    const { text, tokens, stop } = engine.chatPrompt(HELLO);
    expect(text).toBe("<s><|user|>the</s><|assistant|>");
    expect(tokens).toEqual([SPECIAL.bos, SPECIAL.user, ...engine.tokenizer.encode("the"), SPECIAL.eos, SPECIAL.assistant]);
    expect(stop).toEqual([]);
    expect(engine.chatPrompt(HELLO, { generationPrompt: false }).text).toBe("<s><|user|>the</s>");
    const chatted = await engine.chat(HELLO, { temperature: 0, maxTokens: 5 }).result;
    const generated = await engine.complete(tokens, { temperature: 0, maxTokens: 5 });
    expect(chatted.tokens).toEqual(generated.tokens);
    engine.close();
  });

  it("reuses the keys and values of the turns before", async () => {
    const engine = await load();
    const long = [{ role: "user", content: "the thin king in the inn ".repeat(2) }];
    const first = await engine.chat(long, { temperature: 0, maxTokens: 4 }).result;
    const next = [...long, { role: "assistant", content: first.text }, { role: "user", content: "the" }];
    const second = await engine.chat(next, { temperature: 0, maxTokens: 4 }).result;
    expect(first.cachedTokens).toBe(0);
    expect(second.cachedTokens).toBeGreaterThan(16);
    engine.close();
  });

  it("falls back to a transcript, which ends where the user's next line would begin", async () => {
    const engine = await load({ chat_template: null });
    expect(engine.chatFormat).toMatchObject({ own: false, template: DEFAULT_TEMPLATE });
    const { text, stop } = engine.chatPrompt([{ role: "system", content: "be" }, ...HELLO]);
    expect(text).toBe("<s>System: be\nUser: the\nAssistant:");
    expect(stop).toEqual(["\nUser:"]);
    engine.close();
  });

  it("hands tools and other variables to the template, and its refusals to the caller", async () => {
    const template = "{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}{{ tools | tojson }}{{ mood }}{{ strftime_now('%Y') }}";
    const engine = await load({ chat_template: [{ name: "tool_use", template: "x" }, { name: "default", template }] });
    expect(engine.chatPrompt(HELLO, { tools: [{ name: "f" }], variables: { mood: "calm" }, now: new Date(1999, 5, 1) }).text).toBe('[{"name": "f"}]calm1999');
    expect(() => engine.chat([...HELLO, ...HELLO])).toThrow(new TemplateError("one at a time", 1));
    engine.close();
  });

  it("loads a model whose template cannot be read, and says so when it is used", async () => {
    const engine = await load({ chat_template: "{% if %}" });
    expect((await engine.complete("the", { maxTokens: 1 })).tokens.length).toBeLessThan(2);
    expect(() => engine.chat(HELLO)).toThrow(TemplateError);
    engine.close();
  });

  it("takes the template from a file of its own first", async () => {
    const files = folderFiles(folderModel("llama"), { "chat_template.jinja": "own {{ messages[0].content }}\n", "tokenizer.json": JSON.stringify(tokenizerJson()) });
    const engine = await Engine.load(memoryFolder("model", files), { backend: "scalar" });
    expect(engine.chatPrompt(HELLO).text).toBe("own the");
    engine.close();
  });
});
