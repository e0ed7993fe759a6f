import { formatBytes, formatMs, percent } from "../report.ts";
import type { Layout, LayoutCost, Plan } from "./plan.ts";

/** "tp 4 x pp 2", "tp 8", "prefill: tp 2; decode: tp 2 x dp 3", "1 device". */
export function planName({ prefill, decode, pools }: Plan): string {
  return pools ? `prefill: ${layoutName(prefill.layout)}; decode: ${layoutName(decode.layout)}` : layoutName(decode.layout);
}

export function layoutName({ tp, pp, dp, groups }: Layout): string {
  const parts = [tp > 1 && `tp ${tp}`, pp > 1 && `pp ${pp}${groups > 1 ? ` (${groups} groups)` : ""}`, dp > 1 && `dp ${dp}`].filter((part) => part !== false);
  return parts.length > 0 ? parts.join(" x ") : "1 device";
}

type Part = keyof LayoutCost["parts"];

const WORDS: Readonly<Record<Part, (ms: string, cost: LayoutCost) => string>> = {
  memory: (ms, { layout }) => `each decode step reads ${ms} longer from memory${layout.dp > 1 ? `: ${layout.dp} replicas each read all weights` : layout.groups > 1 ? `: every group reads the weights again` : ""}`,
  compute: (ms) => `each decode step computes ${ms} longer`,
  launch: (ms) => `each decode step launches ops for ${ms} longer`,
  link: (ms) => `each decode step waits ${ms} longer for links (all-reduces, transfers between stages)`,
  bubble: (ms, { tpotMs, parts }) => `stages idle ${ms} longer in each decode step (${percent(parts.bubble / tpotMs)} of it is bubble)`,
};

/** Why a plan loses against the best: what does not fit, or what takes most longer. */
export function whyItLoses(plan: Plan, best: Plan | undefined, tokens: number, capacityBytes: number): string {
  const largest = Math.max(plan.prefill.memoryBytes, plan.decode.memoryBytes);
  if (!plan.fits) return `does not fit: needs ${formatBytes(largest)} a device, has ${formatBytes(capacityBytes)}`;
  if (!best || plan === best) return "";
  const parts = (Object.keys(plan.decode.parts) as Part[]).map((part) => ({ part, excess: plan.decode.parts[part] - best.decode.parts[part] }));
  const worst = parts.reduce((most, one) => (one.excess > most.excess ? one : most));
  const prefill = plan.ttftMs - best.ttftMs;
  const otherPools = plan.pools && plan.pools.prefill !== best.pools?.prefill;
  if (otherPools && tokens * plan.tpotMs < plan.ttftMs) return `its ${plan.pools?.prefill} prefill devices take ${formatMs(plan.ttftMs)} for what is decoded in ${formatMs(tokens * plan.tpotMs)}: decode waits`;
  if (otherPools && plan.ttftMs < 0.5 * tokens * plan.tpotMs) {
    return `its ${plan.pools?.prefill} prefill devices work ${formatMs(plan.ttftMs)} of every ${formatMs(tokens * plan.tpotMs)} and idle else`;
  }
  if (prefill > tokens * worst.excess) return `prompts take ${formatMs(prefill)} longer`;
  return worst.excess > 0 ? WORDS[worst.part](formatMs(worst.excess), plan.decode) : "nearly the same";
}
