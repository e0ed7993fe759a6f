/** Most turns of the event loop between two steps: whatever comes in, the engine goes on. */
const MOST_TURNS = 64;

let more = false;

/**
 * Something came in, and more may stand behind it: the current `breathe` lets the event loop turn once more. Node takes one new connection
 * in a turn (libuv, uv__server_io), so that without this a burst of clients would be let in at the pace of the decoder's steps.
 */
export function breatheAgain(): void {
  more = true;
}

/** Lets the event loop turn, so that timers, input and consumers of a stream get their chance between two steps. */
export async function breathe(): Promise<void> {
  for (let turns = 0; turns < MOST_TURNS; turns++) {
    more = false;
    await turn();
    if (!more) return;
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === "function") {
      setImmediate(resolve);
      return;
    }
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(0);
  });
}
