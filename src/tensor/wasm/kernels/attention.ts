import type { Expr, Func } from "../assembler.ts";
import { call, f32, f32x4, i32, if_, local, return_, v128 } from "../assembler.ts";
import type { BlockSteps } from "./attention-block.ts";
import { STATE_MIX } from "./attention-block.ts";
import type { Emitter } from "./common.ts";
import { floats, maxI32, minI32, param, range } from "./common.ts";
import { expOf } from "./exp.ts";

type I32 = Expr<"i32">;

/**
 * Tiled attention with an online softmax (Dao et al. 2022). Positions are cut into runs of RUN, counted from the sequence's start, and those
 * into blocks of BLOCK, whose keys and values stay in the first-level cache while the queries of an item pass. A query adds its blocks
 * to a run's state online; run states merge in order. Cuts depend neither on pages nor on batches, chunks or threads, so nothing of that
 * changes a bit. With a window the positions of the sinks are cut first, in the same way, then those of the window.
 */
export const RUN = 256;
export const BLOCK = 64;
/** Queries that one item of a prompt covers: they share the blocks of keys in the cache. */
export const QUERIES = 24;

/** Parameters of "attention" and "attention_merge", in order. */
export const ATTENTION_PARAMS = ["out", "q", "items", "nHeads", "nKvHeads", "headDim", "scale", "pageSize", "slot", "scratch", "scratchBytes", "stateBytes", "partials", "sinkQ", "softCap", "slopes", "sinkLogits"] as const;

/**
 * An item: some queries of one segment, and a range of runs. Queries are numbered (token in segment) * headsPerKvHead + head, so that those
 * that share keys stand together. Words: page table, first batch row, first query, last query, position of the first token, first run,
 * last run, first partial state (-1: the item covers all runs and writes the result itself), window size (0: none), sinks, first run that
 * the window touches, format of keys, of values. Runs of the sinks are numbered first, then all runs of the sequence. A unit is
 * (item, kv head).
 */
export const ITEM_WORDS = 16;

/** Scores of one query in scratch, with room for the overshoot of the last vector. */
export const SCORE_BYTES = (BLOCK + 8) * 4;

export const stateBytes = (headDim: number): number => STATE_MIX + Math.ceil(headDim / 4) * 16;
/** Scratch of one thread: scores of two queries, and for each of `queries` queries the state so far and that of the current run. */
export const attentionScratch = (headDim: number, queries: number): number => 2 * SCORE_BYTES + 2 * queries * stateBytes(headDim);

export function emitAttention(emitter: Emitter, steps: BlockSteps): void {
  const { module, threadIndex } = emitter;
  const merge = emitMerge(emitter);

  const clear = module.func("attention_clear", ["i32", "i32"], undefined, (state, bytes) => {
    range(state, i32.add(state, bytes), 16, (at) => v128.store(at, f32x4.const(0)));
    f32.store(state, -Infinity);
  });

  const finish = module.func("attention_finish", ["i32", "i32", "i32", "i32"], undefined, (out, state, headDim, head) => {
    const sum = local("f32", f32.load(state, 4));
    if_(param(16), () => {
      const past = local("v128", expOf(emitter, f32x4.splat(f32.sub(f32.load(i32.add(param(16), i32.shl(head, 2))), f32.load(state)))));
      sum.set(f32.add(sum, f32x4.extract_lane(0, past)));
    });
    floats(
      headDim,
      (at) => v128.store(i32.add(out, at), f32x4.div(v128.load(i32.add(state, at), STATE_MIX), f32x4.splat(sum))),
      (at) => f32.store(i32.add(out, at), f32.div(f32.load(i32.add(state, at), STATE_MIX), sum)),
    );
  });

  module.kernel("attention", (first, last) => {
    const [nKvHeads, headDim, pageSize, bytes] = [local("i32", param(4)), local("i32", param(5)), local("i32", param(7)), local("i32", param(11))];
    const perKv = local("i32", i32.div_u(param(3), nKvHeads));
    const scratch = local("i32", i32.add(param(9), i32.mul(threadIndex, param(10))));
    const scores = [scratch, local("i32", i32.add(scratch, SCORE_BYTES))];
    const totals = local("i32", i32.add(scratch, 2 * SCORE_BYTES));
    const [item, head, table, cache, sinkRun, start] = [local("i32"), local("i32"), local("i32"), local("i32"), local("i32"), local("i32")];
    const [token, row, seenFrom] = [local("i32"), local("i32"), local("i32")];
    const pair = [0, 1].map(() => ({ q: local("i32"), low: local("i32"), high: local("i32"), state: local("i32"), position: local("i32"), head: local("i32") }));
    type Query = (typeof pair)[number];

    /** Byte offset of a query (and its result) in the batch; sets `token`. */
    const offsetOf = (query: I32): I32 => {
      token.set(i32.div_u(query, perKv));
      row.set(i32.add(i32.mul(i32.add(i32.load(item, 4), token), param(3)), i32.add(i32.mul(head, perKv), i32.sub(query, i32.mul(token, perKv)))));
      return i32.shl(i32.mul(row, headDim), 2);
    };
    /** Where a query lies, and which keys of the block from `start` on it sees: [low, high), empty where high <= low. */
    const locate = (query: I32, { q, low, high, position, head: queryHead }: Query) => {
      q.set(offsetOf(query));
      queryHead.set(i32.add(i32.mul(head, perKv), i32.sub(query, i32.mul(token, perKv))));
      position.set(i32.add(i32.load(item, 16), token));
      seenFrom.set(0);
      if_(i32.load(item, 32), () => {
        if_(i32.ge_s(position, i32.add(i32.load(item, 32), i32.load(item, 36))), () => seenFrom.set(i32.add(i32.sub(position, i32.load(item, 32)), 1)));
      });
      if_(
        sinkRun,
        () => {
          q.set(i32.add(param(13), q));
          low.set(0);
          high.set(0);
          if_(seenFrom, () => high.set(i32.sub(i32.load(item, 36), start)));
        },
        () => {
          q.set(i32.add(param(1), q));
          low.set(maxI32(i32.sub(seenFrom, start), i32.const(0)));
          high.set(i32.sub(i32.add(position, 1), start));
        },
      );
      high.set(minI32(high, i32.const(BLOCK)));
    };
    const rowOf = (query: number, at: I32): I32 => i32.add(scores[query], i32.shl(at, 2));
    const score = (of: readonly number[], from: I32, to: I32): void => {
      call(steps.scores[of.length - 1], i32.load(item, 44), table, cache, i32.add(start, from), i32.sub(to, from), ...of.flatMap((t) => [rowOf(t, from), pair[t].q]));
    };
    const mix = (of: readonly number[], from: I32, to: I32): void => {
      if_(i32.lt_s(from, to), () => {
        call(steps.mix[of.length - 1], i32.load(item, 48), table, cache, i32.add(start, from), i32.sub(to, from), ...of.flatMap((t) => [rowOf(t, from), pair[t].state]));
      });
    };
    const bent = local("i32", i32.or(param(14), param(15)));
    const bendScores = (t: number): void => {
      // Towards the sinks a query stands right behind the window, as in `Batch.sinkPositions`.
      const own = local("i32", pair[t].position);
      if_(sinkRun, () => own.set(i32.sub(i32.add(i32.load(item, 32), i32.load(item, 36)), 1)));
      const slope = local("f32", 0);
      if_(param(15), () => slope.set(f32.load(i32.add(param(15), i32.shl(pair[t].head, 2)))));
      call(steps.bend, rowOf(t, pair[t].low), i32.sub(pair[t].high, pair[t].low), i32.sub(i32.add(start, pair[t].low), own), slope);
    };
    const weigh = (t: number): void => {
      if_(bent, () => bendScores(t));
      call(steps.softmax, rowOf(t, pair[t].low), i32.sub(pair[t].high, pair[t].low), pair[t].state, bytes);
    };
    const alone = (t: number): void => {
      if_(i32.lt_s(pair[t].low, pair[t].high), () => {
        score([t], pair[t].low, pair[t].high);
        weigh(t);
        mix([t], pair[t].low, pair[t].high);
      });
    };
    const [from, to, fresh, partial, run, common, commonEnd] = [local("i32"), local("i32"), local("i32"), local("i32"), local("i32"), local("i32"), local("i32")];
    const [a, b] = pair;
    const together = (): void => {
      score([0, 1], minI32(a.low, b.low), maxI32(a.high, b.high));
      weigh(0);
      weigh(1);
      // What only one of them sees must not reach the other, not even with weight 0: it may be infinite.
      common.set(maxI32(a.low, b.low));
      commonEnd.set(maxI32(minI32(a.high, b.high), common));
      for (const t of [0, 1]) mix([t], pair[t].low, minI32(common, pair[t].high));
      mix([0, 1], common, commonEnd);
      for (const t of [0, 1]) mix([t], maxI32(commonEnd, pair[t].low), pair[t].high);
    };

    range(first, last, 1, (unit) => {
      item.set(i32.add(param(2), i32.mul(i32.div_u(unit, nKvHeads), 4 * ITEM_WORDS)));
      head.set(i32.rem_u(unit, nKvHeads));
      cache.set(i32.mul(i32.add(param(8), head), pageSize));
      table.set(i32.load(item));
      from.set(i32.load(item, 8));
      to.set(i32.load(item, 12));
      partial.set(i32.load(item, 28));
      const queries = local("i32", i32.sub(to, from));
      fresh.set(i32.add(totals, i32.mul(queries, bytes)));
      if_(i32.ge_s(partial, 0), () => fresh.set(i32.add(param(12), i32.mul(i32.add(partial, i32.mul(head, queries)), bytes))));
      const sinkRuns = local("i32", i32.shr_u(i32.add(i32.load(item, 36), RUN - 1), 8));
      range(0, queries, 1, (query) => call(clear, i32.add(totals, i32.mul(query, bytes)), bytes));

      range(i32.load(item, 20), i32.load(item, 24), 1, (piece) => {
        if_(i32.eq(piece, sinkRuns), () => piece.set(i32.add(sinkRuns, i32.load(item, 40))));
        sinkRun.set(i32.lt_s(piece, sinkRuns));
        run.set(i32.shl(i32.sub(piece, i32.mul(sinkRuns, i32.eqz(sinkRun))), 8));
        range(0, queries, 1, (query) => call(clear, i32.add(fresh, i32.mul(query, bytes)), bytes));
        range(run, i32.add(run, RUN), BLOCK, (blockStart) => {
          start.set(blockStart);
          // The last query sees furthest, the first begins earliest.
          locate(i32.sub(to, 1), b);
          if_(i32.gt_s(b.high, 0), () => {
            locate(from, a);
            call(steps.touch, i32.load(item, 44), 0, table, cache, i32.add(start, a.low), i32.sub(b.high, a.low));
            call(steps.touch, i32.load(item, 48), 1, table, cache, i32.add(start, a.low), i32.sub(b.high, a.low));
          });
          range(from, to, 2, (query) => {
            a.state.set(i32.add(fresh, i32.mul(i32.sub(query, from), bytes)));
            b.state.set(i32.add(a.state, bytes));
            locate(query, a);
            b.low.set(0);
            b.high.set(0);
            if_(i32.lt_s(i32.add(query, 1), to), () => locate(i32.add(query, 1), b));
            if_(
              i32.and(i32.lt_s(a.low, a.high), i32.lt_s(b.low, b.high)),
              together,
              () => [0, 1].forEach(alone),
            );
          });
        });
        if_(i32.lt_s(partial, 0), () => {
          range(0, queries, 1, (query) => call(merge, i32.add(totals, i32.mul(query, bytes)), i32.add(fresh, i32.mul(query, bytes)), bytes));
        });
      });

      if_(i32.lt_s(partial, 0), () => {
        range(from, to, 1, (query) => {
          const place = local("i32", i32.add(param(0), offsetOf(query)));
          const queryHead = i32.add(i32.mul(head, perKv), i32.sub(query, i32.mul(token, perKv)));
          call(finish, place, i32.add(totals, i32.mul(i32.sub(query, from), bytes)), headDim, queryHead);
        });
      });
    });
  });

  // Params as above; here `items` holds [batch row, first partial, runs, heads per kv head] for each split query token, a unit is one of its heads.
  module.kernel("attention_merge", (first, last) => {
    const [nHeads, headDim, bytes] = [local("i32", param(3)), local("i32", param(5)), local("i32", param(11))];
    const total = local("i32", i32.add(param(9), i32.mul(threadIndex, param(10))));
    range(first, last, 1, (unit) => {
      const item = local("i32", i32.add(param(2), i32.shl(i32.div_u(unit, nHeads), 4)));
      const head = local("i32", i32.rem_u(unit, nHeads));
      const next = local("i32", i32.add(param(12), i32.mul(i32.add(i32.load(item, 4), head), bytes)));
      call(clear, total, bytes);
      range(0, i32.load(item, 8), 1, () => {
        call(merge, total, next, bytes);
        next.add(i32.mul(nHeads, bytes));
      });
      call(finish, i32.add(param(0), i32.shl(i32.mul(i32.add(i32.mul(i32.load(item), nHeads), head), headDim), 2)), total, headDim, head);
    });
  });
}

/** state = state and made together, both rescaled to the larger maximum; a made that saw nothing changes nothing. */
function emitMerge(emitter: Emitter): Func {
  return emitter.module.func("attention_merge_states", ["i32", "i32", "i32"], undefined, (state, made, bytes) => {
    if_(f32.eq(f32.load(made, 4), 0), () => return_());
    const max = local("f32", f32.max(f32.load(state), f32.load(made)));
    const factor = (of: I32) => expOf(emitter, f32x4.splat(f32.sub(f32.load(of), max)));
    const [mine, theirs] = [local("v128", factor(state)), local("v128", factor(made))];
    f32.store(state, max);
    f32.store(state, f32.add(f32.mul(f32.load(state, 4), f32x4.extract_lane(0, mine)), f32.mul(f32.load(made, 4), f32x4.extract_lane(0, theirs))), 4);
    range(STATE_MIX, bytes, 16, (at) => {
      const [a, b] = [v128.load(i32.add(state, at)), v128.load(i32.add(made, at))];
      v128.store(i32.add(state, at), f32x4.add(f32x4.mul(a, mine), f32x4.mul(b, theirs)));
    });
  });
}
