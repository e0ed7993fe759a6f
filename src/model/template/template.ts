import { TemplateError } from "./errors.ts";
import { interpret } from "./interpret.ts";
import { parseTemplate } from "./parser.ts";
import { type Dict, isDict, iterate, kindOf, labelled, MAX_ITEMS, show, toValue, type Value } from "./values.ts";

/** A chat template, ready to render. */
export interface Template {
  /**
   * The text for some data: `messages`, `add_generation_prompt`, `bos_token`, and whatever else the template asks for.
   * @param now What `strftime_now` tells; default the present.
   * @throws TemplateError: what the template raises itself, or what it asks for and memwall lacks.
   */
  render(data: Readonly<Record<string, unknown>>, now?: Date): string;
}

/**
 * Reads a chat template: jinja as transformers runs it (trim_blocks, lstrip_blocks, loop controls, `raise_exception`, `strftime_now`),
 * as far as published templates use it. Rendering ends always: steps, nesting, texts and lists are bounded.
 * @throws TemplateError for a template that cannot be read.
 */
export function compileTemplate(source: string): Template {
  const program = bounded(() => parseTemplate(source));
  return {
    render(data, now = new Date()) {
      const values = Object.entries(data).map(([key, value]): [string, Value] => [key, toValue(value)]);
      return bounded(() => interpret(program, new Map<string, Value>([...globals(now), ...values])));
    },
  };
}

/** Nesting is limited kind by kind; what all kinds together can still reach is the end of the stack. */
function bounded<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof RangeError) throw new TemplateError("expected less nesting");
    throw error;
  }
}

function globals(now: Date): [string, Value][] {
  return [
    [
      "raise_exception",
      ([message]) => {
        throw new TemplateError(show(message));
      },
    ],
    ["strftime_now", ([format]) => strftime(now, show(format))],
    ["range", (args) => range(args)],
    [
      "namespace",
      ([initial], named) => ({ attributes: new Map([...dictOf(initial), ...named].map(([key, value]) => [String(key), value])) }),
    ],
    ["dict", ([initial], named) => new Map([...dictOf(initial), ...named])],
    ["list", ([items]) => [...iterate(items)]],
  ];
}

const dictOf = (value: Value): Dict => (isDict(value) ? value : new Map());

function range(args: readonly Value[]): Value {
  const numbers = args.map((value) => {
    if (typeof value === "number" && Number.isInteger(value)) return value;
    throw new TemplateError(`range: expected whole numbers, found ${kindOf(value)}`);
  });
  const [start, stop, step] = numbers.length === 1 ? [0, numbers[0], 1] : [numbers[0], numbers[1], numbers[2] ?? 1];
  if (start === undefined || stop === undefined || step === 0) throw new TemplateError("range: expected one to three numbers, the step not 0");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > MAX_ITEMS) throw new TemplateError(`range: expected at most ${MAX_ITEMS} numbers, found ${length}`);
  return labelled(Array.from({ length }, (_, i) => start + i * step), `range(${start}, ${stop}${step === 1 ? "" : `, ${step}`})`);
}

const two = (value: number) => String(value).padStart(2, "0");
const name = (date: Date, options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat("en-US", options).format(date);

/** Python's `strftime` in local time, in English. */
function strftime(date: Date, format: string): string {
  const hour12 = date.getHours() % 12 || 12;
  const dayOfYear = Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 1)) / 86_400_000) + 1;
  const parts: Readonly<Record<string, () => string>> = {
    ...{ Y: () => String(date.getFullYear()), y: () => two(date.getFullYear() % 100), m: () => two(date.getMonth() + 1), d: () => two(date.getDate()) },
    ...{ H: () => two(date.getHours()), I: () => two(hour12), M: () => two(date.getMinutes()), S: () => two(date.getSeconds()), p: () => (date.getHours() < 12 ? "AM" : "PM") },
    ...{ A: () => name(date, { weekday: "long" }), a: () => name(date, { weekday: "short" }), B: () => name(date, { month: "long" }), b: () => name(date, { month: "short" }) },
    ...{ j: () => String(dayOfYear).padStart(3, "0"), f: () => String(date.getMilliseconds() * 1000).padStart(6, "0"), w: () => String(date.getDay()), "%": () => "%" },
    F: () => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    T: () => `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
  };
  return format.replace(/%(-?)([A-Za-z%])/g, (all, bare: string, letter: string) => {
    const part = Object.hasOwn(parts, letter) ? parts[letter]() : all;
    return bare ? part.replace(/^0+(?=\d)/, "") : part;
  });
}
