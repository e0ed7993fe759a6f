import { escape, tag } from "./html.ts";
import type { Scale } from "./scale.ts";

/** Space around the plot for labels, in pixels. */
export interface Box {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

export const plotBox = (width: number, height: number): Box => ({ width, height, left: 62, right: width - 20, top: 14, bottom: height - 44 });

/** An image with a text alternative; its parts are for the eye and for the pointer only. */
export function svg({ width, height }: Pick<Box, "width" | "height">, label: string, ...children: readonly string[]): string {
  return tag("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label }, tag("g", { "aria-hidden": "true" }, ...children));
}

export const text = (x: number, y: number, content: string, attributes: Record<string, string | number> = {}) => tag("text", { x, y, ...attributes }, escape(content));

/** Grid, tick labels and axis titles. */
export function axes(box: Box, x: Scale, y: Scale, xTitle: string, yTitle: string): string {
  const { left, right, top, bottom } = box;
  return [
    ...y.ticks.map(({ value, label }) => tag("line", { x1: left, x2: right, y1: y.at(value), y2: y.at(value), class: "grid" }) + text(left - 6, y.at(value) + 4, label, { class: "end" })),
    ...x.ticks.map(({ value, label }) => tag("line", { x1: x.at(value), x2: x.at(value), y1: top, y2: bottom, class: "grid" }) + text(x.at(value), bottom + 19, label, { class: "mid" })),
    tag("path", { d: `M${left} ${top}V${bottom}H${right}`, class: "axis" }),
    text((left + right) / 2, bottom + 38, xTitle, { class: "mid title" }),
    text(0, 0, yTitle, { class: "mid title", transform: `translate(14 ${(top + bottom) / 2}) rotate(-90)` }),
  ].join("");
}

/** Marks that differ in shape as well as in colour. */
const MARKS: readonly ((r: number) => string)[] = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0 ${-1.3 * r}L${1.2 * r} ${r}H${-1.2 * r}z`,
  (r) => `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0z`,
  (r) => `M0 ${1.3 * r}L${1.2 * r} ${-r}H${-1.2 * r}z`,
  (r) => `M${-r} ${-r / 3}h${(2 * r) / 3}v${(-2 * r) / 3}h${(2 * r) / 3}v${(2 * r) / 3}h${(2 * r) / 3}v${(2 * r) / 3}h${(-2 * r) / 3}v${(2 * r) / 3}h${(-2 * r) / 3}v${(-2 * r) / 3}h${(-2 * r) / 3}z`,
];

export function mark(shape: number, x: number, y: number, size: number, colour: string, title?: string): string {
  const path = MARKS[shape % MARKS.length](1).replace(/-?\d+\.?\d*(?:e-?\d+)?/g, (part) => String(Math.round(Number(part) * 100) / 100));
  return tag("path", { d: path, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size.toFixed(1)})`, class: `mark ${colour}` }, title ? tag("title", {}, escape(title)) : "");
}

export function rect(x: number, y: number, width: number, height: number, colour: string, title?: string): string {
  return tag("rect", { x, y, width: Math.max(0, width), height, class: colour }, title ? tag("title", {}, escape(title)) : "");
}

export interface LegendEntry {
  readonly name: string;
  /** Left out for a remark without a sample. */
  readonly colour?: string;
  /** Shape of its mark; a square patch without one. */
  readonly shape?: number;
  /** Dash pattern of its line. */
  readonly dash?: string;
}

/** What the colours and marks mean; hidden from screen readers, for which the table says it in words. */
export function legend(entries: readonly LegendEntry[]): string {
  const sample = ({ colour, shape, dash }: LegendEntry) => {
    if (colour === undefined) return "";
    const line = dash === undefined ? "" : tag("line", { x1: 1, x2: 27, y1: 7, y2: 7, class: `curve ${colour}`, "stroke-dasharray": dash });
    const width = dash === undefined ? 14 : 28;
    const sign = shape === undefined ? rect(1, 1, 12, 12, colour) : mark(shape, width / 2, 7, 5, colour);
    return tag("svg", { viewBox: `0 0 ${width} 14`, width, height: 14, "aria-hidden": "true" }, line, sign);
  };
  return tag("ul", { class: "legend", "aria-hidden": "true" }, ...entries.map((entry) => tag("li", {}, sample(entry), escape(entry.name))));
}
