import { barChart, type BarRow } from "../bars.ts";
import type { ReportData } from "../data.ts";
import { percent, shareCell } from "../format.ts";
import { table, words } from "../html.ts";
import { linear } from "../scale.ts";
import { chart, kindColour, kindLegend, numbers, type Section, section, subheading } from "../section.ts";

/** Shares by kind of op, beside the published ones. */
export function breakdownSection({ breakdown: { shares, here, published } }: ReportData): Section {
  const pairs = [
    { name: "GEMV, of operations", own: here.gemvFlops, theirs: published.gemvFlops, colour: "c0" },
    { name: "GEMV, of latency", own: here.gemvTime, theirs: published.gemvTime, colour: "c0" },
    { name: "GEMM, of latency", own: here.gemmTime, theirs: published.gemmTime, colour: "c1" },
  ];
  const two = (share: number) => `${(share * 100).toFixed(2)} %`;
  const see =
    `This run spends ${percent(here.gemvTime)} of its time in matrix times vector and ${percent(here.gemmTime)} in matrix times matrix; ` +
    `Samsung's analysis of GPT workloads (Hot Chips 35, 2023, as quoted) found ${two(published.gemvTime)} and ${two(published.gemmTime)}, for a model, lengths and a machine that it does not name.`;
  const rows = pairs.flatMap(({ name, own, theirs, colour }): BarRow[] => [
    { label: `${name}: this run`, value: two(own), parts: [{ size: own * 100, colour }] },
    { label: `${name}: published`, value: two(theirs), parts: [{ size: theirs * 100, colour: "c5" }] },
  ]);
  const scale = (from: number, to: number) => linear(100, from, to);
  const stacked = (["calls", "flops", "bytes", "time"] as const).map((what): BarRow => ({
    label: `share of ${what}`,
    value: `gemv ${percent(shares.find(({ kind }) => kind === "gemv")![what])}`,
    parts: shares.map((share) => ({ size: share[what] * 100, colour: kindColour(share.kind), title: `${share.kind}: ${two(share[what])}` })),
  }));
  return section(
    ...(["breakdown", "Where the time goes"] as const),
    see,
    chart((width) => barChart(width, see, rows, scale, "share, percent")),
    subheading("By kind of op"),
    chart((width) => barChart(width, "Shares of calls, flops, bytes and time by kind of op", stacked, scale, "share, percent"), kindLegend(false)),
    numbers(
      "The shares as numbers",
      table("This run beside the published analysis", ["share", "this run", "published"], pairs.map(({ name, own, theirs }) => [words(name), shareCell(own), shareCell(theirs)])),
      table("Shares by kind of op", ["kind", "calls", "flops", "bytes", "time"], shares.map(({ kind, calls, flops, bytes, time }) => [words(kind), ...[calls, flops, bytes, time].map(shareCell)])),
    ),
  );
}
