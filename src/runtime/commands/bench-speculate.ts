import { benchSpeculate as measure } from "../bench-speculate.ts";
import { count, formatBytes, formatThreads, percent } from "../report.ts";
import { Engine } from "../engine.ts";
import { MOST_DRAFT_TOKENS } from "../speculation/speculation.ts";
import { BENCH_MODEL_OPTIONS, benchModel, table } from "./bench-model.ts";
import { silent } from "./bench-serve.ts";
import { type Command, ENGINE_OPTIONS, flag, type Io, JSON_OPTION, kvFrom, loadEngine, MODEL_OPTIONS, number, SPECULATION_OPTIONS, text, texts, UsageError, type Values } from "./command.ts";

/** How the shipped model's stories may begin. */
const PROMPTS = ["Once upon a time", "One day, a little boy named Tom", "The dog said", "Lily had a red ball", "There was a big tree"];
/** For models of random weights, which know no text and soon run in circles: prompt lookup at its best. */
const DRAWN_PROMPTS = [[5, 9, 13, 77], [1, 2, 3], [100, 200, 300]];

export const benchSpeculate: Command = {
  name: "bench speculate",
  summary: "decode with and without guessed tokens, side by side: speed, acceptance, weight bytes per token",
  options: {
    shape: BENCH_MODEL_OPTIONS.shape,
    ...MODEL_OPTIONS,
    "draft-model": SPECULATION_OPTIONS["draft-model"],
    "draft-tokens": SPECULATION_OPTIONS["draft-tokens"],
    prompt: { type: "string", multiple: true, value: "TEXT", help: "text to continue; may be repeated (default: five beginnings of stories)" },
    tokens: { type: "string", value: "N", help: "tokens to generate for each prompt at most (default 200)" },
    temperature: { type: "string", value: "T", help: "0 (default) takes the most probable token; above, all other sampling cuts are off" },
    seed: { type: "string", value: "N", help: "of the sampled texts (default 1)" },
    repeat: { type: "string", value: "R", help: "timed repetitions, the median counts (default 5)" },
    ...ENGINE_OPTIONS,
    ...JSON_OPTION,
  },
  async run(values, io) {
    const tokens = number(values, "tokens", { integer: true, min: 2 }, 200);
    const repeat = number(values, "repeat", { integer: true, min: 1 }, 5);
    const temperature = number(values, "temperature", { min: 0 }, 0);
    const seed = number(values, "seed", { integer: true, min: 0 }, 1);
    const given = texts(values, "prompt");
    const shaped = text(values, "shape") !== undefined;
    if (shaped && (given.length > 0 || text(values, "draft-model") !== undefined)) throw new UsageError("--shape: expected no --prompt and no --draft-model with it, found one");
    const prompts = shaped ? DRAWN_PROMPTS : given.length > 0 ? given : PROMPTS;
    const draftTokens = number(values, "draft-tokens", { integer: true, min: 1, max: MOST_DRAFT_TOKENS });
    // Prompt lookup takes the number too, with a draft model or without.
    const engine = shaped ? await shapeEngine(values, io, draftTokens) : await loadEngine({ ...values, "draft-tokens": undefined }, io, { draftTokens });
    try {
      const params = { maxTokens: tokens, temperature, seed, topK: 0, topP: 1, minP: 0 };
      const onProgress = io.interactive ? (done: string) => io.err(`\r\x1b[K${done}`) : undefined;
      const points = await measure(engine, { prompts, params, repeat, onProgress });
      if (io.interactive) io.err("\r\x1b[K");
      const { config, backend, threads, draft } = engine;
      const facts = { model: config.name, draftModel: draft?.model.config.name ?? null, backend, threads, prompts: prompts.length, maxTokens: tokens, temperature, repeat };
      if (flag(values, "json")) return io.out(`${JSON.stringify({ ...facts, points }, null, 2)}\n`);
      const head = ["guesses", "tokens/s", "lowest", "highest", "speedup", "accepted", "of", "rate", "tokens/step", "weights/token", "guessing", "text"];
      const rows = points.map((point) => [
        ...[point.speculate, count(point.tokensPerSecond), count(point.spread.lowest), count(point.spread.highest), `${point.speedup.toFixed(2)} x`],
        ...[count(point.accepted), count(point.guessed), point.acceptanceRate === null ? "-" : percent(point.acceptanceRate), point.tokensPerStep.toFixed(2)],
        ...[formatBytes(point.weightBytesPerToken), percent(point.guessShare), point.sameText ? "same" : "another"],
      ]);
      await io.out(`${config.name}${draft ? `, draft model ${draft.model.config.name}` : ""}, ${backend} kernels, ${formatThreads(threads)}, ${prompts.length} prompts, temperature ${temperature}\n${table([head, ...rows])}\n`);
    } finally {
      engine.close();
    }
  },
};

/** An engine over random weights of a published model's shape. */
async function shapeEngine(values: Values, io: Io, draftTokens: number | undefined): Promise<Engine> {
  if (text(values, "backend") === "shapes") throw new UsageError('--backend: expected auto, wasm or scalar (tokens are really computed), found "shapes"');
  const { model, kernels, activations } = await benchModel(values, io);
  const context = number(values, "context", { integer: true, min: 2 });
  return Engine.from(model, kernels, silent(model.config.vocabSize), { context, kv: kvFrom(values), draftTokens }, activations);
}
