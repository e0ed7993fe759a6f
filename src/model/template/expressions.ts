import { TemplateError } from "./errors.ts";
import type { Token } from "./lexer.ts";
import { float } from "./numbers.ts";
import type { Arguments, Expression } from "./syntax.ts";

/** Reads tokens one after the other. */
export interface TokenReader {
  readonly peek: (ahead?: number) => Token | undefined;
  readonly next: () => Token;
  /** Takes the next token if it is this operator or name. */
  readonly accept: (text: string) => boolean;
  readonly expect: (text: string) => void;
  readonly name: () => string;
  readonly fail: (problem: string) => never;
  readonly line: () => number;
}

export function tokenReader(tokens: readonly Token[]): TokenReader {
  let at = 0;
  const line = () => (tokens[at] ?? tokens[tokens.length - 1])?.line ?? 1;
  const fail = (problem: string): never => {
    throw new TemplateError(problem, line());
  };
  const found = () => (tokens[at] ? JSON.stringify(tokens[at].text) : "the end of the template");
  const isWord = (token: Token | undefined, text: string) => token?.text === text && (token.kind === "name" || token.kind === "operator" || token.kind === "close");
  const next = () => tokens[at++] ?? fail("unexpected end of the template");
  const accept = (text: string) => {
    if (!isWord(tokens[at], text)) return false;
    at++;
    return true;
  };
  return {
    peek: (ahead = 0) => tokens[at + ahead],
    next,
    accept,
    expect: (text) => void (accept(text) || fail(`expected "${text}", found ${found()}`)),
    name: () => (tokens[at]?.kind === "name" ? next().text : fail(`expected a name, found ${found()}`)),
    fail,
    line,
  };
}

/** Expressions nest at most this deep, so that reading and computing them cannot exhaust the stack. */
const MAX_NESTING = 100;

const CONSTANTS: Readonly<Record<string, boolean | null>> = { true: true, True: true, false: false, False: false, none: null, None: null };
const COMPARISONS = new Set(["==", "!=", "<", ">", "<=", ">="]);
const NO_ARGUMENT = new Set(["else", "or", "and", "is", "in", "not", "if"]);

/** A reader of expressions, jinja's grammar from the loosest binding to the tightest. */
export function expressionReader(reader: TokenReader) {
  const { peek, next, accept, expect, name, fail, line } = reader;
  let depth = 0;

  const nested = <T>(read: () => T): T => {
    if (++depth > MAX_NESTING) fail(`expected expressions nested at most ${MAX_NESTING} deep`);
    const result = read();
    depth--;
    return result;
  };
  const isOperator = (text: string) => peek()?.kind === "operator" && peek()!.text === text;
  const isBinary = (text: string) => (peek()?.kind === "operator" || peek()?.kind === "name") && peek()!.text === text;
  const isName = (text: string, ahead = 0) => peek(ahead)?.kind === "name" && peek(ahead)!.text === text;

  /** A whole expression. @param choice Whether `x if y` may stand here: not after the `in` of a loop, which has an `if` of its own. */
  function expression(choice = true): Expression {
    return nested(() => {
      const first = or();
      if (!choice || !isName("if")) return first;
      const at = line();
      next();
      const condition = or();
      return { is: "choice", condition, then: first, otherwise: accept("else") ? expression() : undefined, line: at };
    });
  }

  const leftward = (inner: () => Expression, operators: readonly string[]) => (): Expression => {
    let left = inner();
    // A long chain makes a deep tree: it counts as nesting.
    const before = depth;
    for (let operator = operators.find(isBinary); operator; operator = operators.find(isBinary)) {
      const at = line();
      next();
      if (++depth > 20 * MAX_NESTING) fail("expected shorter chains of operators");
      left = { is: "binary", operator, left, right: inner(), line: at };
    }
    depth = before;
    return left;
  };

  const and = leftward(not, ["and"]);
  const or = leftward(and, ["or"]);

  function not(): Expression {
    if (!isName("not")) return compare();
    const at = line();
    next();
    return { is: "unary", operator: "not", of: nested(not), line: at };
  }

  function compare(): Expression {
    const at = line();
    const first = sum();
    const rest: [string, Expression][] = [];
    for (;;) {
      const token = peek();
      if (token?.kind === "operator" && COMPARISONS.has(token.text)) rest.push([next().text, sum()]);
      else if (accept("in")) rest.push(["in", sum()]);
      else if (isName("not") && isName("in", 1)) {
        next();
        next();
        rest.push(["not in", sum()]);
      } else break;
    }
    return rest.length === 0 ? first : { is: "compare", first, rest, line: at };
  }

  const power = leftward(unary, ["**"]);
  const product = leftward(power, ["*", "//", "/", "%"]);
  const joined = leftward(product, ["~"]);
  const sum = leftward(joined, ["+", "-"]);

  function unary(filters = true): Expression {
    const at = line();
    const operator = isOperator("-") ? "-" : isOperator("+") ? "+" : undefined;
    let found: Expression;
    if (operator) {
      next();
      found = { is: "unary", operator, of: nested(() => unary(false)), line: at };
    } else found = postfix(primary());
    return filters ? filtered(found) : found;
  }

  function primary(): Expression {
    const at = line();
    const token = next();
    if (token.kind === "string") {
      let value = token.text;
      while (peek()?.kind === "string") value += next().text;
      return { is: "literal", value, line: at };
    }
    if (token.kind === "number") return { is: "literal", value: /[.eE]/.test(token.text) ? float(Number(token.text)) : Number(token.text), line: at };
    if (token.kind === "name") {
      if (Object.hasOwn(CONSTANTS, token.text)) return { is: "literal", value: CONSTANTS[token.text], line: at };
      return { is: "name", name: token.text, line: at };
    }
    if (token.kind === "operator" && token.text === "(") return nested(() => parenthesised(at));
    if (token.kind === "operator" && token.text === "[") return { is: "list", items: nested(() => items("]")), line: at };
    if (token.kind === "operator" && token.text === "{") return nested(() => dictionary(at));
    return fail(`expected an expression, found ${JSON.stringify(token.text)}`);
  }

  function items(close: string): Expression[] {
    const found: Expression[] = [];
    while (!accept(close)) {
      found.push(expression());
      if (!accept(",")) {
        expect(close);
        break;
      }
    }
    return found;
  }

  function parenthesised(at: number): Expression {
    if (accept(")")) return { is: "tuple", items: [], line: at };
    const first = expression();
    if (accept(")")) return first;
    expect(",");
    return { is: "tuple", items: [first, ...items(")")], line: at };
  }

  function dictionary(at: number): Expression {
    const entries: [Expression, Expression][] = [];
    while (!accept("}")) {
      const key = expression();
      expect(":");
      entries.push([key, expression()]);
      if (!accept(",")) {
        expect("}");
        break;
      }
    }
    return { is: "dict", entries, line: at };
  }

  function postfix(start: Expression): Expression {
    let found = start;
    for (let length = 0; ; length++) {
      if (length > MAX_NESTING) fail(`expected at most ${MAX_NESTING} accesses in a row`);
      const at = line();
      if (isOperator(".")) {
        next();
        if (peek()?.kind === "number") found = { is: "item", of: found, key: { is: "literal", value: Number(next().text), line: at }, line: at };
        else found = { is: "attribute", of: found, name: name(), line: at };
      } else if (isOperator("[")) {
        next();
        found = subscript(found, at);
      } else if (isOperator("(")) found = { is: "call", callee: found, args: callArguments(), line: at };
      else return found;
    }
  }

  function subscript(of: Expression, at: number): Expression {
    const parts: (Expression | undefined)[] = [undefined];
    while (!isOperator("]")) {
      if (accept(":")) parts.push(undefined);
      else if (parts[parts.length - 1] !== undefined || parts.length > 3) fail('expected "]"');
      else parts[parts.length - 1] = expression();
    }
    next();
    if (parts.length > 1) return { is: "slice", of, parts, line: at };
    const [key] = parts;
    return key ? { is: "item", of, key, line: at } : fail("expected an index");
  }

  function callArguments(): Arguments {
    const positional: Expression[] = [];
    const named: [string, Expression][] = [];
    expect("(");
    while (!accept(")")) {
      if (peek()?.kind === "name" && peek(1)?.kind === "operator" && peek(1)!.text === "=") {
        const key = name();
        next();
        named.push([key, expression()]);
      } else if (isOperator("*") || isOperator("**")) fail("expected arguments without * or **");
      else positional.push(expression());
      if (!accept(",")) {
        expect(")");
        break;
      }
    }
    return { positional, named };
  }

  /** Filters and tests bind tighter than any operator between two values. */
  function filtered(start: Expression): Expression {
    let found = start;
    for (let length = 0; ; length++) {
      if (length > MAX_NESTING) fail(`expected at most ${MAX_NESTING} filters in a row`);
      const at = line();
      if (accept("|")) found = { is: "filter", of: found, name: filterName(), args: isOperator("(") ? callArguments() : { positional: [], named: [] }, line: at };
      else if (isName("is")) {
        next();
        const negated = accept("not");
        found = { is: "test", of: found, name: filterName(), args: testArguments(), negated, line: at };
      } else if (isOperator("(")) found = { is: "call", callee: found, args: callArguments(), line: at };
      else return found;
    }
  }

  /** With its dots, as jinja has namespaces of filters. */
  function filterName(): string {
    let found = name();
    while (accept(".")) found += `.${name()}`;
    return found;
  }

  /** A test's argument may stand without parentheses: `is divisibleby 3`. */
  function testArguments(): Arguments {
    if (isOperator("(")) return callArguments();
    const token = peek();
    const begins = token && (token.kind === "string" || token.kind === "number" || (token.kind === "name" && !NO_ARGUMENT.has(token.text)) || isOperator("[") || isOperator("{"));
    return { positional: begins ? [postfix(primary())] : [], named: [] };
  }

  /** Filters only, for filter blocks: each takes the one before, the first takes `input`. */
  function filterChain(input: Expression): Expression {
    const at = line();
    const first: Expression = { is: "filter", of: input, name: filterName(), args: isOperator("(") ? callArguments() : { positional: [], named: [] }, line: at };
    return filtered(first);
  }

  /** An expression, or several with commas between, which are a tuple. */
  function tuple(choice = true): Expression {
    const at = line();
    const first = expression(choice);
    if (!isOperator(",")) return first;
    const found = [first];
    while (accept(",")) {
      if (peek()?.kind === "close") break;
      found.push(expression(choice));
    }
    return { is: "tuple", items: found, line: at };
  }

  return { expression, tuple, filterChain };
}
