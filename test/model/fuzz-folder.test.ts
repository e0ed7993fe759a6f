import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/model/formats/errors.ts";
import { memoryFolder } from "../../src/model/formats/folder.ts";
import { parseJson } from "../../src/model/formats/json.ts";
import { readSafeTensors } from "../../src/model/formats/safetensors.ts";
import { memorySource } from "../../src/model/formats/source.ts";
import { openModel } from "../../src/model/open.ts";
import { TemplateError } from "../../src/model/template/errors.ts";
import { compileTemplate } from "../../src/model/template/template.ts";
import { tokenizerFromJson } from "../../src/model/tokenizer/json.ts";
import { type Dice, dice } from "../support/dice.ts";
import { CASES } from "../support/hf-cases.ts";
import { drawCheckpoint } from "../support/hf-checkpoint.ts";
import { folderFiles, folderModel, tokenizerJson } from "../support/hf-folder.ts";

const utf8 = new TextEncoder();

/** One to four damages to a text: characters replaced, removed, doubled; pieces moved; what such files are full of put in. */
function mutate(text: string, d: Dice, spice: readonly string[]): string {
  let out = text;
  for (let times = d.pick([1, 1, 2, 4]); times > 0; times--) {
    const at = d.below(out.length + 1);
    const end = Math.min(out.length, at + d.between(1, 30));
    const [before, piece, after] = [out.slice(0, at), out.slice(at, end), out.slice(end)];
    out = d.pick([
      () => before + String.fromCharCode(d.between(32, 126)) + after,
      () => before + after,
      () => before + piece + piece + after,
      () => before + d.pick(spice) + piece + after,
      () => before + d.pick(spice) + after,
      () => before,
    ])();
  }
  return out;
}

/** Every damaged text must be taken or refused with one line, soon. @returns how many were taken. */
function fuzz(seeds: readonly string[], rounds: number, seed: number, spice: readonly string[], use: (text: string) => void, kind: new (...args: never[]) => Error): number {
  const d = dice(seed);
  let good = 0;
  for (let round = 0; round < rounds; round++) {
    const text = mutate(seeds[round % seeds.length], d, spice);
    const started = performance.now();
    try {
      use(text);
      good++;
    } catch (error) {
      if (!(error instanceof kind)) throw new Error(`round ${round} of seed ${seed}: ${String(error)} for ${JSON.stringify(text.slice(0, 2000))}`, { cause: error });
      expect(error.message).toMatch(/^[^\n\r]{5,2000}$/);
    }
    const ms = performance.now() - started;
    if (ms > 20_000) throw new Error(`round ${round} of seed ${seed}: took ${ms} ms for ${JSON.stringify(text.slice(0, 2000))}`);
  }
  return good;
}

const JSON_SPICE = ["null", "-1", "1e400", "9007199254740993", '""', "[]", "{}", '"x"', "true", "[[[[", "0.5", '"\\ud800"', ",", ":", '"type":"Sequence",', "4294967296"];

describe("damaged", () => {
  it("safetensors headers", () => {
    const tensors = { a: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] }, b: { dtype: "BF16", shape: [4], data_offsets: [24, 32] }, __metadata__: { format: "pt" } };
    const data = new Uint8Array(32);
    const good = fuzz([JSON.stringify(tensors)], 6000, 1, JSON_SPICE, (header) => {
      const text = utf8.encode(header);
      const bytes = new Uint8Array(8 + text.length + data.length);
      new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
      bytes.set(text, 8);
      for (const { offset, bytes: size } of readSafeTensors(memorySource("fuzz", bytes)).tensors.values()) expect(offset + size).toBeLessThanOrEqual(bytes.length);
    }, FormatError);
    expect(good).toBeGreaterThan(30);
  });

  it("config.json", () => {
    const files = folderFiles(folderModel("llama"));
    const good = fuzz([files["config.json"] as string], 1500, 2, JSON_SPICE, (config) => void openModel(memoryFolder("fuzz", { ...files, "config.json": config })), FormatError);
    expect(good).toBeGreaterThan(10);
  });

  it("config.json of every other kind of checkpoint", () => {
    const good = CASES.filter(({ config }) => config.num_hidden_layers !== 27).map(({ config, shapes }, i) => {
      const files = folderFiles(drawCheckpoint(config, shapes, 7, "F32"));
      const spice = [...JSON_SPICE, '"halves"', '"alibi":true,', '"q_lora_rank":null,'];
      return fuzz([files["config.json"] as string], 100, 20 + i, spice, (text) => void openModel(memoryFolder("fuzz", { ...files, "config.json": text })), FormatError);
    });
    expect(good.reduce((a, b) => a + b)).toBeGreaterThan(20);
  });

  it("tokenizer.json", () => {
    const base = tokenizerJson();
    const small = { ...(base.model as object), vocab: { a: 0, b: 1, Ġ: 2, ab: 3, "<0x0A>": 4 }, merges: ["a b"], unk_token: "b" };
    const split = { type: "Split", pattern: { Regex: "(?i:'s)|[^\\s\\p{L}]?\\p{L}++|\\s+(?!\\S)|\\p{N}{1,3}" }, behavior: "MergedWithPrevious", invert: false };
    const seeds = [
      { ...base, model: small, normalizer: { type: "Sequence", normalizers: [{ type: "NFKC" }, { type: "Prepend", prepend: "▁" }, { type: "Replace", pattern: { String: " " }, content: "▁" }] } },
      { ...base, model: small, pre_tokenizer: { type: "Sequence", pretokenizers: [split, { type: "Metaspace", replacement: "▁", prepend_scheme: "first" }] }, decoder: { type: "Metaspace", replacement: "▁" } },
      { ...base, model: { type: "Unigram", unk_id: 0, vocab: [["<unk>", 0], ["a", -1], ["ab", -1.5], ["▁", -2]] }, pre_tokenizer: null },
    ].map((one) => JSON.stringify(one));
    const good = fuzz(seeds, 4000, 3, JSON_SPICE, (text) => {
      const own = tokenizerFromJson(parseJson("fuzz", utf8.encode(text)), { vocabSize: 300 });
      try {
        const ids = own.encode("ab <s> a's  é\n 123", { special: true });
        expect(ids.every((id) => id >= 0 && id < 300)).toBe(true);
        own.decode(ids);
      } catch (error) {
        // A vocabulary without an unknown token may lack a word.
        if (!(error instanceof RangeError && error.message.includes("unknown token"))) throw error;
      }
    }, FormatError);
    expect(good).toBeGreaterThan(200);
  });

  it("chat templates", () => {
    const golden = JSON.parse(readFileSync(new URL("../../fixtures/templates.golden.json", import.meta.url), "utf8")) as { templates: { template: string }[]; cases: Record<string, unknown>[] };
    const spice = ["{%", "%}", "{{", "}}", "{#", "-", "(", "[", "|", " is ", " if ", " for x in range(9) ", "{% endfor %}", "'", '"', "\\", "~", "none", " not ", ".x", "[0]", "1e9", "*", "2.0", ", ", "(1,)", "|urlencode", "|wordwrap(3)", "|format(1.5)", "%05.2f", "{:>9}", "|groupby('role')"];
    const good = fuzz(golden.templates.map(({ template }) => template), 4000, 4, spice, (template) => void compileTemplate(template).render({ ...golden.cases[1] }), TemplateError);
    expect(good).toBeGreaterThan(200);
  });
});
