import { learnsPositions } from "../../model/config.ts";
import { benchAttention as measure } from "../bench-attention.ts";
import { formatBytes, formatMs, formatThreads } from "../report.ts";
import { BENCH_MODEL_OPTIONS, benchModel, sizes, table } from "./bench-model.ts";
import { type Command, flag, JSON_OPTION, kvFrom, number } from "./command.ts";

export const benchAttention: Command = {
  name: "bench attention",
  summary: "naive against tiled attention in prefill: what each writes to memory, and how long it takes",
  options: {
    ...BENCH_MODEL_OPTIONS,
    contexts: { type: "string", value: "LIST", help: "prompt lengths (default 64,128,256,512,1024,2048, as far as learned positions go)" },
    repeat: { type: "string", value: "R", help: "timed repetitions of both, taking turns (default 3)" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const kv = kvFrom(values);
    const wanted = sizes(values, "contexts", [64, 128, 256, 512, 1024, 2048]);
    const repeat = number(values, "repeat", { integer: true, min: 1 }, 3);
    const { model, kernels } = await benchModel(values, io);
    try {
      const { contextLength, name } = model.config;
      // Attention needs no trained positions where they are rotations.
      const contexts = !learnsPositions(model.config) ? wanted : wanted.filter((context) => context <= contextLength);
      const points = measure(model, kernels, { contexts, repeat, kv, onProgress: io.interactive ? (done) => io.err(`\r\x1b[K${done}`) : undefined });
      if (io.interactive) io.err("\r\x1b[K");
      if (flag(values, "json")) return io.out(`${JSON.stringify({ model: name, backend: kernels.name, threads: kernels.threads, kv, repeat, points }, null, 2)}\n`);
      const ms = (value: number | null) => (value === null ? "-" : formatMs(value));
      const how = `${kernels.name} kernels${kernels.name === "shapes" ? "" : `, ${formatThreads(kernels.threads)}, medians of ${repeat}`}`;
      const rows = points.map(({ context, naive, tiled }) => [
        ...[String(context), formatBytes(naive.materialised), formatBytes(tiled.materialised), `${(naive.materialised / tiled.materialised).toFixed(1)} x`],
        ...[formatBytes(naive.moved), formatBytes(tiled.moved), ms(naive.ms), ms(tiled.ms)],
      ]);
      const head = ["context", "naive writes", "tiled writes", "ratio", "naive moves", "tiled moves", "naive, 1 layer", "tiled, 1 layer"];
      await io.out(`${name}, ${how}: attention of one prefill; bytes of all layers, times of one\n${table([head, ...rows])}\n`);
    } finally {
      kernels.close();
    }
  },
};
