import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { Engine } from "../../src/index.ts";

const guide = readFileSync(fileURLToPath(new URL("../../GUIDE.md", import.meta.url)), "utf8");
const model = fileURLToPath(new URL("../../fixtures/stories.gguf", import.meta.url));
const grouped = (value: number) => value.toLocaleString("en-US");

/** Bytes of weights that one decode step reads. */
async function weightsRead(weights: string): Promise<number> {
  const engine = await Engine.load(model, { weights });
  const stepper = engine.stepper("Once upon a time", { timing: false });
  stepper.nextToken();
  const bytes = stepper.pass.ops.reduce((sum, { record }) => sum + record.read.weights, 0);
  engine.close();
  return bytes;
}

describe("GUIDE.md", () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await Engine.load(model);
    return () => engine.close();
  });

  it("has ten stops", () => {
    expect([...guide.matchAll(/^### (\d+)\. /gm)].map(([, stop]) => Number(stop))).toEqual(Array.from({ length: 10 }, (_, i) => i + 1));
  });

  it("says what the ledger says of the ops it stops at", () => {
    const stepper = engine.stepper("Once upon a time", { timing: false });
    expect(stepper.tokens).toHaveLength(7);
    expect(guide).toContain(`**${stepper.op.record.read.weights} bytes**`);
    expect(guide).toContain(`**${grouped(stepper.runTo("attn_q", 0)!.record.flops)} flops**`);
    stepper.nextToken();
    const { flops, read } = stepper.runTo("attn_q", 0)!.record;
    expect(guide).toContain(`**${grouped(flops)} flops**`);
    expect(guide.match(new RegExp(`\\*\\*${(read.weights / 1000).toFixed(1)} kB\\*\\*`, "g"))).toHaveLength(2);
    const attention = stepper.runTo("attention", 0)!.record;
    expect(guide).toContain(`**${(attention.read.kv / 1000).toFixed(2)} kB**`);
    const perPosition = (attention.read.kv / attention.n) * engine.config.nLayers;
    expect(guide).toContain(`**${grouped(perPosition)} bytes**`);
    const weights = stepper.pass.ops.reduce((sum, { record }) => sum + record.read.weights, 0);
    expect(guide).toContain(`**${Math.round(weights / perPosition)} positions**`);
    stepper.close();
  });

  it("says what attention and gemv move of a long context's bytes, and gemv does of a short one's work", async () => {
    const traced = await Engine.load(model, { ledger: { timing: false } });
    const share = (percent: number | undefined) => `${Math.round(100 * percent!)} %`;
    traced.replay(Array.from({ length: 480 }, (_, i) => (i * 7919 + 1) % 512), 32).next();
    const { attention, gemv } = traced.breakdown().decode!.byKind;
    expect(guide).toContain(`attention moves ${share(attention?.byteShare)} of all bytes, and gemv ${share(gemv?.byteShare)}`);
    traced.ledger.clear();
    await traced.complete("Once upon a time", { temperature: 0, maxTokens: 100 });
    const short = traced.breakdown().decode!.byKind.gemv!;
    expect(guide.replaceAll("\n", " ")).toContain(`Of decode's flops ${share(short.flopShare)} are gemv, and so are ${share(short.byteShare)} of its bytes`);
    traced.close();
  });

  it.each(["f32", "keep", "int4"])("says what a step reads with %s weights", async (weights) => expect(guide).toContain(`**${grouped(await weightsRead(weights))}`));
});
