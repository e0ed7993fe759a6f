/** Text as HTML. Characters that no document may hold become U+FFFD. */
export function escape(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
}

type Attributes = Readonly<Record<string, string | number | undefined>>;

/** An element; attributes without a value are left out. `children` are HTML already. */
export function tag(name: string, attributes: Attributes = {}, ...children: readonly string[]): string {
  const given = Object.entries(attributes).filter(([, value]) => value !== undefined);
  const text = given.map(([key, value]) => ` ${key}="${typeof value === "number" ? round(value) : escape(value!)}"`).join("");
  return VOID.has(name) ? `<${name}${text}>` : `<${name}${text}>${children.join("")}</${name}>`;
}

const VOID = new Set(["meta", "br", "hr"]);

/** Coordinates to a hundredth: finer is invisible. */
const round = (value: number) => String(Math.round(value * 100) / 100);

/** A cell of a table: a number carries its exact value beside the one that people read. */
export interface Cell {
  readonly text: string;
  readonly value?: number;
}

export const words = (text: string): Cell => ({ text });
export const figure = (value: number, text: string): Cell => ({ value, text });

/** A table with a caption, inside a region that scrolls sideways when the screen is narrow. The first cell of a row names it. */
export function table(caption: string, head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const cell = ({ text, value }: Cell) => (value === undefined ? escape(text) : `<data value="${value}">${escape(text)}</data>`);
  const line = ([first, ...rest]: readonly Cell[]) =>
    `<tr><th scope="row">${cell(first)}</th>${rest.map((one) => `<td${one.value === undefined ? "" : ' class="n"'}>${cell(one)}</td>`).join("")}</tr>`;
  const side = (i: number) => (rows.some((row) => row[i]?.value !== undefined) && i > 0 ? ' class="n"' : "");
  return [
    `<div class="scroll" role="region" tabindex="0" aria-label="${escape(caption)}"><table><caption>${escape(caption)}</caption>`,
    `<thead><tr>${head.map((name, i) => `<th scope="col"${side(i)}>${escape(name)}</th>`).join("")}</tr></thead>`,
    `<tbody>${rows.map(line).join("\n")}</tbody></table></div>`,
  ].join("");
}
