import { rect, svg, text } from "./chart.ts";
import { tag } from "./html.ts";
import type { Scale } from "./scale.ts";

export interface BarRow {
  readonly label: string;
  /** What stands at the end of the label's line. */
  readonly value: string;
  /** Parts of the bar, from the left; `from` where they do not begin where the last one ended. */
  readonly parts: readonly { readonly size: number; readonly from?: number; readonly colour: string; readonly title?: string }[];
}

const ROW = 38;
const SIDE = 12;

/** Horizontal bars, each under its own label, so that labels have room on a phone. Logarithmic bars begin at the scale's first tick. */
export function barChart(width: number, label: string, rows: readonly BarRow[], scaleOf: (from: number, to: number) => Scale, xTitle: string): string {
  const bottom = 6 + rows.length * ROW;
  const height = bottom + 44;
  const [left, right] = [SIDE, width - SIDE - 8];
  const x = scaleOf(left, right);
  const grid = x.ticks.map(({ value, label: tick }) => tag("line", { x1: x.at(value), x2: x.at(value), y1: 4, y2: bottom, class: "grid" }) + text(x.at(value), bottom + 16, tick, { class: "mid" }));
  const bars = rows.map(({ label: name, value, parts }, i) => {
    const y = 6 + i * ROW;
    let end = x.ticks[0].value;
    const drawn = parts.map(({ size, from = end, colour, title }) => {
      const start = x.at(from);
      end = from === x.ticks[0].value ? size : from + size;
      return rect(start, y + 17, Math.max(size > 0 ? 1 : 0, x.at(end) - start), 14, colour, title);
    });
    return drawn.join("") + text(left, y + 12, name, { class: "halo" }) + text(right + 8, y + 12, value, { class: "end halo" });
  });
  return svg({ width, height }, label, ...grid, ...bars, text((left + right) / 2, bottom + 36, xTitle, { class: "mid title" }));
}
