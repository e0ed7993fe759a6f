import { describe, expect, it } from "vitest";
import { createHeap, createMemory } from "../../../src/tensor/wasm/heap.ts";
import { random } from "./helpers.ts";

const RESERVED = 1000;

function heap(maxBytes: number) {
  const { memory, shared, limits } = createMemory(maxBytes);
  return createHeap(memory, shared, limits.maximum, { reserved: RESERVED });
}

describe("heap", () => {
  it("hands out zeroed blocks that never overlap, on whole lines, large ones on whole pages", () => {
    const { alloc, free, buffer, used } = heap(2 ** 26);
    const rng = random(1);
    const live: { address: number; bytes: number }[] = [];
    for (let round = 0; round < 1500; round++) {
      if (live.length > 40 || (live.length > 0 && rng.next() < 0.45)) {
        const [{ address }] = live.splice(rng.int(0, live.length - 1), 1);
        free(address);
        continue;
      }
      const bytes = rng.next() < 0.3 ? rng.int(65536, 400000) : rng.int(0, 5000);
      const address = alloc(bytes, "a block");
      expect(address % (bytes >= 65536 ? 4096 : 64)).toBe(0);
      expect(address).toBeGreaterThanOrEqual(RESERVED);
      const view = new Uint8Array(buffer(), address, bytes);
      expect(view.every((byte) => byte === 0)).toBe(true);
      view.fill(1 + rng.int(0, 254));
      for (const other of live) expect(address + bytes <= other.address || other.address + other.bytes <= address).toBe(true);
      live.push({ address, bytes });
      expect(used()).toBe(live.reduce((sum, each) => sum + Math.max(64, Math.ceil(each.bytes / 64) * 64), 0));
    }
    for (const { address } of live) free(address);
    expect(used()).toBe(0);
  });

  it("merges what is given back: the same blocks fit again, in any order, without growth", () => {
    const { alloc, free, buffer } = heap(2 ** 26);
    const sizes = [100, 70000, 64, 131072, 4096, 65536, 1, 300000];
    const filled = () => sizes.map((bytes) => alloc(bytes, "a block"));
    const first = filled();
    const length = buffer().byteLength;
    for (let round = 0; round < 50; round++) {
      const rng = random(round);
      const order = first.slice().sort(() => rng.next() - 0.5);
      for (const address of order) free(address);
      expect(filled()).toEqual(first);
    }
    for (const address of first) free(address);
    const all = alloc(first[7] + 300000 - 4096, "all of it");
    expect(all).toBe(4096);
    expect(buffer().byteLength).toBe(length);
  });

  it("ignores addresses that it has not handed out, and says what does not fit", () => {
    const { alloc, free, used } = heap(2 ** 20);
    const address = alloc(1000, "a block");
    free(address + 64);
    free(12345);
    expect(used()).toBe(1024);
    alloc(2 ** 18, "a large one");
    expect(() => alloc(2 ** 20, "the table")).toThrow(/^the table needs 1\.0 MiB, but of the 1\.0 MiB that 32-bit WebAssembly memory can hold here, 0\.7 MiB are left$/);
    free(address);
    expect(alloc(1000, "again")).toBe(address);
  });
});
