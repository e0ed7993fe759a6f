import type { ReportData } from "./data.ts";
import { type Cell, escape, table, tag, words } from "./html.ts";
import { bytesCell, count, countCell, digits, formatBytes, numberCell } from "./format.ts";
import { numbers, type Section } from "./section.ts";
import { breakdownSection } from "./sections/breakdown.ts";
import { bytesSection } from "./sections/bytes.ts";
import { curvesSections } from "./sections/curves.ts";
import { hardwareSections } from "./sections/hardware.ts";
import { pagesSection } from "./sections/pages.ts";
import { rooflineSection } from "./sections/roofline.ts";
import { timelineSection } from "./sections/timeline.ts";
import { tokenSections } from "./sections/token.ts";
import { STYLE } from "./style.ts";

/** For printing: every table is opened first, for browsers whose style sheets cannot do it. */
const SCRIPT = `addEventListener("beforeprint",()=>{for(const d of document.querySelectorAll("details"))d.open=true})`;

/** The report as one self-contained document. */
export function reportPage(data: ReportData): string {
  const sections = [
    ...[rooflineSection(data), breakdownSection(data), timelineSection(data), bytesSection(data)],
    ...[...curvesSections(data), pagesSection(data), ...hardwareSections(data), ...tokenSections(data)],
  ];
  const title = `memwall: ${data.model.name}`;
  const head = [
    tag("meta", { charset: "utf-8" }),
    tag("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
    tag("meta", { name: "color-scheme", content: "light dark" }),
    tag("title", {}, escape(title)),
    `<style>${STYLE}</style>`,
  ];
  return `<!DOCTYPE html>\n${tag(
    ...(["html", { lang: "en" }] as const),
    tag("head", {}, ...head),
    `\n<body><a class="skip" href="#roofline">Skip to the charts</a>\n`,
    tag("header", {}, tag("h1", {}, escape(title)), ...intro(data), contents(sections)),
    `\n<main>\n${sections.map(({ html }) => html).join("\n")}\n</main>\n`,
    tag("footer", {}, tag("p", {}, "Written by memwall. Every figure comes from the ledger of executed operations; the tables hold the exact values.")),
    `\n<script>${SCRIPT}</script></body>`,
  )}\n`;
}

function contents(sections: readonly Section[]): string {
  return tag("nav", { "aria-label": "Contents" }, tag("ul", {}, ...sections.map(({ id, title }) => tag("li", {}, tag("a", { href: `#${id}` }, escape(title))))));
}

function intro({ model, run, bytesPerToken }: ReportData): string[] {
  const { weights, kv, activations } = bytesPerToken.find(({ phase }) => phase === "decode")!;
  const what = `${count(model.parameters)} parameters, ${formatBytes(model.weightBytes)} of ${model.weights} weights, ${model.layers} layers (${model.architecture}).`;
  const how =
    run.mode === "measured"
      ? `One greedy generation, measured: ${run.promptTokens} prompt tokens and ${run.tokens} generated on ${run.machine}.`
      : `Costs from executing the decoder on kernels that compute nothing; times are the ceilings of ${run.machine}, for ${run.promptTokens} prompt tokens and ${run.tokens} decoded.`;
  const facts = [
    { name: "weights", value: formatBytes(model.weightBytes) },
    { name: "prefill", value: `${digits(run.prefillTokensPerSecond)} tokens/s` },
    { name: "decode", value: `${digits(run.decodeTokensPerSecond)} tokens/s` },
    { name: "moved for each generated token", value: formatBytes(weights + kv + activations) },
  ];
  const fact = ({ name, value }: (typeof facts)[number]) => tag("div", {}, tag("dt", {}, escape(name)), tag("dd", {}, escape(value)));
  const rows: Cell[][] = [
    [words("parameters"), countCell(model.parameters)],
    [words("bytes of weights"), bytesCell(model.weightBytes)],
    [words("layers"), countCell(model.layers)],
    [words("context"), countCell(model.context)],
    [words("prompt tokens"), countCell(run.promptTokens)],
    [words("generated tokens"), countCell(run.tokens)],
    [words("prefill, tokens/s"), numberCell(run.prefillTokensPerSecond)],
    [words("decode, tokens/s"), numberCell(run.decodeTokensPerSecond)],
  ];
  return [
    tag("p", {}, escape(`${what} ${how}`)),
    run.text === null ? "" : tag("blockquote", {}, escape(run.text)),
    tag("dl", { class: "facts" }, ...facts.map(fact)),
    numbers("The run as numbers", table("Model and run", ["what", "value"], rows)),
  ];
}
