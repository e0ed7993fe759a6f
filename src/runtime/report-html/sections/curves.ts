import { axes, type Box, type LegendEntry, mark, plotBox, svg, text } from "../chart.ts";
import type { CurveRow, ReportData } from "../data.ts";
import { count, digits, numberCell, orNone } from "../format.ts";
import { table, tag, words } from "../html.ts";
import { doubling, linear, logarithmic, type Scale } from "../scale.ts";
import { chart, numbers, type Section, section } from "../section.ts";

const DASHES = ["none", "8 4", "2 4", "10 3 2 3"];
type Measure = "tpotMs" | "tokensPerSecond";

/** How speed changes with batch, context and bits, on a few devices. */
export function curvesSections({ curves, model, run }: ReportData): Section[] {
  const { devices } = curves;
  const legend = devices.map((name, i): LegendEntry => ({ name, colour: `c${i}`, shape: i, dash: DASHES[i] }));
  const bits = (value: string) => Number(/\d+/.exec(value)![0]);
  const one = (id: string, title: string, see: string, rows: readonly CurveRow[], measure: Measure, x: Axis, xName: string) =>
    section(
      ...[id, title, `${see} Ceilings: the recorded ops under each device's roof.`] as const,
      chart((width) => draw(width, rows, devices.length, measure, x, see), legend),
      numbers(`${title}, as numbers`, table(`${title}: time per step and tokens per second`, [xName, ...devices.flatMap((name) => [`${name}, ms`, `${name}, tokens/s`])], rows.map((row) => [
        words(row.value),
        ...devices.flatMap((_, i) => [orNone(row.tpotMs[i], numberCell), orNone(row.tokensPerSecond[i], numberCell)]),
      ]))),
    );
  const log2 = (title: string, limit?: number): Axis => ({ title, of: ({ value }) => Number(value), scale: (values, from, to) => doubling(values, from, to), limit });
  const byBits: Axis = { title: "bits per weight", of: ({ value }) => bits(value), scale: (values, from, to) => linear(Math.max(...values), from, to, 8) };
  return [
    one("batch", "Over the batch", batchSentence(curves), curves.batch, "tokensPerSecond", log2("sequences at once (log)"), "batch"),
    one("context", "Over the context", contextSentence(curves), curves.context, "tpotMs", log2("positions in the context (log)", model.context), "context"),
    one("bits", "Over the bits of a weight", bitsSentence(curves, run.promptTokens + run.tokens), curves.bits, "tpotMs", byBits, "format"),
  ];
}

interface Axis {
  readonly title: string;
  readonly of: (row: CurveRow) => number;
  readonly scale: (values: readonly number[], from: number, to: number) => Scale;
  /** A value to mark, such as the model's own context. */
  readonly limit?: number;
}

const Y_TITLE = { tpotMs: "ms per step (log)", tokensPerSecond: "tokens/s (log)" };

function draw(width: number, rows: readonly CurveRow[], devices: number, measure: Measure, axis: Axis, label: string): string {
  const box: Box = plotBox(width, width > 500 ? 340 : 280);
  const x = axis.scale(rows.map(axis.of), box.left, box.right);
  const y = logarithmic(rows.flatMap((row) => row[measure].filter((value) => value !== null)), box.bottom, box.top);
  const curves = Array.from({ length: devices }, (_, i) => {
    const points = rows.flatMap((row) => (row[measure][i] === null ? [] : [{ x: x.at(axis.of(row)), y: y.at(row[measure][i]), title: `${row.value}: ${digits(row[measure][i])}` }]));
    const path = points.map((point, at) => `${at === 0 ? "M" : "L"}${point.x.toFixed(1)} ${point.y.toFixed(1)}`).join("");
    const line = points.length > 1 ? tag("path", { d: path, class: `curve c${i}`, "stroke-dasharray": DASHES[i] }) : "";
    return line + points.map((point) => mark(i, point.x, point.y, 4, `c${i}`, point.title)).join("");
  });
  const values = rows.map(axis.of);
  const { limit } = axis;
  const inside = limit !== undefined && limit >= Math.min(...values) && limit < Math.max(...values);
  const line = inside ? tag("line", { x1: x.at(limit), x2: x.at(limit), y1: box.top, y2: box.bottom, class: "axis", "stroke-dasharray": "4 4" }) + text(x.at(limit) + 5, box.top + 12, "the model's own", { class: "halo" }) : "";
  return svg(box, label, axes(box, x, y, axis.title, Y_TITLE[measure]), line, ...curves);
}

/** A curve's first and last point that exist, on the first device that has two. */
function ends(rows: readonly CurveRow[], devices: readonly string[], measure: Measure) {
  for (const [i, device] of devices.entries()) {
    const known = rows.filter((row) => row[measure][i] !== null);
    if (known.length < 2) continue;
    const [first, last] = [known[0], known[known.length - 1]];
    return { device, first, last, ratio: last[measure][i]! / first[measure][i]! };
  }
  return undefined;
}

const NOTHING_FITS = "The model fits into none of these devices.";

function batchSentence({ batch, devices }: ReportData["curves"]): string {
  const found = ends(batch, devices, "tokensPerSecond");
  return found ? `On ${found.device}, ${found.last.value} sequences at once decode ${digits(found.ratio)} times as many tokens a second as one, because they share each read of the weights.` : NOTHING_FITS;
}

function contextSentence({ context, devices }: ReportData["curves"]): string {
  const found = ends(context, devices, "tpotMs");
  return found ? `On ${found.device}, a step at ${count(Number(found.last.value))} positions takes ${digits(found.ratio)} times as long as at ${count(Number(found.first.value))}: the KV cache is read for every token, on top of the weights.` : NOTHING_FITS;
}

function bitsSentence({ bits, devices }: ReportData["curves"], context: number): string {
  const found = ends(bits, devices, "tpotMs");
  return found ? `On ${found.device}, going from ${found.first.value} to ${found.last.value} weights makes a step at up to ${context} positions ${digits(1 / found.ratio)} times as fast, with no arithmetic saved: fewer bytes are the whole gain.` : NOTHING_FITS;
}
