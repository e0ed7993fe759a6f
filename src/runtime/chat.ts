import type { ModelFile } from "../model/open.ts";
import { compileTemplate, type Template } from "../model/template/template.ts";

/** One turn of a conversation. What else a template reads, such as `tool_calls`, goes along. */
export interface ChatMessage {
  /** "system", "user", "assistant", or what else the template knows. */
  readonly role: string;
  /** A text; parts or null where the template takes them. */
  readonly content: unknown;
  readonly [extra: string]: unknown;
}

/** What a chat template sees besides the conversation. */
export interface ChatTemplateOptions {
  /** Tools that the model may call, as the template expects them. */
  readonly tools?: readonly unknown[];
  /** Further names that the template may use, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** Whether the text ends where the assistant's answer begins; default true. */
  readonly generationPrompt?: boolean;
  /** What the template's clock shows; default the present. */
  readonly now?: Date;
}

/** A conversation as a prompt. */
export interface ChatPrompt {
  /** As the template wrote it. */
  readonly text: string;
  /** Token ids, control tokens included. */
  readonly tokens: readonly number[];
  /** Texts that end the answer, besides the model's end tokens. */
  readonly stop: readonly string[];
}

/** How a model wants its conversations written. */
export interface ChatFormat {
  /** The template's source. */
  readonly template: string;
  /** Whether the model brings a template, or memwall's own is used. */
  readonly own: boolean;
  /** @throws TemplateError when the template cannot be read, lacks something in memwall, or refuses the conversation. */
  prompt(messages: readonly ChatMessage[], options?: ChatTemplateOptions): ChatPrompt;
}

/** For models without a template: a transcript of named lines, whose answer ends where the user's next line would begin. */
export const DEFAULT_TEMPLATE =
  "{{ bos_token }}{% for message in messages %}{{ message.role | capitalize }}: {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";
const DEFAULT_STOP = ["\nUser:"];

/** The chat format of a model that has been opened. The template is read when it is first used: one that cannot be read harms no one else. */
export function chatFormat({ metadata, tokenizer }: Pick<ModelFile, "metadata" | "tokenizer">): ChatFormat {
  const given = metadata.get("tokenizer.chat_template");
  const own = given?.type === "string";
  const source = own ? given.value : DEFAULT_TEMPLATE;
  const { bos, addBos, eos } = tokenizer;
  const piece = (id: number | undefined) => (id === undefined || id >= tokenizer.vocabSize ? "" : tokenizer.piece(id));
  const named = (name: "bos" | "eos") => {
    const id = metadata.get(`tokenizer.ggml.${name}_token_id`);
    return id && typeof id.value === "number" ? id.value : undefined;
  };
  const bosToken = piece(own || addBos ? (named("bos") ?? bos) : undefined);
  const eosToken = piece(named("eos") ?? eos[0]);
  let template: Template | undefined;
  return {
    template: source,
    own,
    prompt(messages, { tools, variables = {}, generationPrompt = true, now } = {}) {
      template ??= compileTemplate(source);
      const known = { bos_token: bosToken, eos_token: eosToken, add_generation_prompt: generationPrompt };
      const text = template.render({ ...known, tools: tools ?? null, ...variables, messages }, now);
      return { text, tokens: tokenizer.encode(text, { special: true }), stop: own ? [] : DEFAULT_STOP };
    },
  };
}
