import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { memoryFolder } from "../../../src/model/formats/folder.ts";
import { openModel } from "../../../src/model/open.ts";
import { folderFiles, folderModel } from "../../support/hf-folder.ts";

describe("a folder made to hang or to overflow", () => {
  const model = folderModel("llama");
  const deep = "[".repeat(100_000);
  it.each<[string, string, string]>([
    ["config.json", `{"model_type":${deep}`, "expected JSON nested at most 64 deep"],
    ["tokenizer.json", `{"model":${'{"a":'.repeat(50_000)}`, "expected JSON nested at most 64 deep"],
    ["tokenizer_config.json", deep, "expected JSON nested at most 64 deep"],
    ["generation_config.json", deep, "expected JSON nested at most 64 deep"],
    ["config.json", '{"model_type":"llama","model_type":"qwen2"}', 'model/config.json: key "model_type": expected every key once in its object, found it twice'],
    ["tokenizer.json", '{"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}}', 'model/tokenizer.json: key "a": expected every key once in its object, found it twice'],
    ["tokenizer.json", '{"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]},"added_tokens":[{"id":2,"content":"<s>"},{"id":3,"content":"</s>"}]}', 'model/tokenizer.json: merge 0 of "a" and "b": expected tokens that make a token, found no token "ab"'],
  ])("%s of %.30s is refused in one line", (name, content, message) => {
    const open = () => openModel(memoryFolder("model", folderFiles(model, { [name]: content })));
    expect(open).toThrow(FormatError);
    expect(open).toThrow(message);
    expect(open).toThrow(`model/${name}: `);
    expect(open).not.toThrow("\n");
  });

  it("merges that run in circles end: each one makes a word shorter", () => {
    // With a prefix that is cut off, "a" and "##a" make "a", and "a" and "##b" make "ab" out of what "ab" and "##a" made.
    const vocab = { a: 0, "##a": 1, "##b": 2, ab: 3, "##": 4 };
    const merges = [["a", "##a"], ["a", "##b"], ["a", "##"], ["ab", "##"], ["##", "##"]];
    const names = { ...vocab, aa: 5 };
    const content = JSON.stringify({ model: { type: "BPE", vocab: names, merges, continuing_subword_prefix: "##" }, added_tokens: [{ id: 6, content: "</s>" }, { id: 7, content: "<s>" }] });
    const open = () => openModel(memoryFolder("model", folderFiles(model, { "tokenizer.json": content }))).tokenizer.encode("a".repeat(100_000) + "b".repeat(1000));
    const started = performance.now();
    expect(open().length).toBeGreaterThan(0);
    expect(performance.now() - started).toBeLessThan(5000);
  });
});
