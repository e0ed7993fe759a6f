import { TemplateError } from "./errors.ts";
import type { Value } from "./values.ts";

/** A float without a fraction, which Python writes as `2.0`. All other floats are plain numbers; plain numbers without a fraction are ints. */
export interface WholeFloat {
  readonly float: number;
}

export const isWholeFloat = (value: Value): value is WholeFloat => typeof value === "object" && value !== null && "float" in value;

/** A number as Python's float. */
export const float = (value: number): number | WholeFloat => (Number.isInteger(value) ? { float: value } : value);

/** The value of a number or boolean, and whether it is a float; undefined for anything else. */
export function numeric(value: Value): { readonly value: number; readonly isFloat: boolean } | undefined {
  if (typeof value === "boolean") return { value: Number(value), isFloat: false };
  if (typeof value === "number") return { value, isFloat: !Number.isInteger(value) };
  return isWholeFloat(value) ? { value: value.float, isFloat: true } : undefined;
}

/** As Python's `repr`: the shortest digits that mean the number, with an exponent below 1e-4 and from 1e16 on. */
export function showNumber(value: number | WholeFloat): string {
  if (typeof value === "number" && Number.isInteger(value)) return BigInt(value).toString();
  const x = typeof value === "number" ? value : value.float;
  if (Number.isNaN(x)) return "nan";
  if (!Number.isFinite(x)) return x > 0 ? "inf" : "-inf";
  const [digits, exponent] = x.toExponential().split("e");
  if (x !== 0 && (Number(exponent) < -4 || Number(exponent) >= 16)) return digits + shownExponent(exponent);
  return (Object.is(x, -0) ? "-0" : String(x)) + (Number.isInteger(x) ? ".0" : "");
}

/** `e+16`, of two digits at least. */
export const shownExponent = (exponent: string): string => `e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;

/** Minus a number. */
export const negated = ({ value, isFloat }: { readonly value: number; readonly isFloat: boolean }): number | WholeFloat => (isFloat ? float(-value) : 0 - value);

/** `+ - * / // % **` as Python computes them. @throws TemplateError for a division by 0, and for ints beyond what is exact here. */
export function arithmetic(operator: string, a: { readonly value: number; readonly isFloat: boolean }, b: { readonly value: number; readonly isFloat: boolean }): number | WholeFloat {
  const [x, y] = [a.value, b.value];
  if (y === 0 && (operator === "/" || operator === "//" || operator === "%")) throw new TemplateError(`${operator}: division by zero`);
  if (x === 0 && y < 0 && operator === "**") throw new TemplateError("**: 0 cannot be raised to a negative power");
  const result = compute(operator, x, y);
  if (a.isFloat || b.isFloat || operator === "/" || (operator === "**" && y < 0)) return float(result);
  if (Number.isSafeInteger(result)) return result;
  throw new TemplateError(`${operator}: expected whole numbers below 2^53, found ${result}`);
}

function compute(operator: string, x: number, y: number): number {
  if (operator === "+") return x + y;
  if (operator === "-") return x - y;
  if (operator === "*") return x * y;
  if (operator === "/") return x / y;
  if (operator === "**") return x ** y;
  // The remainder has the sign of the divisor, even where it is 0.
  const rest = x % y;
  const modulo = rest === 0 ? (y < 0 ? -0 : 0) : rest < 0 !== y < 0 ? rest + y : rest;
  if (operator === "%") return modulo;
  const quotient = (x - rest) / y - (rest === 0 || modulo === rest ? 0 : 1);
  return quotient === 0 ? 0 * (x / y) : Math.floor(quotient) + (quotient - Math.floor(quotient) > 0.5 ? 1 : 0);
}

/** Python's `round`, as decimal digits with `places` behind the point: what lies exactly in the middle goes to the even digit. */
export function fixed(x: number, places: number): string {
  if (!Number.isFinite(x)) return showNumber(x);
  const text = Math.abs(x) >= 1e21 ? BigInt(Math.abs(x)).toString() : Math.abs(x).toFixed(100);
  const [whole, fraction = ""] = text.split(".");
  const kept = BigInt(whole + fraction.padEnd(100, "0").slice(0, places));
  const rest = fraction.slice(places);
  const up = /^5[0]*$/.test(rest) ? kept % 2n === 1n : rest >= "5";
  const digits = String(up ? kept + 1n : kept).padStart(places + 1, "0");
  return (x < 0 || Object.is(x, -0) ? "-" : "") + (places === 0 ? digits : `${digits.slice(0, -places)}.${digits.slice(-places)}`);
}
