import type { Expr, Func, Local } from "../assembler.ts";
import { br_if, call, f32, f32x4, i32, if_, local, loop, v128 } from "../assembler.ts";
import { LINEAR, PART_WORDS, PARAMS } from "../layout.ts";
import type { Emitter } from "./common.ts";
import { param, range } from "./common.ts";
import { GATED } from "./pointwise.ts";
import { storeRows } from "./linear-store.ts";

type I32 = Expr<"i32">;

/** How a weight format is multiplied: a tile of 8 rows by some tokens over all columns, one function for each number of tokens. */
export interface TileFamily {
  /** Most tokens first, the last one takes a single token; all sum in the same order. Parameters: out, x, w, bias or 0, k, row stride of out, rows to store. */
  readonly tiles: readonly { readonly tokens: number; readonly func: Func }[];
  /** Bytes of a token's activations; k counts columns (f32) or groups. */
  rowBytes(k: I32): I32;
  /** Bytes of a tile of weights. */
  tileBytes(k: I32): I32;
  /** For many tokens: a function (from, to, k) that makes tiles of another family. */
  readonly widened?: { readonly by: Func; readonly family: TileFamily };
}

/** Where results that are not final yet lie in a thread's scratch: 8 rows of up to 8 tokens, of a gate and of what it gates. */
const MADE = 256;
const MADE_UP = MADE + 256;

/**
 * Kernels of one weight format; units are tiles of 8 rows. A job has up to three parts, weights over the same activations:
 * "linear_FORMAT": out = x . w^T for each part, one after the other, as one range of units;
 * "linear_add_FORMAT": out += x . w^T;
 * "linear_gated_FORMAT": the first part is a gate, the second what it gates: out = act(x . gate^T) * (x . up^T). The two products of a tile
 * meet in scratch and are never stored.
 */
export function emitLinears(emitter: Emitter, format: string, family: TileFamily, gates: readonly Func[]): void {
  const { module, scratch } = emitter;
  const made = () => i32.add(scratch, MADE);
  const multiply = ({ func }: Tile, out: I32, { x, w, bias, k }: Place, stride: Expr<"i32"> | number, rows: I32 | number) => call(func, out, x, w, bias, k, stride, rows);

  const plain = emitSpan(emitter, `linear_${format}_span`, family, 1, (tile, place) => multiply(tile, place.out, place, place.n, place.rows));
  const adding = emitSpan(emitter, `linear_add_${format}_span`, family, 1, (tile, place) => {
    multiply(tile, made(), place, 8, 8);
    eachToken(emitter, tile, place, (out, from) => {
      if_(
        i32.ge_s(place.rows, 8),
        () => [0, 16].forEach((half) => v128.store(out, f32x4.add(v128.load(out, half), v128.load(from, half)), half)),
        () => range(0, i32.shl(place.rows, 2), 4, (at) => f32.store(i32.add(out, at), f32.add(f32.load(i32.add(out, at)), f32.load(i32.add(from, at))))),
      );
    });
  });
  const gated = emitSpan(emitter, `linear_gated_${format}_span`, family, 2, (tile, place) => {
    multiply(tile, made(), place, 8, 8);
    multiply(tile, i32.add(scratch, MADE_UP), { ...place, ...place.second }, 8, 8);
    gates.forEach((gate, index) => if_(i32.eq(param(LINEAR.activation), index), () => call(gate, made(), i32.add(scratch, MADE_UP), tile.tokens)));
    eachToken(emitter, tile, place, (out, from) => storeRows(emitter, out, local("v128", v128.load(from)), local("v128", v128.load(from, 16)), place.rows));
  });

  const oneAfterTheOther = (span: Func) => (first: Local<"i32">, last: Local<"i32">) => {
    const part = local("i32", PARAMS + 4 * LINEAR.table);
    const tiles = local("i32");
    loop((again) => {
      tiles.set(i32.shr_u(i32.add(i32.load(part, 12), 7), 3));
      if_(i32.lt_s(first, tiles), () => {
        const end = local("i32", last);
        if_(i32.gt_s(end, tiles), () => end.set(tiles));
        call(span, first, end, part);
        first.set(end);
      });
      first.add(i32.sub(0, tiles));
      last.add(i32.sub(0, tiles));
      part.add(4 * PART_WORDS);
      br_if(again, i32.gt_s(last, 0));
    });
  };
  module.kernel(`linear_${format}`, oneAfterTheOther(plain));
  module.kernel(`linear_add_${format}`, oneAfterTheOther(adding));
  module.kernel(`linear_gated_${format}`, (first, last) => call(gated, first, last, i32.const(PARAMS + 4 * LINEAR.table)));
}

type Tile = TileFamily["tiles"][number];

/** What a tile function needs, for the tile and the token that a span has come to. */
interface Place {
  readonly out: I32;
  readonly x: I32;
  readonly w: I32;
  /** Of the tile's first row, or 0. */
  readonly bias: I32;
  readonly k: I32;
  readonly n: I32;
  /** Rows from the tile's first one on: the last tile may have fewer than 8. */
  readonly rows: I32;
  /** The same tile of the next part. */
  readonly second: { readonly w: I32; readonly bias: I32 };
}

/**
 * Visits tiles [first, last) of the part at `part`, each with all tokens of a stripe before the next tile: a stripe's activations stay
 * in the second-level cache. `visit` is laid out once for each tile function; it reads the tile of this part, and (weights: 2) that of the next.
 */
function emitSpan({ module, threadIndex }: Emitter, name: string, family: TileFamily, weights: 1 | 2, visit: (tile: Tile, place: Place) => void): Func {
  return module.func(name, ["i32", "i32", "i32"], undefined, (first, last, part) => {
    const [m, k, stripe] = [local("i32", param(LINEAR.m)), local("i32", param(LINEAR.k)), local("i32", param(LINEAR.stripe))];
    const n = local("i32", i32.load(part, 12));
    const [rowBytes, tileBytes] = [local("i32", family.rowBytes(k)), local("i32", family.tileBytes(k))];
    const [start, end, token, rows] = [local("i32", 0), local("i32"), local("i32"), local("i32")];
    const [x, out] = [local("i32"), local("i32")];
    const streams = [0, 1].slice(0, weights).map((next) => ({ at: local("i32"), base: 4 * PART_WORDS * next, wide: local("i32") }));
    const { widened } = family;
    const widens = local("i32", param(LINEAR.widened));
    if (widened) {
      const room = i32.add(param(LINEAR.widened), i32.mul(threadIndex, param(LINEAR.widenedBytes)));
      streams.forEach(({ wide }, next) => wide.set(next === 0 ? room : i32.add(streams[0].wide, widened.family.tileBytes(k))));
    }
    const multiply = (tiles: TileFamily["tiles"], place: Omit<Place, "w" | "second">, w: readonly I32[], bias: readonly I32[]) => {
      for (const each of tiles) {
        const fits = () => i32.le_s(i32.add(token, each.tokens), end);
        if_(fits(), () => {
          loop((again) => {
            visit(each, { ...place, w: w[0], second: { w: w[1], bias: bias[1] } });
            token.add(each.tokens);
            x.add(i32.mul(rowBytes, each.tokens));
            out.add(i32.mul(n, 4 * each.tokens));
            br_if(again, fits());
          });
        });
      }
    };
    loop((nextStripe) => {
      end.set(i32.add(start, stripe));
      if_(i32.gt_s(end, m), () => end.set(m));
      for (const { at, base } of streams) at.set(i32.add(i32.load(part, base + 4), i32.mul(first, tileBytes)));
      range(first, last, 1, (tile) => {
        token.set(start);
        x.set(i32.add(param(LINEAR.x), i32.mul(start, rowBytes)));
        out.set(i32.add(i32.load(part), i32.add(i32.shl(i32.mul(start, n), 2), i32.shl(tile, 5))));
        rows.set(i32.sub(n, i32.shl(tile, 3)));
        const bias = streams.map(({ base }) => {
          const bias = i32.load(part, base + 8);
          return i32.add(bias, i32.and(i32.shl(tile, 5), i32.sub(0, i32.ne(bias, 0))));
        });
        const place = { out, x, bias: bias[0], k, n, rows };
        const narrow = () => multiply(family.tiles, place, streams.map(({ at }) => at), bias);
        if (!widened) narrow();
        else {
          const wide = () => {
            for (const { at, wide } of streams) call(widened.by, at, wide, k);
            multiply(widened.family.tiles, place, streams.map(({ wide }) => wide), bias);
          };
          if_(widens, wide, narrow);
        }
        for (const { at } of streams) at.add(tileBytes);
      });
      start.set(end);
      br_if(nextStripe, i32.lt_s(start, m));
    });
  });
}

/** Each token's place in the output, and its 8 results in scratch. */
function eachToken({ scratch }: Emitter, { tokens }: Tile, { out, n }: Place, visit: (out: Local<"i32">, from: Local<"i32">) => void): void {
  const [to, from] = [local("i32", out), local("i32", i32.add(scratch, MADE))];
  range(0, tokens, 1, () => {
    visit(to, from);
    to.add(i32.shl(n, 2));
    from.add(32);
  });
}

/** Functions gate_ACTIVATION: (made, up, tokens): made = act(made) * up, for 8 floats of each token. */
export function emitGates(emitter: Emitter): Func[] {
  return Object.entries(GATED).map(([name, gate]) =>
    emitter.module.func(`gate_${name}`, ["i32", "i32", "i32"], undefined, (made, up, tokens) => {
      range(0, i32.shl(tokens, 5), 16, (at) => {
        const value = local("v128", v128.load(i32.add(made, at)));
        v128.store(i32.add(made, at), gate(emitter, value, v128.load(i32.add(up, at))));
      });
    }),
  );
}
