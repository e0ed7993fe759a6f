import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { FormatError } from "../../../src/model/formats/errors.ts";
import { memorySource, type ByteSource } from "../../../src/model/formats/source.ts";
import { openFile } from "../../../src/runtime/node-files.ts";

const folder = mkdtempSync(join(tmpdir(), "memwall-files-"));
afterAll(() => rmSync(folder, { recursive: true }));

const path = join(folder, "data.bin");
const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
writeFileSync(path, bytes);

describe.each<[string, () => ByteSource]>([
  ["openFile", () => openFile(path)],
  ["memorySource", () => memorySource(path, bytes)],
])("%s", (_, open) => {
  it("reads at any position, into any view", () => {
    const source = open();
    expect(source).toMatchObject({ name: path, size: 1000 });
    const target = new Uint8Array(20).subarray(5, 15);
    source.read(990, target);
    expect(target).toEqual(bytes.subarray(990));
    source.read(0, target);
    expect(target).toEqual(bytes.subarray(0, 10));
    source.read(1000, new Uint8Array(0));
    source.close();
    source.close();
  });

  it("fills the target wholly or throws", () => {
    const source = open();
    const message = (at: number) => `${path}: expected 10 bytes at byte ${at}, found the end of the file at byte 1000`;
    expect(() => source.read(991, new Uint8Array(10))).toThrow(message(991));
    expect(() => source.read(2 ** 60, new Uint8Array(10))).toThrow(message(2 ** 60));
    expect(() => source.read(-1, new Uint8Array(10))).toThrow(FormatError);
    expect(() => source.read(NaN, new Uint8Array(10))).toThrow(FormatError);
  });
});

describe("openFile", () => {
  it("says in one line why a file cannot be read", () => {
    const missing = join(folder, "missing.gguf");
    expect(() => openFile(missing)).toThrow(new FormatError(missing, "cannot open: no such file"));
    expect(() => openFile(folder)).toThrow(new FormatError(folder, "cannot open: this is a directory, expected a file"));
    expect(() => openFile(join(path, "x"))).toThrow("cannot open: no such file: a part of the path is not a directory");
    expect(() => openFile("a\0b")).toThrow(FormatError);
  });

  it.skipIf(process.getuid === undefined || process.getuid() === 0)("says when there is no permission", () => {
    const secret = join(folder, "secret.gguf");
    writeFileSync(secret, bytes);
    chmodSync(secret, 0);
    expect(() => openFile(secret)).toThrow(new FormatError(secret, "cannot open: no permission to read it"));
  });

  it("notices a file that shrinks, and a read after close", () => {
    mkdirSync(join(folder, "sub"));
    const shrinking = join(folder, "sub", "shrinking.bin");
    writeFileSync(shrinking, bytes);
    const source = openFile(shrinking);
    writeFileSync(shrinking, bytes.subarray(0, 500));
    expect(() => source.read(400, new Uint8Array(200))).toThrow("expected 1000 bytes, found the end at byte 500: the file shrank after it was opened");
    source.close();
    expect(() => source.read(0, new Uint8Array(1))).toThrow("the file was closed before this read");
  });
});
