import { formatThreads } from "../report.ts";
import { type App, createApp } from "../server/app.ts";
import { jsonReply } from "../server/http.ts";
import { BATCH_OPTIONS, batchingFrom } from "./batch.ts";
import { type Command, ENGINE_OPTIONS, flag, loadEngine, MODEL_OPTIONS, number, SPECULATION_OPTIONS, text, UsageError } from "./command.ts";

/** Only this machine: whoever wants more has to say so. */
const LOOPBACK = ["127.0.0.1", "::1", "localhost"];
const DEFAULT_PORT = 8080;
const DEFAULT_MAX_BODY = 4 << 20;
const DEFAULT_STALL_SECONDS = 60;

export const serve: Command = {
  name: "serve",
  summary: "an HTTP server with the OpenAI completions and chat completions endpoints",
  stops: ["SIGINT", "SIGTERM"],
  options: {
    port: { type: "string", value: "N", help: `port (default ${DEFAULT_PORT}; 0 takes a free one)` },
    host: { type: "string", value: "NAME", help: `address to listen on (default ${LOOPBACK[0]}, this machine only; 0.0.0.0 for all)` },
    token: { type: "string", value: "SECRET", help: "requests must bring it: Authorization: Bearer SECRET" },
    name: { type: "string", value: "NAME", help: "what the model is called (default: its file's name)" },
    "max-body": { type: "string", value: "BYTES", help: `largest request body (default ${DEFAULT_MAX_BODY})` },
    "max-tokens": { type: "string", value: "N", help: "most tokens that a request may ask for (default: the context)" },
    "max-concurrent": { type: "string", value: "N", help: "requests at once; more are refused with 429 (default 256)" },
    "max-queue": { type: "string", value: "N", help: "completions that may wait for the engine; more are refused with 503 (default 1024)" },
    "max-sequences": { type: "string", value: "N", help: "sequences that the KV cache holds at full context (default 16)" },
    stall: { type: "string", value: "SECONDS", help: `disconnect a client that takes nothing of its reply for so long (default ${DEFAULT_STALL_SECONDS})` },
    ledger: { type: "boolean", help: "count the bytes and flops of every op, for /metrics" },
    ...MODEL_OPTIONS,
    ...ENGINE_OPTIONS,
    ...SPECULATION_OPTIONS,
    ...BATCH_OPTIONS,
  },
  async run(values, io) {
    const port = number(values, "port", { integer: true, min: 0, max: 65535 }, DEFAULT_PORT);
    const host = text(values, "host") ?? LOOPBACK[0];
    if (host.trim() === "") throw new UsageError("--host: expected an address, found nothing");
    const maxBody = number(values, "max-body", { integer: true, min: 1 }, DEFAULT_MAX_BODY);
    const stallMs = number(values, "stall", { min: 0.001, max: 86400 }, DEFAULT_STALL_SECONDS) * 1000;
    const maxTokens = number(values, "max-tokens", { integer: true, min: 1 });
    const maxConcurrent = number(values, "max-concurrent", { integer: true, min: 1 });
    const maxQueue = number(values, "max-queue", { integer: true, min: 1 });
    const maxSequences = number(values, "max-sequences", { integer: true, min: 1 });
    const batching = batchingFrom(values);
    const token = text(values, "token");
    if (token?.trim() === "") throw new UsageError("--token: expected a secret, found nothing");
    const path = text(values, "model") ?? io.shippedModel;
    const model = text(values, "name") ?? nameOf(path);
    let app: App | undefined;
    // The address is taken before the model is loaded: whether it can be had shows at once.
    const listening = await io.serve((request) => (app ? app.handle(request) : Promise.resolve(jsonReply(503, { status: "loading" }))), { host, port, maxBody, stallMs });
    try {
      const engine = await loadEngine(values, io, { ...batching, maxQueue, maxSequences, ledger: flag(values, "ledger") });
      try {
        if (io.interrupted.aborted) return;
        // Merges are looked at when text is first encoded: what is wrong with them ends the server here, not every request.
        engine.tokenizer.encode("a");
        app = createApp(engine, { model, token, maxTokens, maxConcurrent });
        const at = `http://${listening.host.includes(":") ? `[${listening.host}]` : listening.host}:${listening.port}`;
        io.err(`${model} at ${at}/v1 (${engine.backend}, ${formatThreads(engine.threads)})${token === undefined && !LOOPBACK.includes(host) ? "; no --token: open to everyone who reaches it" : ""}\n`);
        await aborted(io.interrupted);
        io.err("finishing what runs; once more ends at once\n");
        app.stop();
        await listening.close();
      } finally {
        engine.close();
      }
    } finally {
      await listening.close();
    }
  },
};

/** "models/stories.gguf" is served as "stories". */
function nameOf(path: string): string {
  const last = path.split(/[\\/]/).filter((part) => part !== "").at(-1) ?? path;
  return last.replace(/\.(gguf|bin)$/i, "");
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
