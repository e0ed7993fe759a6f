import type { AttentionWindow, PageHole } from "../tensor/kernels.ts";
import type { KvCache, KvSequence } from "./cache.ts";
import { describeFormats, KV_FORMATS, type KvFormat, type KvFormats } from "./format.ts";
import { PAGE_SIZE } from "./pool.ts";
import { sha256 } from "./sha256.ts";

/**
 * A sequence as bytes, little-endian:
 *
 *     8 bytes   "memwalKV"
 *     u32       version
 *     u32       length of the header
 *     header    JSON: model, fingerprint, kv, window, length, hole, tokens (their number), notes
 *     i32 ...   token ids
 *     pages     in order, of each the filled slots only: k, then v (if it is not k); of each, for every layer and head, the values, then the scales
 *     32 bytes  SHA-256 of everything before
 */
const MAGIC = "memwalKV";
const VERSION = 1;
const DIGEST = 32;

/** What a snapshot must agree with to be restored. */
export interface SnapshotModel {
  /** For messages. */
  readonly name: string;
  /** Equal for equal weights only. */
  readonly fingerprint: string;
  readonly vocabSize: number;
}

export interface Snapshot {
  /** All tokens of the text; the first `length` of the sequence are computed, the others still to be fed. */
  readonly tokens: readonly number[];
  /** Small facts of the owner's. */
  readonly notes: Readonly<Record<string, number>>;
}

/** The file is no snapshot, is damaged, or belongs to another model or other settings. */
export class SnapshotError extends Error {
  override readonly name = "SnapshotError";

  constructor(source: string, problem: string) {
    super(`${source}: ${problem}`);
  }
}

interface Header {
  readonly model: string;
  readonly fingerprint: string;
  readonly kv: KvFormats;
  readonly window: AttentionWindow | null;
  readonly length: number;
  readonly hole: PageHole | null;
  readonly tokens: number;
  readonly notes: Readonly<Record<string, number>>;
}

/** The sequence's pages and all it takes to go on with it. `tokens` begin with the sequence's own. */
export function encodeSnapshot(cache: KvCache, sequence: KvSequence, model: SnapshotModel, { tokens, notes }: Snapshot): Uint8Array {
  const { length, hole, pages } = sequence;
  const window = cache.window ?? null;
  const header: Header = {
    ...{ model: model.name, fingerprint: model.fingerprint, kv: cache.formats, window, length },
    ...{ hole: hole ?? null, tokens: tokens.length, notes },
  };
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(16 + json.length + 4 * tokens.length + contentBytes(cache, length, hole) + DIGEST);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(8, VERSION, true);
  view.setUint32(12, json.length, true);
  bytes.set(json, 16);
  let at = 16 + json.length;
  for (const token of tokens) {
    view.setInt32(at, token, true);
    at += 4;
  }
  eachRun(pages, length, hole, (run) => {
    bytes.set(run, at);
    at += run.length;
  });
  bytes.set(sha256(bytes.subarray(0, at)), at);
  return bytes;
}

/**
 * The snapshot's sequence in this cache, with the same bits. Nothing changes when this throws.
 * @throws SnapshotError with one line that says what does not fit, KvCacheFullError.
 */
export function decodeSnapshot(cache: KvCache, bytes: Uint8Array, model: SnapshotModel, source = "snapshot"): Snapshot & { sequence: KvSequence } {
  const fail = (problem: string): never => {
    throw new SnapshotError(source, problem);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = bytes.length - DIGEST;
  if (end < 16 || new TextDecoder().decode(bytes.subarray(0, 8)) !== MAGIC) fail(`expected a saved session, found ${bytes.length} bytes of something else`);
  const version = view.getUint32(8, true);
  if (version !== VERSION) fail(`expected version ${VERSION} of saved sessions, found ${version}`);
  const digest = sha256(bytes.subarray(0, end));
  if (digest.some((byte, i) => byte !== bytes[end + i])) fail("its checksum does not fit its contents: the file is cut off or was altered");

  const from = 16 + view.getUint32(12, true);
  const header = from <= end ? parseHeader(bytes.subarray(16, from)) : undefined;
  if (!header) return fail("expected a header with the model, the formats and the length, found something else");
  const { length, hole } = header;
  if (header.fingerprint !== model.fingerprint) fail(`saved with another model (${header.model}) than this one (${model.name}), or with its weights in other formats`);
  const [own, theirs] = [describeFormats(cache.formats), describeFormats(header.kv)];
  if (own !== theirs) fail(`its keys and values are ${theirs}, this KV cache keeps ${own}`);
  const [ownWindow, theirWindow] = [describeWindow(cache.window), describeWindow(header.window)];
  if (ownWindow !== theirWindow) fail(`saved with ${theirWindow}, this KV cache has ${ownWindow}`);
  const expected = from + 4 * header.tokens + contentBytes(cache, length, hole ?? undefined);
  if (length > header.tokens || expected !== end) fail(`expected ${expected + DIGEST} bytes for ${length} positions, found ${bytes.length}`);

  const tokens = Array.from({ length: header.tokens }, (_, i) => view.getInt32(from + 4 * i, true));
  const wrong = tokens.find((id) => id < 0 || id >= model.vocabSize);
  if (wrong !== undefined) fail(`expected token ids below ${model.vocabSize}, found ${wrong}`);
  const sequence = cache.adopt(tokens.slice(0, length), hole ?? undefined);
  let at = from + 4 * tokens.length;
  eachRun(sequence.pages, length, sequence.hole, (run) => {
    run.set(bytes.subarray(at, at + run.length));
    at += run.length;
  });
  return { sequence, tokens, notes: header.notes };
}

/** Calls `visit` with the bytes of every run of filled slots: values or scales of one layer and head of one page. */
function eachRun(pages: KvSequence["pages"], length: number, hole: PageHole | undefined, visit: (run: Uint8Array) => void): void {
  for (const [i, { k, v }] of pages.entries()) {
    const index = hole && i >= hole.at ? i + hole.count : i;
    const filled = Math.min(PAGE_SIZE, length - index * PAGE_SIZE);
    for (const { data, scales, shape } of k === v ? [k] : [k, v]) {
      const lists = shape[0] * shape[1];
      for (let list = 0; list < lists; list++) {
        for (const view of scales ? [data, scales] : [data]) {
          const rowBytes = view.byteLength / (lists * PAGE_SIZE);
          visit(new Uint8Array(view.buffer, view.byteOffset + list * PAGE_SIZE * rowBytes, filled * rowBytes));
        }
      }
    }
  }
}

/** Bytes of the positions that the sequence still has. */
function contentBytes(cache: KvCache, length: number, hole: PageHole | undefined): number {
  return (cache.pageBytes / PAGE_SIZE) * (length - (hole?.count ?? 0) * PAGE_SIZE);
}

function describeWindow(window: AttentionWindow | null | undefined): string {
  return window ? `a window of ${window.size} and ${window.sinks} sinks` : "no window";
}

/** The header, if the JSON is one: a checksum that fits does not make it true. */
function parseHeader(bytes: Uint8Array): Header | undefined {
  let found: Partial<Record<keyof Header, unknown>>;
  try {
    found = JSON.parse(new TextDecoder().decode(bytes)) as typeof found;
  } catch {
    return undefined;
  }
  if (typeof found !== "object" || found === null) return undefined;
  const { model, fingerprint, kv, window, length, hole, tokens, notes } = found;
  const format = (value: unknown): value is KvFormat => KV_FORMATS.some((one) => one === value);
  const counts = (value: unknown, ...names: string[]) =>
    typeof value === "object" && value !== null && names.every((name) => isCount((value as Record<string, unknown>)[name]));
  const { k, v } = (kv ?? {}) as Record<string, unknown>;
  const ok =
    typeof model === "string" && typeof fingerprint === "string" && format(k) && format(v) && isCount(length) && isCount(tokens) &&
    (window === null || counts(window, "size", "sinks")) && (hole === null || holeFits(hole, length)) &&
    typeof notes === "object" && notes !== null && Object.values(notes).every((value) => typeof value === "number");
  return ok ? (found as Header) : undefined;
}

/** A hole lies wholly before the last page. */
function holeFits(hole: unknown, length: number): boolean {
  const { at, count } = (hole ?? {}) as Record<string, unknown>;
  return isCount(at) && isCount(count) && (at + count) * PAGE_SIZE <= length;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
