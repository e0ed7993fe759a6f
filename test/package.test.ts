import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** What a user gets: the packed package, installed without a network into an empty folder. */
describe("the package, installed", () => {
  const folder = mkdtempSync(join(tmpdir(), "memwall-package-"));
  const app = join(folder, "app");
  const run = (command: string, args: string[], cwd: string) =>
    execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NO_COLOR: "1" } });

  beforeAll(() => {
    run("npm", ["pack", "--pack-destination", folder], root);
    const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"))!;
    mkdirSync(app);
    writeFileSync(join(app, "package.json"), JSON.stringify({ name: "app", type: "module", private: true }));
    run("npm", ["install", "--offline", "--no-audit", "--no-fund", join(folder, tarball)], app);
  }, 180_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("tells a story from code, without tsx", () => {
    writeFileSync(
      join(app, "story.js"),
      `import { Engine } from "memwall";
       const engine = await Engine.load("node_modules/memwall/fixtures/stories.gguf", { ledger: true });
       let text = "";
       for await (const piece of engine.generate("Once upon a time", { temperature: 0, maxTokens: 24 })) text += piece;
       console.log(JSON.stringify({ text, gemv: engine.breakdown().decode.byKind.gemv.calls }));
       engine.close();`,
    );
    const { text, gemv } = JSON.parse(run("node", ["story.js"], app)) as { text: string; gemv: number };
    expect(text.length).toBeGreaterThan(20);
    expect(gemv).toBeGreaterThan(0);
  });

  it("brings a command line that says the same", () => {
    const memwall = join(app, "node_modules", ".bin", "memwall");
    const result = JSON.parse(run(memwall, ["--prompt", "Once upon a time", "--temperature", "0", "--max-tokens", "24", "--json"], app)) as { text: string };
    expect(run("node", ["story.js"], app)).toContain(JSON.stringify(result.text));
  });

  it("has types that a strict project accepts", () => {
    writeFileSync(join(app, "use.ts"), `import { Engine, type GenerationResult } from "memwall";\nexport const text = async (e: Engine): Promise<string> => { const r: GenerationResult = await e.complete("x"); return r.text; };\n`);
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
    expect(run("node", [tsc, "--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2023,dom", "use.ts"], app)).toBe("");
  });
});
