import type { Expr, Func } from "../assembler.ts";
import { block, br, br_if, call, callValue, drop, f32, f64, i32, i64, if_, local, loop, return_ } from "../assembler.ts";
import { AHEAD, AHEAD_PIECE, AHEAD_SPANS, CHUNK, CLOSED, COUNTERS, KERNEL, MAIN_WAITS, RANGES, SCRATCH, SCRATCH_BYTES, SLEEPERS, STARTED, STATE, UNITS } from "../layout.ts";
import type { ModuleBuilder } from "../module.ts";
import type { Emitter } from "./common.ts";
import { maxI32, minI32, range, repeat } from "./common.ts";

/**
 * The pool's protocol, wholly in WebAssembly. STATE = job number << 9 | open << 8 | workers inside. The main thread writes a job,
 * opens it, and takes chunks itself; a worker enters while the job is open (compare and exchange, so never into a closed one) and leaves
 * when no chunk is left. The main thread closes the job, then waits for those inside. A worker that sleeps or died holds nobody up.
 */
const OPEN = 1 << 8;
const INSIDE = OPEN - 1;
const NEXT_JOB = 1 << 9;

/**
 * Pauses that a worker waits for work, and the main thread for workers, before they sleep: some 50 microseconds, so that a worker is still
 * there when a step's short ops on one thread are over. Measured on two cores: 20 microseconds decode a tenth slower, and beside a busy
 * process a tenth faster.
 */
const SPINS = 2500;
/** The main thread sleeps this long at a time, in nanoseconds, and gives up after so many: no chunk of a job takes seconds. */
const MAIN_SLEEP = 1e8;
const MAIN_SLEEPS = 100;
/** What a wait returns when its time is over. */
const TIMED_OUT = 2;

/**
 * 0, some 20 ns later, without keeping the core's ports busy: each root waits for the one before. (WebAssembly has no pause.) Whoever adds it
 * to the address of what is looked at next waits for it, whatever is inlined, folded or run ahead: compilers drop a pause that nothing depends on.
 */
function emitPause(module: ModuleBuilder): Func {
  return module.func("pause", ["i32"], "i32", (state) => {
    const x = local("f64", f64.promote_f32(f32.convert_i32_s(state)));
    for (let i = 0; i < 2; i++) x.set(f64.sqrt(f64.add(x, 1e10)));
    return f64.gt(x, 1e300);
  });
}

/** Sleeps while STATE is what is expected. In a function of its own: the quick compiler of Node 20 (V8 11.3) loses a function's locals over a wait. */
function emitSleep(module: ModuleBuilder): Func {
  return module.func("sleep", ["i32", "i64"], "i32", (expected, nanoseconds) => i32.atomic.wait(i32.const(STATE), expected, nanoseconds));
}

/**
 * Takes chunks of units until none is left: first from the thread's own range, so that it reads weights as one stream, as memory likes it
 * best; then from the ranges of others, so that threads end together however fast each is, and nothing waits for one that sleeps. Chunks are
 * half of what a range has left, between the job's chunk and an eighth of it: long while much is left, short when all wait for the last one.
 */
function emitTake({ module, threadIndex }: Emitter) {
  return module.func("take", [], undefined, () => {
    const [units, chunk, kernel, ranges] = [UNITS, CHUNK, KERNEL, RANGES].map((word) => local("i32", i32.load(0, word)));
    const least = local("i32", maxI32(i32.shr_u(chunk, 3), i32.const(1)));
    const [first, last, end, counter] = [local("i32"), local("i32"), local("i32"), local("i32")];
    const own = local("i32", i32.rem_u(threadIndex, ranges));
    repeat(ranges, () => {
      counter.set(counterOf(own));
      own.add(1);
      end.set(rangeStart(own, units, ranges));
      loop((again) => {
        first.set(i32.atomic.load(counter));
        if_(i32.lt_s(first, end), () => {
          last.set(i32.add(first, maxI32(minI32(i32.shr_u(i32.sub(end, first), 1), chunk), least)));
          last.set(minI32(last, end));
          // Another thread took them first: look again.
          br_if(again, i32.ne(i32.atomic.rmw_cmpxchg(counter, first, last), first));
          module.callKernel(kernel, first, last);
          br(again);
        });
      });
      if_(i32.eq(own, ranges), () => own.set(0));
    });
  });
}

/**
 * A worker's time between two jobs: reads a word of every cache line that it is told (layout.ts, AHEAD) until there is another job than `job`.
 * The main thread may change what it tells meanwhile: each address lies within memory with as many pieces as there ever are.
 */
function emitFetch({ module, threadIndex, scratch }: Emitter): Func {
  return module.func("fetch", ["i32"], undefined, (job) => {
    const line = local("i32", i32.add(i32.shl(threadIndex, 6), AHEAD));
    const [address, pieces, seen] = [local("i32"), local("i32"), local("i32")];
    block((done) => {
      repeat(AHEAD_SPANS, () => {
        address.set(i32.load(line));
        pieces.set(i32.load(line, 4));
        if_(pieces, () => {
          loop((again) => {
            br_if(done, i32.ne(i32.shr_u(i32.atomic.load(i32.const(STATE)), 9), job));
            for (let at = 0; at < AHEAD_PIECE; at += 64) seen.set(i32.or(seen, i32.load(address, at)));
            address.add(AHEAD_PIECE);
            pieces.add(-1);
            br_if(again, pieces);
          });
        });
        line.add(8);
      });
    });
    i32.store(scratch, seen);
  });
}

/** The units of a job are cut into one range for each thread that has started; each range has a counter on a cache line of its own. */
const counterOf = (range: Expr<"i32">): Expr<"i32"> => i32.add(i32.shl(range, 6), COUNTERS);
const rangeStart = (range: Expr<"i32">, units: Expr<"i32">, ranges: Expr<"i32">): Expr<"i32"> => i32.div_u(i32.mul(range, units), ranges);

/**
 * Exports `enter(index)` (which thread this instance is), `run(kernel, units, chunk)` for the main thread (1: a worker stopped inside the
 * job) and, with shared memory, `work()`, a worker's life.
 */
export function emitPool(emitter: Emitter, shared: boolean): void {
  const { module, scratch, threadIndex } = emitter;
  module.export("enter", ["i32"], undefined, (index) => {
    threadIndex.set(index);
    scratch.set(i32.add(i32.mul(index, SCRATCH_BYTES), SCRATCH));
  });
  const take = emitTake(emitter);
  if (!shared) return;
  const pause = emitPause(module);
  const fetch = emitFetch(emitter);
  const sleep = emitSleep(module);
  const takeAll = () => call(take);
  const at = (address: number): Expr<"i32"> => i32.const(address);

  module.export("run", ["i32", "i32", "i32"], "i32", (kernel, units, chunk) => {
    const state = local("i32", i32.add(i32.and(i32.atomic.load(at(STATE)), ~(NEXT_JOB - 1)), NEXT_JOB + OPEN));
    i32.store(0, kernel, KERNEL);
    i32.store(0, units, UNITS);
    i32.store(0, chunk, CHUNK);
    const ranges = local("i32", i32.add(i32.load(0, STARTED), 1));
    i32.store(0, ranges, RANGES);
    range(0, ranges, 1, (each) => i32.store(counterOf(each), rangeStart(each, units, ranges)));
    i32.atomic.store(at(STATE), state);
    if_(i32.atomic.load(at(SLEEPERS)), () => state.set(i32.atomic.notify(at(STATE), 255)));
    takeAll();
    state.set(i32.and(i32.atomic.rmw_and(at(STATE), ~OPEN), ~OPEN));
    const stopped = local("i32", 0);
    block((done) => {
      const spins = local("i32", SPINS);
      loop((again) => {
        br_if(done, i32.eqz(i32.and(state, INSIDE)));
        state.set(i32.atomic.load(i32.add(STATE, callValue(pause, state) as Expr<"i32">)));
        spins.add(-1);
        br_if(again, spins);
      });
      const sleeps = local("i32", MAIN_SLEEPS);
      i32.atomic.store(at(MAIN_WAITS), i32.const(1));
      loop((again) => {
        state.set(i32.atomic.load(at(STATE)));
        if_(i32.and(state, INSIDE), () => {
          const woken = callValue(sleep, state, i64.const(MAIN_SLEEP)) as Expr<"i32">;
          sleeps.set(i32.sub(sleeps, i32.eq(woken, TIMED_OUT)));
          br_if(again, sleeps);
          stopped.set(1);
        });
      });
      i32.atomic.store(at(MAIN_WAITS), i32.const(0));
    });
    return stopped;
  });

  module.export("work", [], undefined, () => {
    const [state, job, spins, paused] = [local("i32"), local("i32", -1), local("i32"), local("i32")];
    const joinable = () => i32.and(i32.ne(i32.shr_u(state, 9), job), i32.shr_u(i32.and(state, OPEN), 8));
    state.set(i32.atomic.rmw_add(at(STARTED), i32.const(1)));
    state.set(i32.atomic.notify(at(STARTED), 1));
    loop((next) => {
      spins.set(SPINS);
      block((sleep) => {
        loop((again) => {
          if_(i32.load(0, CLOSED), () => return_());
          state.set(i32.atomic.load(i32.add(STATE, paused)));
          if_(joinable(), () => {
            // Another thread moved the state first: look again.
            br_if(again, i32.ne(i32.atomic.rmw_cmpxchg(at(STATE), state, i32.add(state, 1)), state));
            job.set(i32.shr_u(state, 9));
            takeAll();
            state.set(i32.atomic.rmw_sub(at(STATE), i32.const(1)));
            if_(i32.atomic.load(at(MAIN_WAITS)), () => state.set(i32.atomic.notify(at(STATE), 255)));
            call(fetch, job);
            br(next);
          });
          paused.set(callValue(pause, state) as Expr<"i32">);
          spins.add(-1);
          br_if(again, spins);
        });
        br(sleep);
      });
      state.set(i32.atomic.rmw_add(at(SLEEPERS), i32.const(1)));
      state.set(i32.atomic.load(at(STATE)));
      // Sleeps unless there is a job by now; a later change of STATE makes the wait return at once.
      if_(i32.eqz(i32.or(i32.load(0, CLOSED), joinable())), () => {
        drop(callValue(sleep, state, i64.const(-1)));
      });
      state.set(i32.atomic.rmw_sub(at(SLEEPERS), i32.const(1)));
      br(next);
    });
  });
}
