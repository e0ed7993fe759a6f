import type { Kernels } from "./kernels.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Scratch for activations. Tensors are handed out in order and taken back by position: `release(mark())` makes everything handed
 * out in between reusable. A step asks for the same shapes as the one before, so slots remember their last tensor and a warm
 * decode step allocates nothing.
 */
export class Arena {
  private readonly slots: { capacity: number; buffer: Tensor; tensor: Tensor }[] = [];
  private next = 0;

  private readonly kernels: Kernels;

  constructor(kernels: Kernels) {
    this.kernels = kernels;
  }

  /** An f32 tensor with unspecified contents, valid until its slot is released. */
  take(name: string, shape: readonly number[]): Tensor {
    const count = shape.reduce((a, b) => a * b, 1);
    let slot = this.slots[this.next];
    if (slot === undefined || slot.capacity < count) {
      if (slot) this.kernels.free(slot.buffer);
      const buffer = this.kernels.alloc("f32", [count]);
      slot = { capacity: count, buffer, tensor: buffer.as(shape) };
      this.slots[this.next] = slot;
    } else if (!sameShape(slot.tensor.shape, shape)) {
      slot.tensor = slot.buffer.as(shape);
    }
    this.next++;
    slot.tensor.name = name;
    return slot.tensor;
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
