import { PAGE_SIZE } from "../../kvcache/cache.ts";
import type { KvFormats } from "../../kvcache/format.ts";
import { parameterCount, weightBytes } from "../../model/weights.ts";
import type { OpRecord } from "../../tensor/ledger.ts";
import type { Engine } from "../engine.ts";
import { parseFormat } from "../hardware/formats.ts";
import type { Hardware } from "../hardware/hardware.ts";
import { quickHardware } from "../hardware/measure-machine.ts";
import type { Formats } from "../hardware/trace.ts";
import { type Executed, fromSteps } from "./collect.ts";
import type { Pages, ReportData, TokenView } from "./data.ts";
import { onHardware } from "./project.ts";

export interface RunOptions {
  readonly maxTokens: number;
  /** Position of the token whose attention and logit lens are shown; default the last. */
  readonly at?: number;
  readonly hardware: readonly Hardware[];
}

/** Most keys and layers whose attention is drawn; where keys are left out, the first ones stay, which often act as sinks. */
const MOST_KEYS = 60;
const FIRST_KEYS = 4;
const MOST_LAYERS = 8;

/**
 * A report on a real run: one greedy generation after a short one that warms the kernels up.
 * @param engine Its ledger must keep records, and its prefix cache must be off, so that the prompt is really fed.
 * @throws RangeError when the model ends its text at once, or there is no token at `at`.
 */
export async function collectRun(engine: Engine, prompt: string | readonly number[], { maxTokens, at, hardware }: RunOptions): Promise<ReportData> {
  const { config, model, tokenizer, ledger, cache } = engine;
  await engine.complete(prompt, { temperature: 0, maxTokens: 4 });
  ledger.clear();
  const pages: Pages["steps"][number][] = [];
  const promptIds = engine.promptTokens(prompt);
  const off = engine.onOp(({ kind }) => {
    if (kind === "sampling") pages.push({ positions: promptIds.length + pages.length, pages: cache.usedPages });
  });
  const result = await engine.complete(prompt, { temperature: 0, maxTokens });
  off();
  const ids = [...promptIds, ...result.tokens];
  if (result.tokens.length < 2) throw new RangeError(`prompt: the model ended its text after ${result.tokens.length} tokens, expected some to report on`);
  const position = at ?? Math.min(ids.length - 1, engine.context - 2);
  if (position >= ids.length) throw new RangeError(`at: expected a position from 0 to ${ids.length - 1}, found ${position}`);

  const stepper = engine.stepper(ids.slice(0, position + 1), { timing: false });
  const machine = quickHardware(stepper.kernels);
  const tied = model.weights.output.weight === model.weights.tokenEmbedding;
  const { format } = model.weights.layers[0].q.weight;
  const formats = formatsOf(format, cache.formats);
  const workload = { batch: 1, promptTokens: promptIds.length, tokens: result.tokens.length - 1 };
  const { trace: _, ...projected } = onHardware({ config, tied }, formats, workload, hardware);
  const { points, ...sums } = fromSteps(stepsOf(ledger.records));
  const { decodeTokensPerSecond, prefillTokensPerSecond } = result.timings;
  const view = tokenView(stepper, ids, tokenizer.piece);
  stepper.close();
  return {
    model: {
      ...{ name: config.name, architecture: config.architecture, layers: config.nLayers, context: config.contextLength },
      ...{ parameters: parameterCount(model.weights), weightBytes: weightBytes(model.weights), weights: format },
    },
    run: {
      ...{ mode: "measured", machine: machine.name, promptTokens: promptIds.length, tokens: result.tokens.length, text: tokenizer.decode(ids) },
      ...{ prefillTokensPerSecond: prefillTokensPerSecond!, decodeTokensPerSecond: decodeTokensPerSecond! },
    },
    roofline: { bandwidthGBs: machine.bandwidthGBs, peaks: Object.entries(machine.peaks).map(([name, tera]) => ({ format: name, gflops: tera * 1e3 })), points },
    ...sums,
    pages: { pageTokens: PAGE_SIZE, pageBytes: cache.pageBytes, steps: pages },
    ...projected,
    token: view,
  };
}

/** The formats of the cost-only decoder that stands for the loaded one. */
function formatsOf(weights: string, kv: KvFormats): Formats {
  const grouped = (name: string) => parseFormat(name.startsWith("int") ? `${name}:32` : name);
  const f32 = parseFormat("f32")!;
  return { weights: grouped(weights) ?? parseFormat("int8:32")!, kv: { k: parseFormat(kv.k) ?? f32, v: parseFormat(kv.v) ?? f32 }, activations: f32 };
}

function stepsOf(records: readonly OpRecord[]): Executed[] {
  const steps = new Map<number, OpRecord[]>();
  for (const record of records) {
    const own = steps.get(record.step);
    if (own) own.push(record);
    else steps.set(record.step, [record]);
  }
  return [...steps.values()].map((own) => {
    const attention = own.find(({ kind }) => kind === "attention");
    return { phase: own[0].phase, tokens: own[0].m, count: 1, context: attention?.n ?? 0, records: own };
  });
}

function tokenView(stepper: ReturnType<Engine["stepper"]>, ids: readonly number[], piece: (id: number) => string): TokenView {
  const fed = () => stepper.pass.start + stepper.pass.tokens.length;
  const { length } = stepper.prompt;
  while (fed() < length) stepper.nextToken();
  stepper.runTo("sample");
  const position = fed() - 1;
  const { nLayers } = stepper.model.config;
  const layers = Array.from({ length: Math.min(nLayers, MOST_LAYERS) }, (_, i) => Math.round((i * (nLayers - 1)) / Math.max(1, Math.min(nLayers, MOST_LAYERS) - 1)));
  const attention: TokenView["attention"][number][] = [];
  let positions: number[] = [];
  for (const layer of layers) {
    const weights = stepper.attention(layer);
    const shown = shownKeys(weights.keys);
    positions = shown.map((key) => weights.position(key));
    const row = (weights.queries - 1) * weights.keys;
    for (let head = 0; head < weights.heads; head++) {
      const own = weights.at(head);
      attention.push({ layer, head, weights: shown.map((key) => own[row + key]) });
    }
  }
  return {
    ...{ position, piece: piece(ids[position]), keys: positions.map((at) => ({ position: at, piece: piece(ids[at]) })), attention },
    lens: stepper.lens(3).map(({ layer, entropy, top }) => ({ layer, entropy, top: top.map(({ id, probability }) => ({ piece: piece(id), probability })) })),
  };
}

function shownKeys(keys: number): number[] {
  const all = Array.from({ length: keys }, (_, i) => i);
  return keys <= MOST_KEYS ? all : [...all.slice(0, FIRST_KEYS), ...all.slice(keys - MOST_KEYS + FIRST_KEYS)];
}
