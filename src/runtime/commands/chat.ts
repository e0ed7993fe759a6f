import type { ChatMessage } from "../chat.ts";
import type { Engine } from "../engine.ts";
import type { Generation, GenerationResult } from "../generation.ts";
import { describeRun } from "../report.ts";
import { type Command, ENGINE_OPTIONS, type Io, loadEngine, MODEL_OPTIONS, number, SPECULATION_OPTIONS, text, texts, type Values } from "./command.ts";

const HELP = `/reset          forget the conversation; the system message stays
/system TEXT    begin anew with another system message; without TEXT, with none
/stats          where the last answer's time, flops and bytes went
/help           this list
/bye            end (so does Ctrl-D); Ctrl-C stops an answer
`;

export const chat: Command = {
  name: "chat",
  summary: "talk with a model in the terminal, or from a script on standard input",
  options: {
    ...MODEL_OPTIONS,
    system: { type: "string", value: "TEXT", help: "the system message" },
    "max-tokens": { type: "string", value: "N", help: "tokens of an answer at most (default 512)" },
    temperature: { type: "string", value: "T", help: "0 takes the most probable token, 1 samples the model's own distribution (default 0.8)" },
    "top-k": { type: "string", value: "K", help: "sample from the K most probable tokens, 0 from all (default 40)" },
    "top-p": { type: "string", value: "P", help: "sample from the most probable tokens that sum to P (default 0.95)" },
    "min-p": { type: "string", value: "P", help: "drop tokens below P times the most probable one (default 0.05)" },
    seed: { type: "string", value: "N", help: "same seed, same answers (default: a new one each time)" },
    stop: { type: "string", multiple: true, value: "TEXT", help: "end an answer at this text; may be repeated" },
    ...ENGINE_OPTIONS,
    ...SPECULATION_OPTIONS,
  },
  async run(values, io) {
    const params = chatParams(values);
    const engine = await loadEngine(values, io, { ledger: true });
    const talk = conversation(engine, io, params, text(values, "system"));
    const release = io.onInterrupt(talk.interrupt);
    try {
      // Merges are looked at when text is first encoded: with wrong ones there is nothing to talk about.
      engine.tokenizer.encode("a");
      const { own } = engine.chatFormat;
      io.err(`${engine.config.name}: ${own ? "its own chat template" : "no chat template of its own, so a plain transcript"}; /help lists the commands\n`);
      for await (const line of io.lines("> ", talk.interrupt)) if (!(await talk.line(line))) break;
    } finally {
      release();
      engine.close();
    }
  },
};

type ChatParams = ReturnType<typeof chatParams>;

function chatParams(values: Values) {
  return {
    maxTokens: number(values, "max-tokens", { integer: true, min: 1 }, 512),
    temperature: number(values, "temperature", { min: 0 }),
    topK: number(values, "top-k", { integer: true, min: 0 }),
    topP: number(values, "top-p", { above: 0, max: 1 }),
    minP: number(values, "min-p", { min: 0, below: 1 }),
    seed: number(values, "seed", { integer: true, min: 0 }),
    stop: texts(values, "stop"),
  };
}

/** A conversation and what a line of input does to it. */
function conversation(engine: Engine, io: Io, params: ChatParams, firstSystem: string | undefined) {
  let system = firstSystem;
  let messages: ChatMessage[] = [];
  let last: GenerationResult | undefined;
  let running: Generation | undefined;

  const all = (): ChatMessage[] => (system === undefined ? messages : [{ role: "system", content: system }, ...messages]);

  async function answer(content: string): Promise<void> {
    messages.push({ role: "user", content });
    try {
      engine.ledger.clear();
      engine.draft?.ledger.clear();
      running = engine.chat(all(), params);
      let begun = false;
      for await (const piece of running) {
        // Many models begin with a space or an empty line.
        const shown: string = begun ? piece : piece.trimStart();
        begun ||= shown !== "";
        if (shown !== "") await io.out(shown);
      }
      last = await running.result;
      messages.push({ role: "assistant", content: last.text.trim() });
      const why = { stop: "", length: " [cut: no more tokens]", cancelled: " [stopped]" }[last.finishReason];
      await io.out(`${why}\n`);
    } catch (error) {
      // What cannot be answered is no part of the conversation.
      messages.pop();
      io.err(`memwall: ${(error as Error).message}\n`);
    } finally {
      running = undefined;
    }
  }

  const COMMANDS: Readonly<Record<string, (rest: string) => Promise<void> | void>> = {
    "/help": () => io.out(HELP),
    "/reset"() {
      messages = [];
      last = undefined;
    },
    "/system"(rest) {
      system = rest === "" ? undefined : rest;
      messages = [];
      last = undefined;
    },
    "/stats": () => io.out(last ? describeRun(engine, last, io) : "no answer yet\n"),
  };

  return {
    /** Stops the answer that is being written, if one is. */
    interrupt(): void {
      if (running) running.cancel();
      else io.err("\n(/bye or Ctrl-D ends)\n");
    },
    /** Answers a line, or does what it asks for. False when it ends the conversation. */
    async line(line: string): Promise<boolean> {
      const [, command, rest] = /^(\/\S*)\s*(.*)$/s.exec(line.trim()) ?? [];
      if (command === "/bye" || command === "/exit" || command === "/quit") return false;
      if (command === undefined) {
        if (line.trim() !== "") await answer(line);
      } else if (Object.hasOwn(COMMANDS, command)) await COMMANDS[command](rest.trim());
      else io.err(`memwall: expected one of ${Object.keys(COMMANDS).join(", ")}, /bye, found ${JSON.stringify(command)}\n`);
      return true;
    },
  };
}
