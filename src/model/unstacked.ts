import { ggmlBytes } from "../quant/ggml.ts";
import type { ExpertsConfig } from "./experts.ts";
import { FormatError } from "./formats/errors.ts";
import type { TensorInfo } from "./formats/source.ts";

/**
 * The tensors of a file with every expert's apart, under the names that the first files of mixtures had (`blk.0.ffn_up.3.weight`). Later
 * ones stack all experts in one tensor [count, rows, cols] (`ffn_up_exps`), gate and up on top of each other (`ffn_gate_up_exps`) or not. An
 * expert is a range of whole rows there, and nothing is copied; its scale, where there are such, is one of [count]. The gate of a shared expert, in some files a vector, becomes one row.
 * @throws FormatError for a stack of another height.
 */
export function unstacked(file: string, tensors: ReadonlyMap<string, TensorInfo>, experts: ExpertsConfig | undefined): ReadonlyMap<string, TensorInfo> {
  if (!experts) return tensors;
  const found = new Map<string, TensorInfo>();
  const keep = (info: TensorInfo) => found.set(info.name, info);
  for (const info of tensors.values()) {
    const [, block, part, kind] = /^(blk\.\d+\.ffn_)(gate|up|down|gate_up)_exps\.(weight|bias|scale)$/.exec(info.name) ?? [];
    if (info.name.endsWith(".ffn_gate_inp_shexp.weight") && info.shape.length === 1) keep({ ...info, shape: [1, ...info.shape] });
    else if (!part) keep(info);
    else {
      const halves = part === "gate_up" ? ["gate", "up"] : [part];
      const nameOf = (i: number, half: string) => `${block}${half}.${i}.${kind}`;
      const [count, rows, ...cols] = info.shape;
      if (count !== experts.count) throw new FormatError(file, `tensor "${info.name}": expected ${experts.count} experts, found ${count}`);
      if (kind === "scale") {
        if (info.shape.length !== 1 || info.type !== "F32") throw new FormatError(file, `tensor "${info.name}": expected [experts] of F32, found [${info.shape.join(", ")}] of ${info.type}`);
        for (let i = 0; i < count; i++) for (const half of halves) keep({ name: nameOf(i, half), type: "F32", shape: [1], offset: info.offset + 4 * i, bytes: 4 });
        continue;
      }
      if (info.shape.length !== (kind === "weight" ? 3 : 2) || rows % halves.length !== 0) {
        throw new FormatError(file, `tensor "${info.name}": expected ${kind === "weight" ? "[experts, rows, columns]" : "[experts, rows]"}, found [${info.shape.join(", ")}]`);
      }
      const height = rows / halves.length;
      const bytes = ggmlBytes(info.type, cols.length > 0 ? height : 1, cols[0] ?? height);
      for (let i = 0; i < count * halves.length; i++) {
        keep({ name: nameOf(Math.floor(i / halves.length), halves[i % halves.length]), type: info.type, shape: [height, ...cols], offset: info.offset + i * bytes, bytes });
      }
    }
  }
  return found;
}
