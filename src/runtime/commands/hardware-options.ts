import { learnsPositions } from "../../model/config.ts";
import { type NamedShape, SHAPES } from "../../model/shapes.ts";
import { type EnergyTable, HOROWITZ_2014, parseEnergy } from "../hardware/energy.ts";
import { FORMAT_HELP, parseFormat, parseKvFormats } from "../hardware/formats.ts";
import { type Arithmetic, ARITHMETICS, type Hardware, parseHardware } from "../hardware/hardware.ts";
import { asHardware, measureMachine, THIS } from "../hardware/measure-machine.ts";
import { unknownName } from "../hardware/nearest.ts";
import { HARDWARE, HARDWARE_NAMES } from "../hardware/profiles.ts";
import type { Formats } from "../hardware/trace.ts";
import { type Io, text, UsageError, type Values } from "./command.ts";

/** Options of the commands that cost a published model on a device. */
export const SHAPE_OPTIONS = {
  shape: { type: "string", value: "NAME", help: Object.keys(SHAPES).join(", ") },
  weights: { type: "string", value: "FORMAT", help: `${FORMAT_HELP}; memwall's own kernels read int8:32` },
  kv: { type: "string", value: "FORMAT", help: "the KV cache's format, one scale for each token and head (default f16), or k=FORMAT,v=FORMAT" },
} as const;

export const HW_OPTION = { type: "string", value: "LIST", help: `devices, separated by commas: ${HARDWARE_NAMES.join(", ")}, all, ${THIS} (measured now), or FILE.json` } as const;

export const ROOF_OPTIONS = {
  arithmetic: { type: "string", value: "FORMAT", help: "multiply in fp32, fp16, int8 or int4 (default: what the weights' format asks for)" },
  launch: { type: "boolean", help: "add the device's launch overhead to every op" },
} as const;

/** @throws UsageError listing the known shapes and the nearest. */
export function shapeFrom(values: Values): NamedShape {
  const name = text(values, "shape");
  if (name === undefined) throw new UsageError("--shape: expected a model's name, found none");
  if (!Object.hasOwn(SHAPES, name)) throw new UsageError(`--shape: ${unknownName(name, Object.keys(SHAPES))}`);
  return SHAPES[name];
}

/** Activations are 16-bit floats, or f32 where the weights are. */
export function formatsFrom(values: Values, fallback: string): Formats {
  const weights = parsed("weights", text(values, "weights") ?? fallback, parseFormat);
  const kv = parsed("kv", text(values, "kv") ?? "f16", parseKvFormats);
  return { weights, kv, activations: parseFormat(weights.name === "f32" ? "f32" : "f16")! };
}

function parsed<T>(option: string, given: string, parse: (text: string) => T | undefined): T {
  const result = parse(given);
  if (result === undefined) throw new UsageError(`--${option}: expected ${FORMAT_HELP}, found ${JSON.stringify(given)}`);
  return result;
}

export function arithmeticFrom(values: Values): Arithmetic | undefined {
  const given = text(values, "arithmetic");
  const known = ARITHMETICS.find((one) => one === given);
  if (given !== undefined && !known) throw new UsageError(`--arithmetic: expected one of ${ARITHMETICS.join(", ")}, found ${JSON.stringify(given)}`);
  return known;
}

/** The devices of --hw, in order: built-in ones by name, users' own from JSON files, this machine by measuring it. */
export async function hardwareFrom(values: Values, io: Io, fallback?: string): Promise<Hardware[]> {
  const given = text(values, "hw") ?? fallback;
  if (given === undefined) throw new UsageError(`--hw: expected one or more of ${HARDWARE_NAMES.join(", ")}, ${THIS}, or FILE.json, found none`);
  const found: Hardware[] = [];
  for (const item of given.split(",").map((part) => part.trim())) {
    if (item === "all") found.push(...HARDWARE);
    else if (item === THIS) found.push(asHardware(await measureMachine("auto")));
    else if (item.endsWith(".json") || item.includes("/")) found.push(...parseHardware(item, await io.readText(item)));
    else {
      const known = HARDWARE.find(({ name }) => name === item);
      if (!known) throw new UsageError(`--hw: ${unknownName(item, [...HARDWARE_NAMES, THIS])}`);
      found.push(known);
    }
  }
  return found;
}

export async function oneDevice(values: Values, io: Io): Promise<Hardware> {
  const found = await hardwareFrom(values, io);
  if (found.length !== 1) throw new UsageError(`--hw: expected one device, found ${found.length}`);
  return found[0];
}

export async function energyFrom(values: Values, io: Io): Promise<EnergyTable> {
  const path = text(values, "energy");
  return path === undefined ? HOROWITZ_2014 : parseEnergy(path, await io.readText(path));
}

/**
 * Learned positions end with the model's context; rotary ones can be costed beyond it.
 * @throws UsageError for a workload that the decoder cannot run.
 */
export function checkContext({ config }: NamedShape, positions: number, options: string): void {
  if (!learnsPositions(config) || positions <= config.contextLength) return;
  throw new UsageError(`${options}: expected at most ${config.contextLength} positions (${config.name} has learned ones), found ${positions}`);
}
