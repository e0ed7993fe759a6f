import type { ModelConfig } from "../model/config.ts";
import { smoothingFolds } from "../model/folding.ts";
import { matrixReader, plainFile, type WeightFile } from "../model/load.ts";
import { type Calibration, LINEAR_INPUTS, type OpStatistics, statistics } from "../quant/calibration.ts";
import type { Engine } from "./engine.ts";

/** Feeds windows to a model and collects statistics of everything that its linears read, in the order of the decoder. */
export function collectStatistics(engine: Engine, windows: readonly (readonly number[])[], onWindow?: (done: number) => void): OpStatistics[] {
  const fused = engine.fusions.filter((fusion) => fusion !== "outputs");
  if (fused.length > 0) throw new RangeError(`fusions: expected none, so that there is an output behind every op, found ${fused.join(", ")}`);
  const collectors = new Map<string, ReturnType<typeof statistics>>();
  const off = engine.onOp(({ layer, name, kind }, output) => {
    const input = LINEAR_INPUTS.find((known) => known === name);
    if (input === undefined || kind === "quantize") return;
    const key = `${layer} ${input}`;
    const collector = collectors.get(key) ?? statistics(layer, input, output.cols);
    collectors.set(key, collector);
    collector.add(output.f32);
  });
  try {
    for (const [done, window] of windows.entries()) {
      onWindow?.(done);
      for (const row of engine.logits(window)) void row;
    }
  } finally {
    off();
    engine.ledger.on = false;
  }
  return [...collectors.values()].map((collector) => collector.read());
}

/**
 * A calibration of a model. With `alpha`, SmoothQuant's factors follow from a first run, and the statistics are those of a second one over
 * the model that has them folded in.
 * @param load An engine with f32 activations that fuses nothing, its weights changed by the calibration's migration, if one is given.
 */
export async function calibrate(
  file: WeightFile,
  config: ModelConfig,
  windows: readonly (readonly number[])[],
  load: (calibration?: Calibration) => Promise<Engine>,
  alpha?: number,
  onWindow?: (done: number) => void,
): Promise<Calibration> {
  const { name, dim, nLayers, ffnDim, nHeads, headDim } = config;
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  const model = { name, dim, nLayers, ffnDim, headDims: nHeads * headDim };
  const run = async (migrated?: Calibration): Promise<Calibration> => {
    const engine = await load(migrated);
    try {
      const ops = collectStatistics(engine, windows, onWindow);
      return { format: "memwall-calibration", version: 1, model, tokens, ...(migrated && { smooth: migrated.smooth }), ops };
    } finally {
      engine.close();
    }
  };
  const first = await run();
  if (alpha === undefined) return first;
  const plain = plainFile(file, config);
  const { migrations } = smoothingFolds(config, (tensor) => plain.tensors.has(tensor), first, alpha, matrixReader(plain));
  return run({ ...first, smooth: { alpha, migrations } });
}
