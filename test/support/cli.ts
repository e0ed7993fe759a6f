import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const tsx = fileURLToPath(new URL("../../node_modules/tsx/dist/cli.mjs", import.meta.url));

export interface CliResult {
  code: number | null;
  out: string;
  err: string;
}

/** run.ts as a user starts it, in a process of its own; `input` goes to its standard input. */
export function cli(args: readonly string[], input = ""): CliResult {
  const { status, stdout, stderr } = spawnSync(process.execPath, [tsx, "run.ts", ...args], { cwd: root, encoding: "utf8", input, timeout: 50_000, maxBuffer: 1 << 28 });
  return { code: status, out: stdout, err: stderr };
}

/** The one document that `--json` prints. */
export function cliJson<T>(args: readonly string[], input = ""): T {
  const { code, out, err } = cli([...args, "--json"], input);
  if (code !== 0) throw new Error(`exit code ${code}: ${err}`);
  return JSON.parse(out) as T;
}
