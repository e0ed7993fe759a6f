import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { TemplateError } from "../../../src/model/template/errors.ts";
import { compileTemplate } from "../../../src/model/template/template.ts";

interface Golden {
  cases: Record<string, unknown>[];
  templates: { name: string; template: string; results: ({ text: string } | { error: string; raised: boolean })[] }[];
  /** null: an error. */
  expressions: [template: string, text: string | null][];
}

const golden = JSON.parse(readFileSync(new URL("../../../fixtures/templates.golden.json", import.meta.url), "utf8")) as Golden;
const NOW = new Date(2025, 2, 7, 9, 5, 3);
const render = (template: string, data: Record<string, unknown> = {}) => compileTemplate(template).render(data, NOW);

describe.each(golden.templates)("$name", ({ template, results }) => {
  it.each(results.map((result, i) => [i, result] as const))("conversation %i as jinja2 renders it", (i, result) => {
    const attempt = () => render(template, { bos_token: "<s>", eos_token: "</s>", tools: null, ...golden.cases[i] });
    if ("text" in result) return expect(attempt()).toBe(result.text);
    expect(attempt).toThrow(TemplateError);
    // What the template says itself is passed on word for word.
    if (result.raised) expect(attempt).toThrow(result.error);
  });
});

describe("floats, tuples and formats as jinja2 renders them", () => {
  it.each(golden.expressions)("%s", (template, text) => {
    if (text === null) expect(() => render(template)).toThrow(TemplateError);
    else expect(render(template)).toBe(text);
  });

  it("takes whole numbers of the data for ints, and what JSON writes with an exponent for floats", () => {
    expect(render("{{ a }} {{ b }} {{ c }} {{ d }} {{ a / 1 }}", { a: 2, b: 0.5, c: 1e300, d: 12345678901234567 })).toBe("2 0.5 1e+300 12345678901234568 2.0");
  });
});

describe("a template that is not right", () => {
  it.each<[string, string]>([
    ["{% if x %}", "expected endif, found the end of the template"],
    ["{% for x in y %}{{ x }}", "expected endfor, found the end of the template"],
    ["{{ x ", 'line 1: expected "}}" at the end of a tag'],
    ["\n\n{{ 'x }}", "line 3: expected the end of a string"],
    ["{# x", 'expected "#}" at the end of a comment'],
    ["{% raw %}{{ x }}", "expected an endraw for this raw"],
    ["{% include 'x' %}", "line 1: expected a tag of if, for, set,"],
    ["{% endif %}", 'found "endif"'],
    ["{{ x | frobnicate }}", 'expected a filter of tojson, trim, length,'],
    ["{{ x is frobnicated }}", "expected a test of defined, undefined,"],
    ["{{ x(1) }}", "line 1: expected a function x, found undefined"],
    ["{{ 'a'.explode() }}", "expected a function explode, found undefined"],
    ["{{ 1 + }}", 'expected an expression, found "}}"'],
    ["{{ [1, 2 }}", 'expected "]", found "}}"'],
    ["{{ f(*x) }}", "expected arguments without * or **"],
    ["{{ 1 / 0 }}", "/: division by zero"],
    ["{{ 'a' < 1 }}", "expected two numbers, strings or lists to compare, found a string and a number"],
    ["{{ 2 ** 60 }}", "**: expected whole numbers below 2^53, found 1152921504606847000"],
    ["{{ '{:.2q}'.format(1) }}", "format: expected a specification that a number takes, found .2q"],
    ["{{ '{:>99999}'.format(1) }}", "format: expected a specification such as >10 or .2f, found >99999"],
    ["{{ '{:>5000}'.format(1) }}", "format: expected at most 1000 characters and 50 digits, found 5000 and 0"],
    ["{{ '%s %s' % 1 }}", "%: expected more values than 1"],
    ["{{ '%y' % 1 }}", "%: expected a conversion such as %s or %.2f, found %y"],
    ["{{ [1] + (2,) }}", "+: expected two numbers, strings or lists, found a list and a tuple"],
    ["{{ 'a' | wordwrap(0) }}", "wordwrap: expected a width of at least 1, found 0"],
    ["{{ [1] | slice(0) | list }}", "slice: expected 1 to 262144 slices, found 0"],
    ["{{ {'a b': 1} | xmlattr }}", "xmlattr: expected a name without white space, /, > and =, found a b"],
    ["{{ ('a ' * 50) | pprint }}", "pprint: expected at most the 80 characters of one line, found 102"],
    ["{{ range('x') }}", "range: expected whole numbers, found a string"],
    ["{{ a.b.c }}", "expected something that has 'b', found undefined"],
    ["{% set x.y = 1 %}", "expected x to be a namespace"],
    ["{% for a, b in [[1]] %}{% endfor %}", "expected 2 values for a, b, found 1"],
    ["{{ x ` y }}", 'unexpected character "`"'],
    ["{% for x in y recursive %}{% endfor %}", "expected a loop that is not recursive"],
  ])("%j", (template, message) => {
    const attempt = () => render(template);
    expect(attempt).toThrow(TemplateError);
    expect(attempt).toThrow(message);
    expect(attempt).not.toThrow(/\n/);
  });
});

describe("a template that would never end", () => {
  it.each<[string, string, RegExp]>([
    ["loops in loops", "{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}{% endfor %}", /does it loop forever|at most/],
    ["quiet loops", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", /./],
    ["a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", /at most 64 calls inside of each other/],
    ["a text that doubles", "{% set n = namespace(x='ab') %}{% for i in range(100) %}{% set n.x = n.x ~ n.x %}{% endfor %}", /texts of at most|loop forever/],
    ["a list that doubles", "{% set n = namespace(x=[1]) %}{% for i in range(100) %}{% set n.x = n.x + n.x %}{% endfor %}", /lists of at most/],
    ["a long repeat", "{{ 'abc' * 999999999 }}", /expected shorter texts/],
    ["a list many times", "{{ [1, 2] * 999999999 }}", /expected shorter lists than 2 items/],
    ["a long batch", "{{ [1] | batch(999999999, 0) | list }}", /batch: expected at most 262144 items to fill up to/],
    ["a long range", "{{ range(999999999) | list }}", /range: expected at most/],
    ["replacing into size", "{% set x = 'a' * 10000 %}{{ x | replace('a', x) }}", /replace: expected a text of at most/],
    ["deep parentheses", `{{ ${"(".repeat(100_000)} }}`, /nested at most 100 deep/],
    ["deep brackets", `{{ ${"[".repeat(5000)} }}`, /nested at most 100 deep/],
    ["deep blocks", "{% if 1 %}".repeat(50_000), /nested at most 100 deep/],
    ["long chains", `{{ 1 ${"+ 1 ".repeat(50_000)} }}`, /shorter chains/],
    ["long attributes", `{{ a${".b".repeat(50_000)} }}`, /at most 100 accesses/],
    ["many nots", `{{ ${"not ".repeat(50_000)} 1 }}`, /nested at most 100 deep/],
  ])("%s", (_, template, message) => {
    const started = performance.now();
    expect(() => render(template)).toThrow(TemplateError);
    expect(() => render(template)).toThrow(message);
    expect(performance.now() - started).toBeLessThan(20_000);
  }, 30_000);

  it.each<[string, string]>([
    ["{% for x in [1, 2] %}{{ x }}{% continue %}{% else %}none{% endfor %}", "12none"],
    ["{% for x in [1, 2] %}{{ x }}{% break %}{% else %}none{% endfor %}", "1none"],
    ["{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% else %}none{% endfor %}", "1"],
    ["{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}", "True10 False10 True10 "],
    ["{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}", "211"],
    ["{{ -true }} {{ +2 }} {{ - 2.5 }}", "-1 2 -2.5"],
    ["{{ \"</think> it's x.y-z (a\" | title }} {{ \"it's x.y\".title() }}", "</think> It's X.y-Z (A It'S X.Y"],
    ["{{ [] | wordcount }}{{ \"it's é_1\" | wordcount }}", "03"],
  ])("%j is what jinja2 makes of it", (template, text) => expect(render(template)).toBe(text));

  it("takes no sign of a text", () => expect(() => render("{{ -'a' }}")).toThrow(TemplateError));

  it("does not take prototypes for values", () => {
    expect(render("{{ x.constructor is defined }}{{ 'a'.constructor is defined }}{{ [].length is defined }}{{ toString is defined }}", { x: {} })).toBe("FalseFalseFalseFalse");
  });

  it("refuses data that is nested without end", () => {
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    expect(() => render("x", { circle })).toThrow("expected data nested at most 64 deep");
  });
});
