import type { AttentionShape, Segment } from "../kernels.ts";
import { keyColumns, pageOf, pageSizeOf, visiblePairs, windowStart } from "../segments.ts";
import type { Tensor } from "../tensor.ts";
import type { Device } from "./device.ts";
import { Workspace } from "./device.ts";
import { attentionScratch, ITEM_WORDS, QUERIES, RUN, SCORE_BYTES, stateBytes } from "./kernels/attention.ts";
import { PAGE_WORDS } from "./kernels/attention-block.ts";
import { SEGMENT_WORDS } from "./kernels/attention-naive.ts";
import { KV_FORMATS, kvRowBytes } from "./kernels/kv-format.ts";
import { KV_ENTRY_WORDS } from "./kernels/kv-write.ts";

/** (query, key, head) triples below which one thread is faster than handing over. */
const ALONE = 512;

/** The number of a page's format. */
function formatOf({ dtype, name }: Tensor): number {
  if (dtype === "f32" || dtype === "int8" || dtype === "int4") return KV_FORMATS.indexOf(dtype);
  throw new TypeError(`${name || "a KV page"}: expected f32, int8 or int4, found ${dtype}`);
}

const scalesOf = ({ scales }: Tensor): number => (scales ? scales.byteOffset : 0);

/** Runs of a segment: those of its sinks and those of all positions, and where the window of its first query begins. */
function runsOf(segment: Segment): { sinks: number; first: number; end: number } {
  const { start, length, window } = segment;
  const sinks = window ? Math.ceil(window.sinks / RUN) : 0;
  return { sinks, first: Math.floor(windowStart(segment, start) / RUN), end: Math.ceil((start + length) / RUN) };
}

/** Runs that the one query of a decoding segment sees, sinks included: its partial states. */
function runCount(segment: Segment): number {
  const { sinks, first, end } = runsOf(segment);
  return (windowStart(segment, segment.start) > 0 ? sinks : 0) + end - first;
}

/** Items for the attention kernel, as a step's segments ask for them; the same for all layers that see these segments. */
interface Items {
  readonly segments: readonly Segment[];
  readonly nHeads: number;
  readonly perKv: number;
  /** Addresses of the items and of the split queries. */
  readonly items: number;
  readonly splitsAt: number;
  readonly count: number;
  readonly splits: number;
  /** Partial states of a head. */
  readonly slots: number;
  /** Visible (query, key) pairs. */
  readonly pairs: number;
}

/** Pages that a segment's positions take, those of the hole included. */
const pageCountOf = ({ start, length, pages }: Segment): number => Math.ceil((start + length) / pageSizeOf(pages[0]));

/** Writes a segment's page table from word `at` on; the word behind it. */
function layPages(device: Device, words: Int32Array, at: number, segment: Segment): number {
  const { pages, hole } = segment;
  const end = pageCountOf(segment);
  for (let i = 0; i < end; i++, at += PAGE_WORDS) {
    // Pages of the hole keep whatever stands there: no query sees them.
    if (hole && i >= hole.at && i < hole.at + hole.count) continue;
    const { k, v } = pages[hole && i >= hole.at ? i - hole.count : i];
    words[at] = device.address(k);
    words[at + 1] = device.address(v);
    words[at + 2] = scalesOf(k);
    words[at + 3] = scalesOf(v);
  }
  return at;
}

/** Writes the page tables and items of segments into `tables`. */
function layItems(device: Device, tables: Workspace, segments: readonly Segment[], nHeads: number, perKv: number): Items {
  let pageCount = 0;
  let count = 0;
  let splits = 0;
  let slots = 0;
  for (const segment of segments) {
    const { length } = segment;
    pageCount += pageCountOf(segment);
    const runs = length === 1 ? runCount(segment) : 1;
    if (runs > 1) {
      count += runs;
      splits++;
      slots += runs;
    } else count += Math.ceil((length * perKv) / QUERIES);
  }
  const base = tables.ensure(4 * (pageCount * PAGE_WORDS + count * ITEM_WORDS + splits * 4));
  const words = tables.ints;
  const itemsAt = pageCount * PAGE_WORDS;
  const splitsAt = itemsAt + count * ITEM_WORDS;
  let page = 0;
  let item = itemsAt;
  let split = splitsAt;
  let slot = 0;
  for (const segment of segments) {
    const { pages, row, start, length, window } = segment;
    const table = base + 4 * page;
    page = layPages(device, words, page, segment);
    const { sinks, first, end } = runsOf(segment);
    const [k, v] = [formatOf(pages[0].k), formatOf(pages[0].v)];
    const put = (firstQuery: number, lastQuery: number, run: number, runEnd: number, touched: number, partial: number): void => {
      words[item] = table;
      words[item + 1] = row;
      words[item + 2] = firstQuery;
      words[item + 3] = lastQuery;
      words[item + 4] = start;
      words[item + 5] = run;
      words[item + 6] = runEnd;
      words[item + 7] = partial;
      words[item + 8] = window ? window.size : 0;
      words[item + 9] = window ? window.sinks : 0;
      words[item + 10] = touched;
      words[item + 11] = k;
      words[item + 12] = v;
      item += ITEM_WORDS;
    };
    const queries = length * perKv;
    const runs = length === 1 ? runCount(segment) : 1;
    if (runs > 1) {
      words[split++] = row;
      words[split++] = slot * nHeads;
      words[split++] = runs;
      words[split++] = perKv;
      if (windowStart(segment, start) > 0) for (let run = 0; run < sinks; run++) put(0, queries, run, run + 1, first, nHeads * slot++);
      // These items say 0: a run that is not the first behind the sinks is not moved on.
      for (let run = first; run < end; run++) put(0, queries, sinks + run, sinks + run + 1, 0, nHeads * slot++);
    } else {
      for (let query = 0; query < queries; query += QUERIES) {
        const last = Math.min(query + QUERIES, queries);
        const [oldest, newest] = [start + Math.floor(query / perKv), start + Math.floor((last - 1) / perKv)];
        put(query, last, 0, sinks + Math.floor(newest / RUN) + 1, Math.floor(windowStart(segment, oldest) / RUN), -1);
      }
    }
  }
  return { segments, nHeads, perKv, items: base + 4 * itemsAt, splitsAt: base + 4 * splitsAt, count, splits, slots, pairs: visiblePairs(segments) };
}

/** Writes where each token of the segments goes in its page's first layer into `tables`; how many tokens there are. */
function layEntries(device: Device, tables: Workspace, segments: readonly Segment[], headDim: number): number {
  let tokens = 0;
  for (const { length } of segments) tokens += length;
  tables.ensure(4 * KV_ENTRY_WORDS * tokens);
  const words = tables.ints;
  const pageSize = pageSizeOf(segments[0].pages[0]);
  let at = 0;
  for (const segment of segments) {
    const { pages, row, start, length } = segment;
    const [kFormat, vFormat] = [formatOf(pages[0].k), formatOf(pages[0].v)];
    for (let i = 0; i < length; i++, at += KV_ENTRY_WORDS) {
      const page = pageOf(segment, start + i);
      const slot = (start + i) % pageSize;
      words[at] = row + i;
      words[at + 1] = device.address(page.k) + slot * kvRowBytes(KV_FORMATS[kFormat], headDim);
      words[at + 2] = scalesOf(page.k) + 4 * slot;
      words[at + 3] = device.address(page.v) + slot * kvRowBytes(KV_FORMATS[vFormat], headDim);
      words[at + 4] = scalesOf(page.v) + 4 * slot;
      words[at + 5] = kFormat;
      words[at + 6] = vFormat;
    }
  }
  return tokens;
}

/** Turns segments into the kernels' tables, once a step, and runs them. */
export function attentionPlan(device: Device) {
  const [tables, naiveTable, entries, scratch, partials, slopeTable] = ["tables", "table", "entries", "scratch", "partials", "slopes"].map((what) => new Workspace(device, `attention ${what}`));
  const [kernel, mergeKernel, scoresKernel, mixKernel, writeKernel] = ["attention", "attention_merge", "attention_scores", "attention_mix", "kv_write"].map((name) => device.kernel(name));
  const { params, paramsF32 } = device;
  let items: Items | undefined;
  let written: { readonly segments: readonly Segment[]; readonly headDim: number; readonly tokens: number } | undefined;

  /** Sets what all kernels over pages want to know, with `scratchBytes` for each thread. */
  const setShape = ({ nHeads, nKvHeads, headDim, scale, softCap, slopes, sinkLogits }: AttentionShape, { pages }: Segment, layer: number, scratchBytes: number): void => {
    const bytes = Math.ceil(scratchBytes / 64) * 64;
    params[3] = nHeads;
    params[4] = nKvHeads;
    params[5] = headDim;
    paramsF32[6] = scale;
    params[7] = pageSizeOf(pages[0]);
    params[8] = layer * nKvHeads;
    params[9] = scratch.ensure(bytes * device.mostThreads);
    params[10] = bytes;
    paramsF32[14] = softCap ?? 0;
    params[15] = 0;
    if (slopes) {
      const table = slopeTable.ensure(slopes.byteLength); // As a parameter it is signed.
      params[15] = table;
      new Float32Array(slopeTable.ints.buffer, table, slopes.length).set(slopes);
    }
    params[16] = sinkLogits ? device.address(sinkLogits) : 0;
  };
  /** Runs a kernel of naive attention with its matrix [heads, tokens, columns]. */
  const runNaive = (index: number, first: Tensor, second: Tensor, segment: Segment, layer: number, shape: AttentionShape): void => {
    const { pages, row, start, length, window } = segment;
    const columns = keyColumns(segment);
    setShape(shape, segment, layer, SCORE_BYTES);
    const table = naiveTable.ensure(4 * (SEGMENT_WORDS + pageCountOf(segment) * PAGE_WORDS));
    const words = naiveTable.ints;
    layPages(device, words, SEGMENT_WORDS, segment);
    words.set([table + 4 * SEGMENT_WORDS, row, length, start, columns, start + length - columns, window?.size ?? 0, window?.sinks ?? 0, formatOf(pages[0].k), formatOf(pages[0].v)]);
    params[0] = device.address(first);
    params[1] = device.address(second);
    params[2] = table;
    const units = Math.ceil((length * shape.nHeads) / shape.nKvHeads / QUERIES) * shape.nKvHeads;
    if (visiblePairs([segment]) * shape.nHeads < ALONE) device.run(index, units);
    else device.runAll(index, units, 1);
  };

  return {
    attention(out: Tensor, q: Tensor, segments: readonly Segment[], layer: number, shape: AttentionShape, sinkQ = q): void {
      if (segments.length === 0) return;
      const { nHeads, nKvHeads, headDim } = shape;
      const perKv = nHeads / nKvHeads;
      if (items?.segments !== segments || items.perKv !== perKv || items.nHeads !== nHeads) {
        items = undefined; // Should the tables fail, what is left of them belongs to nobody.
        items = layItems(device, tables, segments, nHeads, perKv);
      }
      const state = stateBytes(headDim);
      setShape(shape, segments[0], layer, attentionScratch(headDim, Math.max(QUERIES, perKv)));
      params[0] = device.address(out);
      params[1] = device.address(q);
      params[2] = items.items;
      params[11] = state;
      params[12] = partials.ensure(Math.max(1, items.slots * nHeads * state));
      params[13] = device.address(sinkQ);
      const units = items.count * nKvHeads;
      if (items.pairs * nHeads < ALONE) device.run(kernel, units);
      else device.runAll(kernel, units, 1);
      if (items.splits > 0) {
        params[2] = items.splitsAt;
        device.run(mergeKernel, items.splits * nHeads);
      }
    },

    attentionScores(scores: Tensor, q: Tensor, segment: Segment, layer: number, shape: AttentionShape, sinkQ = q): void {
      params[13] = device.address(sinkQ);
      runNaive(scoresKernel, scores, q, segment, layer, shape);
    },

    attentionMix(out: Tensor, weights: Tensor, segment: Segment, layer: number, shape: AttentionShape): void {
      runNaive(mixKernel, out, weights, segment, layer, shape);
    },

    kvWrite(k: Tensor, v: Tensor, segments: readonly Segment[], layer: number, { nKvHeads, headDim }: AttentionShape): void {
      if (segments.length === 0) return;
      if (written?.segments !== segments || written.headDim !== headDim) {
        written = undefined;
        written = { segments, headDim, tokens: layEntries(device, entries, segments, headDim) };
      }
      const pageSize = pageSizeOf(segments[0].pages[0]);
      params[0] = device.address(k);
      params[1] = device.address(v);
      params[2] = entries.address;
      params[3] = nKvHeads;
      params[4] = headDim;
      params[5] = pageSize;
      params[6] = layer * nKvHeads * pageSize;
      device.run(writeKernel, written.tokens);
    },
  };
}
