import { TemplateError } from "../../model/template/errors.ts";
import type { Engine } from "../engine.ts";
import { ApiError } from "./errors.ts";
import type { ChatMessage } from "./prompts.ts";
import { checkFits } from "./start.ts";

/** What a chat feeds, and which texts end the answer besides the model's end tokens. */
export interface ChatPrompt {
  readonly prompt: readonly number[];
  readonly stop: readonly string[];
}

/** A conversation as the model's own chat template writes it. @throws ApiError 400 when the template refuses it, or it is beyond the context. */
export function chatPrompt(engine: Engine, messages: readonly ChatMessage[]): ChatPrompt {
  checkFits(engine, messages.reduce((sum, { content }) => sum + content.length, 0), "messages");
  try {
    const { tokens, stop } = engine.chatPrompt(messages.map((message) => ({ ...message })));
    return { prompt: tokens, stop };
  } catch (error) {
    throw error instanceof TemplateError ? new ApiError(400, `messages: ${error.message}`, { param: "messages", code: "chat_template" }) : error;
  }
}
