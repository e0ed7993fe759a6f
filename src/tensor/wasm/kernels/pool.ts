import type { Expr, Func, Global } from "../assembler.ts";
import { block, br, br_if, call, callValue, drop, f64, i32, i64, if_, local, loop, return_ } from "../assembler.ts";
import { CHUNK, CLOSED, COUNTER, KERNEL, MAIN_WAITS, SCRATCH, SCRATCH_BYTES, SLEEPERS, STARTED, STATE, UNITS } from "../layout.ts";
import type { ModuleBuilder } from "../module.ts";

/**
 * The pool's protocol, wholly in WebAssembly. STATE = job number << 9 | open << 8 | workers inside. The main thread writes a job,
 * opens it, and takes chunks itself; a worker enters while the job is open (compare and exchange, so never into a closed one) and leaves
 * when no chunk is left. The main thread closes the job, then waits for those inside. A worker that sleeps or died holds nobody up.
 */
const OPEN = 1 << 8;
const INSIDE = OPEN - 1;
const NEXT_JOB = 1 << 9;

/** Pauses that a worker waits for work, and the main thread for workers, before they sleep. */
const WORKER_SPINS = 400;
const MAIN_SPINS = 400;
/** The main thread sleeps this long at a time, in nanoseconds, and gives up after so many. */
const MAIN_SLEEP = 1e8;
const MAIN_SLEEPS = 300;

/** Waits some 50 ns without keeping the core's ports busy: each root waits for the one before. (WebAssembly has no pause.) */
function emitPause(module: ModuleBuilder): Func {
  return module.func("pause", ["f64"], "i32", (x) => {
    for (let i = 0; i < 8; i++) x.set(f64.sqrt(f64.add(x, 1e9)));
    return f64.gt(x, 1e300);
  });
}

/** Takes chunks of units until none is left. */
function emitTake(module: ModuleBuilder) {
  return module.func("take", [], undefined, () => {
    const [units, chunk, kernel] = [local("i32", i32.load(0, UNITS)), local("i32", i32.load(0, CHUNK)), local("i32", i32.load(0, KERNEL))];
    const [first, last] = [local("i32"), local("i32")];
    loop((again) => {
      first.set(i32.atomic.rmw_add(i32.const(COUNTER), chunk));
      if_(i32.lt_s(first, units), () => {
        last.set(i32.add(first, chunk));
        if_(i32.gt_s(last, units), () => last.set(units));
        module.callKernel(kernel, first, last);
        br(again);
      });
    });
  });
}

/**
 * Exports `enter(index)` (which thread this instance is), `run(kernel, units, chunk)` for the main thread (1: a worker stopped inside the
 * job) and, with shared memory, `work()`, a worker's life.
 */
export function emitPool(module: ModuleBuilder, scratch: Global<"i32">, threadIndex: Global<"i32">, shared: boolean): void {
  module.export("enter", ["i32"], undefined, (index) => {
    threadIndex.set(index);
    scratch.set(i32.add(i32.mul(index, SCRATCH_BYTES), SCRATCH));
  });
  const take = emitTake(module);
  if (!shared) return;
  const wait = emitPause(module);
  const takeAll = () => call(take);
  const pause = () => drop(callValue(wait, 2));
  const at = (address: number): Expr<"i32"> => i32.const(address);

  module.export("run", ["i32", "i32", "i32"], "i32", (kernel, units, chunk) => {
    const state = local("i32", i32.add(i32.and(i32.atomic.load(at(STATE)), ~(NEXT_JOB - 1)), NEXT_JOB + OPEN));
    i32.store(0, kernel, KERNEL);
    i32.store(0, units, UNITS);
    i32.store(0, chunk, CHUNK);
    i32.atomic.store(at(COUNTER), i32.const(0));
    i32.atomic.store(at(STATE), state);
    if_(i32.atomic.load(at(SLEEPERS)), () => state.set(i32.atomic.notify(at(STATE), 255)));
    takeAll();
    state.set(i32.and(i32.atomic.rmw_and(at(STATE), ~OPEN), ~OPEN));
    const stopped = local("i32", 0);
    block((done) => {
      const spins = local("i32", MAIN_SPINS);
      loop((again) => {
        br_if(done, i32.eqz(i32.and(state, INSIDE)));
        pause();
        state.set(i32.atomic.load(at(STATE)));
        spins.add(-1);
        br_if(again, spins);
      });
      const sleeps = local("i32", MAIN_SLEEPS);
      i32.atomic.store(at(MAIN_WAITS), i32.const(1));
      loop((again) => {
        state.set(i32.atomic.load(at(STATE)));
        if_(i32.and(state, INSIDE), () => {
          state.set(i32.atomic.wait(at(STATE), state, i64.const(MAIN_SLEEP)));
          sleeps.add(-1);
          br_if(again, sleeps);
          stopped.set(1);
        });
      });
      i32.atomic.store(at(MAIN_WAITS), i32.const(0));
    });
    return stopped;
  });

  module.export("work", [], undefined, () => {
    const [state, job, spins] = [local("i32"), local("i32", -1), local("i32")];
    const joinable = () => i32.and(i32.ne(i32.shr_u(state, 9), job), i32.shr_u(i32.and(state, OPEN), 8));
    state.set(i32.atomic.rmw_add(at(STARTED), i32.const(1)));
    state.set(i32.atomic.notify(at(STARTED), 1));
    loop((next) => {
      spins.set(WORKER_SPINS);
      block((sleep) => {
        loop((again) => {
          if_(i32.load(0, CLOSED), () => return_());
          state.set(i32.atomic.load(at(STATE)));
          if_(joinable(), () => {
            // Another thread moved the state first: look again.
            br_if(again, i32.ne(i32.atomic.rmw_cmpxchg(at(STATE), state, i32.add(state, 1)), state));
            job.set(i32.shr_u(state, 9));
            takeAll();
            state.set(i32.atomic.rmw_sub(at(STATE), i32.const(1)));
            if_(i32.atomic.load(at(MAIN_WAITS)), () => state.set(i32.atomic.notify(at(STATE), 255)));
            br(next);
          });
          pause();
          spins.add(-1);
          br_if(again, spins);
        });
        br(sleep);
      });
      state.set(i32.atomic.rmw_add(at(SLEEPERS), i32.const(1)));
      state.set(i32.atomic.load(at(STATE)));
      // Sleeps unless there is a job by now; a later change of STATE makes the wait return at once.
      if_(i32.eqz(i32.or(i32.load(0, CLOSED), joinable())), () => {
        state.set(i32.atomic.wait(at(STATE), state, i64.const(-1)));
      });
      state.set(i32.atomic.rmw_sub(at(SLEEPERS), i32.const(1)));
      br(next);
    });
  });
}
