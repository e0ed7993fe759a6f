import type { Tokenizer } from "../../model/tokenizer/tokenizer.ts";
import { Engine } from "../engine.ts";
import { drawArrivals, type Distribution, parseDistribution, type Percentiles, simulateLoad } from "../load-sim.ts";
import { count, formatBytes, formatMs, formatThreads, percent } from "../report.ts";
import { BATCH_OPTIONS, batchingFrom } from "./batch.ts";
import { BENCH_MODEL_OPTIONS, benchModel, table } from "./bench-model.ts";
import { type Command, ENGINE_OPTIONS, flag, JSON_OPTION, kvFrom, number, text, UsageError, type Values } from "./command.ts";

export const benchServe: Command = {
  name: "bench serve",
  summary: "simulated users: seeded Poisson arrivals, really executed; throughput and latencies",
  options: {
    ...BENCH_MODEL_OPTIONS,
    ...BATCH_OPTIONS,
    backend: ENGINE_OPTIONS.backend,
    rate: { type: "string", value: "R", help: "requests a second on average (default 4)" },
    requests: { type: "string", value: "N", help: "how many (default 32)" },
    "prompt-tokens": { type: "string", value: "DIST", help: "prompt lengths: 64, 16-128, exp:64 or normal:64,16 (default 16-128); cut to the context" },
    tokens: { type: "string", value: "DIST", help: "generated tokens, likewise (default exp:32)" },
    "max-sequences": { type: "string", value: "N", help: "sequences at full context that the KV cache can hold (default 16)" },
    seed: { type: "string", value: "N", help: "same seed, same requests at the same times (default 1)" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const rate = number(values, "rate", { min: 0.001 }, 4);
    const requests = number(values, "requests", { integer: true, min: 1 }, 32);
    const seed = number(values, "seed", { integer: true, min: 0 }, 1);
    const [promptTokens, tokens] = [distribution(values, "prompt-tokens", "16-128"), distribution(values, "tokens", "exp:32")];
    const batching = batchingFrom(values);
    const kv = kvFrom(values);
    const maxSequences = number(values, "max-sequences", { integer: true, min: 1 });
    if (text(values, "backend") === "shapes") throw new UsageError("--backend: expected auto, wasm or scalar (requests are really executed), found \"shapes\"");
    const { model, kernels, activations } = await benchModel(values, io);
    const { vocabSize, name } = model.config;
    const engine = Engine.from(model, kernels, silent(vocabSize), { ...batching, kv, maxSequences, maxQueue: requests, ledger: { timing: false } }, activations);
    try {
      const arrivals = drawArrivals({ rate, requests, promptTokens, tokens, seed }, engine.context, vocabSize);
      const onProgress = io.interactive ? (done: number) => io.err(`\r\x1b[K${done} of ${requests}`) : undefined;
      const result = await simulateLoad(engine, arrivals, onProgress);
      if (io.interactive) io.err("\r\x1b[K");
      const facts = { model: name, backend: engine.backend, threads: engine.threads, policy: batching.policy, rate, seed };
      if (flag(values, "json")) return io.out(`${JSON.stringify({ ...facts, ...result }, null, 2)}\n`);
      const line = (label: string, found: Percentiles | null) => [label, ...(["p50", "p90", "p99"] as const).map((name) => (found ? formatMs(found[name]) : "-"))];
      const lines = [
        `${name}, ${engine.backend} kernels, ${formatThreads(engine.threads)}; ${requests} requests at ${rate} a second, ${batching.policy}, token budget ${result.tokenBudget ?? "not needed"}`,
        table([["", "p50", "p90", "p99"], line("TTFT", result.ttftMs), line("TPOT", result.tpotMs), line("queue", result.queueMs)]),
        `${count(result.throughput)} tokens/s (${count(result.generatedTokens)} in ${result.seconds.toFixed(1)} s), longest step ${formatMs(result.longestStepMs)}`,
        `mean batch ${result.meanBatch.toFixed(1)} sequences, ${result.meanRows.toFixed(1)} rows a step; ${result.preemptions} preemptions`,
        `flops: ${percent(result.gemvFlopShare)} gemv, ${percent(result.gemmFlopShare)} gemm; ${formatBytes(result.bytesPerToken)} moved for each generated token`,
      ];
      await io.out(`${lines.join("\n")}\n`);
    } finally {
      engine.close();
    }
  },
};

/** @throws UsageError. */
function distribution(values: Values, name: string, fallback: string): Distribution {
  const given = text(values, name) ?? fallback;
  const found = parseDistribution(given);
  if (found) return found;
  throw new UsageError(`--${name}: expected a distribution such as 64, 16-128, exp:64 or normal:64,16, found ${JSON.stringify(given)}`);
}

/** Tokens without texts, and without an end before their number is reached. */
export function silent(vocabSize: number): Tokenizer {
  return { vocabSize, bos: undefined, eos: [], addBos: false, encode: () => [], decode: () => "", piece: () => "", stream: () => ({ push: () => "", flush: () => "" }) };
}
