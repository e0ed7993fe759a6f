import { nearest } from "./nearest.ts";
import { actions } from "./actions.ts";
import { place as whereAmI } from "./inspect.ts";
import type { Hardware } from "../hardware/hardware.ts";
import type { Stepper } from "./stepper.ts";
import { wrap } from "./views.ts";

/** What the commands of a session work with. */
export interface Session {
  readonly stepper: Stepper;
  /** Characters in a line. */
  readonly columns: number;
  /** The machine whose roofline is shown; measured when first asked for. */
  machine(): Hardware;
  /** Whether that is the machine that runs this session, so that measured times can be held against its roof. */
  readonly isHere: boolean;
}

/** A command of the stepping session. */
export interface Action {
  readonly name: string;
  readonly short?: string;
  /** Arguments, for help. */
  readonly usage: string;
  readonly help: string;
  /** Gives the lines to show. @throws RangeError whose message is shown instead. */
  run(session: Session, args: readonly string[]): readonly string[];
}

/**
 * An interactive session: reads commands, one a line, and writes what they show. Ends with `quit` or the last line.
 * What goes wrong is one line, and the session goes on.
 */
export async function runSession(session: Session, lines: AsyncIterable<string>, out: (text: string) => Promise<void>): Promise<void> {
  const show = (text: readonly string[]) => out(text.length === 0 ? "" : `${text.map((line) => wrap(line, session.columns)).join("\n")}\n`);
  await show([...whereAmI(session), "help lists the commands"]);
  for await (const line of lines) {
    const [word, ...args] = line.trim().split(/\s+/);
    if (word === "" || word.startsWith("#")) continue;
    if (word === "quit" || word === "q") return;
    await show(answer(session, word, args));
  }
}

function answer(session: Session, word: string, args: readonly string[]): readonly string[] {
  const action = actions.find(({ name, short }) => word === name || word === short);
  if (action) {
    try {
      return action.run(session, args);
    } catch (error) {
      if (error instanceof RangeError) return [error.message];
      throw error;
    }
  }
  if (word === "help" || word === "h" || word === "?") return help(args[0]);
  const meant = nearest(word, [...actions.map(({ name }) => name), "help", "quit"]);
  return [`unknown command ${JSON.stringify(word)}${meant ? `, did you mean ${meant}?` : ": help lists them"}`];
}

function help(name: string | undefined): readonly string[] {
  const one = name === undefined ? undefined : actions.find((action) => action.name === name || action.short === name);
  if (one) return [`${one.name} ${one.usage}`.trim(), one.help];
  const line = ({ name, short, usage, help }: Action) => `${name}${short ? ` (${short})` : ""}${usage ? ` ${usage}` : ""}: ${help}`;
  return [
    ...actions.map(line),
    "quit (q): leave",
    "OP is an op's name, as ops lists them, after its layer: 2.ffn_down; without a layer the last one that ran; *.ffn_down in every layer (for patches).",
    "WEIGHT is a name as inspect lists them: blk.0.attn_q.weight. COLUMNS is 5, or 0:8.",
  ];
}
