import type { ModelConfig } from "../../model/config.ts";
import type { OpRecord } from "../../tensor/ledger.ts";
import type { AttentionMethod } from "../../tensor/ops.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** A change to the output of an op, made right after the op ran, so that everything behind it sees the changed values. */
export interface Patch {
  /** Name of the op, as in its record. */
  readonly name: string;
  /** Only in this layer (-1: outside the layers); in every layer when left out. */
  readonly layer?: number;
  /** Only these columns of every row, [from, to); all when left out. */
  readonly columns?: readonly [from: number, to: number];
  /** Multiply by a factor, or put a value in. */
  readonly change: { readonly scale: number } | { readonly set: number };
}

/** Ops whose output is only looked at: changing it would come too late. */
const TOO_LATE: Readonly<Record<string, string>> = {
  kv_write: "the keys and values are already stored: patch rope_k (or attn_k) and attn_v",
  sample: "the token is already chosen: patch output",
};

/** What one head contributes to attention, removed. */
export function zeroHead({ nHeads, headDim }: ModelConfig, method: AttentionMethod, head: number, layer: number | undefined): Patch {
  if (!Number.isSafeInteger(head) || head < 0 || head >= nHeads) throw new RangeError(`head: expected 0 to ${nHeads - 1}, found ${head}`);
  return { name: method === "naive" ? "attention_mix" : "attention", layer, columns: [head * headDim, (head + 1) * headDim], change: { scale: 0 } };
}

/** @throws RangeError when no op of `records` would be changed by the patch, or its columns are not there. */
export function checkPatch({ name, layer, columns, change }: Patch, ops: readonly { record: OpRecord; output: Tensor }[]): void {
  if (Object.hasOwn(TOO_LATE, name)) throw new RangeError(`${name}: ${TOO_LATE[name]}`);
  const value = "scale" in change ? change.scale : change.set;
  if (!Number.isFinite(value)) throw new RangeError(`patch of ${name}: expected a number, found ${value}`);
  const hit = ops.find(({ record }) => record.name === name && (layer === undefined || record.layer === layer));
  if (!hit) throw new RangeError(`patch: expected an op of this step, found ${layer === undefined || layer < 0 ? name : `${layer}.${name}`}`);
  const { cols } = hit.output;
  const [from, to] = columns ?? [0, cols];
  if (!(Number.isSafeInteger(from) && Number.isSafeInteger(to) && from >= 0 && from < to && to <= cols)) {
    throw new RangeError(`patch of ${name}: expected columns within 0:${cols}, found ${from}:${to}`);
  }
}

/** Changes an op's output in place if one of the patches is meant for it; tells whether one was. */
export function applyPatches(patches: readonly Patch[], { name, layer, kind }: OpRecord, output: Tensor): boolean {
  let changed = false;
  if (kind === "quantize") return false; // Its input, an op of the same name, has had the patch already.
  for (const patch of patches) {
    if (patch.name !== name || (patch.layer !== undefined && patch.layer !== layer)) continue;
    const values = output.f32;
    const { cols } = output;
    const [from, to] = patch.columns ?? [0, cols];
    const { change } = patch;
    for (let row = 0; row < values.length; row += cols) {
      for (let i = row + from; i < row + to; i++) values[i] = "scale" in change ? values[i] * change.scale : change.set;
    }
    changed = true;
  }
  return changed;
}

/** One line for people. */
export function describePatch({ name, layer, columns, change }: Patch): string {
  const where = layer === undefined ? `${name} in every layer` : layer < 0 ? name : `${layer}.${name}`;
  const part = columns ? `, columns ${columns[0]}:${columns[1]}` : "";
  return `${where}${part}: ${"scale" in change ? (change.scale === 0 ? "zeroed" : `times ${change.scale}`) : `set to ${change.set}`}`;
}
