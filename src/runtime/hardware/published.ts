import { SHAPES } from "../../model/shapes.ts";
import type { OpRecord } from "../../tensor/ledger.ts";
import { parseFormat } from "./formats.ts";
import { HARDWARE } from "./profiles.ts";
import { project, traceWorkload } from "./projection.ts";
import { stepTime } from "./roof.ts";
import { type Formats, traced, traceStep } from "./trace.ts";

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

/** A 7B model at 8 bits reads its 7 GB once a token: the ceilings that this sets, batch 1, in ms a token. */
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

const SARATHI = "Agrawal et al. 2023, SARATHI, arXiv 2308.16369, LLaMA-13B on an A6000, sequences of 1024";

/**
 * SARATHI's decode speed-up: three decodes ride on a chunk of 1021 prompt tokens, against a batch of four decodes alone. As in the paper,
 * the two phases' attention runs apart, so that attention's records are taken from steps of one phase each and all others from the
 * mixed step; a piggybacked decode costs what the mixed step takes beyond a prompt of 1024 alone.
 */
export function checkSarathi(): Check[] {
  const formats: Formats = { weights: F16, kv: { k: F16, v: F16 }, activations: F16 };
  const on = traced(SHAPES["llama-2-13b"], formats);
  const hardware = device("a6000");
  const decode = { past: 1023, tokens: 1, prompt: false };
  const prompt = (tokens: number) => ({ past: 0, tokens, prompt: true });
  const attention = (records: readonly OpRecord[]) => records.filter(({ kind }) => kind === "attention");
  const others = (records: readonly OpRecord[]) => records.filter(({ kind }) => kind !== "attention");
  const ms = (...records: readonly (readonly OpRecord[])[]) => stepTime(records.flat(), hardware).seconds * 1e3;

  const prefillOnly = traceStep(on, [prompt(1024)]);
  const decodeOnly = traceStep(on, [decode, decode, decode, decode]);
  const mixed = traceStep(on, [prompt(1021), decode, decode, decode]);
  const mixedMs = ms(others(mixed), attention(traceStep(on, [prompt(1021)])), attention(traceStep(on, [decode, decode, decode])));
  const alone = ms(decodeOnly) / 4;
  const riding = (mixedMs - ms(prefillOnly)) / 3;
  return [
    check("prefill of 1024, whole step", "ms", 234.8, ms(prefillOnly), SARATHI),
    check("four decodes alone, linears", "ms", 44.28, ms(others(decodeOnly)), SARATHI),
    check("four decodes alone, attention", "ms", 5.68, ms(attention(decodeOnly)), SARATHI),
    check("four decodes alone, each token", "ms", 12.49, alone, SARATHI),
    check("1021 prompt tokens and three decodes, whole step", "ms", 238.4, mixedMs, SARATHI),
    check("piggybacked decode, each token", "ms", 1.2, riding, SARATHI),
    check("decode speed-up", "x", 10.4, alone / riding, `${SARATHI}; the abstract says up to 10x`),
  ];
}
