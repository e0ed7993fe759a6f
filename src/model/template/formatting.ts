import { TemplateError } from "./errors.ts";
import { fixed, numeric, showNumber, shownExponent } from "./numbers.ts";
import { isDict, kindOf, limited, represent, show, type Value } from "./values.ts";

/** Fields and digits beyond these no chat can need. */
const MOST_WIDTH = 1000;
const MOST_DIGITS = 50;

interface Spec {
  readonly fill: string;
  /** Empty: texts to the left, numbers to the right. */
  readonly align: string;
  readonly sign: string;
  readonly alternate: boolean;
  readonly width: number;
  readonly comma: string;
  readonly precision: number | undefined;
  /** Empty: as the value itself would show. */
  readonly type: string;
}

/** [[fill]align][sign][#][0][width][,][.precision][type] */
const SPEC = /^(?:(.?)([<>=^]))?([-+ ]?)(#?)(0?)(\d{0,4})([,_]?)(?:\.(\d{1,2}))?([a-zA-Z%]?)$/su;

/** Python's `format(value, specification)`. @throws TemplateError for a specification that the value does not take. */
function formatted(value: Value, specification: string): string {
  if (specification === "") return show(value);
  const found = SPEC.exec(specification);
  if (!found) throw new TemplateError(`format: expected a specification such as >10 or .2f, found ${specification.slice(0, 20)}`);
  const [, fill, align = "", sign, alternate, zero, width, comma, precision, type] = found;
  const digits = precision === undefined ? undefined : Number(precision);
  const number = numeric(value);
  const fits = number ? type !== "s" && (number.isFloat || digits === undefined || /[eEfFgG%]/.test(type)) : typeof value === "string" && sign + comma === "" && (type === "" || type === "s");
  if (!fits) throw new TemplateError(`format: expected a specification that ${kindOf(value)} takes, found ${specification}`);
  const zeros = zero !== "" && align === "" && number !== undefined;
  return padded(value, { fill: fill || (zero ? "0" : " "), align: zeros ? "=" : align, sign, alternate: alternate !== "", width: Number(width), comma, precision: digits, type });
}

function padded(value: Value, spec: Spec): string {
  const { fill, align, width, precision, type } = spec;
  if (width > MOST_WIDTH || (precision ?? 0) > MOST_DIGITS) throw new TemplateError(`format: expected at most ${MOST_WIDTH} characters and ${MOST_DIGITS} digits, found ${width} and ${precision ?? 0}`);
  const isText = type === "s" || (type === "" && !numeric(value));
  const [sign, body] = isText ? ["", [...show(value)].slice(0, precision).join("")] : numberText(value, spec);
  const space = Math.max(0, width - sign.length - [...body].length);
  const left = { "<": 0, ">": space, "^": Math.floor(space / 2), "=": 0, "": isText ? 0 : space }[align] ?? 0;
  if (align === "=") return sign + fill.repeat(space) + body;
  return fill.repeat(left) + sign + body + fill.repeat(space - left);
}

/** A number's sign and digits. */
function numberText(value: Value, { sign, alternate, comma, precision, type }: Spec): [string, string] {
  const { value: x, isFloat } = numeric(value)!;
  const body = digitsOf(Math.abs(x), isFloat, type, precision, alternate);
  const grouped = comma === "" ? body : body.replace(/^\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, comma));
  return [x < 0 || Object.is(x, -0) ? "-" : sign === "-" ? "" : sign, grouped];
}

const RADIX: Readonly<Record<string, number>> = { b: 2, o: 8, x: 16, X: 16 };

/** Digits of a number from 0 on, by the letter that says how. */
function digitsOf(x: number, isFloat: boolean, type: string, precision: number | undefined, alternate: boolean): string {
  if (!isFloat && Object.hasOwn(RADIX, type)) {
    const digits = BigInt(x).toString(RADIX[type]);
    return (alternate ? `0${type}` : "") + (type === "X" ? digits.toUpperCase() : digits);
  }
  if (!isFloat && (type === "d" || type === "n" || (type === "" && precision === undefined))) return BigInt(x).toString();
  const lower = type.toLowerCase();
  if (lower === "f") return fixed(x, precision ?? 6);
  if (type === "%") return `${fixed(x * 100, precision ?? 6)}%`;
  if (lower === "e") return exponential(x, precision ?? 6, type);
  if (type === "" && precision === undefined) return showNumber(isFloat && Number.isInteger(x) ? { float: x } : x);
  if (lower === "g" || lower === "n" || type === "") return general(x, Math.max(1, precision ?? 6), type);
  throw new TemplateError(`format: expected a type that ${isFloat ? "floats" : "whole numbers"} have, found ${type}`);
}

function exponential(x: number, digits: number, type: string): string {
  if (!Number.isFinite(x)) return showNumber(x);
  const [mantissa, exponent] = x.toExponential(digits).split("e");
  const shown = mantissa + shownExponent(exponent);
  return type === "E" || type === "G" ? shown.toUpperCase() : shown;
}

/** As many digits as given in all, without zeros at the end, and an exponent where it is shorter. */
function general(x: number, digits: number, type: string): string {
  if (!Number.isFinite(x)) return showNumber(x);
  const exponent = Number(x.toExponential(digits - 1).split("e")[1]);
  const plain = exponent >= -4 && exponent < (type === "" ? digits - 1 : digits);
  const text = plain ? fixed(x, digits - 1 - exponent) : exponential(x, digits - 1, type);
  const short = text.replace(/\.(\d*?)0+(?=e|E|$)/, (_, kept: string) => (kept ? `.${kept}` : ""));
  return type === "" && plain && !short.includes(".") ? `${short}.0` : short;
}

/** Python's `text % values`: a tuple's items or one value by position, a dict's values by name. @throws TemplateError */
export function percent(text: string, args: readonly Value[], named?: Value): string {
  let next = 0;
  const dict = named ?? (args.length === 1 && isDict(args[0]) ? args[0] : undefined);
  const out = text.replace(/%(?:\(([^)]*)\))?([-+ 0#]*)(\d{0,4})(?:\.(\d{1,2}))?(.?)/gsu, (all, key: string | undefined, flags: string, width: string, precision: string | undefined, type: string) => {
    if (type === "%") return "%";
    if (!/^[sdiurfFeEgGxXoc]$/.test(type)) throw new TemplateError(`%: expected a conversion such as %s or %.2f, found ${all.slice(0, 20)}`);
    if (key === undefined && next >= args.length) throw new TemplateError(`%: expected more values than ${args.length}`);
    if (key !== undefined && !(dict && isDict(dict) && dict.has(key))) throw new TemplateError(`%: expected a value named ${key.slice(0, 20)}, found none`);
    const value = key === undefined ? args[next++] : (dict as ReadonlyMap<string, Value>).get(key);
    const isText = type === "s" || type === "r" || type === "c";
    const number = isText ? undefined : numeric(value);
    if (!isText && !number) throw new TemplateError(`%: expected a number for %${type}, found ${kindOf(value)}`);
    const whole = /[diu]/.test(type);
    const shown = isText ? (type === "r" ? represent(value) : show(value)) : whole ? Math.trunc(number!.value) + 0 : value;
    return padded(shown, {
      ...{ fill: flags.includes("0") && !flags.includes("-") && !isText ? "0" : " ", align: flags.includes("-") ? "<" : isText ? ">" : flags.includes("0") ? "=" : ">" },
      ...{ sign: /[+ ]/.exec(flags)?.[0] ?? "", alternate: flags.includes("#"), width: Number(width), comma: "", type: isText ? "s" : whole ? "d" : type },
      precision: precision === undefined || whole ? undefined : Number(precision),
    });
  });
  if (next < args.length && !dict) throw new TemplateError(`%: expected ${next} values, found ${args.length}`);
  return limited(out);
}

/** Python's `"{} {name:.2f}".format(...)`, fields without attributes and indices. @throws TemplateError */
export function format(text: string, args: readonly Value[], named: ReadonlyMap<string, Value>): string {
  let next = 0;
  return limited(
    text.replace(/\{\{|\}\}|\{([^{}!:]*)(?:!([rs]))?(?::([^{}]*))?\}|[{}]/g, (all, field: string | undefined, conversion: string | undefined, specification = "") => {
      if (field === undefined) {
        if (all.length === 2) return all[0];
        throw new TemplateError("format: expected braces in pairs");
      }
      const position = field === "" ? next++ : /^\d+$/.test(field) ? Number(field) : undefined;
      if (position === undefined ? !named.has(field) : position >= args.length) throw new TemplateError(`format: expected a value for {${field.slice(0, 20)}}, found none`);
      const value = position === undefined ? named.get(field) : args[position];
      return formatted(conversion === "r" ? represent(value) : conversion === "s" ? show(value) : value, specification as string);
    }),
  );
}
