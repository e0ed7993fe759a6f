import type { AttentionWindow, Kernels, KvFormat } from "../tensor/kernels.ts";

export type { KvFormat } from "../tensor/kernels.ts";

/** Every KvFormat, the most exact first. */
export const KV_FORMATS: readonly KvFormat[] = ["f32", "int8", "int4"];

/** One format for keys, one for values. */
export interface KvFormats {
  readonly k: KvFormat;
  readonly v: KvFormat;
}

/** Both formats, where one name stands for both and a missing one for f32. @throws RangeError for a name that is none of them. */
export function resolveFormats(given: KvFormat | Partial<KvFormats> = "f32"): KvFormats {
  const { k = "f32", v = "f32" } = typeof given === "string" ? { k: given, v: given } : given;
  for (const name of [k, v]) if (!KV_FORMATS.includes(name)) throw new RangeError(`kv: expected one of ${KV_FORMATS.join(", ")}, found ${JSON.stringify(name)}`);
  return { k, v };
}

/** @throws RangeError for a size or a number of sinks that is no count. */
export function checkWindow({ size, sinks }: AttentionWindow): void {
  if (!Number.isSafeInteger(size) || size < 1) throw new RangeError(`window: expected a whole number, 1 or more, found ${size}`);
  if (!Number.isSafeInteger(sinks) || sinks < 0) throw new RangeError(`sinks: expected a whole number, 0 or more, found ${sinks}`);
}

/** "int8", or "k=int8,v=int4" where the two differ: what `--kv` takes. */
export function describeFormats({ k, v }: KvFormats): string {
  return k === v ? k : `k=${k},v=${v}`;
}

/** @throws RangeError when the kernels cannot keep or read what is asked for. */
export function checkAbilities({ name, kv }: Kernels, formats: KvFormats, window: AttentionWindow | undefined): void {
  for (const format of [formats.k, formats.v]) {
    if (!kv.formats.includes(format)) throw new RangeError(`KV cache: the ${name} kernels keep ${kv.formats.join(", ")}, found ${format} (the scalar backend has it)`);
  }
  if (window && !kv.windows) throw new RangeError(`KV cache: the ${name} kernels have no attention window (the scalar backend has it)`);
}
