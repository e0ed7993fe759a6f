import { benchBatch as measure } from "../bench-batch.ts";
import { count, formatBytes, formatMs, formatThreads, percent } from "../report.ts";
import { BENCH_MODEL_OPTIONS, benchModel, sizes, table } from "./bench-model.ts";
import { choice, type Command, ENGINE_OPTIONS, flag, JSON_OPTION, kvFrom, number, UsageError } from "./command.ts";

export const benchBatch: Command = {
  name: "bench batch",
  summary: "decode with 1 to 32 sequences in a step: from memory-bound to compute-bound",
  options: {
    ...BENCH_MODEL_OPTIONS,
    batches: { type: "string", value: "LIST", help: "sequences in a step (default 1,2,4,8,16,32)" },
    "prompt-tokens": { type: "string", value: "P", help: "positions that every sequence has behind it (default 64)" },
    tokens: { type: "string", value: "N", help: "timed steps, the median counts (default 8)" },
    attention: ENGINE_OPTIONS.attention,
    ...JSON_OPTION,
  },
  async run(values, io) {
    const batches = sizes(values, "batches", [1, 2, 4, 8, 16, 32]);
    const promptTokens = number(values, "prompt-tokens", { integer: true, min: 1 }, 64);
    const tokens = number(values, "tokens", { integer: true, min: 1 }, 8);
    const attention = choice(values, "attention", ["tiled", "naive"] as const, "tiled");
    const kv = kvFrom(values);
    const { model, kernels } = await benchModel(values, io);
    try {
      const { contextLength, name } = model.config;
      const most = promptTokens + 2 * tokens + 1;
      if (most > contextLength) throw new UsageError(`--prompt-tokens and --tokens: expected at most ${contextLength} positions (the model's context), found ${most}`);
      const onProgress = io.interactive ? (done: string) => io.err(`\r\x1b[K${done}`) : undefined;
      const points = measure(model, kernels, { batches, promptTokens, tokens, attention, kv, onProgress });
      if (io.interactive) io.err("\r\x1b[K");
      if (flag(values, "json")) return io.out(`${JSON.stringify({ model: name, backend: kernels.name, threads: kernels.threads, promptTokens, points }, null, 2)}\n`);
      const kinds = [...new Set(points.flatMap(({ shares }) => Object.keys(shares)))].filter((kind) => points.some(({ shares }) => (shares[kind as keyof typeof shares]?.bytes ?? 0) >= 0.005));
      const rows = points.map(({ batch, tokensPerSecond, stepMs, bytesPerToken, weightBytesPerToken, intensity, shares }) => [
        ...[String(batch), tokensPerSecond === null ? "-" : count(tokensPerSecond), stepMs === null ? "-" : formatMs(stepMs)],
        ...[formatBytes(bytesPerToken), formatBytes(weightBytesPerToken), intensity.toFixed(1)],
        ...kinds.map((kind) => percent(shares[kind as keyof typeof shares]?.bytes ?? 0)),
      ]);
      const head = ["batch", "tokens/s", "step", "bytes/token", "of weights", "flops/byte", ...kinds.map((kind) => `${kind} bytes`)];
      await io.out(`${name}, ${kernels.name} kernels, ${formatThreads(kernels.threads)}, ${promptTokens} positions behind each sequence\n${table([head, ...rows])}\n`);
    } finally {
      kernels.close();
    }
  },
};
