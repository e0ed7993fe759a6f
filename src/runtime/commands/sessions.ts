import type { Engine } from "../engine.ts";
import type { Session } from "../session.ts";
import { type Io, text, type Values } from "./command.ts";

export const SESSION_OPTIONS = {
  resume: { type: "string", value: "PATH", help: "go on with a saved session; a prompt is added to its text" },
  "save-session": { type: "string", value: "PATH", help: "write the text and its KV cache when done, to go on with later" },
} as const;

/** The session that the flags ask for, if any. @throws SnapshotError when the saved one is damaged or does not fit. */
export function sessionFrom(values: Values, io: Io, engine: Engine): Session | undefined {
  const path = text(values, "resume");
  if (path === undefined) return text(values, "save-session") === undefined ? undefined : engine.session();
  const source = io.openFile(path);
  try {
    const bytes = new Uint8Array(source.size);
    source.read(0, bytes);
    return engine.restoreSession(bytes, path);
  } finally {
    source.close();
  }
}
