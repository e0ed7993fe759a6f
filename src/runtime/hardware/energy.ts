import { type Arithmetic, ARITHMETICS, type Hardware } from "./hardware.ts";
import { arithmeticOf, bytesMoved, type OpWork } from "./roof.ts";

/** Picojoules. */
export interface EnergyTable {
  /** Per operation: half of a multiplication and an addition. */
  readonly flop: Readonly<Record<Arithmetic, number>>;
  /** Per byte that an op reads or writes: it passes the large cache. */
  readonly cacheByte: number;
  /** Per byte that comes from or goes to memory. */
  readonly dramByte: number;
  readonly source: string;
}

/**
 * Mark Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm, 0.9 V. Multiply and add: fp32 3.7 + 0.9 pJ,
 * fp16 1.1 + 0.4, int8 0.2 + 0.1 (the addition in 32 bits); 64 bits from a cache of 1 MB 100 pJ, from DRAM 1.3 to 2.6 nJ (the middle is
 * taken). Read at gist.github.com/V0XNIHILI/2b6fa61edd4c06d9ffce5551065124c1, which copies the table, and for the width of an access in table
 * 3 of PMC8934428, which cites it. The paper has no int4: a quarter of int8's multiplication is assumed. That DRAM's figure is for 64 bits
 * too was not found in words. Newer processes and HBM need less: edit the table.
 */
export const HOROWITZ_2014: EnergyTable = {
  flop: { fp32: 2.3, fp16: 0.75, int8: 0.15, int4: 0.075 },
  cacheByte: 12.5,
  dramByte: 243.75,
  source: "Horowitz, ISSCC 2014 (45 nm); int4 a quarter of int8's multiplication, and DRAM's 1.95 nJ for 64 bits, are assumptions",
};

/** Joules by class. */
export interface Energy {
  arithmetic: number;
  cache: number;
  dram: number;
  total: number;
}

/**
 * Energy of ops by class, joules. Weights and KV come from memory; an op's activations only if they are larger than the device's cache
 * (where its size is not known: always).
 */
export function energyOf(ops: readonly OpWork[], { cacheMB = 0 }: Hardware, table: EnergyTable = HOROWITZ_2014, chosen?: Arithmetic): Energy {
  let [arithmetic, cache, dram] = [0, 0, 0];
  for (const op of ops) {
    const all = bytesMoved(op);
    const activations = op.read.activations + op.written.activations;
    arithmetic += op.flops * table.flop[arithmeticOf(op, chosen)];
    cache += all * table.cacheByte;
    dram += (activations <= cacheMB * 1e6 ? all - activations : all) * table.dramByte;
  }
  return { arithmetic: arithmetic * 1e-12, cache: cache * 1e-12, dram: dram * 1e-12, total: (arithmetic + cache + dram) * 1e-12 };
}

/**
 * A table from a user's JSON file: `{"flop": {"fp16": 0.3}, "dramByte": 31, ...}` in picojoules; what is left out stays Horowitz's.
 * @throws Error naming the file and the field.
 */
export function parseEnergy(file: string, text: string): EnergyTable {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${file}: expected JSON: ${(error as Error).message}`);
  }
  const fields = objectOf(file, json);
  const flop = { ...HOROWITZ_2014.flop };
  const others = { cacheByte: HOROWITZ_2014.cacheByte, dramByte: HOROWITZ_2014.dramByte };
  let source = `${file}, else ${HOROWITZ_2014.source}`;
  for (const [field, value] of Object.entries(fields)) {
    if (field === "flop") {
      for (const [name, energy] of Object.entries(objectOf(`${file}: flop`, value))) {
        const known = ARITHMETICS.find((one) => one === name);
        if (!known) throw new Error(`${file}: flop.${name}: unknown field, expected ${ARITHMETICS.join(", ")}`);
        flop[known] = energyValue(file, `flop.${name}`, energy);
      }
    } else if (field === "cacheByte" || field === "dramByte") others[field] = energyValue(file, field, value);
    else if (field === "source" && typeof value === "string") source = value;
    else throw new Error(`${file}: ${field}: unknown field, expected flop, cacheByte, dramByte, source (a text)`);
  }
  return { flop, ...others, source };
}

function objectOf(where: string, value: unknown): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new Error(`${where}: expected an object, found ${JSON.stringify(value)}`);
}

function energyValue(file: string, field: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && Number.isFinite(value)) return value;
  throw new Error(`${file}: ${field}: expected picojoules, 0 or more, found ${JSON.stringify(value)}`);
}
