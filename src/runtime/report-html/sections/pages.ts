import { axes, plotBox, svg } from "../chart.ts";
import type { ReportData } from "../data.ts";
import { bytesCell, countCell, formatBytes, percent } from "../format.ts";
import { table, tag, words } from "../html.ts";
import { linear } from "../scale.ts";
import { chart, numbers, type Section, section } from "../section.ts";

/** KV pages in use after each step. */
export function pagesSection({ pages: { pageTokens, pageBytes, steps } }: ReportData): Section {
  const last = steps[steps.length - 1];
  const see =
    `The KV cache ends with ${last.pages} pages of ${pageTokens} tokens, ${formatBytes(last.pages * pageBytes)} in all: ` +
    `it takes a page only when the last one is full, so ${percent(last.positions / (last.pages * pageTokens))} of what it holds is used at the end.`;
  return section(
    ...(["pages", "KV pages in use"] as const),
    see,
    chart((width) => {
      const box = plotBox(width, 260);
      const x = linear(steps.length, box.left, box.right, width > 500 ? 8 : 4);
      const y = linear(Math.max(...steps.map((step) => step.pages)), box.bottom, box.top);
      const path = steps.map((step, i) => `${i === 0 ? `M${x.at(0)} ` : "V"}${y.at(step.pages).toFixed(1)}H${x.at(i + 1).toFixed(1)}`).join("");
      return svg(box, see, axes(box, x, y, "step (the first one is the prompt)", "pages"), tag("path", { d: path, class: "curve c0" }));
    }),
    numbers(
      "The pages as numbers",
      table("A page", ["page", "tokens", "bytes"], [[words("KV page"), countCell(pageTokens), bytesCell(pageBytes)]]),
      table("After each step", ["step", "positions", "pages"], steps.map((step, i) => [words(String(i)), countCell(step.positions), countCell(step.pages)])),
    ),
  );
}
