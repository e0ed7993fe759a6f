import type { Engine } from "../engine.ts";
import type { Generation, GenerationResult } from "../generation.ts";
import { errorBody } from "./errors.ts";
import { gather } from "./gather.ts";
import { type HttpReply, jsonReply, SSE_DONE, sseEvent } from "./http.ts";
import { type Dialect, usageOf } from "./shapes.ts";
import { startAll, type Wanted } from "./start.ts";

export interface Asked extends Wanted {
  readonly dialect: Dialect;
  /** The field that the prompts came from, for errors about them. */
  readonly param: string;
}

/** What all answers to one request have in common. */
interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

/** Starts what is asked for; `onStart` gets the generations as soon as they run. @throws ApiError. */
export async function answer(engine: Engine, model: string, asked: Asked, signal: AbortSignal, onStart: (generations: readonly Generation[]) => void): Promise<HttpReply> {
  const generations = startAll(engine, asked, asked.param, signal);
  onStart(generations);
  const head: Head = { id: `${asked.dialect.idPrefix}-${crypto.randomUUID().replaceAll("-", "")}`, created: Math.floor(Date.now() / 1000), model };
  if (asked.stream) {
    return { status: 200, headers: { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" }, body: events(generations, asked, head) };
  }
  try {
    const results = await Promise.all(generations.map(({ result }) => result));
    const { dialect, n } = asked;
    return jsonReply(200, { ...head, object: dialect.object, choices: results.map((result, index) => dialect.choice(index, result)), usage: usageOf(results, n) });
  } finally {
    for (const generation of generations) generation.cancel(); // When one failed, nobody waits for the others.
  }
}

/** The stream of one request: chunks, the usage if it is wanted, `[DONE]`; an error in the middle is a chunk of its own, and the last. */
async function* events(generations: readonly Generation[], { dialect, includeUsage, n }: Asked, head: Head): AsyncGenerator<string, void, undefined> {
  const chunk = (choices: readonly object[], usage: object | null = null) => sseEvent({ ...head, object: dialect.chunkObject, choices, ...(includeUsage && { usage }) });
  try {
    for (let index = 0; index < generations.length; index++) {
      const opening = dialect.opening(index);
      if (opening) yield chunk([opening]);
    }
    for await (const piece of gather(generations)) yield chunk([dialect.delta(piece)]);
    const results: GenerationResult[] = await Promise.all(generations.map(({ result }) => result));
    if (includeUsage) yield chunk([], usageOf(results, n));
    yield SSE_DONE;
  } catch (error) {
    yield sseEvent(errorBody(error));
  } finally {
    for (const generation of generations) generation.cancel();
  }
}
