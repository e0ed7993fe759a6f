import type { AttentionShape, Segment } from "../kernels.ts";
import type { Tensor } from "../tensor.ts";
import type { Device } from "./device.ts";
import { Workspace } from "./device.ts";
import { attentionScratch, BLOCK, ITEM_WORDS, PAGE_WORDS, stateBytes } from "./kernels/attention.ts";

/** Queries that one item of a prompt covers: they share the blocks of keys in the cache. */
const QUERIES = 24;
/** (query, key, head) triples below which one thread is faster than handing over. */
const ALONE = 4096;

/** Turns segments into the kernels' tables, and runs them. */
export function attentionPlan(device: Device, tables = new Workspace(device, "attention tables"), scratch = new Workspace(device, "attention scratch"), partials = new Workspace(device, "attention partials")) {
  const kernel = device.kernel("attention");
  const mergeKernel = device.kernel("attention_merge");
  const writeKernel = device.kernel("kv_write");

  return {
    attention(out: Tensor, q: Tensor, segments: readonly Segment[], layer: number, { nHeads, nKvHeads, headDim, scale }: AttentionShape): void {
      const pageSize = segments[0].pages[0].k.shape[2];
      const perKv = nHeads / nKvHeads;
      let pageCount = 0;
      let itemCount = 0;
      let splits = 0;
      let slots = 0;
      for (const { start, length } of segments) {
        pageCount += Math.ceil((start + length) / pageSize);
        const blocks = Math.ceil((start + length) / BLOCK);
        if (length === 1 && blocks > 1) {
          itemCount += blocks;
          splits++;
          slots += blocks;
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
      let triples = 0;
      for (const { pages, row, start, length } of segments) {
        const table = base + 4 * page;
        const used = Math.ceil((start + length) / pageSize);
        for (let i = 0; i < used; i++) {
          words[page++] = device.address(pages[i].k);
          words[page++] = device.address(pages[i].v);
        }
        triples += length * (start + length);
        const blocks = Math.ceil((start + length) / BLOCK);
        const queries = length * perKv;
        const put = (first: number, last: number, block: number, blockEnd: number, partial: number): void => {
          words[item] = table;
          words[item + 1] = row;
          words[item + 2] = first;
          words[item + 3] = last;
          words[item + 4] = start;
          words[item + 5] = block;
          words[item + 6] = blockEnd;
          words[item + 7] = partial;
          item += ITEM_WORDS;
        };
        if (length === 1 && blocks > 1) {
          words[split++] = row;
          words[split++] = slot * nHeads;
          words[split++] = blocks;
          words[split++] = perKv;
          for (let block = 0; block < blocks; block++) put(0, queries, block, block + 1, nHeads * slot++);
        } else {
          for (let first = 0; first < queries; first += QUERIES) {
            const last = Math.min(first + QUERIES, queries);
            const end = start + Math.floor((last - 1) / perKv) + 1;
            put(first, last, 0, Math.ceil(end / BLOCK), -1);
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
      const units = itemCount * nKvHeads;
      if (triples * nHeads < ALONE) device.run(kernel, units);
      else device.runAll(kernel, units, 1);
      if (splits > 0) {
        params[2] = base + 4 * splitsAt;
        device.run(mergeKernel, splits * nHeads);
      }
    },

    kvWrite(k: Tensor, v: Tensor, segments: readonly Segment[], layer: number, { nKvHeads, headDim }: AttentionShape): void {
      let tokens = 0;
      for (const { length } of segments) tokens += length;
      const base = tables.ensure(12 * tokens);
      const words = tables.ints;
      const pageSize = segments[0].pages[0].k.shape[2];
      let at = 0;
      for (const { pages, row, start, length } of segments) {
        for (let i = 0; i < length; i++) {
          const page = pages[Math.floor((start + i) / pageSize)];
          const offset = (layer * nKvHeads * pageSize + ((start + i) % pageSize)) * headDim * 4;
          words[at++] = row + i;
          words[at++] = device.address(page.k) + offset;
          words[at++] = device.address(page.v) + offset;
        }
      }
      const { params } = device;
      params[0] = device.address(k);
      params[1] = device.address(v);
      params[2] = base;
      params[3] = nKvHeads;
      params[4] = headDim;
      params[5] = pageSize * headDim * 4;
      device.run(writeKernel, tokens);
    },
  };
}
