import { type BadLine, finishedIds, parseRequests, runBatch } from "../batch.ts";
import { POLICIES } from "../scheduler.ts";
import { choice, type Command, ENGINE_OPTIONS, type Io, loadEngine, MODEL_OPTIONS, number, SPECULATION_OPTIONS, text, UsageError, type Values } from "./command.ts";
import { neededOut } from "./output.ts";

/** How requests are batched; for all commands that run several. */
export const BATCH_OPTIONS = {
  "token-budget": { type: "string", value: "N", help: "most tokens in a step; auto (default): measured, where linears turn from memory-bound to compute-bound" },
  "tpot-ms": { type: "string", value: "MS", help: "the linears of a step shall take no longer: bounds the measured budget (attention comes on top)" },
  policy: { type: "string", value: "NAME", help: "chunked (default): prompts in chunks beside running requests; continuous: whole prompts; static: batch after batch" },
  preemption: { type: "string", value: "NAME", help: "what becomes of a request that gives its pages up: recompute (default) or swap" },
} as const;

/** The engine's options that those flags ask for. @throws UsageError. */
export function batchingFrom(values: Values) {
  return {
    tokenBudget: text(values, "token-budget") === "auto" ? ("auto" as const) : number(values, "token-budget", { integer: true, min: 1 }),
    tpotMs: number(values, "tpot-ms", { above: 0 }),
    policy: choice(values, "policy", POLICIES, "chunked"),
    preemption: choice(values, "preemption", ["recompute", "swap"] as const, "recompute"),
  };
}

export const batch: Command = {
  name: "batch",
  summary: "run a file of requests, one JSON object a line: {id, prompt, maxTokens, temperature, seed, stop}",
  stops: ["SIGINT"],
  options: {
    requests: { type: "string", value: "PATH", help: "the requests; only id and prompt must be there" },
    out: { type: "string", value: "PATH", help: "the results, a line each: {id, text, tokens, finishReason, metrics}; what is there already is not run again" },
    ...MODEL_OPTIONS,
    ...ENGINE_OPTIONS,
    ...SPECULATION_OPTIONS,
    ...BATCH_OPTIONS,
  },
  async run(values, io) {
    const requestsPath = text(values, "requests");
    if (requestsPath === undefined) throw new UsageError("--requests: expected a path, found nothing");
    const outPath = neededOut(values, io);
    const batching = batchingFrom(values);
    const { requests, bad } = parseRequests(await io.readText(requestsPath));
    const { appendLines } = await import("../node-lines.ts");
    const out = appendLines(outPath);
    try {
      const done = finishedIds(out.lines, outPath);
      const open = requests.filter(({ id }) => !done.has(String(id)));
      const failures = [...bad];
      const report = ({ line, problem }: BadLine) => io.err(`${io.interactive ? "\r\x1b[K" : ""}${requestsPath}: line ${line}: ${problem}\n`);
      bad.forEach(report);
      const progress = bar(io, requests.length, requests.length - open.length);
      if (open.length > 0) {
        const engine = await loadEngine(values, io, batching);
        try {
          await runBatch(engine, open, {
            signal: io.interrupted,
            onResult: (result) => {
              out.append(JSON.stringify(result));
              progress.tick(result.tokens.length);
            },
            onBad: (failure) => {
              failures.push(failure);
              report(failure);
            },
          });
        } finally {
          engine.close();
        }
      }
      progress.end();
      if (io.interrupted.aborted) throw new Error(`interrupted: the same command goes on with what is left`);
      if (failures.length > 0) throw new Error(`${requestsPath}: ${failures.length} of its lines could not be run, the first is line ${failures[0].line}`);
    } finally {
      out.close();
    }
  },
};

/** Progress for whoever watches, and one line at the end for everybody. */
function bar(io: Io, all: number, before: number) {
  const started = performance.now();
  let [done, tokens] = [before, 0];
  const speed = () => `${Math.round((tokens / (performance.now() - started)) * 1000)} tokens/s`;
  return {
    tick: (count: number) => {
      done++;
      tokens += count;
      const width = Math.floor((20 * done) / all);
      if (io.interactive) io.err(`\r\x1b[K[${"#".repeat(width).padEnd(20)}] ${done} of ${all}, ${speed()}`);
    },
    end: () => io.err(`${io.interactive ? "\r\x1b[K" : ""}${done} of ${all} requests done${before > 0 ? ` (${before} before)` : ""}, ${tokens} tokens, ${speed()}\n`),
  };
}
