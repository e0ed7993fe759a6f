import { argmax, topIds } from "../../tensor/ranking.ts";
import { expectFinite, softmax } from "../sampler.ts";
import { type Command, ENGINE_OPTIONS, flag, JSON_OPTION, loadEngine, MODEL_OPTIONS, number, promptFrom, PROMPT_OPTIONS } from "./command.ts";

export const logits: Command = {
  name: "logits",
  summary: "the model's next-token probabilities after every position of a prompt",
  options: {
    ...MODEL_OPTIONS,
    ...PROMPT_OPTIONS,
    top: { type: "string", value: "K", help: "how many tokens to list (default 10)" },
    ...ENGINE_OPTIONS,
    ...JSON_OPTION,
  },
  async run(values, io) {
    const top = number(values, "top", { integer: true, min: 1 }, 10);
    const prompt = (await promptFrom(values, io)) ?? "";
    const engine = await loadEngine(values, io);
    try {
      const tokens = engine.promptTokens(prompt);
      const positions: { token: number; argmax: number; top: [number, number][] }[] = [];
      for (const row of engine.logits(tokens)) {
        const probabilities = softmax(row);
        const largest = argmax(row);
        // One that is no number makes all probabilities none.
        expectFinite(row[largest] + 0 * probabilities[largest], row.length);
        const best = topIds(row, top).map((id): [number, number] => [id, probabilities[id]]);
        positions.push({ token: tokens[positions.length], argmax: largest, top: best });
      }
      if (flag(values, "json")) return await io.out(`${JSON.stringify({ positions })}\n`);
      const show = (id: number) => JSON.stringify(engine.tokenizer.piece(id));
      for (const { token, top: best } of positions) {
        await io.out(`${show(token).padEnd(16)} ${best.map(([id, p]) => `${show(id)} ${(p * 100).toFixed(1)} %`).join("  ")}\n`);
      }
    } finally {
      engine.close();
    }
  },
};
