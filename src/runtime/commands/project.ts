import { type Energy } from "../hardware/energy.ts";
import { checkHere, type StepCheck } from "../hardware/check-here.ts";
import { type Hardware } from "../hardware/hardware.ts";
import { THIS } from "../hardware/measure-machine.ts";
import { kvName } from "../hardware/formats.ts";
import { HARDWARE } from "../hardware/profiles.ts";
import { project as projectOn, type Projection, type ProjectOptions, traceWorkload } from "../hardware/projection.ts";
import { type Check, checkCeilings, checkSarathi } from "../hardware/published.ts";
import { capacities, type Capacity, sweep, SWEEPS, type SweepRow } from "../hardware/sweep.ts";
import { traced } from "../hardware/trace.ts";
import { count, formatBytes, formatMs, percent } from "../report.ts";
import { choice, type Command, flag, JSON_OPTION, number, text, UsageError } from "./command.ts";
import { arithmeticFrom, checkContext, energyFrom, formatsFrom, HW_OPTION, hardwareFrom, ROOF_OPTIONS, shapeFrom, SHAPE_OPTIONS } from "./hardware-options.ts";

export const project: Command = {
  name: "project",
  summary: "what a published model would do on other hardware: speed, the binding resource, energy",
  options: {
    ...SHAPE_OPTIONS,
    hw: HW_OPTION,
    "prompt-tokens": { type: "string", value: "P", help: "prompt length (default 512)" },
    tokens: { type: "string", value: "N", help: "tokens to decode (default 128)" },
    batch: { type: "string", value: "B", help: "sequences at once (default 1)" },
    sweep: { type: "string", value: "OVER", help: `${SWEEPS.join(", ")}, or capacity: the largest batch that fits` },
    energy: { type: "string", value: "PATH", help: "JSON with picojoules: flop {fp32, fp16, int8, int4}, cacheByte, dramByte (default: Horowitz 2014)" },
    ...ROOF_OPTIONS,
    published: { type: "boolean", help: "published figures beside what memwall projects for them, with the errors" },
    profiles: { type: "boolean", help: "the built-in devices: every figure and its source" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const json = flag(values, "json");
    if (flag(values, "profiles")) return io.out(json ? asJson(HARDWARE) : `${HARDWARE.flatMap(profileLines).join("\n")}\n`);
    if (flag(values, "published")) {
      const checks = [...checkCeilings(), ...checkSarathi()];
      return io.out(json ? asJson({ checks }) : `${checkTable(checks).join("\n")}\n`);
    }
    const shape = shapeFrom(values);
    const formats = formatsFrom(values, "int8");
    const hardware = await hardwareFrom(values, io);
    const options: ProjectOptions = { arithmetic: arithmeticFrom(values), launch: flag(values, "launch"), energy: await energyFrom(values, io) };
    const workload = {
      batch: number(values, "batch", { integer: true, min: 1, max: 4096 }, 1),
      promptTokens: number(values, "prompt-tokens", { integer: true, min: 1, max: 1 << 20 }, 512),
      tokens: number(values, "tokens", { integer: true, min: 1, max: 1 << 20 }, 128),
    };
    const over = text(values, "sweep") === undefined ? undefined : choice(values, "sweep", [...SWEEPS, "capacity"] as const, "batch");
    const clash = over && SWEPT[over].find((option) => text(values, option) !== undefined);
    if (clash) throw new UsageError(`--sweep ${over}: sets --${clash} itself, expected none`);
    if (over === undefined || over === "batch" || over === "bits" || over === "kv") checkContext(shape, workload.promptTokens + workload.tokens, "--prompt-tokens and --tokens");
    const formatNames = { weights: formats.weights.name, kv: kvName(formats.kv), activations: formats.activations.name };
    const facts = { shape: shape.config.name, ...formatNames, ...workload };

    if (over === "capacity") {
      const rows = capacities(shape, formats, hardware, options);
      return io.out(json ? asJson({ shape: facts.shape, ...formatNames, sweep: over, rows }) : `${capacityTable(rows).join("\n")}\n`);
    }
    if (over !== undefined) {
      const rows = sweep(over, shape, formats, workload, hardware, options);
      return io.out(json ? asJson({ ...facts, sweep: over, rows }) : `${sweepTable(over, rows, hardware).join("\n")}\n`);
    }
    const on = traced(shape, formats);
    const trace = traceWorkload(on, workload);
    const projections = hardware.map((device) => projectOn(trace, device, options));
    const here = hardware.find(({ name }) => name === THIS);
    const check = here && (await checkHere(shape, formats.weights.name, workload, here, options));
    const unverified = Object.fromEntries(hardware.flatMap((device) => (device.unverified?.length ? [[device.name, device.unverified]] : [])));
    if (json) return io.out(asJson({ ...facts, bytes: trace.bytes, energySource: options.energy!.source, unverified, projections, ...(check && { check }) }));
    const perWeight = on.model.weights.layers[0].q.weight;
    const head = [
      `${facts.shape}, ${facts.weights} weights (${(perWeight.bytes / (perWeight.rows * perWeight.cols)).toFixed(3)} bytes each with scales, ${formatBytes(trace.bytes.weights)} in all), ` +
        `${facts.kv} KV cache (${formatBytes(trace.bytes.kv)}), ${facts.activations} activations`,
      `${workload.promptTokens} prompt tokens and ${workload.tokens} decoded, batch ${workload.batch}; times are ceilings: max(flops / peak, bytes / bandwidth) for each op${options.launch ? ", plus its launch" : ""}`,
    ];
    const beyond = workload.promptTokens + workload.tokens > shape.config.contextLength ? [`(beyond the ${count(shape.config.contextLength)} positions the model was trained for)`] : [];
    await io.out(`${[...head, ...beyond, "", ...projectionTable(projections), ...(check ? ["", ...checkLines(check)] : []), "", ...(options.launch ? withoutLaunch(hardware) : []), ...hardware.flatMap(unverifiedLines), `Energy: ${options.energy!.source}.`].join("\n")}\n`);
  },
};

/** What a projection rests on that no source could be read for. */
const unverifiedLines = ({ name, unverified = [], sources }: Hardware): string[] => unverified.map((field) => `Unverified: ${name}'s ${field} (${sources[field] ?? "no source given"}).`);

/** Options that a sweep varies itself. */
const SWEPT = { batch: ["batch"], context: ["prompt-tokens", "tokens"], bits: ["weights"], kv: ["kv"], capacity: ["batch", "prompt-tokens", "tokens", "kv"] } as const;

/** Devices to which --launch adds nothing. */
const withoutLaunch = (hardware: readonly Hardware[]): string[] => {
  const names = hardware.flatMap(({ name, launchUs }) => (launchUs === undefined ? [name] : []));
  return names.length === 0 ? [] : [`No launch overhead is known of ${names.join(", ")}: none was added.`];
};

const asJson = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

function checkLines(check: StepCheck): string[] {
  if (check.measured === null) return [`Not checked on this machine: ${check.why}.`];
  const { measured, projected, error, cached } = check;
  const one = (what: string, side: "ttftMs" | "tpotMs") => `  ${what} measured ${formatMs(measured[side])}, projected ${formatMs(projected[side])}: error ${signed(error[side])}`;
  const above = error.ttftMs > 0 || error.tpotMs > 0;
  return [
    `Checked on this machine with memwall's own formats (${check.weights} weights, f32 KV cache and activations):`,
    one("prompt", "ttftMs"),
    one("decode step", "tpotMs"),
    ...(cached ? ["  The weights fit into the caches, so that a step can be faster than memory allows: run.ts roofline takes the caches into account."] : []),
    ...(above && !cached ? ["  An error above zero means faster than the ceiling: the machine was measured while other programs slowed it. Measure it again (run.ts roofline --out FILE.json)."] : []),
  ];
}

const COLUMNS: readonly (readonly [string, number])[] = [
  ...([["ttft", 9], ["tpot", 9], ["tokens/s", 9], ["bound", 8], ["MBU", 8], ["MFU", 8], ["J/token", 8]] as const),
  ...([["arithmetic", 10], ["cache", 8], ["DRAM", 8]] as const),
];

function projectionTable(projections: readonly Projection[]): string[] {
  const width = Math.max(8, ...projections.map(({ hw }) => hw.length));
  const line = (first: string, cells: readonly string[]) => `${first.padEnd(width)} ${cells.map((cell, i) => cell.padStart(COLUMNS[i][1])).join(" ")}`;
  return [line("hw", COLUMNS.map(([name]) => name)), ...projections.map((one) => (one.fits ? line(one.hw, figures(one)) : `${one.hw.padEnd(width)}   ${misfit(one)}`))];
}

function figures({ ttftMs, tpotMs, tokensPerSecond, bound, mbu, mfu, energy }: Projection): string[] {
  const joules = ({ total, arithmetic, cache, dram }: Energy) => [total, arithmetic, cache, dram].map((value) => value.toPrecision(3));
  return [formatMs(ttftMs!), formatMs(tpotMs!), count(tokensPerSecond!), bound!, percent(mbu!), percent(mfu!), ...joules(energy!)];
}

function misfit({ neededBytes, capacityBytes }: Projection): string {
  return `does not fit: needs ${formatBytes(neededBytes)}, has ${formatBytes(capacityBytes)}, ${formatBytes(neededBytes - capacityBytes)} too little`;
}

function sweepTable(over: string, rows: readonly SweepRow[], hardware: readonly Hardware[]): string[] {
  return hardware.flatMap(({ name }, h) => {
    const line = (first: string, cells: readonly string[]) => `${first.padEnd(8)} ${cells.map((cell, i) => cell.padStart(COLUMNS[i][1])).join(" ")}`;
    const table = rows.map(({ value, projections }) => (projections[h].fits ? line(value, figures(projections[h])) : `${value.padEnd(8)}   ${misfit(projections[h])}`));
    return [...(h > 0 ? [""] : []), name, line(over, COLUMNS.map(([title]) => title)), ...table];
  });
}

function capacityTable(rows: readonly Capacity[]): string[] {
  const line = (cells: readonly string[]) => cells.map((cell, i) => (i === 0 ? cell.padEnd(14) : cell.padStart(10))).join(" ");
  return [
    line(["hw", "KV format", "context", "KV each", "batch", "tpot", "tokens/s"]),
    ...rows.map(({ hw, kv, context, sequenceBytes, batch, tpotMs, tokensPerSecond }) =>
      line([hw, kv, count(context), formatBytes(sequenceBytes), count(batch), tpotMs === null ? "-" : formatMs(tpotMs), tokensPerSecond === null ? "-" : count(tokensPerSecond)]),
    ),
  ];
}

function checkTable(checks: readonly Check[]): string[] {
  const width = Math.max(...checks.map(({ what }) => what.length)) + 2;
  const line = (what: string, cells: readonly string[]) => `${what.padEnd(width)} ${cells.map((cell) => cell.padStart(10)).join(" ")}`;
  const figure = (value: number, unit: string) => `${value.toPrecision(4)} ${unit === "ms/token" ? "ms" : unit}`;
  const row = ({ what, unit, published, projected, error }: Check) => line(`  ${what}`, [figure(published, unit), figure(projected, unit), signed(error)]);
  const sources = [...new Set(checks.map(({ source }) => source))];
  return [line("", ["published", "projected", "error"]), ...sources.flatMap((one) => [`${one}:`, ...checks.filter(({ source }) => source === one).map(row)])];
}

const signed = (share: number) => `${share > 0 ? "+" : ""}${percent(share)}`;

function profileLines({ name, sources, unverified = [], peaks, ...figuresOf }: Hardware): string[] {
  const figure = (field: string, value: string) => `  ${field.padEnd(13)} ${value.padEnd(51)} ${unverified.includes(field) ? "UNVERIFIED: " : ""}${sources[field] ?? ""}`;
  const rates = Object.entries(peaks).map(([format, rate]) => `${format} ${rate}`);
  return [name, figure("peaks", `${rates.join(", ")} TFLOPS`), ...Object.entries(figuresOf).map(([field, value]) => figure(field, String(value)))];
}

