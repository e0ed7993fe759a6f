import { describeBlocks } from "../../model/describe.ts";
import { isLeftOut, type ModelConfig } from "../../model/config.ts";
import { loadWeights } from "../../model/load.ts";
import type { GgufValue } from "../../model/formats/gguf-values.ts";
import { weightBytes } from "../../model/weights.ts";
import { unlatent } from "../../model/latent-gguf.ts";
import type { TensorInfo } from "../../model/formats/source.ts";
import type { ModelFile } from "../../model/open.ts";
import { matrixFormat } from "../../model/placement.ts";
import type { ExpertsConfig } from "../../model/experts.ts";
import { expectedExperts } from "../../tensor/routing.ts";
import { describeFormat, KEEP } from "../../quant/scheme.ts";
import { storageBytes } from "../../tensor/tensor.ts";
import { shapeKernels } from "../../tensor/shapes.ts";
import { decodeStepReads } from "../decode-cost.ts";
import { count, formatBytes } from "../report.ts";
import { resolveSchemes } from "../schemes.ts";
import { type Command, flag, JSON_OPTION, MODEL_OPTIONS, SCHEME_OPTIONS, schemesFrom } from "./command.ts";
import { openFrom } from "./tokenize.ts";

/** Longer arrays (vocabularies) are counted, not listed. */
const LONGEST_LISTED = 16;

export const inspect: Command = {
  name: "inspect",
  summary: "what a model file holds, and what one decode step reads of it",
  options: { ...MODEL_OPTIONS, weights: SCHEME_OPTIONS.weights, sparsity: SCHEME_OPTIONS.sparsity, ...JSON_OPTION },
  async run(values, io) {
    const file = openFrom(values, io);
    const { config, tokenizer } = file;
    const kernels = shapeKernels();
    const { load } = resolveSchemes(await schemesFrom(values, io), config);
    const weights = loadWeights(file, config, kernels, load);
    const tied = !file.tensors.has("output.weight");
    const placement = { weights: load.weights ?? KEEP, sparsity: load.sparsity ?? "none" };
    const tensors = [...file.tensors.values()].map((info) => {
      const { name, shape, type, bytes } = info;
      const factor = /\.(input_)?scale$/.exec(name);
      if (factor) return { name, shape, type, bytes, keptAs: factor[1] ? "nothing (not used)" : "nothing (multiplied in)", bytesInMemory: 0, bytesPerToken: 0 };
      if (isLeftOut(config, name)) return { name, shape, type, bytes, keptAs: "nothing (not used)", bytesInMemory: 0, bytesPerToken: 0 };
      const halves = latentHalves(file, config, name);
      if (halves) {
        const [keys, values] = halves.map((half) => matrixFormat(half, tied, placement));
        const bytesInMemory = config.nHeads * [keys, values].reduce((sum, { dtype, group }, i) => sum + storageBytes(dtype, halves[i].shape, group || halves[i].shape[1]), 0);
        return { name, shape, type, bytes, keptAs: `${describeFormat(keys)} (keys), ${describeFormat(values)} (values)`, bytesInMemory, bytesPerToken: bytesInMemory };
      }
      const format = shape.length >= 2 ? matrixFormat(info, tied, placement) : { dtype: "f32" as const, group: 0 };
      const bytesInMemory = storageBytes(format.dtype, shape, format.group || shape[shape.length - 1]);
      // An embedding is read a row at a time, unless it is the output head too; of the experts, those that a token chooses.
      const byRow = name === "position_embd.weight" || (name === "token_embd.weight" && !tied);
      return { name, shape, type, bytes, keptAs: describeFormat(format), bytesInMemory, bytesPerToken: byRow ? bytesInMemory / shape[0] : bytesInMemory * chosenShare(config, name) };
    });
    const reads = (context: number) => decodeStepReads(config, weights, kernels, context);
    const facts = {
      file: { name: file.source.name, format: file.format, bytes: file.source.size },
      config,
      blocks: describeBlocks(config, weights),
      parameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
      ...(config.experts && { activeParameters: tensors.reduce((sum, { name, shape }) => sum + chosenShare(config, name) * shape.reduce((a, b) => a * b, 1), 0) }),
      bytesInMemory: weightBytes(weights),
      tokenizer: { vocabSize: tokenizer.vocabSize, bos: tokenizer.bos ?? null, eos: tokenizer.eos, addBos: tokenizer.addBos },
      decodeStep: { firstToken: reads(1), fullContext: reads(config.contextLength) },
    };
    file.source.close();
    const metadata = Object.fromEntries([...file.metadata].map(([key, value]) => [key, plain(value)]));
    if (flag(values, "json")) return io.out(`${JSON.stringify({ ...facts, metadata, tensors }, jsonSafe, 2)}\n`);

    const { firstToken, fullContext } = facts.decodeStep;
    const widest = tensors.reduce((most, { name }) => Math.max(most, name.length), 0);
    const tensorLine = ({ name, shape, type, bytes, keptAs, bytesPerToken }: (typeof tensors)[number]) =>
      `  ${name.padEnd(widest)}  ${`[${shape.join(", ")}]`.padEnd(16)} ${type.padEnd(6)} ${formatBytes(bytes).padStart(8)}  kept as ${keptAs.padEnd(20)} ${formatBytes(bytesPerToken).padStart(8)} a token`;
    const lines = [
      `${file.source.name}: ${file.format}, ${formatBytes(file.source.size)}, ${count(facts.parameters)} parameters, ${formatBytes(facts.bytesInMemory)} in memory`,
      "",
      ...Object.entries(config).map(([key, value]) => `  ${key.padEnd(16)} ${typeof value === "object" ? JSON.stringify(value) : value}`),
      "",
      ...facts.blocks.map((line) => `  ${line}`),
      "",
      ...tensors.map(tensorLine),
      "",
      ...(file.metadata.size > 0 ? [...Object.entries(metadata).map(([key, value]) => `  ${key} = ${JSON.stringify(value, jsonSafe)}`), ""] : []),
      ...(config.experts ? [expertsLine(config.experts, facts.activeParameters!)] : []),
      `One decode step reads ${formatBytes(firstToken.weights)} of weights in the plain layout (scalar kernels; wasm packs Q8_0 and Q4_0 a little tighter). At the first position it reads ${formatBytes(firstToken.kv)} of KV cache, ` +
        `at the last (${count(config.contextLength)}) ${formatBytes(fullContext.kv)}.`,
    ];
    await io.out(`${lines.join("\n")}\n`);
  },
};

/** A head's keys' and values' matrices where an older file of latent attention has all of them in one tensor: see `unlatent`. */
function latentHalves(file: ModelFile, config: ModelConfig, name: string): TensorInfo[] | undefined {
  const block = config.latent && /^(blk\.\d+\.)attn_kv_b\.weight$/.exec(name)?.[1];
  if (!block || file.tensors.has(`${block}attn_k_b.weight`)) return undefined;
  const { tensors } = unlatent(file, config);
  return ["attn_k_b", "attn_v_b"].map((part) => tensors.get(`${block}${part}.0.weight`)!);
}

/** The part of a tensor's rows that one token meets. */
function chosenShare(config: ModelConfig, name: string): number {
  const { experts } = config;
  if (isLeftOut(config, name)) return 0;
  return experts && /\.ffn_(gate|up|down|gate_up)(_exps|\.\d+)\./.test(name) ? experts.used / experts.count : 1;
}

function expertsLine(experts: ExpertsConfig, active: number): string {
  const met = [4, 16, 64].map((tokens) => `${tokens} tokens about ${Math.round(expectedExperts(experts, tokens))}`);
  return `A token meets ${count(active)} of the parameters. In one step ${met.join(", ")} of a layer's ${experts.count} experts.`;
}

function plain(value: GgufValue): unknown {
  if (value.type !== "array") return value.value;
  const items = value.value.length;
  return items > LONGEST_LISTED ? `${items} x ${value.itemType}` : Array.from(value.value as ArrayLike<unknown>);
}

const jsonSafe = (_: string, value: unknown) => (typeof value === "bigint" ? value.toString() : typeof value === "number" && !Number.isFinite(value) ? String(value) : value);
