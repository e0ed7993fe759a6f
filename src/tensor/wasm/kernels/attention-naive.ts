import type { Expr } from "../assembler.ts";
import { call, f32, f32x4, i32, if_, local, v128 } from "../assembler.ts";
import { BLOCK, QUERIES } from "./attention.ts";
import type { BlockSteps } from "./attention-block.ts";
import { STATE_MIX } from "./attention-block.ts";
import type { Emitter } from "./common.ts";
import { floats, maxI32, minI32, param, range } from "./common.ts";

type I32 = Expr<"i32">;

/**
 * Words of a segment: page table, first batch row, queries (tokens), position of the first, columns of the matrix, positions that no query sees
 * (between the sinks and the first window), window size (0: none), sinks, format of keys, of values.
 */
export const SEGMENT_WORDS = 10;

/**
 * Kernels of naive attention over one segment, made of the steps of tiled attention (one query at a time), so that the two differ in what they store
 * and not in how they compute: "attention_scores" and "attention_mix". Params as `ATTENTION_PARAMS`, with the matrix [heads, tokens, columns] in
 * place of `out` or of `q`, and the segment in place of the items. A unit is (QUERIES queries, kv head), queries numbered as in items.
 */
export function emitNaiveAttention({ module, threadIndex }: Emitter, steps: BlockSteps): void {
  /** `matrix` is the parameter with the matrix, the other has the rows of q or out. `begin` is called for each query, `visit` for each piece of at most BLOCK keys that it sees. */
  const emit = (name: string, matrix: 0 | 1, begin: (query: Query) => void, visit: (query: Query, piece: Piece) => void): void => {
    module.kernel(name, (first, last) => {
      const [segment, nHeads, nKvHeads, headDim] = [param(2), param(3), param(4), param(5)].map((value) => local("i32", value));
      const [tokens, start, columns, hidden, size, sinks] = [8, 12, 16, 20, 24, 28].map((offset) => local("i32", i32.load(segment, offset)));
      const perKv = local("i32", i32.div_u(nHeads, nKvHeads));
      const scratch = local("i32", i32.add(param(9), i32.mul(threadIndex, param(10))));
      const [head, cache, from, to, token, own, position, seenFrom, line, row] = Array.from({ length: 10 }, () => local("i32"));
      const query: Query = { head: own, line, columns, row, rowBytes: local("i32", i32.shl(headDim, 2)) };
      const locate = (number: I32): void => {
        token.set(i32.div_u(number, perKv));
        own.set(i32.add(i32.mul(head, perKv), i32.sub(number, i32.mul(token, perKv))));
        position.set(i32.add(start, token));
        seenFrom.set(0);
        if_(size, () => if_(i32.ge_s(position, i32.add(size, sinks)), () => seenFrom.set(i32.add(i32.sub(position, size), 1))));
        line.set(i32.add(param(matrix), i32.shl(i32.mul(i32.add(i32.mul(own, tokens), token), columns), 2)));
        row.set(i32.add(param(1 - matrix), i32.shl(i32.mul(i32.add(i32.mul(i32.add(i32.load(segment, 4), token), nHeads), own), headDim), 2)));
      };
      const piece = { segment, cache, scratch };

      range(first, last, 1, (unit) => {
        head.set(i32.rem_u(unit, nKvHeads));
        from.set(i32.mul(i32.div_u(unit, nKvHeads), QUERIES));
        to.set(minI32(i32.add(from, QUERIES), i32.mul(tokens, perKv)));
        cache.set(i32.mul(i32.add(param(8), head), param(7)));
        range(from, to, 1, (number) => {
          locate(number);
          begin(query);
          if_(seenFrom, () => {
            const at = local("i32");
            const before = i32.sub(i32.add(size, sinks), 1); // As in `Batch.sinkPositions`.
            range(0, sinks, BLOCK, (block) => {
              at.set(i32.shl(block, 2));
              visit(query, { ...piece, sink: true, low: block, count: local("i32", minI32(i32.sub(sinks, block), i32.const(BLOCK))), at, position: before });
            });
          });
        });
        locate(from);
        range(i32.and(seenFrom, -BLOCK), i32.add(i32.add(start, i32.div_u(i32.sub(to, 1), perKv)), 1), BLOCK, (block) => {
          range(from, to, 1, (number) => {
            locate(number);
            const low = local("i32", maxI32(block, seenFrom));
            const count = local("i32", i32.sub(minI32(i32.add(block, BLOCK), i32.add(position, 1)), low));
            if_(i32.gt_s(count, 0), () => {
              visit(query, { ...piece, sink: false, low, count, at: local("i32", i32.shl(i32.sub(low, hidden), 2)), position });
            });
          });
        });
      });
    });
  };

  emit(
    "attention_scores",
    0,
    ({ line, columns }) => {
      const nothing = local("v128", f32x4.const(-Infinity));
      floats(columns, (at) => v128.store(i32.add(line, at), nothing), (at) => v128.store32_lane(0, i32.add(line, at), nothing));
    },
    ({ head, line, row }, { segment, cache, scratch, sink, low, count, at, position }) => {
      const q = sink ? i32.add(param(13), i32.sub(row, param(1))) : row;
      call(steps.scores[0], i32.load(segment, 32), i32.load(segment), cache, low, count, scratch, q);
      if_(i32.or(param(14), param(15)), () => {
        const slope = local("f32", 0);
        if_(param(15), () => slope.set(f32.load(i32.add(param(15), i32.shl(head, 2)))));
        call(steps.bend, scratch, count, i32.sub(low, position), slope);
      });
      copyFloats(i32.add(line, at), scratch, count);
    },
  );
  emit(
    "attention_mix",
    1,
    ({ row, rowBytes }) => range(row, i32.add(row, rowBytes), 4, (at) => f32.store(at, 0)),
    ({ line, row }, { segment, cache, scratch, low, count, at }) => {
      // What mixes quantised values scales the weights where they lie.
      copyFloats(scratch, i32.add(line, at), count);
      call(steps.mix[0], i32.load(segment, 36), i32.load(segment), cache, low, count, scratch, i32.sub(row, STATE_MIX));
    },
  );
}

/** A query: its head, its line of the matrix, its row of q or out. */
interface Query {
  readonly head: I32;
  readonly line: I32;
  readonly columns: I32;
  readonly row: I32;
  readonly rowBytes: I32;
}

/** Keys [low, low + count) of a sequence's kv head, `at` bytes into a query's line; `position` is where the query stands as they see it. */
interface Piece {
  readonly segment: I32;
  readonly cache: I32;
  readonly scratch: I32;
  readonly sink: boolean;
  readonly low: I32;
  readonly count: I32;
  readonly at: I32;
  readonly position: I32;
}

function copyFloats(to: I32, from: I32, count: I32): void {
  const [target, source] = [local("i32", to), local("i32", from)];
  floats(count, (at) => v128.store(i32.add(target, at), v128.load(i32.add(source, at))), (at) => f32.store(i32.add(target, at), f32.load(i32.add(source, at))));
}
