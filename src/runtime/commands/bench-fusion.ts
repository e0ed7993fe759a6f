import { benchFusion as measure } from "../bench-fusion.ts";
import { formatBytes, formatMs, formatThreads } from "../report.ts";
import { BENCH_MODEL_OPTIONS, benchModel, table } from "./bench-model.ts";
import { type Command, flag, JSON_OPTION, kvFrom, number, UsageError } from "./command.ts";

export const benchFusion: Command = {
  name: "bench fusion",
  summary: "what each fused op saves in ops, bytes and time: all of them, each one switched off, none",
  options: {
    ...BENCH_MODEL_OPTIONS,
    "prompt-tokens": { type: "string", value: "P", help: "prompt length (default 64)" },
    tokens: { type: "string", value: "N", help: "tokens to decode (default 32)" },
    repeat: { type: "string", value: "R", help: "timed repetitions of every variant, taking turns (default 5)" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const promptTokens = number(values, "prompt-tokens", { integer: true, min: 1 }, 64);
    const tokens = number(values, "tokens", { integer: true, min: 1 }, 32);
    const repeat = number(values, "repeat", { integer: true, min: 1 }, 5);
    const kv = kvFrom(values);
    const { model, kernels } = await benchModel(values, io);
    try {
      if (!kernels.fused) throw new UsageError(`--backend: expected wasm, the kernels that fuse, found ${kernels.name}`);
      const { contextLength, name } = model.config;
      if (promptTokens + tokens > contextLength) throw new UsageError(`--prompt-tokens and --tokens: expected at most ${contextLength} together (the model's context), found ${promptTokens + tokens}`);
      const points = measure(model, kernels, { promptTokens, tokens, repeat, kv, onProgress: io.interactive ? (done) => io.err(`\r\x1b[K${done}`) : undefined });
      if (io.interactive) io.err("\r\x1b[K");
      if (flag(values, "json")) return io.out(`${JSON.stringify({ model: name, backend: kernels.name, threads: kernels.threads, kv, promptTokens, tokens, repeat, points }, null, 2)}\n`);
      const [all] = points;
      const rows = points.map(({ without, prefill, decode }) => [
        without === "none" ? "everything fused" : without === "all" ? "nothing fused" : `without ${without}`,
        ...[decode, prefill].flatMap((own, i) => {
          const { msPerStep } = i === 0 ? all.decode : all.prefill;
          return [String(own.ops), formatBytes(own.bytes), formatMs(own.msPerStep), `${(own.msPerStep / msPerStep).toFixed(3)} x`];
        }),
      ]);
      const head = ["", "decode ops", "bytes", "time", "of all", "prefill ops", "bytes", "time", "of all"];
      await io.out(`${name}, ${kernels.name} kernels, ${formatThreads(kernels.threads)}: one decode step, and one prefill of ${promptTokens} tokens; medians of ${repeat}\n${table([head, ...rows])}\n`);
    } finally {
      kernels.close();
    }
  },
};
