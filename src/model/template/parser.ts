import { TemplateError } from "./errors.ts";
import { expressionReader, tokenReader } from "./expressions.ts";
import { lex } from "./lexer.ts";
import type { Block, Expression, Parameter, Statement, Target } from "./syntax.ts";

/** Blocks nest at most this deep. */
const MAX_NESTING = 100;

/** What a block's body is called when it is handed to filters. */
export const BODY = " body";

/** A template as statements. @throws TemplateError naming the line: a syntax error, or a tag that chat templates do not use. */
export function parseTemplate(source: string): Block {
  const reader = tokenReader(lex(source));
  const { peek, next, accept, expect, name, fail, line } = reader;
  const { expression, tuple, filterChain } = expressionReader(reader);
  let depth = 0;

  const block = (...ends: string[]): Block => {
    if (++depth > MAX_NESTING) fail(`expected blocks nested at most ${MAX_NESTING} deep`);
    const statements: Statement[] = [];
    for (let token = peek(); token; token = peek()) {
      if (token.kind === "statement" && ends.includes(peek(1)?.text ?? "")) break;
      statements.push(statement());
    }
    depth--;
    if (peek() === undefined && ends.length > 0) throw new TemplateError(`expected ${ends[ends.length - 1]}, found the end of the template`);
    return statements;
  };
  const close = () => expect("%}");
  /** Takes the tag that ends a block. */
  const end = (word: string) => {
    next();
    expect(word);
    close();
  };

  function statement(): Statement {
    const token = next();
    const at = token.line;
    if (token.kind === "text") return { is: "text", text: token.text, line: at };
    if (token.kind === "expression") {
      const value = tuple();
      expect("}}");
      return { is: "output", value, line: at };
    }
    const word = name();
    const read = TAGS[word];
    if (!read || !Object.hasOwn(TAGS, word)) throw new TemplateError(`expected a tag of ${Object.keys(TAGS).join(", ")}, found "${word}"`, at);
    return { ...read(), line: at } as Statement;
  }

  type Bare = Statement extends infer S ? (S extends Statement ? Omit<S, "line"> : never) : never;

  const TAGS: Readonly<Record<string, () => Bare>> = {
    if: readIf,
    for: readFor,
    set: readSet,
    macro: readMacro,
    call: readCall,
    filter() {
      const filters = filterChain(bodyName());
      close();
      const body = block("endfilter");
      end("endfilter");
      return { is: "filterBlock", filters, body };
    },
    // transformers marks what the assistant wrote, for training.
    generation() {
      close();
      const body = block("endgeneration");
      end("endgeneration");
      return { is: "scope", body };
    },
    with() {
      const values: [string, Expression][] = [];
      while (values.length === 0 || accept(",")) {
        const key = name();
        expect("=");
        values.push([key, expression()]);
      }
      close();
      const body = block("endwith");
      end("endwith");
      return { is: "with", values, body };
    },
    break() {
      close();
      return { is: "break" };
    },
    continue() {
      close();
      return { is: "continue" };
    },
    do() {
      const value = expression();
      close();
      return { is: "set", target: { names: [BODY] }, value };
    },
  };

  const bodyName = (): Expression => ({ is: "name", name: BODY, line: line() });

  function readIf(): Bare {
    const branches: { condition: Expression; body: Block }[] = [];
    let otherwise: Block = [];
    for (;;) {
      const condition = tuple();
      close();
      branches.push({ condition, body: block("elif", "else", "endif") });
      next();
      if (accept("elif")) continue;
      if (accept("else")) {
        close();
        otherwise = block("endif");
        next();
      }
      expect("endif");
      close();
      return { is: "if", branches, otherwise };
    }
  }

  function readFor(): Bare {
    const target: Target = { names: names() };
    expect("in");
    const over = tuple(false);
    const condition = accept("if") ? expression() : undefined;
    if (accept("recursive")) fail("expected a loop that is not recursive");
    close();
    const body = block("else", "endfor");
    next();
    let otherwise: Block = [];
    if (accept("else")) {
      close();
      otherwise = block("endfor");
      next();
    }
    expect("endfor");
    close();
    return { is: "for", target, over, condition, body, otherwise };
  }

  function names(): string[] {
    const inParentheses = accept("(");
    const found = [name()];
    while (accept(",")) if (peek()?.kind === "name" && peek()!.text !== "in") found.push(name());
    if (inParentheses) expect(")");
    return found;
  }

  function readSet(): Bare {
    const found = names();
    const target: Target = accept(".") ? { names: found, attribute: name() } : { names: found };
    if (accept("=")) {
      const value = tuple();
      close();
      return { is: "set", target, value };
    }
    const filters = accept("|") ? filterChain(bodyName()) : bodyName();
    close();
    const body = block("endset");
    end("endset");
    return { is: "setBlock", target, filters, body };
  }

  function parameters(): Parameter[] {
    const found: Parameter[] = [];
    expect("(");
    while (!accept(")")) {
      found.push({ name: name(), fallback: accept("=") ? expression() : undefined });
      if (!accept(",")) {
        expect(")");
        break;
      }
    }
    return found;
  }

  function readMacro(): Bare {
    const called = name();
    const taken = parameters();
    close();
    const body = block("endmacro");
    end("endmacro");
    return { is: "macro", name: called, parameters: taken, body };
  }

  function readCall(): Bare {
    const taken = peek()?.text === "(" ? parameters() : [];
    const call = expression();
    if (call.is !== "call") fail("expected a call");
    close();
    const body = block("endcall");
    end("endcall");
    return { is: "callBlock", parameters: taken, call, body };
  }

  const statements = block();
  if (peek()) fail("expected the end of the template");
  return statements;
}
