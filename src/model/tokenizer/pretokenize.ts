/**
 * How the text is cut into words before byte-pair encoding, by the names that GGUF has for it (`tokenizer.ggml.pre`). The rules are
 * those of the models' own tokenizer.json files; names and groups follow llama.cpp (src/llama-vocab.cpp). "\s" there means Unicode's
 * White_Space, which JavaScript's \s is not, and case is ignored for ASCII only.
 */
export interface PreTokenizer {
  /** Applied one after the other: each cuts every piece so far into its matches and what lies between them. */
  readonly patterns: readonly RegExp[];
  /** Whether a word that is a token as it stands is that token, whatever the merges say. */
  readonly wholeWords?: boolean;
  /** Whether prompts start with bos when the file does not say. */
  readonly addBos?: boolean;
}

const S = String.raw`\p{White_Space}`;
const NOT_S = String.raw`\P{White_Space}`;
const ENGLISH = "'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])";
/** A run of spaces before a word leaves its last space to the word. */
const SPACES = `${S}+(?!${NOT_S})|${S}+`;
const LINES = String.raw`${S}*[\r\n]+`;

const pattern = (...alternatives: string[]): RegExp => new RegExp(alternatives.join("|"), "gu");

const GPT2 = pattern(
  "'(?:s|t|re|ve|m|ll|d)",
  String.raw` ?\p{L}+`,
  String.raw` ?\p{N}+`,
  String.raw` ?[^${S}\p{L}\p{N}]+`,
  SPACES,
);

/** The rule that began with GPT-4: English endings, words with one leading character, numbers, punctuation, line ends, spaces. */
function gpt4(numbers: string, { letters = String.raw`\p{L}`, endings = [ENGLISH], spaces = SPACES } = {}): RegExp {
  return pattern(
    ...endings,
    String.raw`[^\r\n\p{L}\p{N}]?[${letters}]+`,
    numbers,
    String.raw` ?[^${S}${letters}\p{N}]+[\r\n]*`,
    LINES,
    spaces,
  );
}

/** The rule that began with GPT-4o: words split where a capital follows a small letter. */
function gpt4o(numbers: string, ending: string): RegExp {
  const upper = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
  const lower = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
  const lead = String.raw`[^\r\n\p{L}\p{N}]?`;
  return pattern(
    `${lead}${upper}*${lower}+${ending}`,
    `${lead}${upper}+${lower}*${ending}`,
    numbers,
    String.raw` ?[^${S}\p{L}\p{N}]+[\r\n/]*`,
    LINES,
    SPACES,
  );
}

/** Letters with case that DeepSeek's list of them does not have: it stops at Unicode 11, and leaves some out. */
const NEWER_CASE = String.raw`[\u0560-\u0588\u10C7-\u10FF\u1C80-\u1C8F\u2D00-\u2D2F\uA790-\uAB6F\u{10570}-\u{105BF}\u{10D50}-\u{10D8F}\u{16E40}-\u{16EDF}\u{1D400}-\u{1DFFF}]`;

const NOT_WORD = String.raw`(?![\p{Alphabetic}\p{M}\p{Nd}\p{Pc}])`;
const DIGIT = String.raw`\p{N}`;
const DIGITS = String.raw`\p{N}{1,3}`;
const NOT_ENDING = String.raw` ?[^(${S}|.,!?…。，、।۔،)]+`;

const LLAMA3: PreTokenizer = { patterns: [gpt4(DIGITS)], wholeWords: true, addBos: true };
const LLAMA3_MERGED: PreTokenizer = { patterns: [gpt4(DIGITS)] };
const QWEN2: PreTokenizer = { patterns: [gpt4(DIGIT)] };
const PLAIN: PreTokenizer = { patterns: [GPT2] };
const SINGLE_DIGITS: PreTokenizer = { patterns: [pattern(DIGIT), GPT2] };
const O200K: PreTokenizer = { patterns: [gpt4o(DIGITS, `(?:${ENGLISH})?`)] };
const BAILING: PreTokenizer = {
  patterns: [
    pattern(ENGLISH, String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`, DIGIT, String.raw` ?[^${S}\p{L}\p{N}]+[\r\n]*`, String.raw`${S}*[\r\n]`, SPACES),
  ],
};
/** DeepSeek-V3's: up to three digits, Chinese and Japanese, then words, where a mark may lead Latin letters. `lines`: what follows marks, and line ends. */
function deepseek3(...lines: [after: string, alone: string]): RegExp[] {
  return [
    pattern(DIGITS),
    pattern("[一-龥぀-ゟ゠-ヿ]+"),
    pattern(
      String.raw`[!"#$%&'()*+,\-.\/:;<=>?@\[\\\]^_${"`"}\{\|\}~][A-Za-z]+`,
      String.raw`[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+`,
      String.raw` ?[\p{P}\p{S}]+${lines[0]}`,
      lines[1],
      SPACES,
    ),
  ];
}
const DEEPSEEK3: PreTokenizer = { patterns: deepseek3(String.raw`[\r\n]*`, LINES) };
const BLOOM: PreTokenizer = { patterns: [pattern(NOT_ENDING)] };

const GROUPS: readonly (readonly [PreTokenizer, string])[] = [
  [LLAMA3, "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"],
  [LLAMA3_MERGED, "dbrx smaug-bpe glm4 chatglm-bpe"],
  [QWEN2, "qwen2 deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open grok-2 f2llmv2"],
  [{ patterns: [gpt4(DIGIT, { letters: String.raw`\p{L}\p{M}` })] }, "qwen35"],
  [PLAIN, "gpt-2 phi-2 gigachat a.x-4.0 mellum modern-bert exaone4 mpt olmo jais trillion granite-docling"],
  [PLAIN, "jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe"],
  [SINGLE_DIGITS, "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"],
  [{ patterns: [pattern(String.raw`[\p{P}$+<=>^~\|${"`"}]+`), GPT2, pattern("[0-9][0-9][0-9]")] }, "falcon"],
  [BLOOM, "bloom poro-chat gpt3-finnish"],
  [{ patterns: [...BLOOM.patterns, pattern(DIGIT)] }, "viking"],
  [{ patterns: [gpt4o(DIGIT, "")], wholeWords: true, addBos: true }, "tekken"],
  [O200K, "gpt-4o llama4 minimax-m2 kanana2 talkie"],
  [DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"],
  [
    {
      patterns: [
        pattern(String.raw`[\r\n]`),
        pattern(String.raw`${S}?\p{L}+`),
        pattern(String.raw`${S}?\p{P}+`),
        pattern("[一-龥ࠀ-一가-퟿]+"),
        pattern(DIGIT),
      ],
    },
    "deepseek-coder",
  ],
  [BAILING, "bailingmoe bailingmoe2 llada-moe"],
  [
    {
      patterns: [pattern(ENGLISH, String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`, DIGIT, String.raw` ?[^${S}\p{L}\p{N}\r\n]+`, LINES, SPACES)],
    },
    "seed-coder",
  ],
  [{ patterns: [gpt4(DIGIT, { endings: [] })] }, "ufakzeka"],
  [{ patterns: [pattern(String.raw`[^\n]+|\n+`), gpt4(DIGIT)] }, "laguna"],
  [{ patterns: [pattern(DIGITS), gpt4(String.raw`\p{N}+`)], wholeWords: true }, "minicpm5"],
  // Runs of spaces in powers of two.
  [{ patterns: [gpt4(DIGITS, { spaces: [...[512, 256, 128, 64, 32, 16, 8, 4, "1,2"].map((n) => `${S}{${n}}(?!${NOT_S})`), S].join("|") })] }, "jais-2"],
  // Digits in threes from their end, where no word goes on: their lead first, in a number of steps that is not the square of theirs.
  [
    { patterns: [pattern(String.raw`(?<!\p{Nd})\p{Nd}+${NOT_WORD}`), pattern(String.raw`^\p{Nd}{1,3}(?=(?:\p{Nd}{3})*$)`), gpt4o(DIGITS, `(?:${ENGLISH})?`)] },
    "tiny_aya cohere2moe",
  ],
  [
    {
      patterns: [pattern("[가-힣ㄱ-ㆎ]+", "[！…“”‘’—：；，、-〿︰-﹏]+", "[ㄅ-ㄯ]+", "[一-龥぀-ゟ゠-ヿ]+"), gpt4o(DIGIT, `(?:${ENGLISH})?`)],
      wholeWords: true,
    },
    "youtu",
  ],
  [{ patterns: [...deepseek3("", String.raw`[\r\n]`), pattern(DIGIT)] }, "spark2_5"],
  [
    {
      patterns: [
        pattern(
          ENGLISH,
          String.raw`[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`,
          DIGIT,
          String.raw` ?[^${S}\p{L}\p{N}]+[\r\n/]?`,
          String.raw`${S}*[\r\n]`,
          SPACES,
        ),
      ],
    },
    "exaone-moe",
  ],
  [
    {
      patterns: [
        pattern(String.raw`[\r\n]`),
        pattern(`${S}?(?:(?!${NEWER_CASE})[\\p{Lu}\\p{Ll}\\p{Lt}ʕ])+`),
        pattern(`${S}?[!-/:-~！-／：-～‘-‟　-。]+`),
        pattern(`(?<!${S})${S}+$`),
        pattern("[一-龥ࠀ-一가-퟿]+"),
        pattern(String.raw`\p{N}+`),
      ],
    },
    "deepseek-llm",
  ],
  // What files from before there were names mean.
  [
    { patterns: [pattern(String.raw`[\p{P}$+<=>^~\|]+`), GPT2, pattern(String.raw`\p{N}+`), pattern("[0-9][0-9][0-9]")] },
    "default",
  ],
];

/** The known pre-tokenizers by name. */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map(
  GROUPS.flatMap(([rule, names]) => names.split(" ").map((name): [string, PreTokenizer] => [name, rule])),
);

/** The words of a text, in order; together they are the text. */
export function words(text: string, rule: PreTokenizer): string[] {
  let pieces = [text];
  for (const each of rule.patterns) pieces = pieces.flatMap((piece) => cut(piece, each));
  return pieces;
}

function cut(text: string, at: RegExp): string[] {
  const pieces: string[] = [];
  let last = 0;
  for (const match of text.matchAll(at)) {
    if (match.index > last) pieces.push(text.slice(last, match.index));
    pieces.push(match[0]);
    last = match.index + match[0].length;
  }
  if (last < text.length) pieces.push(text.slice(last));
  return pieces;
}
