import { type Fields, isObject, wrong } from "./fields.ts";

/** Text to encode, or token ids as they are. */
export type Prompt = string | readonly number[];

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

const MOST_PROMPTS = 128;
const EXPECTED = "a string, an array of strings, an array of token ids or an array of those";
const ROLES = ["system", "developer", "user", "assistant", "tool"];

/** `prompt` of "Create completion": a text, several, token ids, or several lists of them. */
export function parsePrompts(fields: Fields): Prompt[] {
  const given = fields.prompt ?? undefined;
  if (typeof given === "string") return [given];
  if (!Array.isArray(given) || given.length === 0) return wrong("prompt", EXPECTED, given);
  if (typeof given[0] === "number") return [tokenIds(given, "prompt")];
  if (given.length > MOST_PROMPTS) return wrong("prompt", `at most ${MOST_PROMPTS} prompts`, given);
  return given.map((item: unknown, i) => (typeof item === "string" ? item : Array.isArray(item) ? tokenIds(item, `prompt[${i}]`) : wrong(`prompt[${i}]`, "a string or an array of token ids", item)));
}

function tokenIds(list: readonly unknown[], path: string): number[] {
  if (list.length === 0) return wrong(path, "at least one token id", list);
  return list.map((id, i) => (typeof id === "number" && Number.isSafeInteger(id) && id >= 0 ? id : wrong(`${path}[${i}]`, "a token id", id)));
}

/** `messages` of "Create chat completion"; of content in parts, the texts. */
export function parseMessages(fields: Fields): ChatMessage[] {
  const given = fields.messages ?? undefined;
  if (!Array.isArray(given) || given.length === 0) return wrong("messages", "an array of at least one message", given);
  return given.map((message: unknown, i) => {
    const path = `messages[${i}]`;
    if (!isObject(message)) return wrong(path, "an object with role and content", message);
    const { role, content } = message;
    if (typeof role !== "string" || !ROLES.includes(role)) return wrong(`${path}.role`, `one of ${ROLES.join(", ")}`, role);
    return { role: role === "developer" ? "system" : role, content: contentText(content, `${path}.content`) };
  });
}

function contentText(content: unknown, path: string): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return wrong(path, "a string or an array of text parts", content);
  const texts = content.map((part: unknown, i) => {
    if (isObject(part) && part.type === "text" && typeof part.text === "string") return part.text;
    return wrong(`${path}[${i}]`, `{"type":"text","text":...} (the model reads nothing else)`, part);
  });
  return texts.join("");
}
