import { formatBytes } from "../report.ts";
import type { ReportData } from "../report-html/data.ts";
import { type Command, ENGINE_OPTIONS, flag, type Io, JSON_OPTION, loadEngine, MODEL_OPTIONS, number, promptFrom, text, UsageError, type Values } from "./command.ts";
import { checkContext, formatsFrom, HW_OPTION, hardwareFrom, shapeFrom, SHAPE_OPTIONS } from "./hardware-options.ts";
import { outputPath, writeLater } from "./output.ts";

const DEFAULT_PROMPT = "Once upon a time";
const DEFAULT_HARDWARE = "a100-80g,rtx-4090,orin,tesla-fsd-hw3,h100-sxm,l40s,ddr5-desktop,raspberry-pi-5";

export const report: Command = {
  name: "report",
  summary: "one self-contained HTML page of charts: a run of a model, or the costs of a published shape",
  options: {
    out: { type: "string", value: "PATH", help: "where the page goes (default report.html)" },
    ...MODEL_OPTIONS,
    prompt: { type: "string", value: "TEXT", help: "text to continue" },
    "prompt-file": { type: "string", value: "PATH", help: "read the prompt from a file, or from standard input with -" },
    "max-tokens": { type: "string", value: "N", help: "generate at most N tokens (default 48)" },
    at: { type: "string", value: "P", help: "position of the token whose attention and logit lens are shown (default the last)" },
    ...ENGINE_OPTIONS,
    shape: SHAPE_OPTIONS.shape,
    weights: { type: "string", value: "FORMAT", help: "how the model keeps its weights, or the format of --shape's (default int8)" },
    "prompt-tokens": { type: "string", value: "P", help: "with --shape: prompt length (default 512)" },
    tokens: { type: "string", value: "N", help: "with --shape: tokens to decode (default 128)" },
    hw: { ...HW_OPTION, help: `${HW_OPTION.help}; the first one times --shape, the first four get curves` },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const shaped = text(values, "shape") !== undefined;
    for (const [option, needsShape] of Object.entries(ONLY)) {
      if (values[option] !== undefined && needsShape !== shaped) throw new UsageError(`--${option}: expected ${needsShape ? "only with" : "not with"} --shape`);
    }
    const path = outputPath(values, io, "out") ?? "report.html";
    const write = writeLater(io, path);
    const data = await (shaped ? ofShape(values, io) : ofRun(values, io));
    const { reportPage } = await import("../report-html/page.ts");
    const page = reportPage(data);
    write(page);
    await io.out(flag(values, "json") ? `${JSON.stringify(data, null, 2)}\n` : `${path}: ${formatBytes(new TextEncoder().encode(page).length)}, open it in a browser\n`);
  },
};

/** Options that go with a shape (true), or with a model (false). */
const ONLY: Readonly<Record<string, boolean>> = {
  ...{ "prompt-tokens": true, tokens: true },
  ...{ model: false, tokenizer: false, prompt: false, "prompt-file": false, "max-tokens": false, at: false, context: false, backend: false, attention: false },
};

async function ofShape(values: Values, io: Io): Promise<ReportData> {
  const workload = {
    batch: 1,
    promptTokens: number(values, "prompt-tokens", { integer: true, min: 1, max: 1 << 17 }, 512),
    tokens: number(values, "tokens", { integer: true, min: 1, max: 4096 }, 128),
  };
  const shape = shapeFrom(values);
  const formats = formatsFrom(values, "int8");
  checkContext(shape, workload.promptTokens + workload.tokens, "--prompt-tokens and --tokens");
  const hardware = await hardwareFrom(values, io, DEFAULT_HARDWARE);
  const { collectShape } = await import("../report-html/collect-shape.ts");
  return collectShape(shape, formats, workload, hardware);
}

async function ofRun(values: Values, io: Io): Promise<ReportData> {
  const maxTokens = number(values, "max-tokens", { integer: true, min: 2 }, 48);
  const at = number(values, "at", { integer: true, min: 0 });
  const hardware = await hardwareFrom(values, io, DEFAULT_HARDWARE);
  const prompt = (await promptFrom(values, io)) ?? DEFAULT_PROMPT;
  const engine = await loadEngine(values, io, { ledger: { records: true }, prefixCache: false });
  try {
    const { collectRun } = await import("../report-html/collect-run.ts");
    return await collectRun(engine, prompt, { maxTokens, at, hardware });
  } finally {
    engine.close();
  }
}
