import type { OpRecord } from "../tensor/ledger.ts";

/** Op records as Chrome trace events (the "Trace Event Format", complete events): chrome://tracing and ui.perfetto.dev open them. */
export function chromeTrace(records: readonly OpRecord[]) {
  const origin = records.length > 0 ? records[0].startMs : 0;
  const process = { name: "process_name", ph: "M", pid: 1, tid: 1, args: { name: "memwall" } };
  const events = records.map(({ step, phase, layer, name, kind, m, n, k, dtype, flops, read, written, startMs, ns }) => ({
    ...{ name, cat: kind, ph: "X", pid: 1, tid: 1, ts: (startMs - origin) * 1000, dur: ns / 1000 },
    args: { step, phase, layer, m, n, k, dtype, flops, read, written },
  }));
  return { displayTimeUnit: "ns", traceEvents: [process, ...events] };
}
