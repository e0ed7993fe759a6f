import type { Kernels } from "./kernels.ts";
import { type PlainDType, Tensor } from "./tensor.ts";

/**
 * Scratch for activations. Tensors are handed out in order and taken back by position: `release(mark())` makes everything handed
 * out in between reusable. A step asks for the same shapes as the one before, so slots remember their last tensor and a warm
 * decode step allocates nothing.
 */
export class Arena {
  private readonly slots: ({ dtype: PlainDType; capacity: number; buffer: Tensor; tensor: Tensor; blocks?: Tensor } | undefined)[] = [];
  private next = 0;

  private readonly kernels: Kernels;

  constructor(kernels: Kernels) {
    this.kernels = kernels;
  }

  /** An f32 tensor with unspecified contents, valid until its slot is released. */
  take(name: string, shape: readonly number[]): Tensor {
    const count = shape.reduce((a, b) => a * b, 1);
    let slot = this.slots[this.next];
    if (slot === undefined || slot.dtype !== "f32" || slot.capacity < count) {
      this.giveBack();
      const buffer = this.kernels.alloc("f32", [count]);
      slot = { dtype: "f32", capacity: count, buffer, tensor: buffer.as(shape) };
      this.slots[this.next] = slot;
    } else if (!sameShape(slot.tensor.shape, shape)) {
      slot.tensor = slot.buffer.as(shape);
    }
    this.next++;
    slot.tensor.name = name;
    return slot.tensor;
  }

  /** As `take`, for a matrix of integers with one scale a row. */
  takeIntegers(name: string, [rows, cols]: readonly number[], dtype: "int8" | "int16"): Tensor {
    let slot = this.slots[this.next];
    if (slot === undefined || slot.dtype !== dtype || slot.buffer.cols !== cols || slot.capacity < rows) {
      this.giveBack();
      const buffer = this.kernels.alloc(dtype, [rows, cols], cols);
      slot = { dtype, capacity: rows, buffer, tensor: buffer };
      this.slots[this.next] = slot;
    } else if (slot.tensor.rows !== rows) {
      slot.tensor = slot.buffer.slice(0, rows);
    }
    this.next++;
    slot.tensor.name = name;
    return slot.tensor;
  }

  /** As `take`, for activations in a format that only the kernels know. */
  takeBlocks(name: string, shape: readonly number[], { format, bytes }: { readonly format: string; readonly bytes: number }): Tensor {
    const { data } = this.take(name, [bytes / 4]);
    const slot = this.slots[this.next - 1]!;
    if (slot.blocks?.data !== data || slot.blocks.format !== format || !sameShape(slot.blocks.shape, shape)) slot.blocks = new Tensor({ dtype: "packed", shape, data, format });
    slot.blocks.name = name;
    return slot.blocks;
  }

  /** Frees the next slot, and forgets it: should there be no memory for its successor, nobody may write to what was given back. */
  private giveBack(): void {
    const slot = this.slots[this.next];
    if (!slot) return;
    this.slots[this.next] = undefined;
    this.kernels.free(slot.buffer);
  }

  /** Gives all memory back; whoever takes more begins anew. */
  free(): void {
    for (this.next = 0; this.next < this.slots.length; this.next++) this.giveBack();
    this.next = 0;
  }

  mark(): number {
    return this.next;
  }

  release(mark: number): void {
    this.next = mark;
  }
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
