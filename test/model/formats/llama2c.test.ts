import { describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { readLlama2c, readLlama2cTokenizer } from "../../../src/model/formats/llama2c.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { checkpoint, SMALL, tokenizerFile } from "./llama2c-files.ts";

const read = (bytes: Uint8Array) => readLlama2c(memorySource("m.bin", bytes));
const patched = (bytes: Uint8Array, at: number, value: number) => {
  new DataView(bytes.buffer).setInt32(at, value, true);
  return () => read(bytes);
};

describe("readLlama2c", () => {
  const sizes = { attn_norm: 8, attn_q: 64, attn_k: 32, attn_v: 32, attn_output: 64, ffn_norm: 8, ffn_gate: 96, ffn_down: 96, ffn_up: 96 };
  type Part = keyof typeof sizes;

  /** Index of the first float of every part, in the order of llama2.c's export. */
  function layout(version: 0 | 1): Map<string, number> {
    const layers = (...parts: Part[]) => parts.flatMap((p) => [0, 1].map((l): [string, number] => [`blk.${l}.${p}.weight`, sizes[p]]));
    const order: [string, number][] =
      version === 0
        ? [
            ["token_embd.weight", 40],
            ...layers("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down", "ffn_up"),
            ["output_norm.weight", 8],
            ["", 6 * 2 + 6 * 2],
            ["output.weight", 40],
          ]
        : [
            ...layers("attn_norm", "ffn_norm"),
            ["output_norm.weight", 8],
            ["token_embd.weight", 40],
            ...layers("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up"),
            ["output.weight", 40],
          ];
    let at = 0;
    return new Map(order.map(([name, floats]) => [name, (at += floats) - floats]));
  }

  it.each([
    [0, true],
    [0, false],
    [1, true],
    [1, false],
  ] as const)("format %i, tied %s", (version, tied) => {
    const bytes = checkpoint(version, tied);
    const file = read(bytes);
    expect(file).toMatchObject({ name: "m.bin", version, header: SMALL });
    expect(file.tensors.size).toBe(2 + 2 * 9 + (tied ? 0 : 1));
    expect(file.tensors.has("output.weight")).toBe(!tied);
    const want = layout(version);
    const view = new DataView(bytes.buffer);
    for (const info of file.tensors.values()) {
      expect([info.name, view.getFloat32(info.offset, true)]).toEqual([info.name, want.get(info.name)]);
      expect(info.bytes).toBe(4 * info.shape.reduce((a, b) => a * b, 1));
      expect(info.type).toBe("F32");
    }
    expect(file.tensors.get("blk.1.attn_k.weight")!.shape).toEqual([4, 8]);
    expect(file.tensors.get("blk.1.ffn_down.weight")!.shape).toEqual([8, 12]);
    expect(file.tensors.get("blk.1.ffn_up.weight")!.shape).toEqual([12, 8]);
  });

  it("cut off anywhere, or with a tail", () => {
    for (const version of [0, 1] as const) {
      const bytes = checkpoint(version, true);
      for (let n = 0; n < bytes.length; n++) expect(() => read(bytes.subarray(0, n))).toThrow(FormatError);
      expect(() => read(bytes.subarray(0, bytes.length - 4))).toThrow(
        `m.bin: expected ${bytes.length} bytes for a llama2.c model of dim 8, ffnDim 12, nLayers 2, nHeads 2, nKvHeads 1, vocabSize 5, ` +
          `contextLength 6, found ${bytes.length - 4} bytes (truncated, or no llama2.c checkpoint?)`,
      );
      expect(() => read(Uint8Array.of(...bytes, 0))).toThrow(`found ${bytes.length + 1} bytes (no llama2.c checkpoint?)`);
    }
    expect(() => read(new Uint8Array(5))).toThrow("m.bin: byte 0: expected a model (GGUF or a llama2.c checkpoint), found only 5 bytes");
  });

  it("numbers that make no model", () => {
    const v0 = () => checkpoint(0, true);
    expect(patched(v0(), 0, 0)).toThrow("m.bin: expected a model (GGUF or a llama2.c checkpoint), found neither: as a llama2.c header, dim is 0");
    expect(patched(v0(), 4, -3)).toThrow("ffnDim is -3");
    expect(patched(v0(), 12, 3)).toThrow("dim 8 is no even multiple of nHeads 3");
    expect(patched(v0(), 12, 8)).toThrow("dim 8 is no even multiple of nHeads 8");
    expect(patched(v0(), 16, 4)).toThrow("nHeads 2 is no multiple of nKvHeads 4");
    expect(patched(v0(), 8, 2 ** 31 - 1)).toThrow(/expected \d+ bytes for a llama2.c model of dim 8, ffnDim 12, nLayers 2147483647/);
    expect(patched(checkpoint(1, true), 4, 2)).toThrow("m.bin: byte 4: expected a float32 llama2.c checkpoint (format 0 or 1), found format 2 (int8)");
    expect(patched(checkpoint(1, true), 4, 3)).toThrow("expected llama2.c format 1, found format 3");
    expect(patched(checkpoint(1, true), 8 + 20, -5)).toThrow("vocabSize is -5");
  });
});

describe("readLlama2cTokenizer", () => {
  const tokens = ["<unk>", "\n<s>\n", "\n</s>\n", "<0x00>", " the", "ü", ""];
  const readTokens = (bytes: Uint8Array, vocabSize: number) => readLlama2cTokenizer(memorySource("tok.bin", bytes), vocabSize);

  it("reads tokens and scores", () => {
    const file = readTokens(tokenizerFile(tokens), 7);
    expect(file).toEqual({ source: "tok.bin", tokens, scores: Float32Array.of(-0, -1, -2, -3, -4, -5, -6) });
  });

  it("must have the model's number of tokens", () => {
    expect(() => readTokens(tokenizerFile(tokens), 6)).toThrow("expected the end after 6 tokens, found 8 more bytes: this is the tokenizer of another model");
    expect(() => readTokens(tokenizerFile(tokens), 8)).toThrow(/tok.bin: byte \d+: expected 4 bytes of token 7 of 8, found 0 before the end/);
    expect(() => readTokens(tokenizerFile(tokens), 32000)).toThrow("expected 32000 tokens of the model's vocabulary, found only");
  });

  it("cut off anywhere, or with impossible lengths", () => {
    const bytes = tokenizerFile(tokens);
    for (let n = 0; n < bytes.length; n++) expect(() => readTokens(bytes.subarray(0, n), 7)).toThrow(FormatError);
    for (const length of [-1, 7, 2 ** 31 - 1]) {
      const bad = tokenizerFile(tokens);
      new DataView(bad.buffer).setInt32(8, length, true);
      expect(() => readTokens(bad, 7)).toThrow(`tok.bin: byte 8: token 0 of 7: expected a length from 0 to 6, found ${length}`);
    }
    expect(() => readTokens(new Uint8Array(100), 7)).toThrow("tok.bin: byte 0: expected a llama2.c tokenizer");
  });
});
