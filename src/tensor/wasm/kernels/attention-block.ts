import type { Expr, Func, Local } from "../assembler.ts";
import { br_if, call, f32, f32x4, i32, if_, local, loop, v128 } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { floats, madd, maxF32, param, paramF32, pick, range, storeBoth, sumF32 } from "./common.ts";
import { expOf, heldConstants, tanhOf } from "./exp.ts";
import type { KvReader, Step } from "./kv-format.ts";
import { KV_READERS } from "./kv-format.ts";

type I32 = Expr<"i32">;

/** An entry of a page table: addresses of a page's keys and values, and of their scales. */
export const PAGE_WORDS = 4;
/** State of a query: maximum, sum, two unused words, then the mix [headDim]. */
export const STATE_MIX = 16;

/** The steps of attention over a block of keys, for one query or two that share what is loaded. */
export interface BlockSteps {
  /**
   * (format, page table, row, position, count, then for each query: scores, address of the query): scores[i] = scale * q . key of
   * `position + i`; writes up to three scores more. `row` is that of (layer, kv head, slot 0) in a page.
   */
  readonly scores: readonly [Func, Func];
  /** (scores, count, state, bytes of a state): scores become weights, the state is rescaled to the new maximum. */
  readonly softmax: Func;
  /** (format, page table, row, position, count, then for each query: weights, state): adds the weighted values in the order of positions. */
  readonly mix: readonly [Func, Func];
  /** (scores, count, offset, slope): what a soft cap and slopes make of scores, see `emitBend`. */
  readonly bend: Func;
  /** (format, which, page table, row, position, count): reads a word of every cache line of those keys (which = 0) or values (1), see `emitTouch`. */
  readonly touch: Func;
}

export function emitBlockSteps(emitter: Emitter): BlockSteps {
  const family = (name: string, emit: (name: string, reader: KvReader, queries: 1 | 2) => Func) => {
    const [one, two] = ([1, 2] as const).map((queries) => {
      const funcs = KV_READERS.map((reader) => emit(`${name}_${reader.format}_${queries}`, reader, queries));
      return emitter.module.func(`${name}_${queries}`, ["i32", ...BLOCK_PARAMS[queries]], undefined, (format, ...rest) => {
        funcs.forEach((func, index) => if_(i32.eq(format, index), () => call(func, ...rest)));
      });
    });
    return [one, two] as const;
  };
  return {
    scores: family("attention_scores", (name, reader, queries) => emitScores(emitter, name, reader, queries)),
    softmax: emitSoftmax(emitter),
    mix: family("attention_mix", (name, reader, queries) => emitMix(emitter, name, reader, queries)),
    bend: emitBend(emitter),
    touch: emitTouch(emitter),
  };
}

/** Parameters of a step for one or two queries, the format left out. */
const BLOCK_PARAMS = { touch: ["i32", "i32", "i32", "i32"], 1: Array<"i32">(6).fill("i32"), 2: Array<"i32">(8).fill("i32") } as const satisfies Record<"touch" | 1 | 2, readonly "i32"[]>;

/** A walk over positions: visits the runs that lie in one page each. */
function walker(pages: I32, row: I32, position: I32, count: I32, which: 0 | 1, reader: KvReader, headDim: I32) {
  const pageSize = local("i32", param(7));
  const rowBytes = local("i32", reader.rowBytes(headDim));
  const [done, run, address, scales] = [local("i32"), local("i32"), local("i32"), local("i32")];
  const walk = (visit: () => void) => {
    done.set(0);
    loop((again) => {
      const at = local("i32", i32.add(position, done));
      const page = local("i32", i32.div_u(at, pageSize));
      const slot = local("i32", i32.sub(at, i32.mul(page, pageSize)));
      run.set(i32.sub(pageSize, slot));
      if_(i32.gt_s(run, i32.sub(count, done)), () => run.set(i32.sub(count, done)));
      page.set(i32.add(pages, i32.shl(page, 4)));
      slot.add(row);
      address.set(i32.add(i32.load(page, 4 * which), i32.mul(slot, rowBytes)));
      if (reader.scaled) scales.set(i32.add(i32.load(page, 8 + 4 * which), i32.shl(slot, 2)));
      visit();
      done.add(run);
      br_if(again, i32.lt_s(done, count));
    });
  };
  return { walk, done, run, address, scales, rowBytes };
}

/** Runs `step` while `left` holds its columns: the widest steps first. */
function stepwise(steps: readonly Step[], left: Local<"i32">, step: (step: Step) => void): void {
  for (const each of steps) {
    if_(i32.ge_s(left, each.columns), () => {
      loop((again) => {
        step(each);
        left.add(-each.columns);
        br_if(again, i32.ge_s(left, each.columns));
      });
    });
  }
}

/**
 * Brings a block into the first-level cache before it is worked on. The loads wait for nothing but memory, so many lines travel at once;
 * the loops that compute would wait for a few lines at a time. Decode, which uses a key only once or a few times, is bound by this.
 */
function emitTouch(emitter: Emitter): Func {
  const { module, scratch } = emitter;
  const funcs = KV_READERS.map((reader) =>
    ([0, 1] as const).map((which) =>
      module.func(`attention_touch_${reader.format}_${which}`, BLOCK_PARAMS.touch, undefined, (pages, row, position, count) => {
        const { walk, run, address, rowBytes } = walker(pages, row, position, count, which, reader, local("i32", param(5)));
        const seen = local("i32", 0);
        walk(() => {
          const end = local("i32", i32.add(address, i32.mul(run, rowBytes)));
          address.set(i32.and(address, -64));
          loop((again) => {
            seen.set(i32.or(seen, i32.load(address)));
            address.add(64);
            br_if(again, i32.lt_u(address, end));
          });
        });
        i32.store(scratch, seen);
      }),
    ),
  );
  return module.func("attention_touch", ["i32", "i32", ...BLOCK_PARAMS.touch], undefined, (format, which, ...rest) => {
    funcs.forEach(([keys, values], index) => {
      if_(i32.eq(format, index), () => if_(which, () => call(values, ...rest), () => call(keys, ...rest)));
    });
  });
}

function emitScores(emitter: Emitter, name: string, reader: KvReader, queries: 1 | 2): Func {
  return emitter.module.func(name, BLOCK_PARAMS[queries], undefined, (pages, row, position, count, ...rest) => {
    const scores = rest.filter((_, i) => i % 2 === 0);
    const qs = rest.filter((_, i) => i % 2 === 1);
    const headDim = local("i32", param(5));
    const columns = local("i32", reader.columns(headDim));
    const { walk, done, run, address, scales, rowBytes } = walker(pages, row, position, count, 0, reader, headDim);
    const scale = local("v128", f32x4.splat(paramF32(6)));
    const keys = Array.from({ length: 4 }, () => local("i32"));
    const [left, final, odd] = [local("i32"), local("i32"), local("i32", i32.sub(headDim, i32.shl(columns, 1)))];
    // In wide vectors a key's first four columns of eight have a sum and its last four, until no eight are left.
    const sums = qs.map(() => keys.map(() => Array.from({ length: emitter.wide ? 2 : 1 }, () => local("v128"))));
    const pointers = qs.map(() => local("i32"));
    const highs = reader.last ? qs.map(() => local("i32")) : [];

    const step = ({ bytes, columns, lanes, parts, load }: Step) => {
      const loadQuery = lanes === 4 ? v128.load : v128.load32_zero;
      const values = qs.map((_, t) => parts.map(({ high, column }) => local("v128", loadQuery(high ? highs[t] : pointers[t], 4 * column))));
      keys.forEach((key, k) => {
        load(key, 0).forEach((value, part) =>
          values.forEach((query, t) => {
            const sum = sums[t][k][columns === 8 ? part % sums[t][k].length : 0];
            sum.set(madd(emitter, query[part], value, sum));
          }),
        );
      });
      for (const key of keys) key.add(bytes);
      for (const pointer of [...pointers, ...highs]) pointer.add(4 * columns);
    };
    walk(() => {
      final.set(i32.add(address, i32.mul(i32.sub(run, 1), rowBytes)));
      range(0, run, 4, (j) => {
        // Past the run's end the last key stands in; its scores are overwritten or masked.
        keys.forEach((key, i) => {
          key.set(i === 0 ? i32.add(address, i32.mul(j, rowBytes)) : i32.add(keys[i - 1], rowBytes));
          if (i > 0) if_(i32.gt_u(key, final), () => key.set(final));
        });
        for (const sum of sums.flat(2)) sum.set(f32x4.const(0));
        pointers.forEach((pointer, t) => pointer.set(qs[t]));
        highs.forEach((high, t) => high.set(i32.add(qs[t], i32.shl(i32.add(columns, odd), 2))));
        left.set(columns);
        const [eight, ...rest] = reader.steps;
        stepwise([eight], left, step);
        if (emitter.wide) joinHalves(emitter, sums.flat());
        stepwise(rest, left, step);
        if (reader.last) if_(odd, () => step(reader.last!));
        sums.forEach((row, t) => {
          const products = f32x4.mul(transposedSum(row.map(([sum]) => sum)), scale);
          const at = i32.add(scores[t], i32.shl(i32.add(done, j), 2));
          v128.store(at, reader.scaled ? f32x4.mul(products, v128.load(i32.add(scales, i32.shl(j, 2)))) : products);
        });
      });
    });
  });
}

/** low += high. What is joined to wide vectors is found by the stores it ends in, so this goes through scratch. */
function joinHalves({ scratch }: Emitter, halves: readonly (readonly Local<"v128">[])[]): void {
  const base = local("i32", scratch);
  halves.forEach(([low, high], i) => storeBoth(base, low, high, 32 * i));
  halves.forEach(([low], i) => low.set(f32x4.add(v128.load(base, 32 * i), v128.load(base, 32 * i + 16))));
}

/** [sum of a, sum of b, sum of c, sum of d], each as (0 + 1) + (2 + 3). */
function transposedSum([a, b, c, d]: readonly Local<"v128">[]): Expr<"v128"> {
  const halves = (x: Expr<"v128">, y: Expr<"v128">) => local("v128", f32x4.add(pick(x, y, 0, 2, 4, 6), pick(x, y, 1, 3, 5, 7)));
  const [ab, cd] = [halves(a, b), halves(c, d)];
  return f32x4.add(pick(ab, cd, 0, 2, 4, 6), pick(ab, cd, 1, 3, 5, 7));
}

/** Offsets of two neighbouring vectors. */
const SIDES = [0, 16];

function emitSoftmax(emitter: Emitter): Func {
  return emitter.module.func("attention_softmax", ["i32", "i32", "i32", "i32"], undefined, (scores, count, state, bytes) => {
    const end = local("i32", i32.add(scores, i32.shl(i32.and(i32.add(count, 7), -8), 2)));
    for (const side of SIDES) v128.store(i32.add(scores, i32.shl(count, 2)), f32x4.const(-Infinity), side);
    const before = local("f32", f32.load(state));
    const max = local("v128", f32x4.splat(before));
    // A NaN, which this maximum passes over, shows in the sum.
    range(scores, end, 32, (at) => max.set(f32x4.pmax(max, f32x4.pmax(v128.load(at), v128.load(at, 16)))));
    f32.store(state, maxF32(max));
    max.set(f32x4.splat(f32.load(state)));
    const sum = local("v128", f32x4.const(0));
    const constants = emitter.wide ? heldConstants() : undefined;
    range(scores, end, 32, (at) => {
      const values = SIDES.map((side) => local("v128", f32x4.sub(v128.load(at, side), max))).map((value) => local("v128", expOf(emitter, value, constants)));
      storeBoth(at, values[0], values[1]);
      for (const value of values) sum.set(f32x4.add(sum, value));
    });
    const factor = local("v128", expOf(emitter, f32x4.sub(f32x4.splat(before), max)));
    f32.store(state, f32.add(f32.mul(f32.load(state, 4), f32x4.extract_lane(0, factor)), sumF32(sum)), 4);
    const last = local("i32", i32.add(state, bytes));
    range(i32.add(state, STATE_MIX), last, 16, (at) => v128.store(at, f32x4.mul(v128.load(at), factor)));
  });
}

function emitMix(emitter: Emitter, name: string, reader: KvReader, queries: 1 | 2): Func {
  return emitter.module.func(name, BLOCK_PARAMS[queries], undefined, (pages, row, position, count, ...rest) => {
    const weights = rest.filter((_, i) => i % 2 === 0);
    const states = rest.filter((_, i) => i % 2 === 1);
    const headDim = local("i32", param(5));
    const columns = local("i32", reader.columns(headDim));
    const { walk, done, run, address, scales, rowBytes } = walker(pages, row, position, count, 1, reader, headDim);
    const [weight, left, from] = [local("i32"), local("i32"), local("i32", 0)];
    if (reader.scaled) {
      walk(() => {
        for (const base of weights) {
          weight.set(i32.add(base, i32.shl(done, 2)));
          floats(
            run,
            (at) => v128.store(i32.add(weight, at), f32x4.mul(v128.load(i32.add(weight, at)), v128.load(i32.add(scales, at)))),
            (at) => f32.store(i32.add(weight, at), f32.mul(f32.load(i32.add(weight, at)), f32.load(i32.add(scales, at)))),
          );
        }
      });
    }
    const targets = states.map(() => local("i32"));
    const highs = states.map(() => local("i32"));
    const highOffset = local("i32", i32.shl(i32.sub(headDim, columns), 2));
    /** `times` steps side by side over all positions, their columns in accumulators. */
    const chunk = ({ bytes, columns, lanes, parts, load }: Step, times: number) => {
      const sums = states.map(() => Array.from({ length: times }, () => parts.map(() => local("v128"))));
      states.forEach((state, t) => {
        targets[t].set(i32.add(state, i32.shl(from, 2)));
        if (parts.some(({ high }) => high)) highs[t].set(i32.add(targets[t], highOffset));
      });
      const each = (visit: (sum: Local<"v128">, address: I32, offset: number) => void) => {
        sums.forEach((list, t) =>
          list.forEach((row, i) => row.forEach((sum, p) => visit(sum, parts[p].high ? highs[t] : targets[t], STATE_MIX + 4 * (columns * i + parts[p].column)))),
        );
      };
      each((sum, at, offset) => sum.set(lanes === 4 ? v128.load(at, offset) : v128.load32_zero(at, offset)));
      walk(() => {
        address.add(reader.format === "f32" ? i32.shl(from, 2) : from);
        weight.set(i32.shl(done, 2));
        left.set(run);
        loop((again) => {
          const factors = weights.map((base) => local("v128", v128.load32_splat(i32.add(base, weight))));
          for (let i = 0; i < times; i++) {
            load(address, bytes * i).forEach((value, p) => factors.forEach((factor, t) => sums[t][i][p].set(madd(emitter, factor, value, sums[t][i][p]))));
          }
          address.add(rowBytes);
          weight.add(4);
          left.add(-1);
          br_if(again, left);
        });
      });
      each((sum, at, offset) => (lanes === 4 ? v128.store(at, sum, offset) : v128.store32_lane(0, at, sum, offset)));
      from.add(columns * times);
    };
    const [wide] = reader.steps;
    const times = ((queries === 1 ? 8 : 4) * (emitter.wide ? 2 : 1)) / wide.parts.length;
    for (const [step, count] of [[wide, times], [wide, 1], [reader.steps[1], 1], [reader.steps[2], 1]] as const) {
      const room = () => i32.le_s(i32.add(from, step.columns * count), columns);
      if_(room(), () => {
        loop((again) => {
          chunk(step, count);
          br_if(again, room());
        });
      });
    }
    if (reader.last) if_(i32.and(headDim, 1), () => chunk(reader.last!, 1));
  });
}

/**
 * (scores, count, offset of the first key from the query, slope): caps scores at parameter 14, unless it is 0, and lowers each by the slope for
 * every position that its key lies before the query. Touches up to three scores more.
 */
function emitBend(emitter: Emitter): Func {
  return emitter.module.func("attention_bend", ["i32", "i32", "i32", "f32"], undefined, (scores, count, offset, slope) => {
    const end = local("i32", i32.add(scores, i32.shl(count, 2)));
    if_(param(14), () => {
      const cap = local("v128", f32x4.splat(paramF32(14)));
      const inverse = local("v128", f32x4.div(f32x4.const(1), cap));
      range(scores, end, 16, (at) => v128.store(at, f32x4.mul(cap, tanhOf(emitter, f32x4.mul(v128.load(at), inverse)))));
    });
    if_(param(15), () => {
      const first = f32x4.add(f32x4.splat(f32.convert_i32_s(offset)), v128.const(new Uint8Array(Float32Array.of(0, 1, 2, 3).buffer)));
      const distance = local("v128", first);
      const slopes = local("v128", f32x4.splat(slope));
      range(scores, end, 16, (at) => {
        v128.store(at, f32x4.add(v128.load(at), f32x4.mul(distance, slopes)));
        distance.set(f32x4.add(distance, f32x4.const(4)));
      });
    });
  });
}
