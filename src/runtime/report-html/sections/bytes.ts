import { barChart } from "../bars.ts";
import type { ReportData } from "../data.ts";
import { bytesCell, digits, formatBytes, percent } from "../format.ts";
import { table, words } from "../html.ts";
import { linear } from "../scale.ts";
import { chart, numbers, type Section, section } from "../section.ts";

const PARTS = [
  { what: "weights", colour: "c0" },
  { what: "kv", colour: "c2" },
  { what: "activations", colour: "c1" },
] as const;

/** What one token costs in bytes, in the prompt and in the answer. */
export function bytesSection({ bytesPerToken, run }: ReportData): Section {
  const total = ({ weights, kv, activations }: ReportData["bytesPerToken"][number]) => weights + kv + activations;
  const decode = bytesPerToken.find(({ phase }) => phase === "decode")!;
  const prefill = bytesPerToken.find(({ phase }) => phase === "prefill");
  const ratio = prefill ? ` A token of the prompt, which shares them with ${run.promptTokens - 1} others, moves ${digits(total(decode) / total(prefill))} times less.` : "";
  const see = `Each generated token moves ${formatBytes(total(decode))}, ${percent(decode.weights / total(decode))} of it weights, read once and used for one token.${ratio}`;
  const unit = total(decode) >= 1e9 ? { name: "GB", size: 1e9 } : total(decode) >= 1e6 ? { name: "MB", size: 1e6 } : { name: "kB", size: 1e3 };
  const rows = bytesPerToken.map((row) => ({
    label: row.phase === "decode" ? "a generated token (decode)" : "a prompt token (prefill)",
    value: formatBytes(total(row)),
    parts: PARTS.map(({ what, colour }) => ({ size: row[what] / unit.size, colour, title: `${what}: ${formatBytes(row[what])}` })),
  }));
  const most = Math.max(...bytesPerToken.map(total)) / unit.size;
  return section(
    ...(["bytes", "Bytes per token"] as const),
    see,
    chart((width) => barChart(width, see, rows, (from, to) => linear(most, from, to), `read and written for one token, ${unit.name}`), PARTS.map(({ what, colour }) => ({ name: what === "kv" ? "KV cache" : what, colour }))),
    numbers("The bytes as numbers", table("Bytes read and written for one token", ["phase", "weights", "KV cache", "activations"], bytesPerToken.map((row) => [words(row.phase), ...PARTS.map(({ what }) => bytesCell(row[what]))]))),
  );
}
