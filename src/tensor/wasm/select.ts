import { plainRanking, type Ranking } from "../ranking.ts";
import type { Tensor } from "../tensor.ts";
import type { Device } from "./device.ts";
import { Workspace } from "./device.ts";

/** Choosing among logits where they lie, without copying the vocabulary out: the ranking of a row [1, n]. */
export function selection(device: Device): (row: Tensor) => Ranking {
  const [argmax, maxima, collect] = ["argmax", "maxima", "collect"].map((name) => device.kernel(name));
  const found = new Workspace(device, "candidates");
  const { params, paramsF32 } = device;

  return (row) => {
    const address = device.address(row);
    const n = row.cols;
    const run = (kernel: number): void => {
      params[0] = address;
      params[1] = n;
      params[2] = found.address;
      device.run(kernel, 1);
    };
    return {
      argmax() {
        found.ensure(64);
        run(argmax);
        return found.ints[0];
      },

      top(most) {
        const k = Math.min(most, n);
        if (k <= 0) return [];
        // The k-th largest of the maxima of 2k or more runs bounds the k-th largest value from below: few others reach it.
        const runs = Math.ceil(Math.max(2 * k, 64) / 4) * 4;
        found.ensure(4 * Math.max(runs, n + 1));
        params[3] = runs;
        run(maxima);
        const sorted = new Float32Array(found.ints.buffer, found.address, runs).slice().sort();
        paramsF32[3] = sorted[runs - k];
        run(collect);
        const values = row.f32;
        // Fewer than asked for: some values are no numbers.
        if (found.ints[0] < k) return plainRanking(values).top(k);
        const ids: number[] = [];
        for (let i = 1; i <= found.ints[0]; i++) ids.push(found.ints[i]);
        return ids.sort((a, b) => values[b] - values[a] || a - b).slice(0, k);
      },
    };
  };
}
