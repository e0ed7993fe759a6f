import { chooseFolds, columnImportance, plainFile } from "../../model/load.ts";
import { readLlama2cTokenizer } from "../../model/formats/llama2c.ts";
import { llama2cMetadata } from "../../model/formats/llama2c-gguf.ts";
import { FILE_TYPES, type FileType, requantise } from "../../model/requantise.ts";
import type { ModelFile } from "../../model/open.ts";
import { parseCalibration } from "../../quant/calibration.ts";
import { KEEP, parseWeights } from "../../quant/scheme.ts";
import { resolveSchemes } from "../schemes.ts";
import { formatBytes } from "../report.ts";
import { choice, type Command, flag, type Io, JSON_OPTION, MODEL_OPTIONS, text, UsageError, type Values } from "./command.ts";
import { neededOut } from "./output.ts";
import { openFrom } from "./tokenize.ts";
import { modelWriter } from "./write-model.ts";

/** `ModelFile.format` of what `convert` is for. */
const FOLDER_FORMAT = "Hugging Face folder";

const TYPES = Object.keys(FILE_TYPES) as FileType[];

export const quantize: Command = {
  name: "quantize",
  summary: "write a model as a GGUF file of another type, for memwall and llama.cpp",
  stops: ["SIGINT"],
  options: {
    ...MODEL_OPTIONS,
    out: { type: "string", value: "PATH", help: "the file to write" },
    type: { type: "string", value: "TYPE", help: `${TYPES.join(", ")}` },
    calibration: { type: "string", value: "PATH", help: "what run.ts calibrate wrote: q4_0 by AWQ, or SmoothQuant's migration folded in" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const out = neededOut(values, io);
    if (text(values, "type") === undefined) throw new UsageError(`--type: expected one of ${TYPES.join(", ")}`);
    const type = choice(values, "type", TYPES, "q8_0");
    const source = text(values, "model") ?? io.shippedModel;

    const file = openFrom(values, io);
    if (file.format === FOLDER_FORMAT) throw new Error(`${source}: expected a GGUF file or a llama2.c checkpoint, found a Hugging Face folder (run.ts convert takes it, and --type)`);
    const { folds, importance } = await calibrated(values, io, file, type);
    const target = io.createFile(out);
    try {
      const { onProgress, write } = modelWriter(io, out);
      const plan = requantise(file, metadataOf(values, io, file), { type, folds, importance, onProgress });
      const bytes = await write(target, plan);
      const tensors = plan.tensors.map(({ name, type: to }) => ({ name, from: file.tensors.get(name)!.type, to }));
      if (flag(values, "json")) return await io.out(`${JSON.stringify({ out, type, bytes, sourceBytes: file.source.size, tensors }, null, 2)}\n`);
      const counts = new Map<string, number>();
      for (const { to } of tensors) counts.set(to, (counts.get(to) ?? 0) + 1);
      const kinds = [...counts].map(([to, n]) => `${n} ${to}`).join(", ");
      await io.out(`${out}: ${formatBytes(bytes)} from ${formatBytes(file.source.size)}, tensors: ${kinds}\n`);
    } finally {
      target.discard();
      file.source.close();
    }
  },
};

function metadataOf(values: Values, io: Io, { metadata, format, config }: ModelFile): ModelFile["metadata"] {
  if (format !== "llama2.c") return metadata;
  const tokenizer = io.openFile(text(values, "tokenizer")!);
  try {
    return llama2cMetadata(config, readLlama2cTokenizer(tokenizer, config.vocabSize));
  } finally {
    tokenizer.close();
  }
}

/** AWQ for q4_0; for other types only a migration that the calibration brings. */
async function calibrated(values: Values, io: Io, file: ModelFile, type: FileType) {
  const path = text(values, "calibration");
  if (path === undefined) return {};
  const calibration = parseCalibration(path, await io.readText(path));
  resolveSchemes({ calibration }, file.config);
  const awq = type === "q4_0" && !calibration.smooth;
  if (!awq && !calibration.smooth) throw new UsageError(`--calibration: expected --type q4_0 (AWQ), or a calibration with --smooth; found ${type}`);
  const scheme = awq ? parseWeights("int4:awq") : KEEP;
  const { tensors } = plainFile(file, file.config);
  const stacked = [...file.tensors.values()].find((info) => tensors.get(info.name) !== info);
  if (stacked) throw new UsageError(`--calibration: expected a file with q, k, v, gate and up apart, found ${stacked.name} (without --calibration it can be quantised)`);
  const folds = chooseFolds(file, file.config, scheme, calibration);
  return { folds, importance: (name: string) => columnImportance(name, scheme, "none", calibration, folds) };
}
