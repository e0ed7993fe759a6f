import type { AttentionShape, Segment } from "../kernels.ts";
import { pageOf, pageSizeOf, visiblePairs, windowStart } from "../segments.ts";
import type { Tensor } from "../tensor.ts";
import type { Device } from "./device.ts";
import { Workspace } from "./device.ts";
import { attentionScratch, ITEM_WORDS, RUN, stateBytes } from "./kernels/attention.ts";
import { PAGE_WORDS } from "./kernels/attention-block.ts";
import { KV_FORMATS, kvRowBytes } from "./kernels/kv-format.ts";
import { KV_ENTRY_WORDS } from "./kernels/kv-write.ts";

/** Queries that one item of a prompt covers: they share the blocks of keys in the cache. */
const QUERIES = 24;
/** (query, key, head) triples below which one thread is faster than handing over. */
const ALONE = 4096;

type PageFormat = (typeof KV_FORMATS)[number];

function formatOf({ dtype, name }: Tensor): PageFormat {
  if (dtype === "f32" || dtype === "int8" || dtype === "int4") return dtype;
  throw new TypeError(`${name || "a KV page"}: expected f32, int8 or int4, found ${dtype}`);
}

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

/** Turns segments into the kernels' tables, and runs them. */
export function attentionPlan(device: Device) {
  const [tables, scratch, partials, slopeTable] = ["tables", "scratch", "partials", "slopes"].map((what) => new Workspace(device, `attention ${what}`));
  const kernel = device.kernel("attention");
  const mergeKernel = device.kernel("attention_merge");
  const writeKernel = device.kernel("kv_write");
  const scalesOf = ({ scales }: Tensor): number => (scales ? scales.byteOffset : 0);

  return {
    attention(out: Tensor, q: Tensor, segments: readonly Segment[], layer: number, { nHeads, nKvHeads, headDim, scale, softCap, slopes, sinkLogits }: AttentionShape, sinkQ = q): void {
      if (segments.length === 0) return;
      const pageSize = pageSizeOf(segments[0].pages[0]);
      const perKv = nHeads / nKvHeads;
      let pageCount = 0;
      let itemCount = 0;
      let splits = 0;
      let slots = 0;
      for (const segment of segments) {
        const { start, length } = segment;
        pageCount += Math.ceil((start + length) / pageSize);
        const runs = length === 1 ? runCount(segment) : 1;
        if (runs > 1) {
          itemCount += runs;
          splits++;
          slots += runs;
        } else itemCount += Math.ceil((length * perKv) / QUERIES);
      }
      const base = tables.ensure(4 * (pageCount * PAGE_WORDS + itemCount * ITEM_WORDS + splits * 4));
      const words = tables.ints;
      let page = 0;
      let item = pageCount * PAGE_WORDS;
      const itemsAt = item;
      let split = item + itemCount * ITEM_WORDS;
      const splitsAt = split;
      let slot = 0;
      for (const segment of segments) {
        const { pages, row, start, length, hole, window } = segment;
        const table = base + 4 * page;
        const used = Math.ceil((start + length) / pageSize);
        for (let i = 0; i < used; i++, page += PAGE_WORDS) {
          // Pages of the hole keep whatever stands there: no query sees them.
          if (hole && i >= hole.at && i < hole.at + hole.count) continue;
          const { k, v } = pages[hole && i >= hole.at ? i - hole.count : i];
          words[page] = device.address(k);
          words[page + 1] = device.address(v);
          words[page + 2] = scalesOf(k);
          words[page + 3] = scalesOf(v);
        }
        const { sinks, first, end } = runsOf(segment);
        const [k, v] = [KV_FORMATS.indexOf(formatOf(pages[0].k)), KV_FORMATS.indexOf(formatOf(pages[0].v))];
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
      const state = stateBytes(headDim);
      const scratchBytes = Math.ceil(attentionScratch(headDim, Math.max(QUERIES, perKv)) / 64) * 64;
      const { params } = device;
      params[9] = scratch.ensure(scratchBytes * device.threads);
      params[12] = partials.ensure(Math.max(1, slots * nHeads * state));
      params[0] = device.address(out);
      params[1] = device.address(q);
      params[2] = base + 4 * itemsAt;
      params[3] = nHeads;
      params[4] = nKvHeads;
      params[5] = headDim;
      device.paramsF32[6] = scale;
      params[7] = pageSize;
      params[8] = layer * nKvHeads;
      params[10] = scratchBytes;
      params[11] = state;
      params[13] = device.address(sinkQ);
      device.paramsF32[14] = softCap ?? 0;
      params[16] = sinkLogits ? device.address(sinkLogits) : 0;
      params[15] = 0;
      if (slopes) {
        params[15] = slopeTable.ensure(slopes.byteLength);
        new Float32Array(slopeTable.ints.buffer, params[15], slopes.length).set(slopes);
      }
      const units = itemCount * nKvHeads;
      if (visiblePairs(segments) * nHeads < ALONE) device.run(kernel, units);
      else device.runAll(kernel, units, 1);
      if (splits > 0) {
        params[2] = base + 4 * splitsAt;
        device.run(mergeKernel, splits * nHeads);
      }
    },

    kvWrite(k: Tensor, v: Tensor, segments: readonly Segment[], layer: number, { nKvHeads, headDim }: AttentionShape): void {
      if (segments.length === 0) return;
      let tokens = 0;
      for (const { length } of segments) tokens += length;
      const base = tables.ensure(4 * KV_ENTRY_WORDS * tokens);
      const words = tables.ints;
      const pageSize = pageSizeOf(segments[0].pages[0]);
      let at = 0;
      for (const segment of segments) {
        const { pages, row, start, length } = segment;
        const [kFormat, vFormat] = [formatOf(pages[0].k), formatOf(pages[0].v)];
        for (let i = 0; i < length; i++, at += KV_ENTRY_WORDS) {
          const page = pageOf(segment, start + i);
          const slot = layer * nKvHeads * pageSize + ((start + i) % pageSize);
          words[at] = row + i;
          words[at + 1] = device.address(page.k) + slot * kvRowBytes(kFormat, headDim);
          words[at + 2] = scalesOf(page.k) + 4 * slot;
          words[at + 3] = device.address(page.v) + slot * kvRowBytes(vFormat, headDim);
          words[at + 4] = scalesOf(page.v) + 4 * slot;
          words[at + 5] = KV_FORMATS.indexOf(kFormat);
          words[at + 6] = KV_FORMATS.indexOf(vFormat);
        }
      }
      const { params } = device;
      params[0] = device.address(k);
      params[1] = device.address(v);
      params[2] = base;
      params[3] = nKvHeads;
      params[4] = headDim;
      params[5] = pageSize;
      device.run(writeKernel, tokens);
    },
  };
}
