import { TemplateError } from "./errors.ts";
import { filterArguments, FILTERS, type FilterContext, TESTS } from "./filters.ts";
import { calculate, member, slice } from "./methods.ts";
import { negated, numeric } from "./numbers.ts";
import { BODY } from "./parser.ts";
import type { Arguments, Block, Expression, Parameter, Statement, Target } from "./syntax.ts";
import { asKey, type Callable, compare, contains, equal, isList, isNamespace, iterate, type Key, kindOf, limited, MAX_TEXT, show, truthy, tuple, type Value } from "./values.ts";

/** What one rendering may do: statements and expressions computed, macros inside of each other. */
const MAX_STEPS = 2_000_000;
const MAX_CALLS = 64;

/** Names and their values; what is set inside of a loop or macro is not seen outside. */
interface Scope {
  readonly names: Map<string, Value>;
  readonly outer: Scope | undefined;
}

type Signal = "break" | "continue" | undefined;

/**
 * Runs a template's statements.
 * @param globals What every template may use: functions such as `range`, and the data to render.
 * @throws TemplateError, with the line where it happened.
 */
export function interpret(program: Block, globals: ReadonlyMap<string, Value>): string {
  let steps = 0;
  let calls = 0;
  let length = 0;
  let out: string[] = [];

  const write = (text: string): void => {
    length += text.length;
    if (length > MAX_TEXT) throw new TemplateError(`expected to write at most ${MAX_TEXT} characters`);
    out.push(text);
  };
  const count = (line: number): void => {
    if (++steps > MAX_STEPS) throw new TemplateError(`expected to end within ${MAX_STEPS} steps (does it loop forever?)`, line);
  };
  /** What `run` writes, as a text of its own. */
  const captured = (run: () => void): string => {
    const before = out;
    out = [];
    try {
      run();
      return out.join("");
    } finally {
      out = before;
    }
  };

  const lookup = (scope: Scope, name: string): Value => {
    for (let at: Scope | undefined = scope; at; at = at.outer) if (at.names.has(name)) return at.names.get(name);
    return globals.get(name);
  };

  const context: FilterContext = { filter: applyFilter, test: applyTest };

  function applyFilter(name: string, value: Value, args: readonly Value[], named: ReadonlyMap<string, Value>): Value {
    if (!Object.hasOwn(FILTERS, name)) throw new TemplateError(`expected a filter of ${Object.keys(FILTERS).join(", ")}, found "${name}"`);
    return FILTERS[name](value, filterArguments(args, named), context);
  }

  function applyTest(name: string, value: Value, args: readonly Value[]): boolean {
    if (!Object.hasOwn(TESTS, name)) throw new TemplateError(`expected a test of ${Object.keys(TESTS).join(", ")}, found "${name}"`);
    return TESTS[name](value, args);
  }

  function values(args: Arguments, scope: Scope): [Value[], Map<string, Value>] {
    return [args.positional.map((each) => evaluate(each, scope)), new Map(args.named.map(([name, each]) => [name, evaluate(each, scope)]))];
  }

  function call(callee: Value, name: string, args: readonly Value[], named: ReadonlyMap<string, Value>): Value {
    if (typeof callee !== "function") throw new TemplateError(`expected a function ${name}, found ${kindOf(callee)}`);
    if (++calls > MAX_CALLS) throw new TemplateError(`expected at most ${MAX_CALLS} calls inside of each other`);
    const result = callee(args, named);
    calls--;
    return result;
  }

  function evaluate(node: Expression, scope: Scope): Value {
    count(node.line);
    try {
      const value = compute(node, scope);
      // Long texts and lists cost more than short ones.
      if (typeof value === "string" || isList(value)) steps += value.length >> 8;
      return value;
    } catch (error) {
      if (error instanceof TemplateError && !/^chat template, line/.test(error.message)) throw new TemplateError(error.message.replace(/^chat template: /, ""), node.line);
      throw error;
    }
  }

  function compute(node: Expression, scope: Scope): Value {
    switch (node.is) {
      case "literal":
        return node.value;
      case "name":
        return lookup(scope, node.name);
      case "list":
        return node.items.map((item) => evaluate(item, scope));
      case "tuple":
        return tuple(...node.items.map((item) => evaluate(item, scope)));
      case "dict":
        return new Map(node.entries.map(([key, value]) => [keyOf(evaluate(key, scope)), evaluate(value, scope)]));
      case "attribute":
        return member(evaluate(node.of, scope), node.name, true);
      case "item":
        return member(evaluate(node.of, scope), evaluate(node.key, scope), false);
      case "slice":
        return slice(evaluate(node.of, scope), node.parts.map((part) => part && evaluate(part, scope)));
      case "call":
        return call(evaluate(node.callee, scope), nameOf(node.callee), ...values(node.args, scope));
      case "filter":
        return applyFilter(node.name, evaluate(node.of, scope), ...values(node.args, scope));
      case "test":
        return applyTest(node.name, evaluate(node.of, scope), values(node.args, scope)[0]) !== node.negated;
      case "unary": {
        const value = evaluate(node.of, scope);
        if (node.operator === "not") return !truthy(value);
        const number = numeric(value);
        return number && node.operator === "-" ? negated(number) : calculate(node.operator, 0, value);
      }
      case "binary": {
        const left = evaluate(node.left, scope);
        if (node.operator === "and") return truthy(left) ? evaluate(node.right, scope) : left;
        if (node.operator === "or") return truthy(left) ? left : evaluate(node.right, scope);
        return calculate(node.operator, left, evaluate(node.right, scope));
      }
      case "compare": {
        let left = evaluate(node.first, scope);
        for (const [operator, each] of node.rest) {
          const right = evaluate(each, scope);
          if (!holds(operator, left, right)) return false;
          left = right;
        }
        return true;
      }
      case "choice":
        return truthy(evaluate(node.condition, scope)) ? evaluate(node.then, scope) : node.otherwise && evaluate(node.otherwise, scope);
    }
  }

  function assign({ names, attribute }: Target, value: Value, scope: Scope): void {
    if (attribute !== undefined) {
      const target = lookup(scope, names[0]);
      if (!isNamespace(target)) throw new TemplateError(`expected ${names[0]} to be a namespace, whose attributes can be set, found ${kindOf(target)}`);
      target.attributes.set(attribute, value);
    } else if (names.length === 1) scope.names.set(names[0], value);
    else {
      const parts = iterate(value);
      if (parts.length !== names.length) throw new TemplateError(`expected ${names.length} values for ${names.join(", ")}, found ${parts.length}`);
      names.forEach((name, i) => scope.names.set(name, parts[i]));
    }
  }

  function macro(name: string, parameters: readonly Parameter[], body: Block, scope: Scope): Callable {
    return (args, named) => {
      const inner: Scope = { names: new Map(), outer: scope };
      if (args.length > parameters.length) throw new TemplateError(`${name}: expected at most ${parameters.length} arguments, found ${args.length}`);
      for (const [key, value] of named) if (key === "caller" || parameters.some((one) => one.name === key)) inner.names.set(key, value);
      parameters.forEach((one, i) => {
        if (i < args.length) inner.names.set(one.name, args[i]);
        else if (!named.has(one.name)) inner.names.set(one.name, one.fallback && evaluate(one.fallback, inner));
      });
      return captured(() => void run(body, inner));
    };
  }

  function loop(statement: Extract<Statement, { is: "for" }>, scope: Scope): void {
    const { target, condition, body } = statement;
    let items = iterate(evaluate(statement.over, scope));
    const inner = (item: Value): Scope => {
      const own: Scope = { names: new Map(), outer: scope };
      assign(target, item, own);
      return own;
    };
    if (condition) items = items.filter((item) => truthy(evaluate(condition, inner(item))));
    const changed = changeDetector();
    let finished = false;
    for (let i = 0; i < items.length; i++) {
      count(statement.line);
      const own = inner(items[i]);
      own.names.set("loop", loopFacts(items, i, changed));
      const signal = run(body, own);
      if (signal === "break") break;
      finished ||= signal === undefined;
    }
    // jinja's loop counts as run once a round came to its end: one that only breaks or continues does not.
    if (!finished) run(statement.otherwise, { names: new Map(), outer: scope });
  }

  function run(block: Block, scope: Scope): Signal {
    for (const statement of block) {
      count(statement.line);
      const signal = execute(statement, scope);
      if (signal) return signal;
    }
    return undefined;
  }

  function execute(statement: Statement, scope: Scope): Signal {
    switch (statement.is) {
      case "text":
        write(statement.text);
        return undefined;
      case "output":
        write(show(evaluate(statement.value, scope)));
        return undefined;
      case "if": {
        const branch = statement.branches.find(({ condition }) => truthy(evaluate(condition, scope)));
        return run(branch ? branch.body : statement.otherwise, scope);
      }
      case "for":
        loop(statement, scope);
        return undefined;
      case "set":
        assign(statement.target, evaluate(statement.value, scope), scope);
        return undefined;
      case "setBlock":
      case "filterBlock": {
        const inner: Scope = { names: new Map(), outer: scope };
        const body = captured(() => void run(statement.body, inner));
        const value = evaluate(statement.filters, { names: new Map([[BODY, body]]), outer: scope });
        if (statement.is === "setBlock") assign(statement.target, value, scope);
        else write(show(value));
        return undefined;
      }
      case "macro":
        scope.names.set(statement.name, macro(statement.name, statement.parameters, statement.body, scope));
        return undefined;
      case "callBlock": {
        const { call: expression } = statement;
        if (expression.is !== "call") return undefined;
        const [args, named] = values(expression.args, scope);
        named.set("caller", macro("caller", statement.parameters, statement.body, scope));
        write(show(call(evaluate(expression.callee, scope), nameOf(expression.callee), args, named)));
        return undefined;
      }
      case "scope":
        return run(statement.body, scope);
      case "with": {
        const inner: Scope = { names: new Map(), outer: scope };
        // jinja computes all values outside of the block, where none of the names is known yet.
        for (const [name, value] of statement.values) inner.names.set(name, evaluate(value, scope));
        return run(statement.body, inner);
      }
      case "break":
      case "continue":
        return statement.is;
    }
  }

  run(program, { names: new Map(), outer: undefined });
  return limited(out.join(""));
}

function holds(operator: string, left: Value, right: Value): boolean {
  if (operator === "==") return equal(left, right);
  if (operator === "!=") return !equal(left, right);
  if (operator === "in") return contains(right, left);
  if (operator === "not in") return !contains(right, left);
  const order = compare(left, right);
  return operator === "<" ? order < 0 : operator === ">" ? order > 0 : operator === "<=" ? order <= 0 : order >= 0;
}

function keyOf(value: Value): Key {
  const key = asKey(value);
  if (key === undefined) throw new TemplateError(`expected a key of a dict, found ${kindOf(value)}`);
  return key;
}

function nameOf(node: Expression): string {
  return node.is === "name" || node.is === "attribute" ? node.name : "to call";
}

/** `loop.changed`: whether its arguments differ from those of the call before. */
function changeDetector(): Callable {
  let before: readonly Value[] | undefined;
  return (args) => {
    const same = before !== undefined && equal([...before], [...args]);
    before = args;
    return !same;
  };
}

/** jinja's `loop`. */
function loopFacts(items: readonly Value[], i: number, changed: Callable): Value {
  const { length } = items;
  return new Map<string, Value>([
    ["index0", i],
    ["index", i + 1],
    ["revindex0", length - 1 - i],
    ["revindex", length - i],
    ["first", i === 0],
    ["last", i === length - 1],
    ["length", length],
    ["previtem", i > 0 ? items[i - 1] : undefined],
    ["nextitem", i + 1 < length ? items[i + 1] : undefined],
    ["depth", 1],
    ["depth0", 0],
    ["cycle", (args) => args[i % args.length]],
    ["changed", changed],
  ]);
}

