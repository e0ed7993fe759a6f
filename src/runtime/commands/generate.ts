import { weightBytes } from "../../model/weights.ts";
import type { GenerationResult } from "../generation.ts";
import type { Engine } from "../engine.ts";
import { describeRun } from "../report.ts";
import { chromeTrace } from "../trace.ts";
import { ceilingsOf, type Command, ENGINE_OPTIONS, flag, JSON_OPTION, loadEngine, MODEL_OPTIONS, number, type OutputFile, PROMPT_OPTIONS, promptFrom, SPECULATION_OPTIONS, text, texts, type Values } from "./command.ts";
import { outputFile, outputPath } from "./output.ts";
import { SESSION_OPTIONS, sessionFrom } from "./sessions.ts";

/** How the shipped model's stories begin when nobody says otherwise. */
const DEFAULT_PROMPT = "Once upon a time";
/** The shipped model's stories have 184 to 318 tokens. */
const DEFAULT_MAX_TOKENS = 400;

export const generate: Command = {
  name: "generate",
  summary: "continue a prompt, then show where time, flops and bytes went (the default command)",
  options: {
    ...MODEL_OPTIONS,
    ...PROMPT_OPTIONS,
    "max-tokens": { type: "string", value: "N", help: "generate at most N tokens (default 400)" },
    temperature: { type: "string", value: "T", help: "0 takes the most probable token, 1 samples the model's own distribution (default 0.8)" },
    "top-k": { type: "string", value: "K", help: "sample from the K most probable tokens, 0 from all (default 40)" },
    "top-p": { type: "string", value: "P", help: "sample from the most probable tokens that sum to P (default 0.95)" },
    "min-p": { type: "string", value: "P", help: "drop tokens below P times the most probable one (default 0.05)" },
    "repeat-penalty": { type: "string", value: "R", help: "make recent tokens less likely (default 1, off)" },
    seed: { type: "string", value: "N", help: "same seed, same text (default: a new one each time)" },
    stop: { type: "string", multiple: true, value: "TEXT", help: "end at this text; may be repeated" },
    ...ENGINE_OPTIONS,
    ...SPECULATION_OPTIONS,
    ...SESSION_OPTIONS,
    "no-breakdown": { type: "boolean", help: "only the text" },
    trace: { type: "string", value: "PATH", help: "write every op as a Chrome trace, for ui.perfetto.dev" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const json = flag(values, "json");
    const tracePath = outputPath(values, io, "trace");
    outputPath(values, io, "save-session");
    const params = generateParams(values);
    const given = await promptFrom(values, io);
    const prompt = given ?? (text(values, "resume") === undefined ? DEFAULT_PROMPT : []);
    const engine = await loadEngine(values, io, { ledger: { records: tracePath !== undefined } });
    let release = () => {};
    let trace: OutputFile | undefined;
    let saved: OutputFile | undefined;
    try {
      trace = outputFile(values, io, "trace");
      const session = sessionFrom(values, io, engine);
      saved = outputFile(values, io, "save-session");
      const generation = engine.generate(prompt, { ...params, session });
      // Once more ends the process, as it does while the model loads.
      release = io.onInterrupt(() => {
        release();
        generation.cancel();
      });
      if (!json && typeof prompt === "string") await io.out(io.color ? `\x1b[2m${prompt}\x1b[22m` : prompt);
      for await (const piece of generation) if (!json) await io.out(piece);
      const result = await generation.result;
      await io.out(json ? `${JSON.stringify({ ...toJson(engine, result), ...(flag(values, "verbose") && { machine: await ceilingsOf(engine) }) }, null, 2)}\n` : "\n");
      if (!json && !flag(values, "no-breakdown")) await io.out(`\n${describeRun(engine, result, io)}`);
      if (trace) {
        trace.write(JSON.stringify(chromeTrace(engine.ledger.records)));
        trace.commit();
      }
      if (saved && session) {
        saved.write(session.save());
        saved.commit();
      }
    } finally {
      release();
      saved?.discard();
      trace?.discard();
      engine.close();
    }
  },
};

function generateParams(values: Values) {
  return {
    maxTokens: number(values, "max-tokens", { integer: true, min: 1 }, DEFAULT_MAX_TOKENS),
    temperature: number(values, "temperature", { min: 0 }),
    topK: number(values, "top-k", { integer: true, min: 0 }),
    topP: number(values, "top-p", { above: 0, max: 1 }),
    minP: number(values, "min-p", { min: 0, below: 1 }),
    repeatPenalty: number(values, "repeat-penalty", { min: 0.01, max: 100 }),
    seed: number(values, "seed", { integer: true, min: 0 }),
    stop: texts(values, "stop"),
  };
}

function toJson(engine: Engine, { timings, ...result }: GenerationResult) {
  const kv = { ...engine.cache.formats, ...engine.cache.stats() };
  return { ...result, backend: engine.backend, threads: engine.threads, kernels: engine.kernels, timings: { loadMs: engine.loadMs, ...timings }, kv, breakdown: engine.breakdown(), draft: draftToJson(engine) };
}

/** What the draft model read and computed, apart from the model's own account. */
function draftToJson({ draft }: Engine) {
  return draft && { model: draft.model.config.name, bytes: weightBytes(draft.model.weights), breakdown: draft.breakdown() };
}
