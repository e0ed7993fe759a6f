import { OUTLIER, type OpStatistics } from "../../quant/calibration.ts";
import { calibrate as run } from "../calibration.ts";
import { textWindows } from "../eval.ts";
import { count } from "../report.ts";
import { type Command, ENGINE_OPTIONS, flag, JSON_OPTION, KERNEL_OPTIONS, loadEngine, MODEL_OPTIONS, number, text, UsageError } from "./command.ts";
import { neededOut, writeLater } from "./output.ts";
import { openFrom } from "./tokenize.ts";

export const calibrate: Command = {
  name: "calibrate",
  summary: "watch a model's activations over a text: static scales, outlier channels, what AWQ and SmoothQuant need",
  options: {
    ...MODEL_OPTIONS,
    text: { type: "string", value: "PATH", help: "a text of the kind that the model will see, or standard input with -" },
    out: { type: "string", value: "PATH", help: "the file to write, for --calibration" },
    smooth: { type: "string", value: "ALPHA", help: "fold SmoothQuant's factors into norms and weights first; 0.5 shares the difficulty evenly" },
    "max-tokens": { type: "string", value: "N", help: "take at most N tokens of the text (default 16384)" },
    context: ENGINE_OPTIONS.context,
    backend: ENGINE_OPTIONS.backend,
    ...KERNEL_OPTIONS,
    ...JSON_OPTION,
  },
  async run(values, io) {
    const path = text(values, "text");
    if (path === undefined) throw new UsageError("--text: expected a text to calibrate with");
    const out = neededOut(values, io);
    const alpha = number(values, "smooth", { min: 0, max: 1 });
    const limit = number(values, "max-tokens", { integer: true, min: 2 }, 16384);
    const content = path === "-" ? await io.readStdin() : await io.readText(path);
    const file = openFrom(values, io);
    const context = number(values, "context", { integer: true, min: 2, max: file.config.contextLength }, Math.min(512, file.config.contextLength));
    const windows = textWindows(content, file.tokenizer, context, path, limit);
    const write = writeLater(io, out);
    try {
      const onWindow = (done: number) => {
        if (io.interactive) io.err(`\r\x1b[Kwindow ${done + 1} of ${windows.length}`);
      };
      const result = await run(file, file.config, windows, (calibration) => loadEngine(values, io, { calibration, context, fusions: [] }), alpha, onWindow);
      if (io.interactive) io.err("\r\x1b[K");
      write(JSON.stringify(result));
      if (flag(values, "json")) return await io.out(`${JSON.stringify(result)}\n`);
      const remark = alpha === undefined ? "" : `, after SmoothQuant with alpha ${alpha}`;
      await io.out(`${[`${out}: ${count(result.tokens)} tokens in ${windows.length} windows${remark}`, "", ...table(result.ops)].join("\n")}\n`);
    } finally {
      file.source.close();
    }
  },
};

function table(ops: readonly OpStatistics[]): string[] {
  const head = ["layer", "input of linears", "largest", "int8 range", "magnitudes, 0 to largest", `channels beyond ${OUTLIER} x the median`];
  const line = ([layer, name, largest, range, shape, outliers]: readonly string[]) =>
    `${layer.padStart(5)}  ${name.padEnd(16)}  ${largest.padStart(8)}  ${range.padStart(10)}  ${shape.padEnd(24)}  ${outliers}`;
  return [
    line(head),
    ...ops.map(({ layer, name, largest, scales, histogram, outliers, channelMax }) =>
      line([
        layer < 0 ? "-" : String(layer),
        name,
        largest.toPrecision(4),
        `${((100 * scales.int8 * 127) / largest).toFixed(0)} %`,
        sketch(histogram, largest),
        outliers.length === 0 ? "none" : `${outliers.length} of ${channelMax.length}: ${outliers.slice(0, 6).join(", ")}${outliers.length > 6 ? ", ..." : ""}`,
      ]),
    ),
  ];
}

const BARS = " ▁▂▃▄▅▆▇█";
const WIDTH = 24;

/** A histogram in one line, counts by their logarithms. */
function sketch({ range, counts }: OpStatistics["histogram"], largest: number): string {
  const used = Math.max(1, Math.ceil((counts.length * largest) / (range || 1)));
  const sums = new Array<number>(WIDTH).fill(0);
  for (let i = 0; i < used; i++) sums[Math.floor((i * WIDTH) / used)] += counts[i] ?? 0;
  const most = Math.log1p(Math.max(...sums));
  return sums.map((sum) => BARS[sum === 0 ? 0 : Math.max(1, Math.round((8 * Math.log1p(sum)) / most))]).join("");
}
