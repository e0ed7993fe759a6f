import { legend as legendOf, type LegendEntry } from "./chart.ts";
import { escape, tag } from "./html.ts";
import { SHARE_KINDS, type ShareKind } from "../hardware/shares.ts";

/** A part of the page: a heading, one sentence that says what to see, charts and their tables. */
export interface Section {
  readonly id: string;
  readonly title: string;
  readonly html: string;
}

/** Every chart is drawn twice, for a phone and for a desk; the page shows the one that fits. */
const WIDTHS = { narrow: 328, wide: 920 } as const;

export function section(id: string, title: string, see: string, ...parts: readonly string[]): Section {
  const heading = tag("h2", { id: `${id}-title` }, escape(title));
  return { id, title, html: tag("section", { id, "aria-labelledby": `${id}-title` }, heading, tag("p", { class: "see" }, escape(see)), ...parts) };
}

export function chart(draw: (width: number) => string, legend: readonly LegendEntry[] = []): string {
  const versions = Object.entries(WIDTHS).map(([name, width]) => tag("div", { class: name }, draw(width)));
  return tag("figure", {}, legend.length > 0 ? legendOf(legend) : "", ...versions);
}

/** The numbers under a chart. */
export function numbers(summary: string, ...tables: readonly string[]): string {
  return tag("details", {}, tag("summary", {}, escape(summary)), ...tables);
}

export const paragraph = (text: string) => tag("p", {}, escape(text));
export const subheading = (text: string) => tag("h3", {}, escape(text));

/** Colour and mark of a kind of op. */
export const kindIndex = (kind: ShareKind): number => SHARE_KINDS.indexOf(kind);
export const kindColour = (kind: ShareKind): string => `c${kindIndex(kind)}`;
export const kindLegend = (shapes: boolean): LegendEntry[] => SHARE_KINDS.map((kind) => ({ name: kind, colour: kindColour(kind), ...(shapes && { shape: kindIndex(kind) }) }));
