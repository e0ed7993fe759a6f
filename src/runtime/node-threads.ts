import { availableParallelism, totalmem } from "node:os";
import { Worker } from "node:worker_threads";
import type { Spawn } from "../tensor/wasm/index.ts";
import { WORKER_BODY } from "../tensor/wasm/index.ts";

const SOURCE = `const data = require("node:worker_threads").workerData; ${WORKER_BODY}`;

/**
 * Starts a kernel thread as a Node worker. Its source is a string, so it runs alike from TypeScript sources, from dist and from an
 * installed package. It does not keep the process alive.
 */
export const spawnThread: Spawn = (data) => {
  const worker = new Worker(SOURCE, { eval: true, workerData: data, name: `memwall ${data.index}`, execArgv: [], stdin: false });
  // Threads join a job when they can: one that fails is one thread less, and the main thread does its share.
  worker.on("error", () => {});
  worker.unref();
  return { terminate: () => void worker.terminate() };
};

/** How many threads can run at once here. */
export const availableThreads = (): number => availableParallelism();

/** Memory of this machine, bytes. */
export const memoryBytes = (): number => totalmem();
