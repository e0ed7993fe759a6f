import type { Kernels } from "../tensor/kernels.ts";
import { scalarKernels } from "../tensor/scalar/index.ts";

/** `auto` takes the fastest there is, `scalar` the plain loops. */
export type Backend = "auto" | "scalar";
export const BACKENDS: readonly Backend[] = ["auto", "scalar"];

export function createKernels(backend: Backend): Kernels {
  switch (backend) {
    case "auto":
    case "scalar":
      return scalarKernels();
  }
}
