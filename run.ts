#!/usr/bin/env node
import process from "node:process";
import { parseArgs } from "node:util";
import { type Command, UsageError } from "./src/runtime/commands/command.ts";
import { nodeIo, packageVersion } from "./src/runtime/node-io.ts";

/** Every command in a file of its own, which is read when it is asked for: nobody waits for the others. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  generate: async () => (await import("./src/runtime/commands/generate.ts")).generate,
  chat: async () => (await import("./src/runtime/commands/chat.ts")).chat,
  logits: async () => (await import("./src/runtime/commands/logits.ts")).logits,
  tokenize: async () => (await import("./src/runtime/commands/tokenize.ts")).tokenize,
  inspect: async () => (await import("./src/runtime/commands/inspect.ts")).inspect,
  step: async () => (await import("./src/runtime/commands/step.ts")).step,
  report: async () => (await import("./src/runtime/commands/report.ts")).report,
  serve: async () => (await import("./src/runtime/commands/serve.ts")).serve,
  batch: async () => (await import("./src/runtime/commands/batch.ts")).batch,
  bench: async () => (await import("./src/runtime/commands/bench.ts")).bench,
  "bench batch": async () => (await import("./src/runtime/commands/bench-batch.ts")).benchBatch,
  "bench attention": async () => (await import("./src/runtime/commands/bench-attention.ts")).benchAttention,
  "bench fusion": async () => (await import("./src/runtime/commands/bench-fusion.ts")).benchFusion,
  "bench speculate": async () => (await import("./src/runtime/commands/bench-speculate.ts")).benchSpeculate,
  "bench serve": async () => (await import("./src/runtime/commands/bench-serve.ts")).benchServe,
  roofline: async () => (await import("./src/runtime/commands/roofline.ts")).roofline,
  breakdown: async () => (await import("./src/runtime/commands/breakdown.ts")).breakdown,
  project: async () => (await import("./src/runtime/commands/project.ts")).project,
  plan: async () => (await import("./src/runtime/commands/plan.ts")).plan,
  quantize: async () => (await import("./src/runtime/commands/quantize.ts")).quantize,
  convert: async () => (await import("./src/runtime/commands/convert.ts")).convert,
  calibrate: async () => (await import("./src/runtime/commands/calibrate.ts")).calibrate,
  eval: async () => (await import("./src/runtime/commands/eval.ts")).evaluate,
};

/** The command that runs, as it was asked for: "bench batch ". */
let asked = "";

async function main(args: readonly string[]): Promise<void> {
  const interrupt = new AbortController();
  const io = nodeIo(interrupt.signal);
  const named = args.length > 0 && !args[0].startsWith("-");
  // "bench" is a command, and so is "bench batch".
  const words = Object.hasOwn(COMMANDS, args.slice(0, 2).join(" ")) ? 2 : 1;
  const name = named ? args.slice(0, words).join(" ") : "generate";
  if (!Object.hasOwn(COMMANDS, name)) throw new UsageError(`expected one of ${Object.keys(COMMANDS).join(", ")}, found ${JSON.stringify(args[0])}`);
  const command = await COMMANDS[name]();
  if (named) asked = `${name} `;
  const values = parse(command, named ? args.slice(words) : args);
  if (values.version) return io.out(`memwall ${packageVersion()}\n`);
  if (values.help) return io.out(named ? commandHelp(command) : await overview());
  // The first signal asks a command that has something to bring to an end to stop; the second one, whichever it is, ends the process at once.
  const signals = command.stops ?? [];
  const stop = () => {
    for (const signal of signals) process.off(signal, stop);
    interrupt.abort();
  };
  for (const signal of signals) process.on(signal, stop);
  await command.run(values, io);
}

function parse(command: Command, args: readonly string[]) {
  const options = Object.fromEntries(Object.entries(command.options).map(([name, { type, multiple = false }]) => [name, { type, multiple }]));
  const own = { help: { type: "boolean", short: "h" }, version: { type: "boolean", short: "v" } } as const;
  try {
    return parseArgs({ args: withNegatives(args, command), options: { ...options, ...own }, allowPositionals: false }).values;
  } catch (error) {
    throw new UsageError((error as Error).message.split(". ")[0].split("\n")[0]);
  }
}

/** `--seed -1` as `--seed=-1`: parseArgs would take a negative number for another option and say only that. */
function withNegatives(args: readonly string[], { options }: Command): string[] {
  const result: string[] = [];
  for (const arg of args) {
    const last = result.at(-1) ?? "";
    if (/^-[\d.]/.test(arg) && options[last.slice(2)]?.type === "string") result[result.length - 1] = `${last}=${arg}`;
    else result.push(arg);
  }
  return result;
}

async function overview(): Promise<string> {
  const all = await Promise.all(Object.values(COMMANDS).map((load) => load()));
  const commands = all.map(({ name, summary }) => `  ${name.padEnd(15)} ${summary}`).join("\n");
  return `memwall ${packageVersion()}: runs a language model and shows where every byte goes\n\nrun.ts [command] [options], run.ts command --help\n\n${commands}\n\n${commandHelp(all[0])}`;
}

function commandHelp({ name, summary, options }: Command): string {
  const label = ([flag, { value }]: [string, Command["options"][string]]) => `  --${flag}${value ? ` ${value}` : ""}`;
  const entries = Object.entries(options);
  const width = entries.reduce((most, entry) => Math.max(most, label(entry).length), 0);
  return `run.ts ${name}: ${summary}\n\n${entries.map((entry) => `${label(entry).padEnd(width)}  ${entry[1].help}`).join("\n")}\n`;
}

/** One line for every failure: 2 when the command line is wrong, else 1. */
function fail(error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  const hint = error instanceof UsageError ? ` (run.ts ${asked}--help lists the options)` : "";
  process.stderr.write(`memwall: ${message.replaceAll("\n", " ")}${hint}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

// A reader that goes away is reported by the write that meets it, once.
process.stdout.on("error", () => {});
await main(process.argv.slice(2)).catch(fail);
