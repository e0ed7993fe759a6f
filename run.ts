#!/usr/bin/env node
import process from "node:process";
import { parseArgs } from "node:util";
import { batch } from "./src/runtime/commands/batch.ts";
import { bench } from "./src/runtime/commands/bench.ts";
import { benchAttention } from "./src/runtime/commands/bench-attention.ts";
import { benchBatch } from "./src/runtime/commands/bench-batch.ts";
import { benchFusion } from "./src/runtime/commands/bench-fusion.ts";
import { benchServe } from "./src/runtime/commands/bench-serve.ts";
import { benchSpeculate } from "./src/runtime/commands/bench-speculate.ts";
import { breakdown } from "./src/runtime/commands/breakdown.ts";
import { chat } from "./src/runtime/commands/chat.ts";
import { type Command, UsageError } from "./src/runtime/commands/command.ts";
import { calibrate } from "./src/runtime/commands/calibrate.ts";
import { convert } from "./src/runtime/commands/convert.ts";
import { evaluate } from "./src/runtime/commands/eval.ts";
import { generate } from "./src/runtime/commands/generate.ts";
import { inspect } from "./src/runtime/commands/inspect.ts";
import { logits } from "./src/runtime/commands/logits.ts";
import { plan } from "./src/runtime/commands/plan.ts";
import { project } from "./src/runtime/commands/project.ts";
import { quantize } from "./src/runtime/commands/quantize.ts";
import { report } from "./src/runtime/commands/report.ts";
import { roofline } from "./src/runtime/commands/roofline.ts";
import { serve } from "./src/runtime/commands/serve.ts";
import { step } from "./src/runtime/commands/step.ts";
import { tokenize } from "./src/runtime/commands/tokenize.ts";
import { nodeIo, packageVersion } from "./src/runtime/node-io.ts";

const COMMANDS: readonly Command[] = [generate, chat, logits, tokenize, inspect, step, report, serve, batch, bench, benchBatch, benchAttention, benchFusion, benchSpeculate, benchServe, roofline, breakdown, project, plan, quantize, convert, calibrate, evaluate];

async function main(args: readonly string[]): Promise<void> {
  const interrupt = new AbortController();
  const io = nodeIo(interrupt.signal);
  const named = args.length > 0 && !args[0].startsWith("-");
  // "bench" is a command, and so is "bench batch".
  const words = COMMANDS.some(({ name }) => name === args.slice(0, 2).join(" ")) ? 2 : 1;
  const command = named ? COMMANDS.find(({ name }) => name === args.slice(0, words).join(" ")) : generate;
  if (!command) throw new UsageError(`expected one of ${COMMANDS.map(({ name }) => name).join(", ")}, found ${JSON.stringify(args[0])}`);
  const values = parse(command, named ? args.slice(words) : args);
  if (values.version) return io.out(`memwall ${packageVersion()}\n`);
  if (values.help) return io.out(named ? commandHelp(command) : overview());
  // The first signal asks the command to stop; the second one, whichever it is, ends the process at once.
  const signals = command.graceful ? ["SIGINT", "SIGTERM"] : ["SIGINT"];
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

function overview(): string {
  const commands = COMMANDS.map(({ name, summary }) => `  ${name.padEnd(15)} ${summary}`).join("\n");
  return `memwall ${packageVersion()}: runs a language model and shows where every byte goes\n\nrun.ts [command] [options], run.ts command --help\n\n${commands}\n\n${commandHelp(generate)}`;
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
  const hint = error instanceof UsageError ? " (run.ts --help lists the options)" : "";
  process.stderr.write(`memwall: ${message.replaceAll("\n", " ")}${hint}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

// A reader that goes away is reported by the write that meets it, once.
process.stdout.on("error", () => {});
await main(process.argv.slice(2)).catch(fail);
