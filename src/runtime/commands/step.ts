import type { Hardware } from "../hardware/hardware.ts";
import { unknownName } from "../hardware/nearest.ts";
import { HARDWARE, HARDWARE_NAMES } from "../hardware/profiles.ts";
import { measureMachine } from "../stepper/machine.ts";
import { runSession } from "../stepper/session.ts";
import { type Command, ENGINE_OPTIONS, loadEngine, MODEL_OPTIONS, promptFrom, PROMPT_OPTIONS, text, UsageError } from "./command.ts";

const DEFAULT_PROMPT = "Once upon a time";

export const step: Command = {
  name: "step",
  summary: "a debugger for tokens: op by op through the decoder, from the keyboard or from a script on standard input",
  options: {
    ...MODEL_OPTIONS,
    ...PROMPT_OPTIONS,
    ...ENGINE_OPTIONS,
    hw: { type: "string", value: "NAME", help: "the machine whose roofline cost shows (default: this one, measured)" },
  },
  async run(values, io) {
    if (text(values, "prompt-file") === "-") throw new UsageError("--prompt-file: expected a file, found -: standard input is for the session's commands");
    const named = hardwareNamed(text(values, "hw"));
    const prompt = (await promptFrom(values, io)) ?? DEFAULT_PROMPT;
    const engine = await loadEngine(values, io);
    try {
      const stepper = engine.stepper(prompt);
      let machine = named;
      const session = { stepper, columns: io.columns, isHere: named === undefined, machine: () => (machine ??= measureMachine(stepper.kernels)) };
      await runSession(session, io.lines("step> "), io.out);
    } finally {
      engine.close();
    }
  },
};

function hardwareNamed(name: string | undefined): Hardware | undefined {
  if (name === undefined) return undefined;
  const found = HARDWARE.find((one) => one.name === name.toLowerCase());
  if (!found) throw new UsageError(`--hw: ${unknownName(name, HARDWARE_NAMES)}`);
  return found;
}
