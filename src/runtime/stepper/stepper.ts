import type { KvCache, KvSequence } from "../../kvcache/cache.ts";
import { kindOfLayer } from "../../model/config.ts";
import { attentionOf, forward, makeBatch, type Model, seenBy } from "../../model/decoder.ts";
import type { Tokenizer } from "../../model/tokenizer/tokenizer.ts";
import type { Kernels, Segment } from "../../tensor/kernels.ts";
import type { OpRecord, Phase } from "../../tensor/ledger.ts";
import type { AttentionMethod, Ops } from "../../tensor/ops.ts";
import { f32, type Tensor } from "../../tensor/tensor.ts";
import { greedy, softmax } from "../sampler.ts";
import { type AttentionWeights, attentionWeights, weightsOf } from "./attention-weights.ts";
import { type Candidate, divergenceBits, type LensRow, logitLens, topCandidates } from "./lens.ts";
import { applyPatches, checkPatch, type Patch } from "./patch.ts";

/** One op of a pass, after it ran. */
export interface OpView {
  /** Its place in the pass. */
  readonly index: number;
  readonly record: OpRecord;
  /** A copy of what the op gave, patches included. */
  readonly output: Tensor;
  readonly patched: boolean;
}

/** One run of the decoder over some tokens: a chunk of the prompt, or one generated token. */
export interface Pass {
  readonly phase: Phase;
  readonly tokens: readonly number[];
  /** Position of the first token. */
  readonly start: number;
  readonly ops: readonly OpView[];
  /** Where its keys and values are. */
  readonly segment: Segment;
  /** Logits [vocabSize] after the last token; undefined for a chunk of the prompt that others follow. */
  readonly logits: Float32Array | undefined;
  /** The most probable next token. */
  readonly choice: number | undefined;
}

/** What a patch did to the outcome of the pass at hand. */
export interface PatchEffect {
  readonly before: readonly Candidate[];
  readonly after: readonly Candidate[];
  /** Kullback-Leibler divergence of the outcome before from the one after, in bits. */
  readonly divergence: number;
}

/** What a stepper takes besides the prompt. */
export interface StepperParams {
  /** Measure each op (default true). */
  timing?: boolean;
}

export interface StepperInit {
  readonly model: Model;
  /** For this stepper alone, with its ledger on. */
  readonly ops: Ops;
  readonly cache: KvCache;
  readonly tokenizer: Tokenizer;
  /** Positions of the context. */
  readonly context: number;
  readonly prompt: readonly number[];
}

/** Most bytes of op outputs that one pass may keep; longer prompts come in several passes. */
const RECORD_BYTES = 128 << 20;
const LONGEST_CHUNK = 256;

/**
 * A debugger for tokens. A pass of the decoder runs at once and leaves a record of every op with its output; stepping moves a cursor along
 * that record, and what lies behind the cursor can be looked at. Patches change outputs while a pass runs, so setting one runs the
 * pass again. Going back to an earlier token cuts the KV cache to where that pass began, and runs it again. Decoding is greedy: a replay
 * without patches gives the same numbers, bit for bit.
 */
export class Stepper {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  readonly kernels: Kernels;
  private readonly init: StepperInit;
  private readonly ops: Ops;
  private readonly sequence: KvSequence;
  private readonly starts: { tokens: readonly number[]; start: number }[] = [];
  private readonly active: Patch[] = [];
  private readonly chunk: number;
  private current: Pass;
  private cursor = 0;
  private closed = false;

  constructor(init: StepperInit) {
    this.init = init;
    this.model = init.model;
    this.tokenizer = init.tokenizer;
    this.ops = init.ops;
    this.kernels = init.ops.kernels;
    this.sequence = init.cache.create();
    this.chunk = Math.max(1, Math.min(LONGEST_CHUNK, Math.floor(RECORD_BYTES / outputBytes(init.model))));
    this.current = this.enter(init.prompt.slice(0, this.chunk), 0);
  }

  /** The pass at hand. */
  get pass(): Pass {
    return this.current;
  }

  /** The op at the cursor: the last one that counts as done. */
  get op(): OpView {
    return this.current.ops[this.cursor];
  }

  /** The tokens that it began with. */
  get prompt(): readonly number[] {
    return this.init.prompt;
  }

  /** How many passes came before this one. */
  get passIndex(): number {
    return this.starts.length - 1;
  }

  /** All tokens fed so far, this pass included. */
  get tokens(): number[] {
    return this.starts.flatMap(({ tokens }) => tokens);
  }

  get patches(): readonly Patch[] {
    return this.active;
  }

  get attentionMethod(): AttentionMethod {
    return this.ops.attentionMethod;
  }

  /** One op further; past the last one, the first op of the next token. Undefined when the generation is over. */
  nextOp(): OpView | undefined {
    if (this.cursor + 1 < this.current.ops.length) this.cursor++;
    else if (!this.nextToken()) return undefined;
    return this.op;
  }

  /** To the first op of the next layer, or of what comes after the last one. */
  nextLayer(): OpView | undefined {
    const { layer } = this.op.record;
    do if (!this.nextOp()) return undefined;
    while (this.op.record.layer === layer && this.cursor > 0);
    return this.op;
  }

  /**
   * Runs the next pass, and stands at its first op: the rest of the prompt while there is one, then the most probable token, or `token`.
   * Undefined when the model chose to end. @throws RangeError when the context is full or the token is not of this vocabulary.
   */
  nextToken(token?: number): OpView | undefined {
    const { prompt, context } = this.init;
    const { start, tokens, choice } = this.current;
    const end = start + tokens.length;
    if (token !== undefined && !(Number.isSafeInteger(token) && token >= 0 && token < this.tokenizer.vocabSize)) {
      throw new RangeError(`token: expected an id below ${this.tokenizer.vocabSize}, found ${token}`);
    }
    if (end < prompt.length) {
      if (token !== undefined) throw new RangeError(`token: expected none while ${prompt.length - end} of the prompt's are still to come, found ${token}`);
      this.current = this.enter(prompt.slice(end, end + this.chunk), end);
      return this.op;
    }
    const next = token ?? choice!;
    if (token === undefined && this.tokenizer.eos.includes(next)) return undefined;
    if (end >= context) throw new RangeError(`context: all ${context} positions are taken`);
    this.current = this.enter([next], end);
    return this.op;
  }

  /** Runs on to the next op of this name (and layer), into the next token if need be. @throws RangeError when there is none. */
  runTo(name: string, layer?: number): OpView | undefined {
    const wanted = ({ record }: OpView) => record.name === name && (layer === undefined || record.layer === layer);
    if (!this.current.ops.some(wanted)) throw new RangeError(`expected an op of this step, found ${layer === undefined ? name : `${layer}.${name}`}`);
    do if (!this.nextOp()) return undefined;
    while (!wanted(this.op));
    return this.op;
  }

  /** One op back; before the first one, the last op of the token before. False at the very beginning. */
  back(): boolean {
    if (this.cursor > 0) {
      this.cursor--;
      return true;
    }
    if (!this.backToken()) return false;
    this.cursor = this.current.ops.length - 1;
    return true;
  }

  /** To the first op of the pass before this one, which runs again. False at the very beginning. */
  backToken(): boolean {
    if (this.starts.length < 2) return false;
    this.current = this.replay(this.passIndex - 1);
    return true;
  }

  /** The op of this name that was done last, in `layer` if given. Undefined when it has not run yet in this pass. */
  find(name: string, layer?: number): OpView | undefined {
    for (let i = this.cursor; i >= 0; i--) {
      const op = this.current.ops[i];
      if (op.record.name === name && (layer === undefined || op.record.layer === layer)) return op;
    }
    return undefined;
  }

  /** The last op on one and the same tensor, of those that may work on it in turn. */
  private lastOf(names: readonly string[], layer?: number): OpView | undefined {
    for (const name of names) {
      const found = this.find(name, layer);
      if (found) return found;
    }
    return undefined;
  }

  /** Attention weights of a layer in this pass. @throws RangeError when its queries are not there yet. */
  attention(layer: number): AttentionWeights {
    const recorded = this.find("softmax", layer);
    const segment = seenBy(this.model.kinds[kindOfLayer(this.model.config, layer)], this.current.segment);
    if (recorded) return weightsOf(segment, recorded.output);
    if (!this.find("attention", layer)) throw new RangeError(`attention of layer ${layer}: not computed yet`);
    const placed = this.model.config.normsRotated ? ["attn_q_norm", "rope_q"] : ["rope_q", "attn_q_norm"];
    const q = this.lastOf([...placed, "clamp_q", "attn_q"], layer)!;
    const shape = attentionOf(this.model, layer);
    return attentionWeights(shape, this.kernels, q.output, segment, layer, this.lastOf(["attn_q_norm_sinks", "rope_q_sinks"], layer)?.output);
  }

  /** The logit lens on the last token of this pass, for the embedding and every layer that is done. */
  lens(top = 5, row = this.current.tokens.length - 1): LensRow[] {
    const { dim } = this.model.config;
    const done = this.current.ops.slice(0, this.cursor + 1).filter(({ record: { name } }) => name === "ffn_residual");
    const first = this.lastOf(["token_embd_norm", "add_position", "embedding_scale", "token_embd"])!;
    return logitLens(this.model, this.ops, [first, ...done].map(({ record: { layer }, output }) => ({ layer, values: output.f32.subarray(row * dim, (row + 1) * dim) })), top);
  }

  /** The most probable next tokens after this pass. Empty while more of the prompt is to come. */
  top(k = 5): Candidate[] {
    return this.current.logits ? topCandidates(softmax(this.current.logits), k) : [];
  }

  /** Adds a patch and runs this pass again. It stays for all passes to come. @throws RangeError when it hits nothing. */
  patch(patch: Patch): PatchEffect {
    checkPatch(patch, this.current.ops);
    return this.changed(() => this.active.push(patch));
  }

  /** Takes a patch off, or all, and runs this pass again. @throws RangeError when there is no such patch. */
  unpatch(index?: number): PatchEffect {
    if (index !== undefined && this.active[index] === undefined) throw new RangeError(`patch: expected 0 to ${this.active.length - 1}, found ${index}`);
    return this.changed(() => (index === undefined ? this.active.splice(0) : this.active.splice(index, 1)));
  }

  /** Gives the KV pages and the activations' memory back. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.init.cache.release(this.sequence);
    this.init.ops.arena.free();
  }

  private changed(change: () => void): PatchEffect {
    const at = this.cursor;
    const before = this.current;
    const top = this.top();
    change();
    this.current = this.replay(this.passIndex);
    this.cursor = at;
    const divergence = before.logits && this.current.logits ? divergenceBits(before.logits, this.current.logits) : 0;
    return { before: top, after: this.top(), divergence };
  }

  /** Runs an earlier pass again, and forgets those after it. @throws RangeError when the cache's window has given up what it needs. */
  private replay(index: number): Pass {
    const { tokens, start } = this.starts[index];
    const pass = this.enter(tokens, start);
    this.starts.splice(index, this.starts.length - index - 1);
    return pass;
  }

  /** Runs a pass from `start`; whatever the cache held from there on is forgotten. */
  private enter(tokens: readonly number[], start: number): Pass {
    if (this.closed) throw new Error("stepper: closed");
    const { prompt, cache } = this.init;
    const end = start + tokens.length;
    cache.truncate(this.sequence, start);
    const ops: OpView[] = [];
    const off = this.ops.ledger.onOp((record, output) => {
      const patched = applyPatches(this.active, record, output);
      ops.push({ index: ops.length, record, output: floats(output), patched });
    });
    try {
      const isPrompt = start < prompt.length;
      const run = { sequence: this.sequence, tokens, logits: end < prompt.length ? "none" : "last", prompt: isPrompt } as const;
      const batch = makeBatch(cache, [run]);
      const logits = forward(this.model, this.ops, batch);
      const choice = logits && this.ops.sample(logits, greedy);
      this.starts.push({ tokens, start });
      this.cursor = 0;
      return { phase: isPrompt ? "prefill" : "decode", tokens, start, ops, segment: batch.segments[0], logits: logits?.f32.slice(), choice };
    } finally {
      off();
    }
  }
}

/** A copy in ordinary memory; integers become the numbers that they stand for. */
function floats(tensor: Tensor): Tensor {
  const { dtype, shape, name } = tensor;
  const data = dtype === "f32" ? tensor.f32.slice() : Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => tensor.at(i));
  return f32(shape, data, name);
}

/** Bytes that a token's op outputs take, from above. */
function outputBytes({ config: { nLayers, dim, ffnDim, nHeads, headDim, experts } }: Model): number {
  const mixture = experts ? experts.count + experts.used * (2 * dim + 4 * experts.ffnDim) + 2 * dim + 4 * experts.sharedFfnDim : 0;
  return 4 * nLayers * (7 * dim + 5 * nHeads * headDim + 4 * ffnDim + mixture);
}
