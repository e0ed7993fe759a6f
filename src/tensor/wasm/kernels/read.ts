import { i32, local, v128 } from "../assembler.ts";
import type { Emitter } from "./common.ts";
import { param, range } from "./common.ts";

/** Bytes in a unit of the "read" kernel. */
export const READ_UNIT = 4096;

/** Kernel "read": 128-bit loads over units of 4 KiB from params[0] on, and nothing else: what memory allows. The xor goes to scratch. */
export function emitReadBandwidth({ module, scratch }: Emitter): void {
  module.kernel("read", (first, last) => {
    const at = local("i32", i32.add(param(0), i32.shl(first, 12)));
    const sums = Array.from({ length: 4 }, () => local("v128"));
    range(i32.shl(first, 4), i32.shl(last, 4), 1, () => {
      for (let i = 0; i < 16; i++) sums[i & 3].set(v128.xor(sums[i & 3], v128.load(at, 16 * i)));
      at.add(256);
    });
    v128.store(scratch, v128.xor(v128.xor(sums[0], sums[1]), v128.xor(sums[2], sums[3])));
  });
}
