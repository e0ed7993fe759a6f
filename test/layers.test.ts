import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** From the bottom up: each may import itself and what stands before it. */
const LAYERS = ["tensor", "quant", "kvcache", "model", "runtime"];

/** The one file that declares Node's built-ins to the compiler; nothing of it runs. */
const AMBIENT = ["src/runtime/node-builtins.d.ts", "src/runtime/node-http.d.ts"];

const files = [...readdirSync(`${ROOT}src`, { recursive: true }).map((name) => `src/${name.replaceAll("\\", "/")}`), "run.ts"].filter((name) => name.endsWith(".ts"));
const textOf = (file: string) => readFileSync(ROOT + file, "utf8");
/** The code of a file without its comments, so that words in them are not mistaken for code. */
const codeOf = (file: string) => textOf(file).replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
/** The same without the contents of strings. */
const bareCodeOf = (file: string) => codeOf(file).replace(/"(?:[^"\\\n]|\\.)*"/g, '""');

interface Import {
  readonly from: string;
  readonly to: string;
  /** `import type`, which leaves nothing in the program, or `import()`, which only loads when it is reached. */
  readonly how: "static" | "type" | "dynamic";
}

function importsOf(file: string): Import[] {
  const found = codeOf(file).matchAll(/(?:^|\n)\s*(import|export)(\s+type)?(?:\s[^;"']*?\sfrom)?\s*["']([^"']+)["']|import\(\s*["']([^"']+)["']/g);
  return [...found].map(([, , type, target, dynamic]) => {
    const path = target ?? dynamic;
    return {
      from: file,
      to: path.startsWith(".") ? new URL(path, `file:///${file}`).pathname.slice(1) : path,
      how: dynamic ? "dynamic" : type ? "type" : "static",
    };
  });
}

const imports = files.filter((file) => !AMBIENT.includes(file)).flatMap(importsOf);
const layerOf = (file: string) => LAYERS.indexOf(file.split("/")[1]);
const isNodeFile = (file: string) => file === "run.ts" || /^src\/runtime\/(.*\/)?node-[^/]+\.ts$/.test(file);
const shown = ({ from, to }: Import) => `${from} -> ${to}`;

describe("layers", () => {
  it("finds the files and their imports", () => {
    expect(files.length).toBeGreaterThan(30);
    for (const layer of LAYERS) expect(files.some((file) => file.startsWith(`src/${layer}/`))).toBe(true);
    expect(imports.map(shown)).toContain("src/model/decoder.ts -> src/tensor/tensor.ts");
    expect(imports.filter(({ to }) => to === "src/runtime/node-files.ts").map(({ how }) => how)).toContain("dynamic");
    const broken = imports.filter(({ to }) => to.endsWith(".ts") && !files.includes(to) && !to.startsWith("fixtures/"));
    expect(broken.map(shown)).toEqual([]);
  });

  it("import downwards only", () => {
    const upwards = imports.filter(({ from, to }) => layerOf(from) >= 0 && to.startsWith("src/") && (layerOf(to) < 0 || layerOf(to) > layerOf(from)));
    expect(upwards.map(shown)).toEqual([]);
  });

  it("import nothing but this repository and Node's built-ins", () => {
    const strangers = imports.filter(({ to }) => !to.startsWith("src/") && !to.startsWith("node:") && to !== "package.json");
    expect(strangers.map(shown)).toEqual([]);
  });

  it("have no circle", () => {
    const circles: string[] = [];
    const state = new Map<string, "open" | "done">();
    const visit = (file: string, path: readonly string[]) => {
      if (state.get(file) === "open") circles.push([...path.slice(path.indexOf(file)), file].join(" -> "));
      if (state.has(file)) return;
      state.set(file, "open");
      for (const { to } of imports.filter(({ from, how }) => from === file && how === "static")) visit(to, [...path, file]);
      state.set(file, "done");
    };
    files.forEach((file) => visit(file, []));
    expect(circles).toEqual([]);
  });
});

describe("Node", () => {
  it("is only touched by src/runtime/node-*.ts and run.ts", () => {
    expect(imports.filter(({ from, to }) => to.startsWith("node:") && !isNodeFile(from)).map(shown)).toEqual([]);
  });

  it("has no globals elsewhere, but for what a file asks for with typeof", () => {
    const users = files.filter((file) => !AMBIENT.includes(file) && !isNodeFile(file)).flatMap((file) => {
      const code = bareCodeOf(file);
      const uses = { process: /\bprocess\s*[.?[]/, Buffer: /\bBuffer\s*[.(]/, setImmediate: /\bsetImmediate\(/, require: /\brequire\(/, global: /\bglobal\./ };
      const used = Object.entries({ ...uses, __dirname: /\b__dirname\b/ }).flatMap(([name, use]) => (use.test(code) && !code.includes(`typeof ${name} ===`) ? [name] : []));
      return used.map((name) => `${file}: ${name}`);
    });
    expect(users).toEqual([]);
  });

  it("is not needed to import the library", () => {
    const seen = new Set<string>();
    const visit = (file: string) => {
      if (seen.has(file) || !files.includes(file)) return;
      seen.add(file);
      for (const { to } of imports.filter(({ from, how }) => from === file && how === "static")) visit(to);
    };
    visit("src/runtime/engine.ts");
    visit("src/index.ts");
    expect(seen.size).toBeGreaterThan(20);
    expect([...seen].filter(isNodeFile)).toEqual([]);
  });
});

describe("package.json", () => {
  const manifest = JSON.parse(textOf("package.json")) as Record<string, Record<string, string> | undefined>;

  it("has exactly three devDependencies and no others", () => {
    expect(Object.keys(manifest.devDependencies!).sort()).toEqual(["tsx", "typescript", "vitest"]);
    for (const kind of ["dependencies", "peerDependencies", "optionalDependencies", "bundledDependencies", "bundleDependencies"]) expect(manifest[kind]).toBeUndefined();
  });

  it("has a lock file without download addresses", () => {
    expect(textOf("package-lock.json")).not.toMatch(/"resolved"/);
  });
});

/** Spelled apart, so that this file may be searched for them too. */
const OPEN_TYPES = new RegExp([":\\s*an" + "y\\b", "\\bas an" + "y\\b", "<an" + "y>", "an" + "y\\[\\]"].join("|"));
const FOR_LATER = new RegExp(["TO" + "DO", "FIX" + "ME", "XX" + "X"].map((mark) => `\\b${mark}\\b`).join("|"));

describe("files", () => {
  it("are one idea each: at most 400 lines", () => {
    const long = files.filter((file) => textOf(file).trimEnd().split("\n").length > 400);
    expect(long).toEqual([]);
  });

  it("leave no type open and nothing for later", () => {
    const marks = files.filter((file) => OPEN_TYPES.test(bareCodeOf(file)) || FOR_LATER.test(textOf(file)));
    expect(marks).toEqual([]);
  });
});
