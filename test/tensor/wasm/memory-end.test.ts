import { describe, expect, it } from "vitest";
import { Arena } from "../../../src/tensor/arena.ts";
import { Workspace } from "../../../src/tensor/wasm/device.ts";
import { wasmKernels } from "../../../src/tensor/wasm/index.ts";

// A step that needs more than there is fails; the ones after it must not write where others keep keys and values by then.
describe("where memory ends, scratch that was given back is not used again", () => {
  const MAX = 4 << 20;

  it("in the arena", () => {
    const kernels = wasmKernels({ maxBytes: MAX });
    const arena = new Arena(kernels);
    for (const take of [(rows: number) => arena.take("x", [rows, 64]), (rows: number) => arena.takeBlocks("x", [rows, 64], { format: "blocks", bytes: rows * 256 })]) {
      arena.release(0);
      take(16);
      arena.release(0);
      expect(() => take(MAX / 64)).toThrow(/needs .* MiB/);
      const page = kernels.alloc("f32", [16, 64]);
      arena.release(0);
      const again = take(16);
      expect(Math.abs(again.byteOffset - page.byteOffset)).toBeGreaterThanOrEqual(page.bytes);
    }
    kernels.close();
  });

  it("in a workspace", () => {
    const kernels = wasmKernels({ maxBytes: MAX });
    const workspace = new Workspace(kernels.device, "tables");
    workspace.ensure(4096);
    expect(() => workspace.ensure(MAX)).toThrow(/tables needs .* MiB/);
    const page = kernels.alloc("f32", [1024]);
    expect(Math.abs(workspace.ensure(4096) - page.byteOffset)).toBeGreaterThanOrEqual(4096);
    kernels.close();
  });
});
