import { describeFormats } from "../../kvcache/format.ts";
import { createModel, type Model } from "../../model/decoder.ts";
import { loadWeights } from "../../model/load.ts";
import { SHAPES } from "../../model/shapes.ts";
import { activeParameterCount, parameterCount, weightBytes } from "../../model/weights.ts";
import type { Kernels } from "../../tensor/kernels.ts";
import type { ActivationFormat } from "../../tensor/ops.ts";
import { shapeKernels } from "../../tensor/shapes.ts";
import { BACKENDS, createKernels, threading } from "../backend.ts";
import { bench as measure, median, type RateSpread } from "../bench.ts";
import { methodOf, peakSpeed, QUICK_BYTES, readSpeed } from "../hardware/measure-machine.ts";
import { peakFormat } from "../hardware/roofline.ts";
import { randomModel } from "../random-model.ts";
import { count, formatBytes, percent, phaseTable } from "../report.ts";
import { backendFor, opsActivations, resolveSchemes, type SchemeOptions } from "../schemes.ts";
import { choice, type Command, ENGINE_OPTIONS, flag, FUSION_OPTIONS, fusionsFrom, type Io, JSON_OPTION, KERNEL_OPTIONS, kernelsFrom, KV_OPTIONS, kvFrom, MODEL_OPTIONS, number, SCHEME_OPTIONS, schemesFrom, text, UsageError, type Values } from "./command.ts";
import { openFrom } from "./tokenize.ts";

/** More would only wait for each other: far beyond where any machine stops gaining. */
const MOST_SEQUENCES = 4096;

export const bench: Command = {
  name: "bench",
  summary: "prefill and decode speed of a model, or of a published model's shape with random weights",
  options: {
    shape: { type: "string", value: "NAME", help: Object.keys(SHAPES).join(", ") },
    ...MODEL_OPTIONS,
    ...KV_OPTIONS,
    ...SCHEME_OPTIONS,
    weights: { ...SCHEME_OPTIONS.weights, help: `${SCHEME_OPTIONS.weights.help}; with --shape f32, int8 (default) or int4` },
    "prompt-tokens": { type: "string", value: "P", help: "prompt length (default 64)" },
    tokens: { type: "string", value: "N", help: "tokens to decode (default 32)" },
    repeat: { type: "string", value: "R", help: "timed repetitions, the median counts (default 3)" },
    backend: { type: "string", value: "NAME", help: "auto (default), wasm, scalar, or shapes: costs only, nothing is computed" },
    ...KERNEL_OPTIONS,
    attention: ENGINE_OPTIONS.attention,
    batch: { type: "string", value: "B", help: "sequences that decode together (default 1)" },
    ...FUSION_OPTIONS,
    ...JSON_OPTION,
  },
  async run(values, io) {
    const promptTokens = number(values, "prompt-tokens", { integer: true, min: 1 }, 64);
    const tokens = number(values, "tokens", { integer: true, min: 1 }, 32);
    const repeat = number(values, "repeat", { integer: true, min: 1 }, 3);
    const attention = choice(values, "attention", ["tiled", "naive"] as const, "tiled");
    const batch = number(values, "batch", { integer: true, min: 1, max: MOST_SEQUENCES }, 1);
    const fusions = fusionsFrom(values);
    const kv = kvFrom(values);
    const backend = choice(values, "backend", [...BACKENDS, "shapes"] as const, "auto");
    if (text(values, "shape") !== undefined && text(values, "model") !== undefined) throw new UsageError("--shape and --model: expected one of them");
    const bySource = text(values, "shape") === undefined ? values : { ...values, weights: choice(values, "weights", ["f32", "int8", "int4"] as const, "int8") };

    const schemes = await schemesFrom(bySource, io);
    const options = { ...kernelsFrom(values), ...backendFor(schemes) };
    const kernels = backend === "shapes" ? shapeKernels() : await createKernels(backend, options);
    const { model, parameters, activations } = await modelFor(values, schemes, io, kernels);
    const { contextLength } = model.config;
    if (promptTokens + tokens > contextLength) {
      throw new UsageError(`--prompt-tokens and --tokens: expected at most ${contextLength} together (the model's context), found ${promptTokens + tokens}`);
    }
    const onProgress = io.interactive ? (done: string) => io.err(`\r\x1b[K${done}`) : undefined;
    // Kernels of their own: the model's may have no memory left.
    const gauge = backend === "shapes" ? null : await createKernels(backend, options);
    const reads: number[] = [];
    const onRound = gauge ? () => reads.push(readSpeed(gauge, QUICK_BYTES).gbPerSecond.median) : undefined;
    const result = measure(model, kernels, { promptTokens, tokens, repeat, attention, activations, fusions, batch, kv, chunk: 256, onProgress, onRound });
    if (io.interactive) io.err("\r\x1b[K");
    const { threads } = kernels;
    kernels.close();
    const machine = gauge && (await machineOf(gauge, reads, model));
    gauge?.close();

    const { bytesPerDecodeStep, kvBytesPerToken, ...measured } = result;
    const { gbPerSecond } = measured.decode;
    const bandwidthShare = machine && gbPerSecond !== null ? gbPerSecond / machine.readBandwidthGBs : null;
    const speeds = { ...measured, decode: { ...measured.decode, bandwidthShare } };
    const activeParameters = activeParameterCount(model.weights, model.config.experts);
    const facts = { backend: kernels.name, threads, batch, fusions: kernels.fused ? fusions : fusions.filter((fusion) => fusion === "outputs"), model: { parameters, ...(activeParameters < parameters && { activeParameters }), bytes: weightBytes(model.weights), bytesPerDecodeStep }, kv: { ...kv, bytesPerToken: kvBytesPerToken } };
    if (flag(values, "json")) return io.out(`${JSON.stringify({ ...facts, machine, ...speeds }, null, 2)}\n`);
    const { prefill, decode, breakdown } = speeds;
    const each = batch === 1 ? "" : ` in each of ${batch} sequences`;
    const lines = [
      `${model.config.name}: ${count(parameters)} parameters${activeParameters < parameters ? ` (a token meets ${count(activeParameters)})` : ""}, ${formatBytes(facts.model.bytes)}, ${kernels.name} kernels`,
      `one decode step reads ${formatBytes(bytesPerDecodeStep)}; a token takes ${formatBytes(kvBytesPerToken)} of KV cache (${describeFormats(kv)})`,
      ...(prefill.tokensPerSecond === null ? [] : [`prefill of ${promptTokens}${each}: ${count(prefill.tokensPerSecond)} tokens/s${between(prefill.spread)}, ${prefill.gops!.toFixed(1)} GOPS`]),
      ...(decode.tokensPerSecond === null ? [] : [`decode of ${tokens}${each}: ${count(decode.tokensPerSecond)} tokens/s${between(decode.spread)}, ${decode.gbPerSecond!.toFixed(2)} GB/s`]),
      ...(machine === null ? [] : [machineLine(machine, bandwidthShare!, prefill.gops!, threads)]),
      ...(["prefill", "decode"] as const).flatMap((phase) => (breakdown[phase] ? ["", ...phaseTable(phase, breakdown[phase], io)] : [])),
    ];
    await io.out(`${lines.join("\n")}\n`);
  },
};

export interface BenchMachine {
  /** Reads of memory by 128-bit loads (scalar: by a plain loop) with as many threads, 10^9 bytes per second; the median of one after every repetition. */
  readonly readBandwidthGBs: number;
  /** Linears over many rows in the caches, in the format of the model's, 10^9 operations per second. */
  readonly peakGops: number;
  readonly simd: boolean;
  readonly relaxedDot: string;
  /** Null for plain loops. */
  readonly vectorBits: 128 | 256 | null;
  /** Threads that run at once here. */
  readonly parallelism: number;
}

async function machineOf(gauge: Kernels, reads: readonly number[], { weights }: Model): Promise<BenchMachine> {
  const format = peakFormat({ kind: "gemm", name: "", dtype: weights.layers[0].q.weight.format });
  return { readBandwidthGBs: median(reads), peakGops: peakSpeed(gauge, format).median, ...methodOf(gauge), parallelism: (await threading()).parallelism };
}

const between = (spread: RateSpread | null) => (spread === null ? "" : ` (${count(spread.lowest)} to ${count(spread.highest)})`);

function machineLine({ readBandwidthGBs, peakGops, vectorBits, relaxedDot, parallelism }: BenchMachine, bandwidthShare: number, gops: number, threads: number): string {
  const how = vectorBits ? `SIMD of ${vectorBits} bits, relaxed dot ${relaxedDot}, ${threads} of ${parallelism} threads` : "plain loops, one thread";
  return `this machine (${how}) reads memory at ${readBandwidthGBs.toFixed(1)} GB/s and multiplies ${peakGops.toFixed(1)} GOPS: decode reaches ${percent(bandwidthShare)} of the one, prefill ${percent(gops / peakGops)} of the other`;
}

/** The model of --model, or of --shape with random weights. */
export async function modelFor(values: Values, options: SchemeOptions, io: Io, kernels: Kernels): Promise<{ model: Model; parameters: number; activations: ActivationFormat }> {
  const name = text(values, "shape");
  if (name === undefined) {
    const file = openFrom(values, io);
    const { load, activations } = resolveSchemes(options, file.config);
    const model = createModel(file.config, loadWeights(file, file.config, kernels, load));
    file.source.close();
    return { model, activations: opsActivations(kernels, activations), parameters: parameterCount(model.weights) };
  }
  if (!Object.hasOwn(SHAPES, name)) throw new UsageError(`--shape: expected one of ${Object.keys(SHAPES).join(", ")}, found ${JSON.stringify(name)}`);
  const shape = SHAPES[name];
  const model = await randomModel(shape, kernels, options.weights as "f32" | "int8" | "int4");
  const { activations } = resolveSchemes(options, shape.config);
  return { model, activations: opsActivations(kernels, activations), parameters: parameterCount(model.weights) };
}
