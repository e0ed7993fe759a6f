import type { BackendOptions } from "../backend.ts";
import type { Engine, EngineOptions } from "../engine.ts";
import { KV_FORMATS, type KvFormat, type KvFormats } from "../../kvcache/format.ts";
import type { ByteSource } from "../../model/formats/source.ts";
import { parseCalibration } from "../../quant/calibration.ts";
import { WEIGHT_SCHEMES } from "../../quant/scheme.ts";
import { type Fusion, FUSIONS } from "../../tensor/fusion.ts";
import { formatThreads } from "../report.ts";
import { ACTIVATIONS, type SchemeOptions } from "../schemes.ts";
import { DEFAULT_DRAFT_TOKENS, MOST_DRAFT_TOKENS } from "../speculation/speculation.ts";
import type { HttpHandler, Listening, ListenOptions } from "../server/http.ts";

/** What a command may do to the world outside; run.ts brings Node's version, tests bring their own. */
export interface Io {
  /** Results. Resolves when the reader has taken them. */
  out(text: string): Promise<void>;
  /** Progress and remarks. */
  err(text: string): void;
  /** Whether someone watches `err` on a terminal that can rewrite a line. */
  readonly interactive: boolean;
  /** Whether `out` may carry colour codes. */
  readonly color: boolean;
  readonly columns: number;
  /** Aborts when the user asks a command to stop that says so in `stops`. */
  readonly interrupted: AbortSignal;
  openFile(path: string): ByteSource;
  readText(path: string): Promise<string>;
  readStdin(): Promise<string>;
  /**
   * Lines as they are typed or piped in, each asked for by `prompt`; when nobody types, prompt and line are written out for the reader.
   * Ctrl-C at a terminal ends them, or calls `onInterrupt`.
   */
  lines(prompt: string, onInterrupt?: () => void): AsyncIterable<string>;
  /** Calls back whenever the process is interrupted from outside, until the function that it returns is called. */
  onInterrupt(callback: () => void): () => void;
  /** Fails now if `path` can't be written; the file appears under its name only when `commit` is called. */
  createFile(path: string): OutputFile;
  /** Whether both paths lead to one existing file. */
  isSameFile(a: string, b: string): boolean;
  /** Answers HTTP requests from now on. @throws Error when the address cannot be listened on. */
  serve(handler: HttpHandler, options: ListenOptions): Promise<Listening>;
  /** The model that ships with memwall. */
  readonly shippedModel: string;
}

export interface OutputFile {
  /** It is no regular file: a pipe, say, whose reader leaves when it is closed. */
  readonly device: boolean;
  write(data: string | Uint8Array): void;
  commit(): void;
  /** Removes what was written. */
  discard(): void;
}

/** An option of the command line: `util.parseArgs` plus words for --help. */
export interface OptionSpec {
  readonly type: "string" | "boolean";
  readonly multiple?: boolean;
  /** What the value is, for --help: PATH, N. */
  readonly value?: string;
  readonly help: string;
}

export type Values = Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;

export interface Command {
  readonly name: string;
  /** One line. */
  readonly summary: string;
  readonly options: Readonly<Record<string, OptionSpec>>;
  /** Signals that do not end it but abort `io.interrupted`, which it heeds between its steps: it has files to finish or to remove, or clients. */
  readonly stops?: readonly ("SIGINT" | "SIGTERM")[];
  run(values: Values, io: Io): Promise<void>;
}

/** The command line itself is wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export function text(values: Values, name: string): string | undefined {
  const value = values[name];
  return typeof value === "string" ? value : undefined;
}

export function flag(values: Values, name: string): boolean {
  return values[name] === true;
}

/** All values of an option that may be repeated. */
export function texts(values: Values, name: string): string[] {
  const value = values[name];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

export interface NumberLimits {
  readonly min?: number;
  /** The value must be greater than this. */
  readonly above?: number;
  readonly max?: number;
  /** The value must be less than this. */
  readonly below?: number;
  readonly integer?: boolean;
}

/** @throws UsageError naming the flag, what was expected and what was found. */
export function number(values: Values, name: string, limits?: NumberLimits): number | undefined;
export function number(values: Values, name: string, limits: NumberLimits, fallback: number): number;
export function number(values: Values, name: string, limits: NumberLimits = {}, fallback?: number): number | undefined {
  const given = text(values, name);
  if (given === undefined) return fallback;
  const value = given.trim() === "" ? NaN : Number(given);
  const { min = -Infinity, above = -Infinity, max = Infinity, below = Infinity, integer = false } = limits;
  if (Number.isFinite(value) && value >= min && value > above && value <= max && value < below && (!integer || Number.isSafeInteger(value))) return value;
  const kind = integer ? "a whole number" : "a number";
  const least = min > -Infinity ? `, ${min} or more` : above > -Infinity ? ` above ${above}` : "";
  const most = below < Infinity ? `, less than ${below}` : max < Infinity ? ` up to ${max}` : "";
  const range = min > -Infinity && max < Infinity ? ` from ${min} to ${max}` : least + most;
  throw new UsageError(`--${name}: expected ${kind}${range}, found ${JSON.stringify(given)}`);
}

/** @throws UsageError listing the choices. */
export function choice<T extends string>(values: Values, name: string, choices: readonly T[], fallback: T): T {
  const given = text(values, name);
  if (given === undefined) return fallback;
  const found = choices.find((one) => one === given);
  if (found === undefined) throw new UsageError(`--${name}: expected one of ${choices.join(", ")}, found ${JSON.stringify(given)}`);
  return found;
}

/** "1,403" as token ids. @throws UsageError. */
export function tokenIds(values: Values, name: string): number[] | undefined {
  const given = text(values, name);
  if (given === undefined) return undefined;
  const ids = given.split(",").map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : NaN));
  if (ids.every((id) => Number.isSafeInteger(id))) return ids;
  throw new UsageError(`--${name}: expected token ids such as 1,403,407, found ${JSON.stringify(given)}`);
}

export const MODEL_OPTIONS = {
  model: { type: "string", value: "PATH", help: "GGUF file, Hugging Face folder or llama2.c checkpoint (default: the model that ships with memwall)" },
  tokenizer: { type: "string", value: "PATH", help: "tokenizer file of a llama2.c checkpoint" },
} as const;

export const PROMPT_OPTIONS = {
  prompt: { type: "string", value: "TEXT", help: "text to continue; - reads standard input" },
  "prompt-file": { type: "string", value: "PATH", help: "read the prompt from a file, or from standard input with -" },
  tokens: { type: "string", value: "IDS", help: "the prompt as token ids, taken as they are: 1,403,407" },
} as const;

/** How the model's numbers are stored and computed with. */
export const SCHEME_OPTIONS = {
  weights: { type: "string", value: "FORMAT", help: `${WEIGHT_SCHEMES.join(", ")} (default keep: what is nearest to the file)` },
  sparsity: { type: "string", value: "2:4", help: "keep two of every four weights of the layers, by magnitude, or by activation with --calibration" },
  activations: { type: "string", value: "FORMAT", help: `${ACTIVATIONS.join(", ")}: what linears read their inputs as (default f32, which the wasm kernels round to 16 bits for integer weights)` },
  calibration: { type: "string", value: "PATH", help: "what run.ts calibrate wrote: for int4:awq, static activations, SmoothQuant, pruning by activation" },
} as const;

/** How the KV cache stores keys and values. */
export const KV_OPTIONS = {
  kv: { type: "string", value: "FORMAT", help: "f32 (default), int8 or int4 keys and values in the KV cache, or one for each: k=int8,v=int4" },
} as const;

/** What runs as one op. */
export const FUSION_OPTIONS = {
  fuse: { type: "string", value: "LIST", help: `ops that run as one on the wasm kernels: ${FUSIONS.join(",")} (default: all of them)` },
  "no-fuse": { type: "boolean", help: "every op by itself, and logits for every position" },
} as const;

/** What the wasm kernels run on. */
export const KERNEL_OPTIONS = {
  threads: { type: "string", value: "N", help: "threads of the wasm kernels (default: all that the machine offers)" },
  vectors: { type: "string", value: "BITS", help: "128 (default), or 256: twice as much at once, by an experimental flag of V8 (Node 24 or later, x86 with AVX2)" },
} as const;

export const ENGINE_OPTIONS = {
  context: { type: "string", value: "N", help: "positions that a sequence may take (default: the model's own, at most 4096)" },
  backend: { type: "string", value: "NAME", help: "auto (default), wasm or scalar" },
  ...KERNEL_OPTIONS,
  attention: { type: "string", value: "NAME", help: "tiled (default) or naive, the textbook's" },
  ...KV_OPTIONS,
  window: { type: "string", value: "N", help: "attention sees the last N positions and the sinks: endless generation in fixed memory" },
  sinks: { type: "string", value: "M", help: "first positions that stay visible with --window (default 4)" },
  ...SCHEME_OPTIONS,
  ...FUSION_OPTIONS,
  verbose: { type: "boolean", help: "say on standard error which kernels run, and what this machine reads and multiplies at best" },
} as const;

/** How the tokens to come are guessed, for all commands that generate. */
export const SPECULATION_OPTIONS = {
  speculate: { type: "string", value: "NAME", help: "ngram guesses the next tokens from the text so far, to be tested together in one step; off (default)" },
  "draft-model": { type: "string", value: "PATH", help: "a small model of the same vocabulary that guesses instead" },
  "draft-tokens": { type: "string", value: "N", help: `most tokens guessed at once, 1 to ${MOST_DRAFT_TOKENS} (default ${DEFAULT_DRAFT_TOKENS}; fewer after wrong guesses)` },
} as const;

export const JSON_OPTION = { json: { type: "boolean", help: "one JSON document on standard output" } } as const;

/** The schemes that the flags ask for. @throws UsageError. */
export async function schemesFrom(values: Values, io: Io): Promise<SchemeOptions> {
  const path = text(values, "calibration");
  return {
    weights: choice(values, "weights", WEIGHT_SCHEMES, "keep"),
    sparsity: choice(values, "sparsity", ["none", "2:4"] as const, "none"),
    activations: choice(values, "activations", ACTIVATIONS, "f32"),
    calibration: path === undefined ? undefined : parseCalibration(path, await io.readText(path)),
  };
}

/** The fusions that the flags leave on. @throws UsageError. */
export function fusionsFrom(values: Values): readonly Fusion[] {
  const given = text(values, "fuse");
  if (flag(values, "no-fuse")) {
    if (given !== undefined) throw new UsageError("--fuse and --no-fuse: expected one of them");
    return [];
  }
  if (given === undefined) return FUSIONS;
  return given.split(",").map((name) => {
    const found = FUSIONS.find((one) => one === name.trim());
    if (found === undefined) throw new UsageError(`--fuse: expected some of ${FUSIONS.join(", ")}, found ${JSON.stringify(given)}`);
    return found;
  });
}

/** The formats of keys and values. @throws UsageError. */
export function kvFrom(values: Values): KvFormats {
  const given = text(values, "kv") ?? "f32";
  const parts = given.includes("=") ? given.split(",").map((part) => part.split("=")) : [["k", given], ["v", given]];
  const pairs = parts.every((part) => part.length === 2);
  const formats: Record<string, string> = Object.fromEntries(parts);
  const isFormat = (name: string): name is KvFormat => KV_FORMATS.some((one) => one === name);
  const { k = "f32", v = "f32", ...others } = formats;
  const once = Object.keys(formats).length === parts.length && Object.keys(others).length === 0;
  if (pairs && once && isFormat(k) && isFormat(v)) return { k, v };
  throw new UsageError(`--kv: expected one of ${KV_FORMATS.join(", ")}, or k=FORMAT,v=FORMAT, found ${JSON.stringify(given)}`);
}

/** What the kernels shall run on. @throws UsageError. */
export function kernelsFrom(values: Values): Pick<BackendOptions, "threads" | "vectors"> {
  return { threads: number(values, "threads", { integer: true, min: 1 }), vectors: choice(values, "vectors", ["128", "256"] as const, "128") === "256" ? 256 : 128 };
}

/** A prompt given in one of the three ways, or undefined. @throws UsageError when it is given twice. */
export async function promptFrom(values: Values, io: Io, nameOfTokens = "tokens"): Promise<string | number[] | undefined> {
  const ways = ["prompt", "prompt-file", nameOfTokens].filter((name) => values[name] !== undefined);
  if (ways.length > 1) throw new UsageError(`--${ways[0]} and --${ways[1]}: expected one prompt, found two`);
  const file = text(values, "prompt") === "-" ? "-" : text(values, "prompt-file");
  if (file !== undefined) return file === "-" ? io.readStdin() : io.readText(file);
  return tokenIds(values, nameOfTokens) ?? text(values, "prompt");
}

/** The engine's options that the flags about guessing ask for. @throws UsageError. */
export function speculationFrom(values: Values, io: Io): Pick<EngineOptions, "speculate" | "draftTokens" | "draftModel"> {
  const path = text(values, "draft-model");
  const speculate = text(values, "speculate") === undefined ? undefined : choice(values, "speculate", ["ngram", "off"] as const, "off");
  const draftTokens = number(values, "draft-tokens", { integer: true, min: 1, max: MOST_DRAFT_TOKENS });
  if (path !== undefined && speculate !== undefined) throw new UsageError("--speculate and --draft-model: expected one of them");
  if (path !== undefined && text(values, "window") !== undefined) throw new UsageError("--draft-model and --window: expected one of them (--speculate ngram goes with a window)");
  if (draftTokens !== undefined && path === undefined && speculate !== "ngram") throw new UsageError("--draft-tokens: expected --speculate ngram or --draft-model with it, found neither");
  return { speculate, draftTokens, draftModel: path === undefined ? undefined : io.openFile(path) };
}

/** Loads the engine that the flags ask for, with progress for whoever watches. */
export async function loadEngine(values: Values, io: Io, options: EngineOptions = {}): Promise<Engine> {
  const { Engine } = await import("../engine.ts");
  const { BACKENDS } = await import("../backend.ts");
  const path = text(values, "model") ?? io.shippedModel;
  const tokenizer = text(values, "tokenizer");
  if (text(values, "sinks") !== undefined && text(values, "window") === undefined) throw new UsageError("--sinks: expected --window with it, found none");
  let shown = -1;
  const engine = await Engine.load(io.openFile(path), {
    ...(await schemesFrom(values, io)),
    tokenizer: tokenizer === undefined ? undefined : io.openFile(tokenizer),
    backend: choice(values, "backend", BACKENDS, "auto"),
    ...kernelsFrom(values),
    attention: choice(values, "attention", ["tiled", "naive"] as const, "tiled"),
    context: number(values, "context", { integer: true, min: 2 }),
    kv: kvFrom(values),
    fusions: fusionsFrom(values),
    window: number(values, "window", { integer: true, min: 1 }),
    sinks: number(values, "sinks", { integer: true, min: 0 }),
    ...speculationFrom(values, io),
    onProgress: (share) => {
      const percent = Math.floor(share * 100);
      if (!io.interactive || percent === shown) return;
      shown = percent;
      io.err(`\rloading ${path} ${percent} %`);
    },
    ...options,
  });
  if (shown >= 0) io.err("\r\x1b[K");
  if (flag(values, "verbose")) io.err(`${await describeKernels(engine)}\n`);
  return engine;
}

/** What this machine does at best with an engine's kernels. */
export interface MeasuredCeilings {
  readonly readBandwidthGBs: number;
  /** By format of the weights. */
  readonly peakGops: Readonly<Record<string, number>>;
}

const measured = new WeakMap<Engine, Promise<MeasuredCeilings>>();

/** Measured once an engine, which takes a second. */
export function ceilingsOf(engine: Engine): Promise<MeasuredCeilings> {
  const known = measured.get(engine) ?? measureKernels(engine);
  measured.set(engine, known);
  return known;
}

async function measureKernels({ kernels: { backend, threads, activations, vectorBits } }: Engine): Promise<MeasuredCeilings> {
  const { createKernels } = await import("../backend.ts");
  const { measureCeilings } = await import("../hardware/measure-machine.ts");
  // Kernels of their own: the model's may have no memory left.
  const kernels = await createKernels(backend === "wasm" ? "wasm" : "scalar", { threads, activations: activations ?? undefined, vectors: vectorBits ?? undefined });
  try {
    const { readGBs, gops } = measureCeilings(kernels);
    return { readBandwidthGBs: readGBs.median, peakGops: Object.fromEntries(Object.entries(gops).map(([format, { median }]) => [format, median])) };
  } finally {
    kernels.close();
  }
}

/** One line about the kernels that run and about what the machine does with them at best. */
async function describeKernels(engine: Engine): Promise<string> {
  const { backend, threads, simd, relaxedDot, dot, activations, fusedMultiplyAdd, vectorBits, sharedMemory } = engine.kernels;
  const { readBandwidthGBs, peakGops } = await ceilingsOf(engine);
  const peaks = Object.entries(peakGops).map(([format, gops]) => `${format} ${gops.toFixed(1)}`);
  const found = `SIMD ${simd ? "yes" : "no"}, relaxed dot ${relaxedDot}, fused multiply-add ${fusedMultiplyAdd ? "yes" : "no"}, shared memory ${sharedMemory ? "yes" : "no"}`;
  const how = dot === null ? "plain loops" : `vectors of ${vectorBits} bits, integers multiplied ${dot === "pairs" ? "as pairs of 16 bits" : `by the relaxed dot (${dot})`}, activations ${activations}`;
  return `${backend} kernels, ${formatThreads(threads)}, ${how}; probe: ${found}; memory is read at ${readBandwidthGBs.toFixed(1)} GB/s, peak GOPS: ${peaks.join(", ")}`;
}
