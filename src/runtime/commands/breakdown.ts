import { createModel, type Model } from "../../model/decoder.ts";
import { loadWeights } from "../../model/load.ts";
import { type NamedShape, SHAPES } from "../../model/shapes.ts";
import type { Kernels } from "../../tensor/kernels.ts";
import { BACKENDS, createKernels } from "../backend.ts";
import { measure } from "../hardware/measured.ts";
import { type Candidate, movesFrom, PROMPTS, RATIOS, searchShares, sharesOf, traceAll } from "../hardware/search.ts";
import { type AttentionCount, PUBLISHED_SHARES, type Share, shareCounter } from "../hardware/shares.ts";
import { traced, type Workload } from "../hardware/trace.ts";
import { randomModel } from "../random-model.ts";
import { formatThreads, percent } from "../report.ts";
import { choice, type Command, ENGINE_OPTIONS, flag, type Io, JSON_OPTION, KERNEL_OPTIONS, kernelsFrom, kvFrom, MODEL_OPTIONS, number, text, UsageError, type Values } from "./command.ts";
import { arithmeticFrom, checkContext, formatsFrom, HW_OPTION, hardwareFrom, oneDevice, ROOF_OPTIONS, shapeFrom, SHAPE_OPTIONS } from "./hardware-options.ts";
import { openFrom } from "./tokenize.ts";

/** Options that --search heeds. */
const SEARCH_OPTIONS = ["search", "shape", "weights", "kv", "hw", "json"];

/** @throws UsageError for an option that would be ignored. */
function refuse(values: Values, names: readonly string[], when: string): void {
  const given = names.find((name) => values[name] !== undefined);
  if (given !== undefined) throw new UsageError(`--${given}: expected ${when}`);
}

/** Shapes that --search tries without --shape. */
const SEARCHED = ["gpt2-xl", "gpt-3-6.7b", "gpt-3-13b", "gpt-3-175b"];

export const breakdown: Command = {
  name: "breakdown",
  summary: "shares of calls, flops, bytes and time by kind of op, beside Samsung's published ones",
  options: {
    ...SHAPE_OPTIONS,
    ...MODEL_OPTIONS,
    "prompt-tokens": { type: "string", value: "P", help: "prompt length (default 64)" },
    tokens: { type: "string", value: "N", help: "tokens to decode (default 32)" },
    batch: { type: "string", value: "B", help: "sequences at once (default 1)" },
    backend: { type: "string", value: "NAME", help: "auto, wasm or scalar: measured; shapes: costs only, timed by --hw (the default with --hw)" },
    ...KERNEL_OPTIONS,
    hw: HW_OPTION,
    ...ROOF_OPTIONS,
    attention: ENGINE_OPTIONS.attention,
    "count-attention": { type: "string", value: "AS", help: "attention (default), or products: naive attention's two products count as gemv or gemm" },
    search: { type: "boolean", help: "find the workload whose predicted shares come closest to the published ones" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    if (flag(values, "search")) {
      refuse(values, Object.keys(breakdown.options).filter((name) => !SEARCH_OPTIONS.includes(name)), "none with --search");
      return search(values, io);
    }
    if (text(values, "shape") !== undefined && text(values, "model") !== undefined) throw new UsageError("--shape and --model: expected one of them");
    const workload = {
      batch: number(values, "batch", { integer: true, min: 1, max: 4096 }, 1),
      promptTokens: number(values, "prompt-tokens", { integer: true, min: 1, max: 1 << 20 }, 64),
      tokens: number(values, "tokens", { integer: true, min: 1, max: 1 << 20 }, 32),
    };
    const counting = choice(values, "count-attention", ["attention", "products"] as const, "attention");
    const attention = choice(values, "attention", ["tiled", "naive"] as const, "tiled");
    if (counting === "products" && attention !== "naive") throw new UsageError("--count-attention: products are ops of their own in --attention naive only");
    const hw = text(values, "hw");
    const backend = choice(values, "backend", [...BACKENDS, "shapes"] as const, hw === undefined ? "auto" : "shapes");
    if (backend !== "shapes" && hw !== undefined) throw new UsageError(`--hw: predicts times for --backend shapes, found ${backend}, which measures them`);

    if (hw === undefined) refuse(values, ["arithmetic", "launch"], "only with --hw");
    if (backend === "shapes") refuse(values, ["threads", "vectors"], "none where nothing is computed");
    else if (text(values, "shape") === undefined) refuse(values, ["weights"], "only with --shape, --hw or --backend shapes");
    const { name, shares, timed, remark } =
      backend === "shapes" ? await costed(values, io, workload, attention, counting) : await measured(values, io, workload, attention, counting, backend);
    const facts = { model: name, backend, ...workload, attention, counting, hw: hw ?? null };
    const out = shares.map((share) => ({ ...share, time: timed ? share.time : null }));
    if (flag(values, "json")) return io.out(`${JSON.stringify({ ...facts, shares: out, published: PUBLISHED_SHARES }, null, 2)}\n`);
    const head = `${name}: ${workload.promptTokens} prompt tokens and ${workload.tokens} decoded, batch ${workload.batch}, ${remark}`;
    await io.out(`${[head, "", ...shareTable(shares, timed), "", PUBLISHED_NOTE].join("\n")}\n`);
  },
};

const PUBLISHED_NOTE =
  "Published: Samsung's analysis of GPT workloads (Hot Chips 35, 2023), as quoted: the slides could not be read, and a report of the talk gives 60 to 80 % of latency for GEMV.\n" +
  "Its model, lengths and machine are not given. 86.53 % of operations is compared with flops.";

interface Result {
  readonly name: string;
  readonly shares: Share[];
  readonly timed: boolean;
  readonly remark: string;
}

async function costed(values: Values, io: Io, workload: Workload, attention: "tiled" | "naive", counting: AttentionCount): Promise<Result> {
  const shape = text(values, "shape") === undefined ? shapeOfModel(values, io) : shapeFrom(values);
  checkContext(shape, workload.promptTokens + workload.tokens, "--prompt-tokens and --tokens");
  const hardware = text(values, "hw") === undefined ? undefined : await oneDevice(values, io);
  const on = traced(shape, formatsFrom(values, "f16"), attention);
  const options = { counting, hardware, launch: flag(values, "launch"), arithmetic: arithmeticFrom(values) };
  const large = hardware && on.weightBytes > hardware.capacityGB * 1e9;
  const remark = `${on.formats.weights.name} weights, costs only${hardware ? `, times predicted for ${hardware.name}` : ""}${large ? " (whose memory holds a part of the weights only: shares, not speeds)" : ""}`;
  return { name: shape.config.name, shares: sharesOf(traceAll(on, workload), options), timed: hardware !== undefined, remark };
}

async function measured(values: Values, io: Io, workload: Workload, attention: "tiled" | "naive", counting: AttentionCount, backend: (typeof BACKENDS)[number]): Promise<Result> {
  const kv = kvFrom(values);
  const kernels = await createKernels(backend, kernelsFrom(values));
  try {
    const model = text(values, "shape") === undefined ? loaded(values, io, kernels) : await drawn(values, kernels);
    const { name, contextLength } = model.config;
    const positions = workload.promptTokens + workload.tokens;
    if (positions > contextLength) throw new UsageError(`--prompt-tokens and --tokens: expected at most ${contextLength} together (the model's context), found ${positions}`);
    const counter = shareCounter(counting);
    measure(model, kernels, workload, { attention, kv }, (record) => counter.add(record, record.ns * 1e-9));
    return { name, shares: counter.shares(), timed: true, remark: `measured with the ${kernels.name} kernels on ${formatThreads(kernels.threads)}` };
  } finally {
    kernels.close();
  }
}

function loaded(values: Values, io: Io, kernels: Kernels): Model {
  const file = openFrom(values, io);
  const model = createModel(file.config, loadWeights(file, file.config, kernels));
  file.source.close();
  return model;
}

function drawn(values: Values, kernels: Kernels): Promise<Model> {
  const shape = shapeFrom(values);
  return randomModel(shape, kernels, choice(values, "weights", ["f32", "int8", "int4"] as const, "int8"));
}

function shapeOfModel(values: Values, io: Io): NamedShape {
  const { config, tensors, source } = openFrom(values, io);
  source.close();
  return { config, tied: !tensors.has("output.weight") };
}

function shareTable(shares: readonly Share[], timed: boolean): string[] {
  const cell = (value: number) => percent(value).padStart(8);
  const rest = 1 - PUBLISHED_SHARES.gemvTime - PUBLISHED_SHARES.gemmTime;
  const published: Partial<Record<Share["kind"], string>> = {
    gemv: `${(PUBLISHED_SHARES.gemvFlops * 100).toFixed(2)} % of operations, ${(PUBLISHED_SHARES.gemvTime * 100).toFixed(2)} % of latency`,
    gemm: `${(PUBLISHED_SHARES.gemmTime * 100).toFixed(2)} % of latency`,
    attention: `all others together: ${(rest * 100).toFixed(2)} % of latency`,
  };
  const head = ["kind".padEnd(11), ...["calls", "flops", "bytes", ...(timed ? ["time"] : [])].map((name) => name.padStart(8)), " published"].join(" ");
  const rows = shares.map(({ kind, calls, flops, bytes, time }) =>
    [kind.padEnd(11), cell(calls), cell(flops), cell(bytes), ...(timed ? [cell(time)] : []), ` ${published[kind] ?? ""}`].join(" ").trimEnd(),
  );
  return [head, ...rows];
}

async function search(values: Values, io: Io): Promise<void> {
  const hardware = await hardwareFrom(values, io, "a100-80g");
  const names = text(values, "shape") === undefined ? SEARCHED : [shapeFrom(values).config.name];
  const formats = formatsFrom(values, "f16");
  const shapes = Object.fromEntries(names.map((name) => [name, SHAPES[name]]));
  const found = searchShares({ shapes, hardware, formats, prompts: PROMPTS, ratios: RATIOS });
  const best = found[0];
  const moves = movesFrom(best, shapes[best.shape], formats, hardware.find(({ name }) => name === best.hw)!);
  const ofEach = names.map((name) => found.find(({ shape }) => shape === name)!);
  if (flag(values, "json")) return io.out(`${JSON.stringify({ published: PUBLISHED_SHARES, best, nearestOfEachShape: ofEach, moves }, null, 2)}\n`);
  const lines = [
    `${found.length} workloads, ${formats.weights.name} weights, batch 1; the closest to the published shares:`,
    "",
    ...candidateTable([best, ...ofEach.filter((one) => one !== best)]),
    "",
    "With more decoded tokens for each prompt token:",
    ...candidateTable(moves.ratio),
    "",
    "With more sequences at once (a linear over several rows is gemm):",
    ...candidateTable(moves.batch),
    "",
    "With longer contexts at the same ratio:",
    ...candidateTable(moves.context),
    "",
    PUBLISHED_NOTE,
  ];
  await io.out(`${lines.join("\n")}\n`);
}

function candidateTable(rows: readonly Candidate[]): string[] {
  const line = (cells: readonly string[]) => cells.map((cell, i) => (i < 3 ? cell.padEnd([11, 9, 10][i]) : cell.padStart(9))).join(" ");
  const published = [PUBLISHED_SHARES.gemvFlops, PUBLISHED_SHARES.gemvTime, PUBLISHED_SHARES.gemmTime].map((share) => `${(share * 100).toFixed(2)} %`);
  const two = (share: number) => `${(share * 100).toFixed(2)} %`;
  return [
    line(["shape", "hw", "attention", "launch", "batch", "prompt", "decoded", "gemv ops", "gemv time", "gemm time", "off by"]),
    line(["published", "", "", "", "", "", "", ...published]),
    ...rows.map((one) =>
      line([
        ...[one.shape, one.hw, one.attention, one.launch ? "yes" : "no"],
        ...[one.batch, one.promptTokens, one.tokens].map(String),
        ...[one.gemvFlops, one.gemvTime, one.gemmTime, one.distance].map(two),
      ]),
    ),
  ];
}
