/** Builds llama2.c files for tests. Every weight is its own index in the file, counted in floats from the first one on. */

export interface TestShape {
  dim: number;
  ffnDim: number;
  nLayers: number;
  nHeads: number;
  nKvHeads: number;
  vocabSize: number;
  contextLength: number;
}

export const SMALL: TestShape = { dim: 8, ffnDim: 12, nLayers: 2, nHeads: 2, nKvHeads: 1, vocabSize: 5, contextLength: 6 };

export function checkpoint(version: 0 | 1, tied: boolean, shape: TestShape = SMALL): Uint8Array {
  const { dim, ffnDim, nLayers, nHeads, nKvHeads, vocabSize, contextLength } = shape;
  const kv = (dim / nHeads) * nKvHeads;
  const layer = 2 * dim + 2 * dim * dim + 2 * kv * dim + 3 * dim * ffnDim;
  const floats = nLayers * layer + dim + vocabSize * dim * (tied ? 1 : 2) + (version === 0 ? contextLength * (dim / nHeads) : 0);
  const start = version === 0 ? 28 : 256;
  const bytes = new Uint8Array(start + 4 * floats);
  const view = new DataView(bytes.buffer);
  const numbers = [dim, ffnDim, nLayers, nHeads, nKvHeads, version === 0 && !tied ? -vocabSize : vocabSize, contextLength];
  if (version === 1) numbers.unshift(0x616b3432, 1);
  numbers.forEach((n, i) => view.setInt32(4 * i, n, true));
  if (version === 1) view.setUint8(36, tied ? 1 : 0);
  for (let i = 0; i < floats; i++) view.setFloat32(start + 4 * i, i, true);
  return bytes;
}

export function tokenizerFile(tokens: readonly string[]): Uint8Array {
  const parts: number[] = [];
  const int = (n: number) => parts.push(n & 255, (n >> 8) & 255, (n >> 16) & 255, (n >> 24) & 255);
  const encoded = tokens.map((t) => new TextEncoder().encode(t));
  int(Math.max(...encoded.map((t) => t.length)));
  encoded.forEach((token, id) => {
    parts.push(...new Uint8Array(Float32Array.of(-id).buffer));
    int(token.length);
    parts.push(...token);
  });
  return Uint8Array.from(parts);
}
