import type { Tensor } from "../tensor.ts";
import type { Device } from "./device.ts";
import { Workspace } from "./device.ts";

/** Choosing among logits where they lie, without copying the vocabulary out. */
export function selection(device: Device) {
  const argmaxKernel = device.kernel("argmax");
  const collectKernel = device.kernel("collect");
  const found = new Workspace(device, "candidates");
  const { params, paramsF32 } = device;

  const place = (x: Tensor, row: number): number => {
    const n = x.cols;
    params[0] = device.address(x) + row * n * 4;
    params[1] = n;
    return n;
  };

  return {
    argmax(x: Tensor, row: number): number {
      place(x, row);
      params[2] = found.ensure(64);
      device.run(argmaxKernel, 1);
      return found.ints[0];
    },

    topK(x: Tensor, row: number, count: number): Int32Array {
      const n = x.cols;
      const k = Math.min(count, n);
      if (k <= 0) return new Int32Array(0);
      const values = (x.data as Float32Array).subarray(row * n, (row + 1) * n);
      // The k-th largest of the maxima of 2k or more runs bounds the k-th largest value from below: few others reach it.
      const runs = Math.min(n, Math.max(2 * k, 64));
      const maxima = new Float32Array(runs).fill(-Infinity);
      for (let i = 0, run = 0; i < n; i++) {
        if (values[i] > maxima[run]) maxima[run] = values[i];
        run = run + 1 === runs ? 0 : run + 1;
      }
      maxima.sort();
      place(x, row);
      params[2] = found.ensure(4 * (n + 1));
      paramsF32[3] = maxima[runs - k];
      params[4] = n;
      device.run(collectKernel, 1);
      const ids = found.ints.slice(1, 1 + found.ints[0]);
      return ids.sort((a, b) => values[b] - values[a] || a - b).slice(0, k);
    },
  };
}
