import { percent } from "../report.ts";
import { columnRange, opReference, type Reference, resolveTensor, wholeNumber } from "./arguments.ts";
import { candidateList, costLines, labelOf, place, quoted } from "./inspect.ts";
import { describePatch, type Patch, zeroHead } from "./patch.ts";
import type { Action, Session } from "./session.ts";
import type { OpView, PatchEffect, Stepper } from "./stepper.ts";
import { heatMap, histogramLines, keyBars, shapeOf, sliceLines, statistics, statisticsLine } from "./views.ts";

/** Where a move ended, or why it did not. */
const moved = (session: Session, to: OpView | undefined) => (to ? place(session) : ["the model ended its text; token ID goes on with a token of your choice"]);

const move: readonly Action[] = [
  {
    ...{ name: "next", short: "n", usage: "[N]", help: "run the next op, or the next N" },
    run(session, [times]) {
      const { stepper } = session;
      for (let left = wholeNumber("next", times, 1, 1); left > 0; left--) if (!stepper.nextOp()) return moved(session, undefined);
      return place(session);
    },
  },
  {
    ...{ name: "layer", short: "l", usage: "", help: "run to the first op of the next layer" },
    run: (session) => moved(session, session.stepper.nextLayer()),
  },
  {
    ...{ name: "token", short: "t", usage: "[ID]", help: "finish this token and begin the next one: the most probable, or the token with this id" },
    run: (session, [id]) => moved(session, session.stepper.nextToken(id === undefined ? undefined : wholeNumber("token", id, 0))),
  },
  {
    ...{ name: "to", usage: "OP", help: "run to the next op of this name, if need be in the next token" },
    run(session, [given]) {
      const { name, layer } = opReference(session.stepper, given);
      return moved(session, session.stepper.runTo(name, layer));
    },
  },
  {
    ...{ name: "end", short: "e", usage: "", help: "run to the last op of this token, the choice of the next" },
    run(session) {
      const { stepper } = session;
      while (stepper.op.index + 1 < stepper.pass.ops.length) stepper.nextOp();
      return place(session);
    },
  },
  {
    ...{ name: "back", short: "b", usage: "[N | token]", help: "one op back, or N; back token goes to the beginning of the token before: the KV cache is cut there and the pass replayed" },
    run(session, [what]) {
      const { stepper } = session;
      if (what === "token") return stepper.backToken() ? place(session) : ["this is the first step"];
      for (let left = wholeNumber("back", what, 1, 1); left > 0; left--) if (!stepper.back()) return ["this is the beginning", ...place(session)];
      return place(session);
    },
  },
];

const look: readonly Action[] = [
  { ...{ name: "where", short: "w", usage: "", help: "which op ran last, and the text so far" }, run: (session) => [...place(session), JSON.stringify(textSoFar(session.stepper))] },
  {
    ...{ name: "ops", usage: "[all]", help: "the ops of this layer, or of the whole step; > marks the last one that ran" },
    run({ stepper }, [all]) {
      const { layer } = stepper.op.record;
      const shown = stepper.pass.ops.filter(({ record }) => all === "all" || record.layer === layer);
      return shown.map((op) => `${op === stepper.op ? ">" : " "} ${labelOf(op).padEnd(17)} ${op.record.kind.padEnd(11)} ${shapeOf(op.output)}`);
    },
  },
  {
    ...{ name: "print", short: "p", usage: "[OP | WEIGHT] [ROW] [COLUMNS]", help: "values of a tensor, of its last row unless ROW is given" },
    run({ stepper, columns }, args) {
      const tensor = resolveTensor(stepper, args[0]);
      const row = wholeNumber("row", args[1], 0, tensor.defaultRow, tensor.rows - 1);
      const [from, to] = columnRange(args[2] ?? `0:${Math.min(16, tensor.cols)}`, tensor.cols);
      return [`${tensor.label} [${tensor.shape.join(", ")}], row ${row}, columns ${from}:${to}`, ...sliceLines(tensor.read(row, row + 1), from, to, columns)];
    },
  },
  {
    ...{ name: "stats", short: "s", usage: "[OP | WEIGHT]", help: "least, greatest, mean, deviation and length of a whole tensor" },
    run({ stepper }, [name]) {
      const tensor = resolveTensor(stepper, name);
      return [`${tensor.label} [${tensor.shape.join(", ")}]`, statisticsLine(statistics(tensor.read(0, tensor.rows)))];
    },
  },
  {
    ...{ name: "hist", usage: "[OP | WEIGHT]", help: "histogram of a whole tensor" },
    run({ stepper, columns }, [name]) {
      const tensor = resolveTensor(stepper, name);
      return [`${tensor.label} [${tensor.shape.join(", ")}]: value, count`, ...histogramLines(tensor.read(0, tensor.rows), columns)];
    },
  },
  {
    ...{ name: "attn", short: "a", usage: "HEAD [LAYER]", help: "attention weights of a head in the last layer that has them, as a heat map; for one token as bars" },
    run({ stepper, columns }, [head, layer]) {
      const { nHeads, nLayers } = stepper.model.config;
      const last = stepper.find(stepper.attentionMethod === "naive" ? "softmax" : "attention")?.record.layer;
      if (last === undefined && layer === undefined) return ["no attention yet in this step: to attention runs to it"];
      const at = wholeNumber("layer", layer, 0, last, nLayers - 1);
      const h = wholeNumber("head", head, 0, 0, nHeads - 1);
      const weights = stepper.attention(at);
      const tokens = stepper.tokens;
      const label = (position: number) => stepper.tokenizer.piece(tokens[position]);
      const title = `attention of layer ${at}, head ${h}: ${weights.queries} ${weights.queries === 1 ? "query" : "queries"}, ${weights.keys} keys`;
      return [title, ...(weights.queries === 1 ? keyBars(weights.at(h), weights.position, label, columns) : heatMap(weights.at(h), weights, label, columns))];
    },
  },
  {
    ...{ name: "lens", usage: "[K]", help: "logit lens: the K most probable next tokens (default 3) if the model ended after each layer that has run" },
    run({ stepper }, [k]) {
      return stepper.lens(wholeNumber("lens", k, 1, 3)).map(({ layer, top }) => `${layer < 0 ? "embedding" : `layer ${layer}`.padEnd(9)}  ${candidateList(stepper, top)}`);
    },
  },
  {
    ...{ name: "top", usage: "[K]", help: "the K most probable next tokens after this step (default 5)" },
    run({ stepper }, [k]) {
      const top = stepper.top(wholeNumber("top", k, 1, 5));
      return top.length === 0 ? ["the rest of the prompt comes next: token runs it"] : top.map(({ id, probability }) => `${percent(probability).padStart(7)}  ${quoted(stepper, id)}  id ${id}`);
    },
  },
  {
    ...{ name: "cost", short: "c", usage: "[OP]", help: "an op's flops and bytes, and where they put it on the machine's roofline" },
    run(session, [given]) {
      return costLines(session, given === undefined ? session.stepper.op : done(session.stepper, opReference(session.stepper, given)));
    },
  },
];

const change: readonly Action[] = [
  {
    ...{ name: "zero-head", usage: "HEAD [LAYER | *]", help: "take out what a head adds, in this layer, another, or all of them (*)" },
    run({ stepper }, [head, layer]) {
      const { nHeads, nLayers } = stepper.model.config;
      const own = stepper.op.record.layer;
      const h = wholeNumber("head", head, 0, undefined, nHeads - 1);
      const at = layer === "*" ? undefined : wholeNumber("layer", layer, 0, own < 0 ? undefined : own, nLayers - 1);
      return patched(stepper, zeroHead(stepper.model.config, stepper.attentionMethod, h, at));
    },
  },
  {
    ...{ name: "scale", usage: "OP FACTOR [COLUMNS]", help: "multiply what an op gives" },
    run: ({ stepper }, [op, factor, columns]) => patched(stepper, changeOf(stepper, op, { scale: real("factor", factor) }, columns)),
  },
  {
    ...{ name: "set", usage: "OP VALUE [COLUMNS]", help: "put a value in the place of what an op gives" },
    run: ({ stepper }, [op, value, columns]) => patched(stepper, changeOf(stepper, op, { set: real("value", value) }, columns)),
  },
  {
    ...{ name: "patches", usage: "", help: "what is changed: patches act on this step and all after it; go back to let them act on earlier ones" },
    run: ({ stepper }) => (stepper.patches.length === 0 ? ["no patches"] : stepper.patches.map((patch, i) => `${i}: ${describePatch(patch)}`)),
  },
  {
    ...{ name: "unpatch", usage: "[N]", help: "take patch N off, or all" },
    run: ({ stepper }, [index]) => effect(stepper, stepper.unpatch(index === undefined ? undefined : wholeNumber("unpatch", index, 0))),
  },
];

/** All commands but help and quit. */
export const actions: readonly Action[] = [...move, ...look, ...change];

function textSoFar(stepper: Stepper): string {
  return stepper.tokenizer.decode(stepper.tokens);
}

function done(stepper: Stepper, { name, layer }: Reference): OpView {
  const found = stepper.find(name, layer);
  if (found) return found;
  throw new RangeError(`${layer === undefined ? name : `${layer}.${name}`} has not run yet in this step: to ${layer === undefined ? name : `${layer}.${name}`} runs to it`);
}

function changeOf(stepper: Stepper, op: string | undefined, change: Patch["change"], columns: string | undefined): Patch {
  const { name, layer, every } = opReference(stepper, op);
  const own = stepper.op.record.layer;
  const layers = stepper.pass.ops.filter(({ record }) => record.name === name).map(({ record }) => record.layer);
  const at = every ? undefined : (layer ?? (layers.includes(own) ? own : layers[0]));
  const width = stepper.pass.ops.find(({ record }) => record.name === name)!.output.cols;
  return { name, layer: at, change, ...(columns !== undefined && { columns: columnRange(columns, width) }) };
}

function patched(stepper: Stepper, patch: Patch): string[] {
  const result = stepper.patch(patch);
  return [`patch ${stepper.patches.length - 1}: ${describePatch(patch)}`, ...effect(stepper, result)];
}

function effect(stepper: Stepper, { before, after, divergence }: PatchEffect): string[] {
  if (after.length === 0) return ["this step has no outcome yet: the rest of the prompt comes next"];
  return [`before  ${candidateList(stepper, before.slice(0, 3))}`, `after   ${candidateList(stepper, after.slice(0, 3))}`, `the outcome moved by ${divergence.toPrecision(3)} bits`];
}

function real(what: string, given: string | undefined): number {
  const value = given === undefined ? NaN : Number(given);
  if (!Number.isFinite(value)) throw new RangeError(`${what}: expected a number, found ${given === undefined ? "none" : JSON.stringify(given)}`);
  return value;
}
