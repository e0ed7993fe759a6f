import { setFlagsFromString } from "node:v8";

/** The first V8 that joins what the kernels' inner loops do: 12.4 (Node 22) knows the flag, and gains nothing. */
const FIRST_V8 = 13;

/**
 * Lets V8 join operations on neighbouring 128-bit vectors to 256 bits, in whatever WebAssembly this process compiles from now on
 * (`--experimental-wasm-revectorize`, for x86 with AVX2; experimental, and off by default). False where this Node has it not.
 */
export function widenVectors(): boolean {
  const has = process.config?.variables?.v8_enable_wasm_simd256_revec === 1 && parseInt(process.versions.v8 ?? "") >= FIRST_V8;
  if (!has || process.arch !== "x64") return false;
  setFlagsFromString("--experimental-wasm-revectorize");
  return true;
}
