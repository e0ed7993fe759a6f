import { describe, expect, it, vi } from "vitest";
import { probe } from "../../../src/tensor/wasm/probe.ts";

describe("the start-up probe", () => {
  it("tests wide vectors by code of their own: an engine gives the same bytes the code that it has", () => {
    const compiled: string[] = [];
    const { Module } = WebAssembly;
    vi.spyOn(WebAssembly, "Module").mockImplementation(function (bytes: BufferSource) {
      compiled.push(String(bytes));
      return new Module(bytes);
    } as never);
    try {
      const found = probe();
      const narrow = compiled.splice(0);
      expect(probe(true)).toEqual(found);
      expect(compiled.length).toBe(narrow.length);
      expect(compiled.filter((bytes) => narrow.includes(bytes))).toEqual([]);
      if (found.relaxedDot !== "none") expect(narrow.length).toBeGreaterThan(0);
    } finally {
      vi.restoreAllMocks();
    }
  });
});
