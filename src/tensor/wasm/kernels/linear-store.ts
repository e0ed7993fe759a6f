import type { Expr, Local } from "../assembler.ts";
import { f32, i32, if_ } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { range, storeBoth } from "./common.ts";

/** Stores 8 results at `out`, or the first `rows` of them where the matrix ends inside the tile. */
export function storeRows({ scratch }: Emitter, out: Expr<"i32">, low: Local<"v128">, high: Local<"v128">, rows: Expr<"i32">): void {
  if_(
    i32.ge_s(rows, 8),
    () => {
      storeBoth(out, low, high);
    },
    () => {
      storeBoth(scratch, low, high);
      range(0, i32.shl(rows, 2), 4, (at) => f32.store(i32.add(out, at), f32.load(i32.add(scratch, at))));
    },
  );
}
