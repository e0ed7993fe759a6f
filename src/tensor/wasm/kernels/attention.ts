import type { Expr, Func, Local } from "../assembler.ts";
import { br, br_if, block, call, f32, f32x4, i32, i8x16, if_, local, loop, v128 } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { floats, madd, maxF32, param, paramF32, range, sumF32 } from "./common.ts";
import { expOf } from "./exp.ts";

type I32 = Expr<"i32">;

/**
 * Tiled attention with an online softmax (Dao et al. 2022), the tiles being BLOCK consecutive positions counted from the sequence's start:
 * scores of a block, its maximum, exponentials, their sum and the mix of values; then blocks merge in order. Tiles depend neither on
 * pages nor on batches, chunks or threads, so nothing of that changes a bit.
 */
export const BLOCK = 256;

/** Parameters of "attention" and "attention_merge", in order. */
export const ATTENTION_PARAMS = ["out", "q", "items", "nHeads", "nKvHeads", "headDim", "scale", "pageSize", "slot", "scratch", "scratchBytes", "stateBytes", "partials"] as const;

/**
 * An item: some queries of one segment, and a range of blocks. Queries are numbered (token in segment) * headsPerKvHead + head, so that those
 * that share keys stand together. Words: page table, first batch row, first query, last query, position of the first token, first block,
 * last block, first partial state (-1: the item covers all blocks and writes the result itself). A unit is (item, kv head).
 */
export const ITEM_WORDS = 8;
/** An entry of a page table: addresses of a page's keys and values. */
export const PAGE_WORDS = 2;

/** State of a query: maximum, sum, two unused words, then the mix [headDim]. */
const STATE_MIX = 16;
/** Scores of one query in scratch, with room for the overshoot of the last vector. */
const SCORE_BYTES = (BLOCK + 8) * 4;

export const stateBytes = (headDim: number): number => STATE_MIX + Math.ceil(headDim / 4) * 16;
/** Scratch of one thread: scores of two queries, a block's two states and the states of `queries` queries. */
export const attentionScratch = (headDim: number, queries: number): number => 2 * SCORE_BYTES + (2 + queries) * stateBytes(headDim);

export function emitAttention(emitter: Emitter, threadIndex: I32): void {
  const { module } = emitter;
  const merge = emitMerge(emitter);
  const single = emitBlock(emitter, 1);
  const double = emitBlock(emitter, 2);

  const finish = module.func("attention_finish", ["i32", "i32", "i32"], undefined, (out, state, headDim) => {
    const sum = local("f32", f32.load(state, 4));
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
    const temporary = local("i32", i32.add(scratch, 2 * SCORE_BYTES));
    const states = local("i32", i32.add(temporary, i32.shl(bytes, 1)));
    const [item, head, offset] = [local("i32"), local("i32"), local("i32")];
    const [token, row] = [local("i32"), local("i32")];

    /** Sets a query's address and how many keys of the current block it sees. */
    const locate = (query: I32, blockStart: I32, q: Local<"i32">, visible: Local<"i32">) => {
      token.set(i32.div_u(query, perKv));
      row.set(i32.add(i32.mul(i32.add(i32.load(item, 4), token), param(3)), i32.add(i32.mul(head, perKv), i32.sub(query, i32.mul(token, perKv)))));
      q.set(i32.shl(i32.mul(row, headDim), 2));
      visible.set(i32.sub(i32.add(i32.add(i32.load(item, 16), token), 1), blockStart));
      if_(i32.gt_s(visible, BLOCK), () => visible.set(BLOCK));
    };

    range(first, last, 1, (unit) => {
      item.set(i32.add(param(2), i32.mul(i32.div_u(unit, nKvHeads), 4 * ITEM_WORDS)));
      head.set(i32.rem_u(unit, nKvHeads));
      offset.set(i32.shl(i32.mul(i32.mul(i32.add(param(8), head), pageSize), headDim), 2));
      const [from, to, partial] = [local("i32", i32.load(item, 8)), local("i32", i32.load(item, 12)), local("i32", i32.load(item, 28))];
      const firstBlock = local("i32", i32.load(item, 20));
      const [q0, q1, seen0, seen1, target] = [local("i32"), local("i32"), local("i32"), local("i32"), local("i32")];
      const state = local("i32");

      range(firstBlock, i32.load(item, 24), 1, (blockIndex) => {
        const start = local("i32", i32.mul(blockIndex, BLOCK));
        /** One query's part of the block is in `made`: keep it as the state, or merge it into the state of the blocks before. */
        const keep = (made: I32, own: I32) => if_(i32.ne(made, own), () => call(merge, own, made, headDim));
        range(from, to, 2, (query) => {
          block((next) => {
            if_(
              i32.lt_s(partial, 0),
              () => state.set(i32.add(states, i32.mul(i32.sub(query, from), bytes))),
              () => state.set(i32.add(param(12), i32.mul(i32.add(partial, i32.add(i32.mul(head, i32.sub(to, from)), i32.sub(query, from))), bytes))),
            );
            // A query's first block is its state; later ones go to the temporary.
            target.set(state);
            if_(i32.ne(blockIndex, firstBlock), () => target.set(temporary));
            locate(query, start, q0, seen0);
            if_(i32.ge_s(i32.add(query, 1), to), () => {
              br_if(next, i32.le_s(seen0, 0));
              call(single, i32.load(item), offset, start, scratch, i32.add(param(1), q0), seen0, target, i32.const(0), i32.const(0), i32.const(0));
              keep(target, state);
              br(next);
            });
            locate(i32.add(query, 1), start, q1, seen1);
            br_if(next, i32.le_s(seen1, 0));
            if_(
              i32.le_s(seen0, 0),
              () => {
                call(single, i32.load(item), offset, start, scratch, i32.add(param(1), q1), seen1, i32.add(target, bytes), i32.const(0), i32.const(0), i32.const(0));
              },
              () => {
                call(double, i32.load(item), offset, start, scratch, i32.add(param(1), q0), seen0, target, i32.add(param(1), q1), seen1, i32.add(target, bytes));
                keep(target, state);
              },
            );
            keep(i32.add(target, bytes), i32.add(state, bytes));
          });
        });
      });

      if_(i32.lt_s(partial, 0), () => {
        range(from, to, 1, (query) => {
          locate(query, i32.const(0), q0, seen0);
          call(finish, i32.add(param(0), q0), i32.add(states, i32.mul(i32.sub(query, from), bytes)), headDim);
        });
      });
    });
  });

  // Params as above; here `items` holds [batch row, first partial, blocks, heads per kv head] for each split query token, a unit is one of its heads.
  module.kernel("attention_merge", (first, last) => {
    const [nHeads, headDim, bytes] = [local("i32", param(3)), local("i32", param(5)), local("i32", param(11))];
    range(first, last, 1, (unit) => {
      const item = local("i32", i32.add(param(2), i32.shl(i32.div_u(unit, nHeads), 4)));
      const head = local("i32", i32.rem_u(unit, nHeads));
      const state = local("i32", i32.add(param(12), i32.mul(i32.add(i32.load(item, 4), head), bytes)));
      const next = local("i32", state);
      range(1, i32.load(item, 8), 1, () => {
        next.add(i32.mul(nHeads, bytes));
        call(merge, state, next, headDim);
      });
      call(finish, i32.add(param(0), i32.shl(i32.mul(i32.add(i32.mul(i32.load(item), nHeads), head), headDim), 2)), state, headDim);
    });
  });
}

/** state = state and block together: both rescaled to the larger maximum. */
function emitMerge({ module }: Emitter): Func {
  return module.func("attention_add_block", ["i32", "i32", "i32"], undefined, (state, made, headDim) => {
    const max = local("f32", f32.max(f32.load(state), f32.load(made)));
    const factor = (of: I32) => expOf(f32x4.splat(f32.sub(f32.load(of), max)));
    const [mine, theirs] = [local("v128", factor(state)), local("v128", factor(made))];
    const scaled = (own: I32, other: I32, at: number) =>
      f32.add(f32.mul(f32.load(own, at), f32x4.extract_lane(0, mine)), f32.mul(f32.load(other, at), f32x4.extract_lane(0, theirs)));
    f32.store(state, max);
    f32.store(state, scaled(state, made, 4), 4);
    floats(
      headDim,
      (at) => {
        const [a, b] = [v128.load(i32.add(state, at), STATE_MIX), v128.load(i32.add(made, at), STATE_MIX)];
        v128.store(i32.add(state, at), f32x4.add(f32x4.mul(a, mine), f32x4.mul(b, theirs)), STATE_MIX);
      },
      (at) => f32.store(i32.add(state, at), scaled(i32.add(state, at), i32.add(made, at), STATE_MIX), STATE_MIX),
    );
  });
}

/**
 * The states of one or two queries over one block. Parameters: page table, byte offset of (layer, kv head) in a page, first position,
 * scratch, then for each query its address, how many keys of the block it sees (at least 1, the second at most one more) and its state.
 */
function emitBlock(emitter: Emitter, queries: 1 | 2): Func {
  const { module } = emitter;
  const types = ["i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32"] as const;
  return module.func(`attention_block_${queries}`, types, undefined, (pages, offset, start, scratch, qa, seenA, stateA, qb, seenB, stateB) => {
    const qs = [qa, qb].slice(0, queries);
    const seen = [seenA, seenB].slice(0, queries);
    const states = [stateA, stateB].slice(0, queries);
    const headDim = local("i32", param(5));
    const pageSize = local("i32", param(7));
    const rowBytes = local("i32", i32.shl(headDim, 2));
    const count = queries === 1 ? seenA : seenB;
    const scores = qs.map((_, t) => local("i32", i32.add(scratch, t * SCORE_BYTES)));
    const [done, run, address] = [local("i32"), local("i32"), local("i32")];

    /** Visits the runs of positions that lie in one page: `address` of the first one's keys (0) or values (1), `run` positions from `done` on. */
    const walk = (which: 0 | 1, visit: () => void) => {
      done.set(0);
      loop((again) => {
        const position = local("i32", i32.add(start, done));
        const page = local("i32", i32.div_u(position, pageSize));
        const slot = local("i32", i32.sub(position, i32.mul(page, pageSize)));
        run.set(i32.sub(pageSize, slot));
        if_(i32.gt_s(run, i32.sub(count, done)), () => run.set(i32.sub(count, done)));
        address.set(i32.add(i32.add(i32.load(i32.add(pages, i32.mul(page, 4 * PAGE_WORDS)), 4 * which), offset), i32.mul(slot, rowBytes)));
        visit();
        done.add(run);
        br_if(again, i32.lt_s(done, count));
      });
    };

    const scale = local("v128", f32x4.splat(paramF32(6)));
    const keys = Array.from({ length: 4 }, () => local("i32"));
    const left = local("i32");
    const sums = qs.map(() => keys.map(() => local("v128")));
    const pointers = qs.map(() => local("i32"));
    walk(0, () => {
      const final = local("i32", i32.add(address, i32.mul(i32.sub(run, 1), rowBytes)));
      range(0, run, 4, (j) => {
        // Past the run's end the last key stands in; its scores are overwritten or masked.
        keys.forEach((key, i) => {
          key.set(i === 0 ? i32.add(address, i32.mul(j, rowBytes)) : i32.add(keys[i - 1], rowBytes));
          if (i > 0) if_(i32.gt_u(key, final), () => key.set(final));
        });
        for (const row of sums) for (const sum of row) sum.set(f32x4.const(0));
        pointers.forEach((pointer, t) => pointer.set(qs[t]));
        const step = (load: "load" | "load32_zero", vectors: number, bytes: number) => {
          for (let i = 0; i < vectors; i++) {
            const values = pointers.map((pointer) => local("v128", v128[load](pointer, 16 * i)));
            keys.forEach((key, k) => {
              const value = local("v128", v128[load](key, 16 * i));
              values.forEach((q, t) => sums[t][k].set(madd(emitter, q, value, sums[t][k])));
            });
          }
          for (const pointer of [...pointers, ...keys]) pointer.add(bytes);
          left.add(-bytes);
        };
        left.set(rowBytes);
        for (const [bytes, run] of [[32, () => step("load", 2, 32)], [16, () => step("load", 1, 16)], [4, () => step("load32_zero", 1, 4)]] as const) {
          if_(i32.ge_s(left, bytes), () => {
            loop((again) => {
              run();
              br_if(again, i32.ge_s(left, bytes));
            });
          });
        }
        // `final` and the next keys are computed from the run's start, so moved pointers do no harm.
        sums.forEach((row, t) => {
          v128.store(i32.add(scores[t], i32.shl(i32.add(done, j), 2)), f32x4.mul(transposedSum(row), scale));
        });
      });
    });

    const end = local("i32", i32.shl(i32.and(i32.add(count, 3), -4), 2));
    const [max, sum, value] = [local("v128"), local("v128"), local("v128")];
    states.forEach((state, t) => {
      v128.store(i32.add(scores[t], i32.shl(seen[t], 2)), f32x4.const(-Infinity));
      max.set(f32x4.const(-Infinity));
      range(0, end, 16, (at) => max.set(f32x4.max(max, v128.load(i32.add(scores[t], at)))));
      f32.store(state, maxF32(max));
      max.set(f32x4.splat(f32.load(state)));
      sum.set(f32x4.const(0));
      range(0, end, 16, (at) => {
        value.set(expOf(f32x4.sub(v128.load(i32.add(scores[t], at)), max)));
        v128.store(i32.add(scores[t], at), value);
        sum.set(f32x4.add(sum, value));
      });
      f32.store(state, sumF32(sum), 4);
    });

    const weight = local("i32");
    const column = local("i32", 0);
    const mix = (vectors: number, width: 4 | 1) => {
      const load = width === 4 ? "load" : "load32_zero";
      const parts = qs.map(() => Array.from({ length: vectors }, () => local("v128")));
      for (const row of parts) for (const part of row) part.set(f32x4.const(0));
      walk(1, () => {
        address.add(column);
        weight.set(i32.shl(done, 2));
        left.set(run);
        loop((again) => {
          const factors = scores.map((base) => local("v128", v128.load32_splat(i32.add(base, weight))));
          for (let i = 0; i < vectors; i++) {
            const value = local("v128", v128[load](address, 16 * i));
            factors.forEach((factor, t) => parts[t][i].set(madd(emitter, factor, value, parts[t][i])));
          }
          address.add(rowBytes);
          weight.add(4);
          left.add(-1);
          br_if(again, left);
        });
      });
      states.forEach((state, t) => {
        parts[t].forEach((part, i) => {
          if (width === 4) v128.store(i32.add(state, column), part, STATE_MIX + 16 * i);
          else v128.store32_lane(0, i32.add(state, column), part, STATE_MIX);
        });
      });
      column.add(4 * width * vectors);
    };
    for (const [vectors, width] of [[queries === 1 ? 8 : 4, 4], [1, 4], [1, 1]] as const) {
      const bytes = 4 * vectors * width;
      if_(i32.le_s(i32.add(column, bytes), rowBytes), () => {
        loop((again) => {
          mix(vectors, width);
          br_if(again, i32.le_s(i32.add(column, bytes), rowBytes));
        });
      });
    }
  });
}

/** [sum of a, sum of b, sum of c, sum of d], each as (0 + 1) + (2 + 3). */
function transposedSum([a, b, c, d]: readonly Local<"v128">[]): Expr<"v128"> {
  const pick = (x: Expr<"v128">, y: Expr<"v128">, lanes: readonly number[]) => i8x16.shuffle(lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => 4 * lane + byte)), x, y);
  const halves = (x: Expr<"v128">, y: Expr<"v128">) => local("v128", f32x4.add(pick(x, y, [0, 2, 4, 6]), pick(x, y, [1, 3, 5, 7])));
  const [ab, cd] = [halves(a, b), halves(c, d)];
  return f32x4.add(pick(ab, cd, [0, 2, 4, 6]), pick(ab, cd, [1, 3, 5, 7]));
}

/** Kernel "kv_write": params k, v, entries, nKvHeads, headDim, headStride; an entry holds a row and its addresses in the page's keys and values. */
export function emitKvWrite({ module }: Emitter): void {
  module.kernel("kv_write", (first, last) => {
    const [nKvHeads, headDim, stride] = [local("i32", param(3)), local("i32", param(4)), local("i32", param(5))];
    const rowBytes = local("i32", i32.shl(headDim, 2));
    range(first, last, 1, (unit) => {
      const entry = local("i32", i32.add(param(2), i32.mul(unit, 12)));
      for (const which of [0, 1]) {
        const from = local("i32", i32.add(param(which), i32.mul(i32.load(entry), i32.mul(nKvHeads, rowBytes))));
        const to = local("i32", i32.load(entry, 4 + 4 * which));
        range(0, nKvHeads, 1, () => {
          floats(
            headDim,
            (at) => v128.store(i32.add(to, at), v128.load(i32.add(from, at))),
            (at) => f32.store(i32.add(to, at), f32.load(i32.add(from, at))),
          );
          from.add(rowBytes);
          to.add(stride);
        });
      }
    });
  });
}
