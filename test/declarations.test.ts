import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const tsc = (...args: string[]) => spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), ...args], { cwd: root, encoding: "utf8" }).stdout;

const PROGRAM = `import { Engine } from "./types/src/index.js";
const engine = await Engine.load("model.gguf", { ledger: true });
for await (const piece of engine.generate("Once", { signal: AbortSignal.timeout(100) })) engine.onOp(({ flops }) => void (flops + piece.length));
`;

it("the package's declarations compile by themselves, strictly, where no DOM is declared", () => {
  const folder = mkdtempSync(join(tmpdir(), "memwall-types-"));
  try {
    expect(tsc("-p", "tsconfig.build.json", "--emitDeclarationOnly", "--sourceMap", "false", "--outDir", join(folder, "types"))).toBe("");
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    writeFileSync(join(folder, "user.ts"), PROGRAM);
    expect(tsc("--noEmit", "--strict", "--exactOptionalPropertyTypes", "--module", "nodenext", "--target", "es2022", "--lib", "es2022", join(folder, "user.ts"))).toBe("");
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 120_000);
