import { KvCache, PAGE_SIZE } from "../../kvcache/cache.ts";
import { Ledger } from "../../tensor/ledger.ts";
import { Ops } from "../../tensor/ops.ts";
import type { Spread } from "../../tensor/wasm/measure.ts";
import { type BackendOptions, BACKENDS, createKernels } from "../backend.ts";
import { pass } from "../bench.ts";
import { asHardware, CACHE_FACTOR, type Machine, measureMachine, measureSpeeds, PEAK_FORMATS, twice, type Twice, withBest } from "../hardware/measure-machine.ts";
import { type AboveRoof, type ChosenPhase, fastestPhases, placeSteps, roofOf, RULES } from "../hardware/roofline.ts";
import { count, formatMs, formatThreads, percent } from "../report.ts";
import { backendFor } from "../schemes.ts";
import { modelFor } from "./bench.ts";
import { choice, type Command, ENGINE_OPTIONS, flag, FUSION_OPTIONS, fusionsFrom, type Io, JSON_OPTION, KERNEL_OPTIONS, kernelsFrom, KV_OPTIONS, kvFrom, MODEL_OPTIONS, number, SCHEME_OPTIONS, schemesFrom, text, UsageError, type Values } from "./command.ts";
import { outputPath, writeLater } from "./output.ts";
import { SHAPE_OPTIONS, shapeFrom } from "./hardware-options.ts";

/** Prompt tokens in one step. */
const CHUNK = 256;

export const roofline: Command = {
  name: "roofline",
  summary: "this machine measured, and every op of a real prefill and decode placed under its roof",
  options: {
    shape: SHAPE_OPTIONS.shape,
    ...MODEL_OPTIONS,
    ...KV_OPTIONS,
    ...SCHEME_OPTIONS,
    weights: { ...SCHEME_OPTIONS.weights, help: `${SCHEME_OPTIONS.weights.help}; with --shape f32, int8 (default) or int4` },
    "prompt-tokens": { type: "string", value: "P", help: "prompt length (default 64)" },
    tokens: { type: "string", value: "N", help: "tokens to decode (default 32)" },
    repeat: { type: "string", value: "R", help: "timed repetitions, the fastest one is placed (default 5)" },
    backend: ENGINE_OPTIONS.backend,
    ...KERNEL_OPTIONS,
    attention: ENGINE_OPTIONS.attention,
    ...FUSION_OPTIONS,
    out: { type: "string", value: "FILE.json", help: "write the measured machine as a device for --hw" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const given = {
      promptTokens: number(values, "prompt-tokens", { integer: true, min: 1 }, 64),
      tokens: number(values, "tokens", { integer: true, min: 1 }, 32),
      repeat: number(values, "repeat", { integer: true, min: 1 }, 5),
    };
    const on = kernelsFrom(values);
    const shape = text(values, "shape");
    if (shape !== undefined && text(values, "model") !== undefined) throw new UsageError("--shape and --model: expected one of them");
    if (shape !== undefined) shapeFrom(values);
    const bySource = shape === undefined ? values : { ...values, weights: choice(values, "weights", ["f32", "int8", "int4"] as const, "int8") };
    const backend = choice(values, "backend", BACKENDS, "auto");
    choice(values, "attention", ["tiled", "naive"] as const, "tiled");
    kvFrom(values);

    const path = outputPath(values, io, "out");
    const write = path === undefined ? undefined : writeLater(io, path);
    const schemes = await schemesFrom(bySource, io);
    const options = { ...on, ...backendFor(schemes) };
    progress(io)?.("measuring the machine");
    const earlier = await measureSpeeds(backend, options);
    const run = await timed(bySource, io, given, { backend, options, schemes });
    const later = await measureMachine(backend, { ...options, onProgress: progress(io) });
    const machine = withBest(later, earlier);
    const measuredTwice = twice(earlier, later);
    if (io.interactive) io.err("\r\x1b[K");
    const hardware = asHardware(machine);
    write?.(`${JSON.stringify(hardware, null, 2)}\n`);

    const roof = roofOf(machine);
    const phases = fastestPhases(run.rounds.map((records) => placeSteps(records, roof)));
    const facts = { model: run.name, backend: machine.backend, threads: machine.threads, ...given };
    if (flag(values, "json")) return await io.out(`${JSON.stringify({ ...facts, machine, measuredTwice, hardware, rules: RULES, phases }, null, 2)}\n`);
    const head = `${run.name}: ${given.promptTokens} prompt tokens and ${given.tokens} decoded`;
    const lines = [...machineLines(machine), twiceLine(measuredTwice), "", head, ...Object.values(phases).flatMap((phase) => ["", ...phaseLines(phase, machine)]), "", ...RULES];
    await io.out(`${lines.join("\n")}\n`);
  },
};

const progress = (io: Io) => (io.interactive ? (done: string) => io.err(`\r\x1b[K${done}`) : undefined);

interface Wanted {
  readonly promptTokens: number;
  readonly tokens: number;
  readonly repeat: number;
}

interface How {
  readonly backend: (typeof BACKENDS)[number];
  readonly options: BackendOptions;
  readonly schemes: Parameters<typeof modelFor>[1];
}

/** Runs the workload, once unmeasured, and returns the records of every repetition. */
async function timed(values: Values, io: Io, { promptTokens, tokens, repeat }: Wanted, { backend, options, schemes }: How) {
  const kernels = await createKernels(backend, options);
  try {
    const { model, activations } = await modelFor(values, schemes, io, kernels);
    const { name, contextLength } = model.config;
    if (promptTokens + tokens > contextLength) {
      throw new UsageError(`--prompt-tokens and --tokens: expected at most ${contextLength} together (the model's context), found ${promptTokens + tokens}`);
    }
    const cache = new KvCache(kernels, model.config, Math.ceil((promptTokens + tokens) / PAGE_SIZE), { kv: kvFrom(values) });
    const ledger = new Ledger(false, { records: true });
    const ops = new Ops(kernels, ledger, { attention: choice(values, "attention", ["tiled", "naive"] as const, "tiled"), activations, fusions: fusionsFrom(values) });
    const work = { promptTokens, tokens, chunk: CHUNK };
    pass(model, ops, cache, work);
    ledger.on = true;
    const rounds = Array.from({ length: repeat }, (_, i) => {
      progress(io)?.(`round ${i + 1} of ${repeat}`);
      ledger.clear();
      pass(model, ops, cache, work);
      return [...ledger.records];
    });
    return { name, rounds };
  } finally {
    kernels.close();
  }
}

const span = ({ median, lowest, highest }: Spread) => `${median.toFixed(1)} (${lowest.toFixed(1)}-${highest.toFixed(1)})`;

function machineLines({ backend, threads, parallelism, vectorBits, relaxedDot, overheadNs, cacheBytes, read, peaks }: Machine): string[] {
  const counts = [...new Set(read.map((one) => one.threads))];
  const line = (first: string, cells: readonly string[]) => `${first.padEnd(14)} ${cells.map((cell) => cell.padStart(18)).join(" ")}`;
  const sizes = read.filter((one) => one.threads === threads).map(({ bytes }) => `${bytes / 2 ** 20} MiB`);
  return [
    `this machine: ${backend} kernels on ${threads} of ${parallelism} threads${vectorBits ? `, vectors of ${vectorBits} bits, relaxed dot ${relaxedDot}` : ""}; medians (lowest-highest)`,
    "",
    line("reads, GB/s", sizes),
    ...counts.map((n) => line(formatThreads(n), read.filter((one) => one.threads === n).map(({ gbPerSecond }) => span(gbPerSecond)))),
    line("peak, GOPS", [...PEAK_FORMATS]),
    ...counts.map((n) => line(formatThreads(n), peaks.filter((one) => one.threads === n).map(({ gops }) => span(gops)))),
    "",
    (cacheBytes > 0 ? `caches: up to ${cacheBytes / 2 ** 20} MiB are read` : "caches: no size is read") +
      ` ${CACHE_FACTOR} times as fast as memory, or faster; an op without work takes ${(overheadNs / 1e3).toFixed(2)} us`,
  ];
}

function twiceLine(figures: readonly Twice[]): string {
  const apart = Math.max(...figures.map(({ before, after }) => Math.max(before, after) / Math.min(before, after) - 1));
  const each = figures.map(({ what, before, after }) => `${what} ${before.toFixed(1)} and ${after.toFixed(1)} ${what === "memory" ? "GB/s" : "GOPS"}`);
  return `best before and after the steps, of which the better counts: ${each.join(", ")}; up to ${percent(apart)} apart`;
}

/** What the rows above their own roofs mean, once. */
function aboveLines({ ops, timeShare, most }: AboveRoof): string[] {
  if (ops.length === 0) return [];
  return [
    `  above their own roofs, by up to ${percent(most - 1)}: ${ops.join(", ")} (${percent(timeShare)} of the ops' time): the roof was measured too low, as happens while other programs run,` +
      " or what these ops read lay in a nearer cache; run again when the machine is idle",
  ];
}

const signed = (share: number) => `${share > 0 ? "+" : ""}${percent(share)}`;

function phaseLines({ phase, steps, stepMs, opsMs, spread, roofMs, withOverheadMs, error, errorWithOverhead, mbu, mfu, boundShares, above, ops }: ChosenPhase, { overheadNs }: Machine): string[] {
  const calls = ops.reduce((sum, op) => sum + op.calls, 0) / steps;
  const line = (name: string, cells: readonly string[]) => `${name.padEnd(16)} ${cells.map((cell, i) => (i < 2 ? cell.padEnd(i === 0 ? 11 : 10) : cell.padStart(i === 10 ? 11 : 9))).join(" ")}`;
  const time = ops.reduce((sum, { ms }) => sum + ms, 0);
  return [
    `${phase}: ${count(steps)} step${steps === 1 ? "" : "s"}, measured ${formatMs(stepMs)} each (median ${formatMs(spread.median)}, slowest ${formatMs(spread.highest)}), ${formatMs(opsMs)} of it inside ops`,
    `  projected from the roof ${formatMs(roofMs)}: error ${signed(error)}; with ${(overheadNs / 1e3).toFixed(2)} us for each of ${count(calls)} ops ${formatMs(withOverheadMs)}: error ${signed(errorWithOverhead)}`,
    `  MBU ${percent(mbu)}, MFU ${percent(mfu)}; of its ops' time memory binds ${percent(boundShares.memory)}, arithmetic ${percent(boundShares.arithmetic)}, overhead ${percent(boundShares.overhead)}`,
    line("op", ["kind", "format", "calls", "time", "flop/byte", "GB/s", "roof GB/s", "GFLOP/s", "roof GF/s", "of roof", "bound"]),
    ...ops.map((op) =>
      line(op.name, [
        ...[op.kind, op.dtype, count(op.calls), percent(time === 0 ? 0 : op.ms / time), op.intensity.toFixed(2)],
        ...[op.gbPerSecond, op.roofGBs, op.gflops, op.roofGflops].map((value) => value.toFixed(2)),
        ...[percent(op.share), op.bound],
      ]) + (op.aboveRoof ? "  above its roof" : ""),
    ),
    ...aboveLines(above),
  ];
}
