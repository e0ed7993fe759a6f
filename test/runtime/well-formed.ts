const VOID = new Set(["meta", "br", "hr", "link", "img", "input"]);
const ENTITY = /&(?!(?:amp|lt|gt|quot);)/;

/** Everything that is wrong with a page's markup: tags that do not match, attributes without quotes, bare ampersands, ids used twice or not there. */
export function markupProblems(html: string): string[] {
  const problems: string[] = [];
  const open: string[] = [];
  const ids = new Set<string>();
  const references: string[] = [];
  const body = html.replace(/^<!DOCTYPE html>\n/, "").replace(/<(style|script)>[^<]*<\/\1>/g, "");
  let at = 0;
  for (const match of body.matchAll(/<(\/?)([a-zA-Z0-9]+)((?:\s+[a-zA-Z][a-zA-Z0-9-]*(?:="[^"<]*")?)*)\s*>/g)) {
    const between = body.slice(at, match.index);
    if (/[<>]/.test(between) || ENTITY.test(between)) problems.push(`text ${JSON.stringify(between.slice(0, 60))}`);
    at = match.index + match[0].length;
    const [, closes, name, attributes] = match;
    if (closes) {
      const last = open.pop();
      if (last !== name) problems.push(`</${name}> closes <${last}>`);
      continue;
    }
    const seen = new Set<string>();
    for (const [, key, value = ""] of attributes.matchAll(/\s([a-zA-Z][a-zA-Z0-9-]*)(?:="([^"]*)")?/g)) {
      if (seen.has(key)) problems.push(`<${name}>: ${key} twice`);
      seen.add(key);
      if (ENTITY.test(value)) problems.push(`<${name} ${key}="${value}">`);
      if (key === "id" && ids.has(value)) problems.push(`id ${value} twice`);
      if (key === "id") ids.add(value);
      if (key === "aria-labelledby" || (key === "href" && value.startsWith("#"))) references.push(value.replace("#", ""));
      if (/\b(NaN|Infinity|undefined|null)\b/.test(value) && key !== "aria-label") problems.push(`<${name} ${key}="${value.slice(0, 60)}">`);
    }
    if (!VOID.has(name)) open.push(name);
  }
  if (body.slice(at).trim() !== "") problems.push(`text after the end: ${JSON.stringify(body.slice(at, at + 60))}`);
  for (const name of open) problems.push(`<${name}> is never closed`);
  for (const id of references) if (!ids.has(id)) problems.push(`no element has the id ${id}`);
  return problems;
}
