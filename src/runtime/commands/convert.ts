import { convertFolder } from "../../model/convert.ts";
import { FILE_TYPES, type FileType } from "../../model/requantise.ts";
import { formatBytes } from "../report.ts";
import { choice, type Command, flag, JSON_OPTION, text, UsageError } from "./command.ts";
import { neededOut } from "./output.ts";
import { modelWriter } from "./write-model.ts";

const TYPES = Object.keys(FILE_TYPES) as FileType[];

export const convert: Command = {
  name: "convert",
  summary: "write a Hugging Face folder as a GGUF file, for memwall and llama.cpp",
  stops: ["SIGINT"],
  options: {
    model: { type: "string", value: "FOLDER", help: "folder with config.json, tokenizer.json and safetensors" },
    out: { type: "string", value: "PATH", help: "the file to write" },
    type: { type: "string", value: "TYPE", help: `${TYPES.join(", ")} (default: matrices stay what they are)` },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const path = text(values, "model");
    if (path === undefined) throw new UsageError("--model: expected the folder to convert");
    const out = neededOut(values, io);
    const type = text(values, "type") === undefined ? undefined : choice(values, "type", TYPES, "f16");
    const folder = io.openFile(path);
    const { onProgress, write } = modelWriter(io, out);
    try {
      const { plan, sourceBytes, sourceFiles } = convertFolder(folder, { type, onProgress });
      if (sourceFiles.some((file) => io.isSameFile(file, out))) throw new Error(`${out}: --out is a file of the model itself: expected another one`);
      const target = io.createFile(out);
      try {
        const bytes = await write(target, plan);
        const tensors = plan.tensors.map(({ name, shape, type: as }) => ({ name, shape, type: as }));
        if (flag(values, "json")) return await io.out(`${JSON.stringify({ out, bytes, sourceBytes, tensors }, null, 2)}\n`);
        await io.out(`${out}: ${formatBytes(bytes)} from ${formatBytes(sourceBytes)} of weights, ${tensors.length} tensors\n`);
      } finally {
        target.discard();
      }
    } finally {
      folder.close();
    }
  },
};
