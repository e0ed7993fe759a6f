import { type GgufOut, ggufPieces } from "../../model/formats/gguf-write.ts";
import { breathe } from "../breathe.ts";
import type { Io, OutputFile } from "./command.ts";

/** Writes a model to `out`, whose plan is made with `onProgress`, which is told the share that was read so far. */
export function modelWriter(io: Io, out: string) {
  let shown = -1;
  return {
    onProgress(share: number): void {
      const percent = Math.floor(share * 100);
      if (!io.interactive || percent === shown) return;
      shown = percent;
      io.err(`\rwriting ${out} ${percent} %`);
    },
    /** How many bytes were written. @throws Error when the user asks to stop: then there is no file. */
    async write(target: OutputFile, plan: GgufOut): Promise<number> {
      let bytes = 0;
      for (const piece of ggufPieces(plan)) {
        target.write(piece);
        bytes += piece.length;
        await breathe();
        if (io.interrupted.aborted) throw new Error(`${out}: interrupted, nothing written`);
      }
      target.commit();
      if (shown >= 0) io.err("\r\x1b[K");
      return bytes;
    },
  };
}
