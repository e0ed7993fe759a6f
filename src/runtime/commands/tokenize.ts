import { openModel } from "../../model/open.ts";
import { type Command, flag, type Io, JSON_OPTION, MODEL_OPTIONS, text, UsageError, type Values } from "./command.ts";

/** Looks at a model file without loading its weights. */
export function openFrom(values: Values, io: Io) {
  const source = io.openFile(text(values, "model") ?? io.shippedModel);
  const tokenizer = text(values, "tokenizer");
  return openModel(source, tokenizer === undefined ? undefined : io.openFile(tokenizer));
}

export const tokenize: Command = {
  name: "tokenize",
  summary: "the token ids of a text",
  options: {
    ...MODEL_OPTIONS,
    text: { type: "string", value: "TEXT", help: "the text" },
    file: { type: "string", value: "PATH", help: "read the text from a file, or from standard input with -" },
    bos: { type: "boolean", help: "begin with the model's BOS token" },
    special: { type: "boolean", help: "read the names of control tokens in the text as those tokens" },
    ...JSON_OPTION,
  },
  async run(values, io) {
    const [given, path] = [text(values, "text"), text(values, "file")];
    if ((given === undefined) === (path === undefined)) throw new UsageError("--text or --file: expected one of them");
    const { tokenizer, source } = openFrom(values, io);
    const content = given ?? (path === "-" ? await io.readStdin() : await io.readText(path!));
    const ids = tokenizer.encode(content, { special: flag(values, "special") });
    if (flag(values, "bos")) {
      if (tokenizer.bos === undefined) throw new Error(`${source.name}: --bos: the model has no BOS token`);
      ids.unshift(tokenizer.bos);
    }
    source.close();
    const pieces = ids.map((id) => tokenizer.piece(id));
    if (flag(values, "json")) return io.out(`${JSON.stringify({ ids, pieces })}\n`);
    await io.out(ids.map((id, i) => `${String(id).padStart(6)}  ${JSON.stringify(pieces[i])}\n`).join(""));
  },
};
