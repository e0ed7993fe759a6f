import type { WholeFloat } from "./numbers.ts";

/** An argument of a call: by position, or by name. */
export interface Arguments {
  readonly positional: readonly Expression[];
  readonly named: readonly (readonly [string, Expression])[];
}

export type Expression = { readonly line: number } & (
  | { readonly is: "literal"; readonly value: string | number | WholeFloat | boolean | null }
  | { readonly is: "name"; readonly name: string }
  | { readonly is: "list" | "tuple"; readonly items: readonly Expression[] }
  | { readonly is: "dict"; readonly entries: readonly (readonly [Expression, Expression])[] }
  | { readonly is: "attribute"; readonly of: Expression; readonly name: string }
  | { readonly is: "item"; readonly of: Expression; readonly key: Expression }
  | { readonly is: "slice"; readonly of: Expression; readonly parts: readonly (Expression | undefined)[] }
  | { readonly is: "call"; readonly callee: Expression; readonly args: Arguments }
  | { readonly is: "filter"; readonly of: Expression; readonly name: string; readonly args: Arguments }
  | { readonly is: "test"; readonly of: Expression; readonly name: string; readonly args: Arguments; readonly negated: boolean }
  | { readonly is: "unary"; readonly operator: string; readonly of: Expression }
  | { readonly is: "binary"; readonly operator: string; readonly left: Expression; readonly right: Expression }
  | { readonly is: "compare"; readonly first: Expression; readonly rest: readonly (readonly [string, Expression])[] }
  | { readonly is: "choice"; readonly condition: Expression; readonly then: Expression; readonly otherwise: Expression | undefined }
);

/** Where a value goes: one name, several that take it apart, or an attribute of a namespace. */
export type Target = { readonly names: readonly string[]; readonly attribute?: string };

export interface Parameter {
  readonly name: string;
  readonly fallback: Expression | undefined;
}

export type Statement = { readonly line: number } & (
  | { readonly is: "text"; readonly text: string }
  | { readonly is: "output"; readonly value: Expression }
  | { readonly is: "if"; readonly branches: readonly { readonly condition: Expression; readonly body: Block }[]; readonly otherwise: Block }
  | { readonly is: "for"; readonly target: Target; readonly over: Expression; readonly condition: Expression | undefined; readonly body: Block; readonly otherwise: Block }
  | { readonly is: "set"; readonly target: Target; readonly value: Expression }
  | { readonly is: "setBlock"; readonly target: Target; readonly body: Block; readonly filters: Expression }
  | { readonly is: "filterBlock"; readonly body: Block; readonly filters: Expression }
  | { readonly is: "macro"; readonly name: string; readonly parameters: readonly Parameter[]; readonly body: Block }
  | { readonly is: "callBlock"; readonly parameters: readonly Parameter[]; readonly call: Expression; readonly body: Block }
  | { readonly is: "scope"; readonly body: Block }
  | { readonly is: "with"; readonly values: readonly (readonly [string, Expression])[]; readonly body: Block }
  | { readonly is: "break" }
  | { readonly is: "continue" }
);

export type Block = readonly Statement[];
