/**
 * Reads TypeScript as text: the lexemes of a source, and what tests of the documentation look for in them. TypeScript 7 has no
 * parser for programs.
 */

/** A part of a source. A template is one lexeme, with the expressions in it. */
export interface Lexeme {
  readonly kind: "comment" | "string" | "template" | "regexp" | "word" | "sign"
  readonly text: string
}

/** Words after which a slash begins a regular expression. */
const BEFORE_EXPRESSION = new Set([
  "return",
  "typeof",
  "case",
  "in",
  "of",
  "do",
  "else",
  "void",
  "yield",
  "await"
])

const WORD = /[\p{L}\p{N}_$]+/uy
const SPACE = /\s*/y
const STRING = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/y
const REGEXP = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/y
const COMMENT = /\/\/[^\n]*|\/\*[^]*?\*\//y

const match = (pattern: RegExp, source: string, at: number): string | undefined => {
  pattern.lastIndex = at
  return pattern.exec(source)?.[0]
}

const beginsExpression = (previous: Lexeme | undefined): boolean =>
  previous === undefined ||
  (previous.kind === "sign" && !/[)\]}]/.test(previous.text)) ||
  (previous.kind === "word" && BEFORE_EXPRESSION.has(previous.text))

/** Returns the template that begins at a position. */
const templateAt = (source: string, start: number): string => {
  let at = start + 1
  while (source[at] !== "`") {
    if (at >= source.length) throw new Error(`a template does not end: ${source.slice(start, start + 40)}`)
    if (source[at] === "\\") at += 2
    else if (source.startsWith("${", at)) at = endOfExpression(source, at + 2) + 1
    else at++
  }
  return source.slice(start, at + 1)
}

/** Returns the lexeme at a position that is no white space. */
const lexemeAt = (source: string, at: number, previous: Lexeme | undefined): Lexeme => {
  if (source[at] === "`") return { kind: "template", text: templateAt(source, at) }
  const comment = match(COMMENT, source, at)
  if (comment !== undefined) return { kind: "comment", text: comment }
  const string = match(STRING, source, at)
  if (string !== undefined) return { kind: "string", text: string }
  const word = match(WORD, source, at)
  if (word !== undefined) return { kind: "word", text: word }
  const regexp = beginsExpression(previous) ? match(REGEXP, source, at) : undefined
  if (regexp !== undefined) return { kind: "regexp", text: regexp }
  return { kind: "sign", text: source[at]! }
}

/** Returns the position of the brace that closes the expression of a template. */
const endOfExpression = (source: string, start: number): number => {
  let depth = 0
  for (const { at, lexeme } of lexemesFrom(source, start)) {
    if (lexeme.kind !== "sign") continue
    if (lexeme.text === "{") depth++
    else if (lexeme.text === "}" && depth-- === 0) return at
  }
  throw new Error(`an expression does not end: ${source.slice(start, start + 40)}`)
}

function* lexemesFrom(
  source: string,
  start: number
): Generator<{ readonly at: number; readonly lexeme: Lexeme }> {
  let previous: Lexeme | undefined
  let at = start
  while (true) {
    at += match(SPACE, source, at)!.length
    if (at >= source.length) return
    const lexeme = lexemeAt(source, at, previous)
    yield { at, lexeme }
    at += lexeme.text.length
    if (lexeme.kind !== "comment") previous = lexeme
  }
}

/** Returns the lexemes of a source, comments too. */
export const lexemesOf = (source: string): ReadonlyArray<Lexeme> =>
  Array.from(lexemesFrom(source, 0), ({ lexeme }) => lexeme)

/** Returns the lexemes of a source without its comments. */
export const codeOf = (source: string): ReadonlyArray<Lexeme> =>
  lexemesOf(source).filter(({ kind }) => kind !== "comment")

/** Whether the lexemes from an index on have these texts. */
export const isAt = (
  lexemes: ReadonlyArray<Lexeme>,
  index: number,
  ...texts: ReadonlyArray<string>
): boolean => texts.every((text, i) => lexemes[index + i]?.text === text)

const OPENS = new Set(["(", "[", "{"])
const CLOSES = new Set([")", "]", "}"])

/** Returns the lexemes behind an opening bracket, up to the one that closes it, with the number of brackets around each. */
export const insideOf = (
  lexemes: ReadonlyArray<Lexeme>,
  opening: number
): ReadonlyArray<Lexeme & { readonly depth: number }> => {
  const inside: Array<Lexeme & { readonly depth: number }> = []
  let depth = 0
  for (const lexeme of lexemes.slice(opening + 1)) {
    const isSign = lexeme.kind === "sign"
    if (isSign && CLOSES.has(lexeme.text) && depth-- === 0) return inside
    inside.push({ ...lexeme, depth })
    if (isSign && OPENS.has(lexeme.text)) depth++
  }
  throw new Error("a bracket does not close")
}

/** Returns the indexes of the opening brackets of the calls of a function, by its name. */
export const callsOf = (lexemes: ReadonlyArray<Lexeme>, name: string): ReadonlyArray<number> =>
  lexemes.flatMap((lexeme, index) =>
    lexeme.kind === "word" && lexeme.text === name && isAt(lexemes, index + 1, "(") ? [index + 1] : []
  )

const unescaped = (text: string): string => text.replaceAll(/\\(.)/g, "$1")

/** Returns the value of a string. */
export const valueOf = ({ text }: Lexeme): string => unescaped(text.slice(1, -1))

/** What stands for a part of a text that is not known before the program runs. */
export const UNKNOWN = "…"

/** Returns what an expression in a template may be: two texts to choose from, or a text that is not known. */
const valuesOfExpression = (source: string): ReadonlyArray<string> => {
  const [question, yes, colon, no] = codeOf(source).slice(-4)
  return question?.text === "?" && yes?.kind === "string" && colon?.text === ":" && no?.kind === "string"
    ? [valueOf(yes), valueOf(no)]
    : [UNKNOWN]
}

/** Returns the texts that a template may be. */
const valuesOfTemplate = (template: string): ReadonlyArray<string> => {
  let values: ReadonlyArray<string> = [""]
  const append = (parts: ReadonlyArray<string>): void => {
    values = values.flatMap((value) => parts.map((part) => value + part))
  }
  let at = 1
  while (at < template.length - 1) {
    if (template.startsWith("${", at)) {
      const end = endOfExpression(template, at + 2)
      append(valuesOfExpression(template.slice(at + 2, end)))
      at = end + 1
    } else {
      const literal = match(/(?:\\.|\$(?!\{)|[^$`\\])+/sy, template, at)!
      append([unescaped(literal)])
      at += literal.length
    }
  }
  return values
}

/** Returns the texts that a string, a template, a constant of the same source, or a sum of these may be, and where it ends. */
export const textsAt = (
  lexemes: ReadonlyArray<Lexeme>,
  index: number
): { readonly texts: ReadonlyArray<string>; readonly end: number } => {
  const lexeme = lexemes[index]
  const texts =
    lexeme?.kind === "string"
      ? [valueOf(lexeme)]
      : lexeme?.kind === "template"
        ? valuesOfTemplate(lexeme.text)
        : lexeme?.kind === "word"
          ? constantOf(lexemes, lexeme.text)
          : undefined
  if (texts === undefined) throw new Error(`no text: ${lexeme?.text ?? "the end"}`)
  if (!isAt(lexemes, index + 1, "+")) return { texts, end: index + 1 }
  const rest = textsAt(lexemes, index + 2)
  return { texts: texts.flatMap((text) => rest.texts.map((other) => text + other)), end: rest.end }
}

const constantOf = (lexemes: ReadonlyArray<Lexeme>, name: string): ReadonlyArray<string> | undefined => {
  const declared = lexemes.findIndex((_, index) => isAt(lexemes, index, "const", name, "="))
  return declared === -1 ? undefined : textsAt(lexemes, declared + 3).texts
}
