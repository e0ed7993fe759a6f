import { describe, expect, it } from "vitest";
import { convertFolder } from "../../../src/model/convert.ts";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { memoryFolder } from "../../../src/model/formats/folder.ts";
import type { SourceWithSiblings } from "../../../src/model/formats/gguf-split.ts";
import { ggufBytes, type GgufOut } from "../../../src/model/formats/gguf-write.ts";
import { memorySource } from "../../../src/model/formats/source.ts";
import { openModel } from "../../../src/model/open.ts";
import { folderFiles, folderModel } from "../../support/hf-folder.ts";

const whole = ggufBytes(convertFolder(memoryFolder("m", folderFiles(folderModel("llama")))).plan);

/** A model's files as llama.cpp's gguf-split writes them. */
function split(plan: GgufOut, count: number, change: (file: number, key: string, value: number) => number = (_, __, value) => value): Record<string, Uint8Array> {
  const files: Record<string, Uint8Array> = {};
  for (let i = 0; i < count; i++) {
    const entry = (key: string, type: "uint16" | "int32", value: number) => [key, { type, value: change(i, key, value) }] as const;
    const keys = [entry("split.no", "uint16", i), entry("split.count", "uint16", count), entry("split.tensors.count", "int32", plan.tensors.length)];
    const tensors = plan.tensors.filter((_, at) => Math.floor((at * count) / plan.tensors.length) === i);
    files[`m-0000${i + 1}-of-0000${count}.gguf`] = ggufBytes({ metadata: new Map([...(i === 0 ? plan.metadata : []), ...keys]), tensors });
  }
  return files;
}

const plan = () => convertFolder(memoryFolder("m", folderFiles(folderModel("llama")))).plan;

function source(files: Record<string, Uint8Array>, name: string): SourceWithSiblings {
  return { ...memorySource(name, files[name]), sibling: (file) => (file in files ? memorySource(file, files[file]) : undefined) };
}

describe("a split GGUF model", () => {
  it("is the model before it was split", () => {
    const [one, other] = [openModel(memorySource("m", whole)), openModel(source(split(plan(), 3), "m-00001-of-00003.gguf"))];
    expect(other.config).toEqual(one.config);
    expect([...other.tensors.keys()].sort()).toEqual([...one.tensors.keys()].sort());
    for (const [name, info] of one.tensors) {
      const [a, b] = [new Uint8Array(info.bytes), new Uint8Array(info.bytes)];
      one.source.read(info.offset, a);
      other.source.read(other.tensors.get(name)!.offset, b);
      expect(b).toEqual(a);
    }
  });

  it.each<[string, Record<string, Uint8Array>, string, string]>([
    ["a later file", split(plan(), 2), "m-00002-of-00002.gguf", "expected the first of 2 files, found file 2: open the one that ends in -00001-of-00002.gguf"],
    ["a missing file", { "m-00001-of-00002.gguf": split(plan(), 2)["m-00001-of-00002.gguf"] }, "m-00001-of-00002.gguf", 'expected the other 1 files beside it, found no "m-00002-of-00002.gguf"'],
    ["another name", { "m.gguf": split(plan(), 2)["m-00001-of-00002.gguf"] }, "m.gguf", 'expected a name that ends in -00001-of-00002.gguf, as the model lies in 2 files, found "m.gguf"'],
    ["another model's file", split(plan(), 2, (file, key, value) => (file === 1 && key === "split.count" ? 3 : value)), "m-00001-of-00002.gguf", "expected file 2 of 2, found file 2 of 3"],
    ["a wrong count", split(plan(), 2, (_, key, value) => (key === "split.tensors.count" ? 99 : value)), "m-00001-of-00002.gguf", 'key "split.tensors.count": expected 99 tensors in the 2 files, found'],
  ])("%s", (_, files, name, message) => {
    const attempt = () => openModel(source(files, name));
    expect(attempt).toThrow(FormatError);
    expect(attempt).toThrow(message);
  });
});
