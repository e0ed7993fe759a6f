import type { ChatMessage } from "./prompts.ts";

/** What a chat feeds, and which texts end the reply besides the model's end tokens. */
export interface ChatPrompt {
  readonly prompt: string | readonly number[];
  readonly stop: readonly string[];
}

/**
 * A chat for a model without a template of its own: a transcript of named lines, the last of them the reply's, which ends where the model
 * would write the user's next line.
 */
export function transcriptPrompt(messages: readonly ChatMessage[]): ChatPrompt {
  const lines = messages.map(({ role, content }) => `${role[0].toUpperCase()}${role.slice(1)}: ${content}\n`);
  return { prompt: `${lines.join("")}Assistant:`, stop: ["\nUser:"] };
}
