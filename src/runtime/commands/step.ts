import { quickHardware } from "../hardware/measure-machine.ts";
import { runSession } from "../stepper/session.ts";
import { type Command, ENGINE_OPTIONS, loadEngine, MODEL_OPTIONS, promptFrom, PROMPT_OPTIONS, text, UsageError } from "./command.ts";
import { oneDevice } from "./hardware-options.ts";

const DEFAULT_PROMPT = "Once upon a time";

export const step: Command = {
  name: "step",
  summary: "a debugger for tokens: op by op through the decoder, from the keyboard or from a script on standard input",
  options: {
    ...MODEL_OPTIONS,
    ...PROMPT_OPTIONS,
    ...ENGINE_OPTIONS,
    hw: { type: "string", value: "DEVICE", help: "the machine, or FILE.json, whose roofline cost shows (default: this one, measured)" },
  },
  async run(values, io) {
    if (text(values, "prompt-file") === "-") throw new UsageError("--prompt-file: expected a file, found -: standard input is for the session's commands");
    const named = text(values, "hw") === undefined ? undefined : await oneDevice(values, io);
    const prompt = (await promptFrom(values, io)) ?? DEFAULT_PROMPT;
    const engine = await loadEngine(values, io);
    try {
      const stepper = engine.stepper(prompt);
      let machine = named;
      const session = { stepper, columns: io.columns, isHere: named === undefined, machine: () => (machine ??= quickHardware(stepper.kernels)) };
      await runSession(session, io.lines("step> "), io.out);
    } finally {
      engine.close();
    }
  },
};
