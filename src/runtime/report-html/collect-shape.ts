import { KvCache, PAGE_SIZE } from "../../kvcache/cache.ts";
import type { NamedShape } from "../../model/shapes.ts";
import { parameterCount } from "../../model/weights.ts";
import type { OpRecord } from "../../tensor/ledger.ts";
import type { Hardware } from "../hardware/hardware.ts";
import { timeOf } from "../hardware/projection.ts";
import { opTime } from "../hardware/roof.ts";
import { type Formats, traced, type Workload } from "../hardware/trace.ts";
import { type Executed, fromSteps } from "./collect.ts";
import type { Pages, ReportData } from "./data.ts";
import { onHardware } from "./project.ts";

/**
 * A report on a published shape: the decoder runs on cost-only kernels, and each op takes the time of the first device's roof.
 * @param hardware At least one device.
 */
export function collectShape(shape: NamedShape, formats: Formats, workload: Workload, hardware: readonly Hardware[]): ReportData {
  const { config } = shape;
  const [device] = hardware;
  const { trace, ...projected } = onHardware(shape, formats, workload, hardware);
  const timed = (records: readonly OpRecord[]) => records.map((record) => ({ ...record, ns: opTime(record, device).seconds * 1e9 }));
  const prefill = trace.prefill.map(({ records, count }): Executed => ({ phase: "prefill", tokens: newTokens(records), count, context: workload.promptTokens, records: timed(records) }));
  const decodes = trace.decodes.map(({ records, count }): Executed => ({ phase: "decode", tokens: 1, count, context: contextOf(records), records: timed(records) }));
  const { points, ...sums } = fromSteps([...prefill, ...decodes]);
  const peaks = Object.entries(device.peaks).map(([format, tera]) => ({ format, gflops: tera * 1e3 }));
  return {
    model: {
      ...{ name: config.name, architecture: config.architecture, layers: config.nLayers, context: config.contextLength },
      ...{ parameters: parameterCount(traced(shape, formats).model.weights), weightBytes: trace.bytes.weights, weights: formats.weights.name },
    },
    run: {
      ...{ mode: "predicted", machine: device.name, promptTokens: workload.promptTokens, tokens: workload.tokens, text: null },
      prefillTokensPerSecond: workload.promptTokens / timeOf(trace.prefill, device).seconds,
      decodeTokensPerSecond: workload.tokens / timeOf(trace.decodes, device).seconds,
    },
    roofline: { bandwidthGBs: device.bandwidthGBs, peaks, points },
    ...sums,
    pages: pagesOver(shape, formats, workload),
    ...projected,
    token: null,
  };
}

const newTokens = (records: readonly OpRecord[]) => records.find(({ kind }) => kind === "embedding")!.m;
const contextOf = (records: readonly OpRecord[]) => records.find(({ kind }) => kind === "attention")!.n;

function pagesOver(shape: NamedShape, formats: Formats, { promptTokens, tokens }: Workload): Pages {
  const { kernels, model } = traced(shape, formats);
  const cache = new KvCache(kernels, model.config, Math.ceil((promptTokens + tokens) / PAGE_SIZE));
  const sequence = cache.create();
  cache.append(sequence, promptTokens);
  const steps = [{ positions: sequence.length, pages: cache.usedPages }];
  for (let i = 0; i < tokens; i++) {
    cache.append(sequence, 1);
    steps.push({ positions: sequence.length, pages: cache.usedPages });
  }
  return { pageTokens: PAGE_SIZE, pageBytes: cache.pageBytes, steps };
}
