import { barChart } from "../bars.ts";
import { svg, text } from "../chart.ts";
import type { ReportData, TokenView } from "../data.ts";
import { countCell, digits, numberCell, percent, shareCell } from "../format.ts";
import { escape, table, tag, words } from "../html.ts";
import { linear } from "../scale.ts";
import { chart, numbers, paragraph, type Section, section } from "../section.ts";

/** What the heads looked at, and what each layer would have said, at one token. */
export function tokenSections({ token }: ReportData): Section[] {
  if (!token) {
    const html = paragraph("This report is on a model's shape: nothing was computed, so there is no attention and no logit lens. A report on a model file has both.");
    return [section("attention", "Attention and logit lens", "No token was computed.", html)];
  }
  return [attentionSection(token), lensSection(token)];
}

const quote = (piece: string) => `“${piece}”`;

function attentionSection(view: TokenView): Section {
  const { attention, keys, position, piece } = view;
  const most = attention.reduce((best, row) => (Math.max(...row.weights) > Math.max(...best.weights) ? row : best));
  const at = most.weights.indexOf(Math.max(...most.weights));
  const sink = attention.reduce((sum, row) => sum + row.weights[0], 0) / attention.length;
  const see =
    `At position ${position}, ${quote(piece)}, the ${attention.length} heads shown give ${percent(sink)} of their attention to position ${keys[0].position}, ${quote(keys[0].piece)}, on average; ` +
    `the most decided one, head ${most.head} of layer ${most.layer}, gives ${percent(most.weights[at])} to ${quote(keys[at].piece)} at ${keys[at].position}.`;
  const heads = attention.map(({ layer, head }) => `layer ${layer}, head ${head}`);
  return section(
    ...(["attention", "What the heads looked at"] as const),
    `${see} Stronger colour is more; the scale is a square root, so that small weights show.`,
    chart((width) => heatMap(width, view, see)),
    numbers(
      "The attention as numbers",
      table("Attention weights, from each key's position", ["position", "token", ...heads], keys.map((key, i) => [countCell(key.position), words(key.piece), ...attention.map(({ weights }) => shareCell(weights[i]))])),
      table("The rows above", ["head of the picture", "layer", "head"], attention.map(({ layer, head }) => [words(`layer ${layer}, head ${head}`), countCell(layer), countCell(head)])),
    ),
  );
}

function heatMap(width: number, { attention, keys }: TokenView, label: string): string {
  const left = 44;
  const cell = Math.min(28, (width - left - 8) / keys.length);
  const row = attention.length > 40 ? 9 : 15;
  const named = cell >= 13;
  const top = named ? 78 : 22;
  const height = top + attention.length * row + 30;
  const heads = attention.flatMap(({ layer, head, weights }, r) => {
    const y = top + r * row;
    const cells = weights.map((weight, i) => tag("rect", { x: left + i * cell, y, width: cell - 0.5, height: row - 1, class: "cell", "fill-opacity": Math.sqrt(weight).toFixed(3) }, tag("title", {}, `layer ${layer}, head ${head}, position ${keys[i].position}: ${percent(weight)}`)));
    const name = row >= 12 || head === 0 ? text(left - 6, y + row - 3, `${layer}.${head}`, { class: "end" }) : "";
    return [name, ...cells];
  });
  const columns = keys.map((key, i) => {
    const x = left + (i + 0.5) * cell;
    if (named) return tag("text", { transform: `translate(${(x + 4).toFixed(1)} ${top - 6}) rotate(-60)` }, escape(shortened(key.piece)));
    return i % 8 === 0 ? text(x, top - 6, String(key.position), { class: "mid" }) : "";
  });
  return svg({ width, height }, label, ...columns, ...heads, text(left, height - 8, `${named ? "tokens" : "positions"} looked at; rows: layer.head`, { class: "title" }));
}

const shortened = (piece: string) => (piece.length > 9 ? `${piece.slice(0, 8)}…` : piece);

function lensSection({ lens, piece, position }: TokenView): Section {
  const final = lens[lens.length - 1];
  const answer = final.top[0];
  const since = lens.findIndex((_, i) => lens.slice(i).every(({ top }) => top[0].piece === answer.piece));
  const doubt = lens.reduce((most, row) => (row.entropy > most.entropy ? row : most));
  const bits = (entropy: number) => (entropy < 0.01 ? "less than 0.01 bits" : `${digits(entropy)} bits`);
  const layerName = (layer: number) => (layer < 0 ? "embedding" : `layer ${layer}`);
  const see =
    `After ${quote(piece)} the model says ${quote(answer.piece)} with ${percent(answer.probability)}; read through the output head, that has been the first choice since ${layerName(lens[since].layer)}, ` +
    `and the doubt is greatest ${doubt.layer < 0 ? "at the" : "after"} ${layerName(doubt.layer)}, ${bits(doubt.entropy)}, and ${bits(final.entropy)} at the end.`;
  const rows = lens.map(({ layer, top }) => ({
    label: `${layerName(layer)}: ${quote(top[0].piece)}`,
    value: percent(top[0].probability),
    parts: [{ size: top[0].probability * 100, colour: top[0].piece === answer.piece ? "c0" : "c5" }],
  }));
  const head = ["layer", "index", "entropy, bits", ...final.top.flatMap((_, i) => [`choice ${i + 1}`, "probability"])];
  return section(
    ...(["lens", "Logit lens"] as const),
    see,
    chart((width) => barChart(width, see, rows, (from, to) => linear(100, from, to), "probability of the first choice, percent"), [
      { name: `the final choice, ${quote(answer.piece)}`, colour: "c0" },
      { name: "another token", colour: "c5" },
    ]),
    numbers(
      "The lens as numbers",
      table(`Most probable next tokens at position ${position}, if the model ended after each layer`, head, lens.map(({ layer, entropy, top }) => [
        ...[words(layerName(layer)), countCell(layer), numberCell(entropy)],
        ...top.flatMap((one) => [words(one.piece), shareCell(one.probability)]),
      ])),
      table("The token", ["token", "position"], [[words(piece), countCell(position)]]),
    ),
  );
}
