import { hex, sha256 } from "../kvcache/sha256.ts";
import type { ModelConfig } from "./config.ts";
import type { WeightFile } from "./load.ts";

/** Bytes of a tensor that are looked at, at its beginning, in its middle and at its end. */
const SAMPLE = 64;

/**
 * What tells one model from another: SHA-256 over the config, every tensor's name, type and shape, samples of its bytes, and `scheme`,
 * which says in what formats the weights are computed with. Takes a few small reads a tensor, whatever the model's size; they are hashed when
 * somebody asks.
 */
export function fingerprint({ source, tensors }: WeightFile, config: ModelConfig, scheme: unknown): () => string {
  const parts = [new TextEncoder().encode(JSON.stringify([config, scheme]))];
  for (const { name, type, shape, offset, bytes } of tensors.values()) {
    parts.push(new TextEncoder().encode(JSON.stringify([name, type, shape])));
    const count = Math.min(SAMPLE, bytes);
    for (const at of [0, Math.floor((bytes - count) / 2), bytes - count]) {
      const sample = new Uint8Array(count);
      source.read(offset + at, sample);
      parts.push(sample);
    }
  }
  let known: string | undefined;
  return () => (known ??= hex(sha256(...parts)));
}
