import { barChart } from "../bars.ts";
import { axes, plotBox, rect, svg, text } from "../chart.ts";
import type { ReportData, TimelineOp } from "../data.ts";
import { countCell, duration, numberCell, percent } from "../format.ts";
import { table, words } from "../html.ts";
import { linear } from "../scale.ts";
import { chart, kindColour, kindLegend, numbers, type Section, section, subheading } from "../section.ts";

/** Consecutive ops of one layer, or of what comes before the first and after the last one. */
interface Part {
  readonly name: string;
  readonly ops: readonly TimelineOp[];
}

/** One decode step from its first op to its last; each layer opens into its ops. */
export function timelineSection({ timeline, run }: ReportData): Section {
  const { ops, us, context } = timeline;
  const parts = partsOf(ops);
  const busy = ops.reduce((sum, op) => sum + op.us, 0);
  const longest = [...ops].sort((a, b) => b.us - a.us)[0];
  const gaps = run.mode === "measured" && us > 0 ? ` Between the ops, ${percent(1 - busy / us)} of the step is overhead: calls, and the ledger that writes them down.` : "";
  const see =
    `One decode step at ${context} positions takes ${duration(us)}: ${ops.length} ops, of which the longest, ${labelOf(longest)}, takes ${percent(longest.us / us)}.${gaps}`;
  return section(
    ...(["timeline", "One decode step"] as const),
    see,
    chart((width) => overview(width, timeline, parts, see), kindLegend(false)),
    numbers("The step as numbers", table("The whole step", ["step", "positions", "duration, µs"], [[words("decode"), countCell(context), numberCell(us)]])),
    subheading("Zoom: layer by layer"),
    parts.length > 10 ? numbers(`Each of the ${parts.length} parts`, ...parts.map(zoom)) : parts.map(zoom).join(""),
  );
}

const labelOf = ({ layer, name }: TimelineOp) => (layer < 0 ? name : `${layer}.${name}`);

function partsOf(ops: readonly TimelineOp[]): Part[] {
  const parts: { name: string; ops: TimelineOp[] }[] = [];
  for (const op of ops) {
    const last = parts.at(-1);
    if (last && last.ops[0].layer === op.layer) last.ops.push(op);
    else parts.push({ name: op.layer >= 0 ? `layer ${op.layer}` : parts.length === 0 ? "before the layers" : "after the layers", ops: [op] });
  }
  return parts;
}

const endOf = ({ ops }: Part) => ops[ops.length - 1].startUs + ops[ops.length - 1].us;

function overview(width: number, { ops, us }: ReportData["timeline"], parts: readonly Part[], label: string): string {
  const box = { ...plotBox(width, 130), left: 12 };
  const x = linear(us, box.left, box.right, width > 500 ? 8 : 4);
  const none = { at: () => box.bottom, ticks: [] };
  const bars = ops.map((op) => rect(x.at(op.startUs), box.top + 22, Math.max(0.3, x.at(op.startUs + op.us) - x.at(op.startUs)), 42, kindColour(op.kind), `${labelOf(op)}: ${duration(op.us)}`));
  const room = (part: Part) => x.at(endOf(part)) - x.at(part.ops[0].startUs);
  const names = parts.filter((part) => part.ops[0].layer >= 0 && room(part) > 24).map((part) => text(x.at(part.ops[0].startUs), box.top + 14, room(part) > 52 ? part.name : String(part.ops[0].layer)));
  return svg(box, label, axes(box, x, none, "time, µs", ""), ...bars, ...names);
}

/** A layer's ops, each with its own bar, placed where it ran. */
function zoom({ name, ops }: Part): string {
  const origin = ops[0].startUs;
  const length = endOf({ name, ops }) - origin;
  const rows = ops.map((op) => ({ label: `${op.name} (${op.kind})`, value: duration(op.us), parts: [{ size: op.us, from: op.startUs - origin, colour: kindColour(op.kind) }] }));
  const label = `${name}: ${ops.length} ops in ${duration(length)}`;
  return numbers(
    label,
    chart((width) => barChart(width, label, rows, (from, to) => linear(length, from, to), "time since the layer began, µs")),
    table(label, ["op", "layer", "kind", "begins, µs", "takes, µs"], ops.map((op) => [words(op.name), countCell(op.layer), words(op.kind), numberCell(op.startUs), numberCell(op.us)])),
  );
}
