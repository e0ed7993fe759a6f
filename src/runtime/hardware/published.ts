import { SHAPES } from "../../model/shapes.ts";
import type { OpRecord } from "../../tensor/ledger.ts";
import { parseFormat } from "./formats.ts";
import { HARDWARE } from "./profiles.ts";
import { project, traceWorkload } from "./projection.ts";
import { stepTime } from "./roof.ts";
import { traced, type TraceRun, traceStep } from "./trace.ts";

/** A published figure beside what the engine projects. */
export interface Check {
  readonly what: string;
  readonly unit: string;
  readonly published: number;
  readonly projected: number;
  /** projected / published - 1. */
  readonly error: number;
  readonly source: string;
}

const F16 = parseFormat("f16")!;
const device = (name: string) => HARDWARE.find((one) => one.name === name)!;
const check = (what: string, unit: string, published: number, projected: number, source: string): Check => ({
  ...{ what, unit, published, projected, source },
  error: projected / published - 1,
});

/** A 7B model at 8 bits reads its 7 GB once a token: the ceilings that this sets, batch 1, in ms a token. The figures are divisions, not measurements. */
export function checkCeilings(): Check[] {
  const on = traced(SHAPES["llama-2-7b"], { weights: parseFormat("int8")!, kv: { k: F16, v: F16 }, activations: F16 });
  const trace = traceWorkload(on, { batch: 1, promptTokens: 512, tokens: 128 });
  const known = [
    { hw: "rtx-4090", published: 7, bandwidth: "1008 GB/s" },
    { hw: "tesla-fsd-hw3", published: 110, bandwidth: "63.5 GB/s" },
    { hw: "orin", published: 34, bandwidth: "204.5 GB/s" },
  ];
  return known.map(({ hw, published, bandwidth }) =>
    check(`7B int8 on ${bandwidth} (${hw})`, "ms/token", published, project(trace, device(hw)).tpotMs!, "7 GB of weights over the memory bandwidth"),
  );
}

const SARATHI = "Agrawal et al. 2023, SARATHI, arXiv 2308.16369, LLaMA-13B on an A6000: table 2 (sequences of 1024)";
const SPEEDUPS = "SARATHI, table 4 (chunks of 256, batch 6, one prompt and five decodes)";

const decodes = (count: number, context: number): TraceRun[] => new Array<TraceRun>(count).fill({ past: context - 1, tokens: 1, prompt: false });
const prompt = (tokens: number): TraceRun => ({ past: 0, tokens, prompt: true });
const isAttention = ({ kind }: OpRecord) => kind === "attention";

/** SARATHI's model on its hardware, in 16 bits. */
function sarathi() {
  const on = traced(SHAPES["llama-2-13b"], { weights: F16, kv: { k: F16, v: F16 }, activations: F16 });
  const hardware = device("a6000");
  const ms = (records: readonly OpRecord[]) => stepTime(records, hardware).seconds * 1e3;
  const step = (...runs: TraceRun[]) => traceStep(on, runs);
  /** As in the paper, the linears of both phases are one operation each, and attention runs apart for each phase (section 4.3.1). */
  const mixed = (tokens: number, count: number, context: number) => {
    const linears = step(prompt(tokens), ...decodes(count, context)).filter((op) => !isAttention(op));
    const attention = [step(prompt(tokens)), step(...decodes(count, context))].flatMap((records) => records.filter(isAttention));
    return { linears: ms(linears), attention: ms(attention), total: ms(linears) + ms(attention) };
  };
  return { ms, step, mixed };
}

/**
 * SARATHI's decode speed-up: three decodes ride on a chunk of 1021 prompt tokens, against a batch of four decodes alone. A piggybacked decode
 * costs what the mixed step takes beyond a prompt alone (section 5.1.1). What the paper measured is compared with ceilings: its kernels take
 * longer than the roofline everywhere, so that every error in ms is below zero; in the speed-ups both sides' errors divide out in part.
 */
export function checkSarathi(): Check[] {
  const { ms, step, mixed } = sarathi();
  const prefill = ms(step(prompt(1024)));
  const four = step(...decodes(4, 1024));
  const hybrid = mixed(1021, 3, 1024);
  const alone = ms(four) / 4;
  const riding = (hybrid.total - prefill) / 3;
  const chunk = ms(step(prompt(251)));
  const speedups = [
    { context: 1024, published: 5.45 },
    { context: 2048, published: 3.26 },
    { context: 3072, published: 2.51 },
  ];
  return [
    check("prefill of 1024, whole step", "ms", 234.8, prefill, SARATHI),
    check("four decodes alone, linears", "ms", 44.28, ms(four.filter((op) => !isAttention(op))), SARATHI),
    check("four decodes alone, attention", "ms", 5.68, ms(four.filter(isAttention)), SARATHI),
    check("four decodes alone, each token", "ms", 12.49, alone, SARATHI),
    check("1021 prompt tokens and three decodes, linears", "ms", 223.2, hybrid.linears, SARATHI),
    check("1021 prompt tokens and three decodes, attention", "ms", 15.2, hybrid.attention, SARATHI),
    check("1021 prompt tokens and three decodes, whole step", "ms", 238.4, hybrid.total, SARATHI),
    check("piggybacked decode, each token", "ms", 1.2, riding, SARATHI),
    check("decode speed-up", "x", 12.49 / 1.2, alone / riding, SARATHI),
    ...speedups.map(({ context, published }) => {
      // The five decodes that ride, and the prompt tokens that they leave of the chunk (section 4.4).
      const marginal = (mixed(251, 5, context).total - chunk) / 5;
      return check(`decode speed-up, sequences of ${context}`, "x", published, ms(step(...decodes(6, context))) / 6 / marginal, SPEEDUPS);
    }),
  ];
}
