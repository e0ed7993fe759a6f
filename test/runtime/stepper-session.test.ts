import { describe, expect, it } from "vitest";
import { HARDWARE } from "../../src/runtime/hardware/profiles.ts";
import { softmax } from "../../src/runtime/sampler.ts";
import { topIds } from "../../src/tensor/ranking.ts";
import { runSession } from "../../src/runtime/stepper/session.ts";
import { cli } from "../support/cli.ts";
import { SMALL } from "../support/models.ts";
import { drawnStepper } from "./stepper-bench.ts";

const DEVICE = HARDWARE.find(({ name }) => name === "a100-80g")!;

/** A session over the drawn model, as its transcript. */
async function transcript(script: readonly string[], columns = 100, bench = drawnStepper()): Promise<string> {
  let text = "";
  async function* lines() {
    for (const line of script) {
      text += `step> ${line}\n`;
      yield line;
    }
  }
  await runSession({ stepper: bench.stepper, columns, isHere: false, machine: () => DEVICE }, lines(), async (shown) => void (text += shown));
  return text;
}

const TOUR = [
  ...["n", "n 3", "ops", "where", "print", "print 0.attn_q 1 2:6", "print . 0 0", "stats attn_q", "hist attn_q"],
  ...["to attention", "attn 1", "cost", "layer", "back", "back 3", "to 1.ffn_down", "lens 2", "cost attn_q", "end", "top 4"],
  ...["zero-head 2 1", "scale *.ffn_down 0.5", "set 1.attn_norm 0 3:5", "patches", "unpatch 0", "unpatch"],
  ...["token", "to attention", "attn 0 0", "token 11", "back token", "back token", "back token", "stats blk.0.attn_q.weight", "print blk.1.ffn_down.weight 3 0:4", "quit", "n"],
];

describe("a stepping session", () => {
  it.each([100, 40])("shows this, %i columns wide", async (columns) => {
    const text = await transcript(TOUR, columns);
    await expect(text).toMatchFileSnapshot(`stepper-${columns}.golden.txt`);
    const shown = text.split("\n").filter((line) => !line.startsWith("step> "));
    expect(Math.max(...shown.map((line) => line.length))).toBeLessThanOrEqual(columns);
    expect(text).toMatch(/^[\x20-\x7e\n]*$/);
  });

  it("shows the decoder's own numbers", async () => {
    const bench = drawnStepper();
    const text = await transcript(["end", "top 3", "print output 0 0:3", "lens 1"], 100, bench);
    const logits = bench.stepper.pass.logits!;
    const probabilities = softmax(logits);
    for (const id of topIds(logits, 3)) expect(text).toContain(`${(probabilities[id] * 100).toFixed(1)} %  "t${id}"  id ${id}`);
    expect(text).toContain(`0: ${Array.from(logits.subarray(0, 3), (value) => value.toPrecision(4).padStart(10)).join(" ")}`);
    const [best] = topIds(logits, 1);
    expect(text).toContain(`layer 1    "t${best}" ${(probabilities[best] * 100).toFixed(1)} %`);
  });

  it("replays: what comes after going back is what came before", async () => {
    const once = ["token", "token", "end", "stats output"];
    const text = await transcript([...once, "back token", "back token", ...once]);
    const at = text.lastIndexOf("step> token");
    const second = text.slice(text.lastIndexOf("step> token", at - 1));
    expect(text.indexOf(second.trimEnd())).toBeLessThan(text.length / 2);
  });

  it.each([
    ["prnt", 'unknown command "prnt", did you mean print?'],
    ["xyzzyfoo", 'unknown command "xyzzyfoo": help lists them'],
    ["to attn_w", 'no op "attn_w" in this step, did you mean attn_q?'],
    ["to 5.attn_q", "layer: expected a whole number, 0 to 1, found \"5\""],
    ["to", "expected an op, such as attn_q or 2.ffn_down: ops all lists them"],
    ["n x", 'next: expected a whole number, 1 or more, found "x"'],
    ["print ffn_act", "ffn_act has not run yet in this step: to ffn_act runs to it"],
    ["print . 9", 'row: expected a whole number, 0 to 4, found "9"'],
    ["print . 0 8:4", 'columns: expected 5 or 0:8, within 0:32, found "8:4"'],
    ["stats blk.0.attn_x.weight", 'no weight "blk.0.attn_x.weight", did you mean blk.0.attn_q.weight?'],
    ["attn 0", "no attention yet in this step: to attention runs to it"],
    ["attn 9 0", 'head: expected a whole number, 0 to 3, found "9"'],
    ["scale attn_q loud", 'factor: expected a number, found "loud"'],
    ["set attn_q 1 99", 'columns: expected 5 or 0:8, within 0:32, found "99"'],
    ["zero-head 0", "layer: expected a whole number, 0 to 1, found none"],
    ["scale kv_write 0", "kv_write: the keys and values are already stored: patch rope_k (or attn_k) and attn_v"],
    ["unpatch 3", "patch: expected 0 to -1, found 3"],
    ["token 99", "token: expected an id below 40, found 99"],
    ["back", "this is the beginning"],
  ])("%s: one clear line, and the session goes on", async (line, says) => {
    const text = await transcript([line, "where"]);
    expect(text).toContain(`step> ${line}\n${says}\n`);
    expect(text.trimEnd().endsWith('"t3 t14 t15 t9 t26"')).toBe(true);
  });

  it("explains itself", async () => {
    const text = await transcript(["help", "help lens", "", "# a remark"], 80);
    for (const name of ["next", "layer", "token", "to", "back", "print", "hist", "attn", "lens", "cost", "zero-head", "scale", "set", "unpatch", "quit"]) {
      expect(text).toMatch(new RegExp(`^${name}\\b`, "m"));
    }
    expect(text.endsWith("step> \nstep> # a remark\n")).toBe(true);
  });

  it("knows naive attention and its scores", async () => {
    const text = await transcript(["to softmax", "attn 0", "zero-head 1 0"], 100, drawnStepper(SMALL, { attention: "naive" }));
    expect(text).toContain("attention of layer 0, head 0: 5 queries, 5 keys");
    expect(text).toContain("patch 0: 0.attention_mix, columns 8:16: zeroed");
  });
});

describe("run.ts step", () => {
  it("follows a script on standard input", () => {
    const { code, out, err } = cli(["step", "--prompt", "Once upon a time", "--backend", "scalar", "--hw", "a100-80g"], "end\ntop 1\ntoken\nto attention\nattn 0\ncost\nend\nlens 1\n");
    expect(err).toBe("");
    expect(code).toBe(0);
    expect(out).toMatch(/^step 0, prefill: \d+ tokens at position 0\n/);
    expect(out).toContain("step> end\n");
    expect(out).toMatch(/a100-80g balances at \d+/);
    expect(out).toMatch(/^layer 0 /m);
    const [, best] = /^step> top 1\n.*%  (".*")  id/m.exec(out)!;
    expect(out).toContain(`step 1, decode: token ${best} at position`);
  });

  it("refuses a machine that nobody knows, and a prompt from the script's own input", () => {
    expect(cli(["step", "--hw", "a100-80"])).toMatchObject({ code: 2, err: expect.stringMatching(/^memwall: --hw: expected one of .*did you mean a100-80g\?.*\n$/) as string });
    expect(cli(["step", "--prompt-file", "-"])).toMatchObject({ code: 2, err: expect.stringContaining("--prompt-file: expected a file, found -") as string });
  });
});
