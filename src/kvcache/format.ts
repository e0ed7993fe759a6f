import type { AttentionWindow, Kernels, KvFormat } from "../tensor/kernels.ts";

export type { KvFormat } from "../tensor/kernels.ts";

export const KV_FORMATS: readonly KvFormat[] = ["f32", "int8", "int4"];

/** One format for keys, one for values. */
export interface KvFormats {
  readonly k: KvFormat;
  readonly v: KvFormat;
}

/** Both formats, where one name stands for both and a missing one for f32. */
export function resolveFormats(given: KvFormat | Partial<KvFormats> = "f32"): KvFormats {
  return typeof given === "string" ? { k: given, v: given } : { k: given.k ?? "f32", v: given.v ?? "f32" };
}

/** "int8", or "k=int8,v=int4" where the two differ: what `--kv` takes. */
export function describeFormats({ k, v }: KvFormats): string {
  return k === v ? k : `k=${k},v=${v}`;
}

/** @throws RangeError when the kernels can't keep or read what is asked for. */
export function checkAbilities({ name, kv }: Kernels, formats: KvFormats, window: AttentionWindow | undefined): void {
  for (const format of [formats.k, formats.v]) {
    if (!kv.formats.includes(format)) throw new RangeError(`KV cache: the ${name} kernels keep ${kv.formats.join(", ")}, found ${format} (the scalar backend has it)`);
  }
  if (!window) return;
  if (!kv.windows) throw new RangeError(`KV cache: the ${name} kernels have no attention window (the scalar backend has it)`);
  const { size, sinks } = window;
  if (!Number.isSafeInteger(size) || size < 1) throw new RangeError(`window: expected a whole number, 1 or more, found ${size}`);
  if (!Number.isSafeInteger(sinks) || sinks < 0) throw new RangeError(`sinks: expected a whole number, 0 or more, found ${sinks}`);
}
