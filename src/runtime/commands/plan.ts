import { planName, layoutName, whyItLoses } from "../hardware/explain.ts";
import { kvName } from "../hardware/formats.ts";
import { type LayoutCost, OBJECTIVES, type Plan, type PlanProblem, type PlanResult, searchPlans } from "../hardware/plan.ts";
import { NCCL_LATENCY } from "../hardware/split.ts";
import { traced } from "../hardware/trace.ts";
import { count, formatBytes, formatMs } from "../report.ts";
import { choice, type Command, flag, JSON_OPTION, number, UsageError, type Values } from "./command.ts";
import { arithmeticFrom, checkContext, formatsFrom, HW_OPTION, oneDevice, ROOF_OPTIONS, shapeFrom, SHAPE_OPTIONS } from "./hardware-options.ts";

/** Plans shown. */
const SHOWN = 12;

export const plan: Command = {
  name: "plan",
  summary: "how to divide a published model over several devices, and why the alternatives lose",
  options: {
    ...SHAPE_OPTIONS,
    devices: { type: "string", value: "N", help: "how many devices (default 8)" },
    hw: HW_OPTION,
    "link-gbs": { type: "string", value: "G", help: "GB/s out of a device and as many into it (default: the device's own)" },
    "link-us": { type: "string", value: "U", help: `microseconds to start a transfer (default ${NCCL_LATENCY.startUs}, NCCL's model)` },
    "hop-us": { type: "string", value: "U", help: `microseconds for each step of a ring (default ${NCCL_LATENCY.hopUs}, NCCL's model)` },
    tp: { type: "string", value: "T", help: "only plans whose layers are shared by T devices" },
    pp: { type: "string", value: "S", help: "only plans with S pipeline stages" },
    dp: { type: "string", value: "R", help: "only plans with R replicas" },
    "prefill-pool": { type: "string", value: "P", help: "devices that only read prompts" },
    "decode-pool": { type: "string", value: "D", help: "devices that only decode" },
    objective: { type: "string", value: "NAME", help: `${OBJECTIVES.join(", ")} (default ${OBJECTIVES[0]})` },
    "prompt-tokens": { type: "string", value: "P", help: "prompt length (default 512)" },
    tokens: { type: "string", value: "N", help: "tokens to decode (default 128)" },
    batch: { type: "string", value: "B", help: "sequences at once, over all devices (default 32)" },
    ...ROOF_OPTIONS,
    ...JSON_OPTION,
  },
  async run(values, io) {
    const whole = (name: string, fallback: number, max: number) => number(values, name, { integer: true, min: 1, max }, fallback);
    const devices = whole("devices", 8, 1024);
    const shape = shapeFrom(values);
    const hardware = await oneDevice(values, io);
    const linkGBs = number(values, "link-gbs", { min: 0.001 }, hardware.linkGBs ?? 0);
    if (linkGBs === 0 && devices > 1) throw new UsageError(`--link-gbs: expected GB/s between devices (${hardware.name} has no link of its own), found none`);
    const cluster = {
      ...{ hardware, linkGBs },
      startUs: number(values, "link-us", { min: 0 }, NCCL_LATENCY.startUs),
      hopUs: number(values, "hop-us", { min: 0 }, NCCL_LATENCY.hopUs),
    };
    const workload = { batch: whole("batch", 32, 4096), promptTokens: whole("prompt-tokens", 512, 1 << 20), tokens: whole("tokens", 128, 1 << 20) };
    checkContext(shape, workload.promptTokens + workload.tokens, "--prompt-tokens and --tokens");
    const objective = choice(values, "objective", OBJECTIVES, OBJECTIVES[0]);
    const pools = poolsFrom(values, devices);
    const fixed = fixedFrom(values, devices, pools !== undefined);

    const on = traced(shape, formatsFrom(values, "f16"));
    const problem: PlanProblem = { on, workload, cluster, options: { arithmetic: arithmeticFrom(values), launch: flag(values, "launch") } };
    const result = searchPlans(problem, { devices, objective, fixed, pools });
    if (result.plans.length === 0) throw new Error(nothingFits(result, shape.config.name, devices, hardware.capacityGB * 1e9));

    const [best] = result.plans;
    const why = (one: Plan) => whyItLoses(one, best, workload.tokens, hardware.capacityGB * 1e9);
    const facts = { shape: shape.config.name, weights: on.formats.weights.name, kv: kvName(on.formats.kv), devices, hw: hardware.name, linkGBs, objective, ...workload };
    if (flag(values, "json")) {
      const plain = (one: Plan) => ({ name: planName(one), ...describe(one), why: why(one) });
      const rejected = result.rejected.map(({ layout, why: reason }) => ({ name: layoutName(layout), why: reason }));
      return io.out(`${JSON.stringify({ ...facts, best: plain(best), plans: result.plans.map(plain), tooLarge: result.tooLarge.map(plain), rejected }, null, 2)}\n`);
    }
    const lines = [
      `${facts.shape}, ${facts.weights} weights (${formatBytes(on.weightBytes)}), ${facts.kv} KV cache, on ${devices} x ${hardware.name} joined at ${linkGBs} GB/s each way`,
      `batch ${workload.batch}, ${workload.promptTokens} prompt tokens and ${workload.tokens} decoded; the best ${objective} first`,
      "",
      ...planTable([...result.plans.slice(0, SHOWN), ...result.tooLarge.slice(0, SHOWN)], why),
      ...result.rejected.slice(0, SHOWN).map(({ layout, why: reason }) => `${layoutName(layout)}: ${reason}`),
    ];
    await io.out(`${lines.join("\n")}\n`);
  },
};

function poolsFrom(values: Values, devices: number): { prefill: number; decode: number } | undefined {
  const prefill = number(values, "prefill-pool", { integer: true, min: 1 });
  const decode = number(values, "decode-pool", { integer: true, min: 1 });
  if (prefill === undefined && decode === undefined) return undefined;
  const pools = { prefill: prefill ?? devices - decode!, decode: decode ?? devices - prefill! };
  if (pools.prefill >= 1 && pools.decode >= 1 && pools.prefill + pools.decode === devices) return pools;
  throw new UsageError(`--prefill-pool and --decode-pool: expected ${devices} devices together, at least one in each, found ${prefill ?? "none"} and ${decode ?? "none"}`);
}

function fixedFrom(values: Values, devices: number, pools: boolean) {
  const [tp, pp, dp] = (["tp", "pp", "dp"] as const).map((name) => number(values, name, { integer: true, min: 1 }));
  if (tp === undefined && pp === undefined && dp === undefined) return undefined;
  if (pools) throw new UsageError("--tp, --pp and --dp: expected none of them with pools, which choose their own");
  const product = (tp ?? 1) * (pp ?? 1) * (dp ?? 1);
  const open = tp === undefined || pp === undefined || dp === undefined;
  if (open ? devices % product !== 0 : product !== devices) {
    throw new UsageError(`--tp, --pp and --dp: expected a product that ${open ? "divides" : "is"} ${devices} devices, found ${product}`);
  }
  return { ...(tp !== undefined && { tp }), ...(pp !== undefined && { pp }), ...(dp !== undefined && { dp }) };
}

function nothingFits({ tooLarge, rejected }: PlanResult, name: string, devices: number, capacity: number): string {
  const needs = ({ prefill, decode }: Plan) => Math.max(prefill.memoryBytes, decode.memoryBytes);
  if (tooLarge.length === 0) return `${name} cannot be divided over ${devices} device${devices === 1 ? "" : "s"}: ${rejected.map(({ layout, why }) => `${layoutName(layout)}: ${why}`).join("; ")}`;
  const least = tooLarge.reduce((best, one) => (needs(one) < needs(best) ? one : best));
  return `${name} does not fit on ${devices} device${devices === 1 ? "" : "s"}: ${planName(least)} needs least, ${formatBytes(needs(least))} a device, has ${formatBytes(capacity)}`;
}

function describe({ prefill, decode, pools, fits, ttftMs, tpotMs, tokensPerSecond }: Plan) {
  const cost = ({ layout, memoryBytes, parts }: LayoutCost) => ({ ...layout, memoryBytes, decodeStepMs: parts });
  const layouts = pools ? { pools, prefill: cost(prefill), decode: cost(decode) } : cost(decode);
  return { ...layouts, fits, ttftMs: fits ? ttftMs : null, tpotMs: fits ? tpotMs : null, tokensPerSecond: fits ? tokensPerSecond : null };
}

function planTable(plans: readonly Plan[], why: (plan: Plan) => string): string[] {
  const names = plans.map(planName);
  const width = Math.max(4, ...names.map((name) => name.length));
  const line = (name: string, cells: readonly string[], reason: string) => `${name.padEnd(width)} ${cells.map((cell) => cell.padStart(9)).join(" ")}   ${reason}`.trimEnd();
  return [
    line("plan", ["a device", "ttft", "tpot", "tokens/s"], "why it loses"),
    ...plans.map((one, i) => {
      const memory = formatBytes(Math.max(one.prefill.memoryBytes, one.decode.memoryBytes));
      const speeds = one.fits ? [formatMs(one.ttftMs), formatMs(one.tpotMs), count(one.tokensPerSecond)] : ["-", "-", "-"];
      return line(names[i], [memory, ...speeds], i === 0 ? "the best" : why(one));
    }),
  ];
}
