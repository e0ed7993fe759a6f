/** SHA-256 (FIPS 180-4) of some byte strings, one after another, as 32 bytes. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const state = Int32Array.from(INITIAL);
  const words = new Int32Array(64);
  const rest = new Uint8Array(64);
  const last = new DataView(rest.buffer);
  let fill = 0;
  let length = 0;
  for (const part of parts) {
    const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
    length += part.length;
    for (let at = 0; at < part.length; ) {
      if (fill === 0 && at + 64 <= part.length) {
        compress(state, view, at, words);
        at += 64;
        continue;
      }
      const count = Math.min(64 - fill, part.length - at);
      rest.set(part.subarray(at, at + count), fill);
      at += count;
      fill = (fill + count) % 64;
      if (fill === 0) compress(state, last, 0, words);
    }
  }
  rest[fill++] = 0x80;
  rest.fill(0, fill);
  if (fill > 56) {
    compress(state, last, 0, words);
    rest.fill(0);
  }
  last.setUint32(56, Math.floor(length / 2 ** 29));
  last.setUint32(60, (length * 8) % 2 ** 32);
  compress(state, last, 0, words);
  const result = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => result.setInt32(4 * i, word));
  return new Uint8Array(result.buffer);
}

/** Lower-case hexadecimal digits. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The first 32 bits behind the point of `root` of the first `count` primes (FIPS 180-4, 4.2.2 and 5.3.3). */
function fractions(count: number, root: (prime: number) => number): number[] {
  const primes: number[] = [];
  for (let n = 2; primes.length < count; n++) if (primes.every((prime) => n % prime !== 0)) primes.push(n);
  return primes.map((prime) => Math.floor((root(prime) % 1) * 2 ** 32));
}

const INITIAL = fractions(8, Math.sqrt);
const ROUNDS = Int32Array.from(fractions(64, Math.cbrt));

const turn = (word: number, by: number) => (word >>> by) | (word << (32 - by));

function compress(state: Int32Array, block: DataView, at: number, w: Int32Array): void {
  for (let i = 0; i < 16; i++) w[i] = block.getInt32(at + 4 * i);
  for (let i = 16; i < 64; i++) {
    const early = w[i - 15];
    const late = w[i - 2];
    w[i] = w[i - 16] + (turn(early, 7) ^ turn(early, 18) ^ (early >>> 3)) + w[i - 7] + (turn(late, 17) ^ turn(late, 19) ^ (late >>> 10));
  }
  let a = state[0];
  let b = state[1];
  let c = state[2];
  let d = state[3];
  let e = state[4];
  let f = state[5];
  let g = state[6];
  let h = state[7];
  for (let i = 0; i < 64; i++) {
    const t = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]) | 0;
    const u = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t) | 0;
    d = c;
    c = b;
    b = a;
    a = (t + u) | 0;
  }
  state[0] += a;
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}
