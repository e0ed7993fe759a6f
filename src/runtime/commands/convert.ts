import { convertFolder } from "../../model/convert.ts";
import { writeGguf } from "../../model/formats/gguf-write.ts";
import { FILE_TYPES, type FileType } from "../../model/requantise.ts";
import { formatBytes } from "../report.ts";
import { choice, type Command, flag, JSON_OPTION, text, UsageError } from "./command.ts";

const TYPES = Object.keys(FILE_TYPES) as FileType[];

export const convert: Command = {
  name: "convert",
  summary: "write a Hugging Face folder as a GGUF file, for memwall and llama.cpp",
  options: {
    model: { type: "string", value: "FOLDER", help: "folder with config.json, tokenizer.json and safetensors" },
    out: { type: "string", value: "PATH", help: "the file to write" },
    type: { type: "string", value: "TYPE", help: `${TYPES.join(", ")} (default: matrices stay what they are)` },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const [path, out] = [text(values, "model"), text(values, "out")];
    if (path === undefined) throw new UsageError("--model: expected the folder to convert");
    if (out === undefined) throw new UsageError("--out: expected the file to write");
    const type = text(values, "type") === undefined ? undefined : choice(values, "type", TYPES, "f16");
    const folder = io.openFile(path);
    let shown = -1;
    const onProgress = (share: number) => {
      if (io.interrupted.aborted) throw new Error(`${out}: interrupted, nothing written`);
      const percent = Math.floor(share * 100);
      if (!io.interactive || percent === shown) return;
      shown = percent;
      io.err(`\rwriting ${out} ${percent} %`);
    };
    try {
      const { plan, sourceBytes, sourceFiles } = convertFolder(folder, { type, onProgress });
      if (sourceFiles.some((file) => io.isSameFile(file, out))) throw new Error(`${out}: --out is a file of the model itself: expected another one`);
      const target = io.createFile(out);
      try {
        let bytes = 0;
        writeGguf({ write: (piece) => (target.write(piece), void (bytes += piece.length)) }, plan);
        target.commit();
        if (shown >= 0) io.err("\r\x1b[K");
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
