/** What a stop matcher lets through, and whether a stop string was found. */
export interface StopResult {
  text: string;
  stopped: boolean;
}

/**
 * Watches streamed text for stop strings. Text that may be the beginning of one is held back until it is decided, so that no part of
 * a stop string is ever emitted, however the text was cut into pieces.
 */
export function stopMatcher(stops: readonly string[]) {
  const wanted = stops.filter((stop) => stop.length > 0);
  const longest = wanted.reduce((max, stop) => Math.max(max, stop.length), 0);
  let held = "";
  return {
    push(text: string): StopResult {
      held += text;
      // The stop string that was completed first wins, the longest of those: the outcome is the same however the text was cut.
      let [start, end] = [0, Infinity];
      for (const stop of wanted) {
        const at = held.indexOf(stop);
        if (at < 0 || at + stop.length > end || (at + stop.length === end && at > start)) continue;
        [start, end] = [at, at + stop.length];
      }
      if (end < Infinity) return { text: held.slice(0, start), stopped: true };
      let keep = 0;
      for (let size = Math.min(longest - 1, held.length); size > 0 && keep === 0; size--) {
        const tail = held.slice(-size);
        if (wanted.some((stop) => stop.startsWith(tail))) keep = size;
      }
      const ready = held.slice(0, held.length - keep);
      held = held.slice(held.length - keep);
      return { text: ready, stopped: false };
    },
    /** What was held back, once no more text comes. */
    flush(): string {
      const rest = held;
      held = "";
      return rest;
    },
  };
}
