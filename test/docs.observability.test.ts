/** Every line of the log, every metric and every span of the library is in the pages, and the pages have no others. */
import { globSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { codeOfPage, readPage, root, rowsOf, spansOf } from "./support/pages.ts"
import {
  callsOf,
  codeOf,
  insideOf,
  isAt,
  type Lexeme,
  textsAt,
  UNKNOWN,
  valueOf
} from "./support/sourceText.ts"

/** The sources that run in a program. */
const sources = globSync("src/**/*.ts", { cwd: root })
  .filter((path) => !path.startsWith("src/testing/"))
  .sort()
  .map((path) => ({ path, code: codeOf(readPage(path)) }))

interface Line {
  /** In alphabetical order. */
  readonly levels: string
  /** With `…` for each part that is not known before the program runs. */
  readonly text: string
}

const LEVELS: Readonly<Record<string, string>> = {
  log: "Info",
  logTrace: "Trace",
  logDebug: "Debug",
  logInfo: "Info",
  logWarning: "Warning",
  logError: "Error",
  logFatal: "Fatal"
}

const sorted = (levels: ReadonlyArray<string>): string => levels.toSorted().join(", ")

/** Returns the level of `Effect.logWarning` and the like, if it stands at an index. */
const levelAt = (code: ReadonlyArray<Lexeme>, index: number): string | undefined =>
  isAt(code, index, "Effect", ".") ? LEVELS[code[index + 2]?.text ?? ""] : undefined

/**
 * Returns the lines that a source logs: by `Effect.logWarning(text)`, or `(condition ? Effect.logDebug : Effect.logError)(text)`.
 * Throws for any other use.
 */
const linesOf = (code: ReadonlyArray<Lexeme>): ReadonlyArray<Line> => {
  const lines: Array<Line> = []
  for (let index = 0; index < code.length; index++) {
    const level = levelAt(code, index)
    if (level === undefined) continue
    const other = isAt(code, index + 3, ":") ? levelAt(code, index + 4) : undefined
    const [behind, call] = other === undefined ? [index + 3, ["("]] : [index + 7, [")", "("]]
    if (!isAt(code, behind, ...call))
      throw new Error("a line is logged in a way that this test does not read")
    const { end, texts } = textsAt(code, behind + call.length)
    if (!isAt(code, end, ",") && !isAt(code, end, ")")) throw new Error(`the text goes on: ${texts[0]}`)
    const levels = sorted(other === undefined ? [level] : [level, other])
    lines.push(...texts.map((text) => ({ levels, text })))
    if (other !== undefined) index = behind
  }
  return lines
}

/** How many characters of a text a page has, at least, where it leaves out the rest. */
const LEAST = 16

/** Whether a page's line is a text, or its beginning, with `…` for the rest. */
const covers = (line: string, text: string): boolean => {
  if (line === text) return true
  const head = line.slice(0, -1).trimEnd()
  return line.endsWith(UNKNOWN) && head.length >= LEAST && text.startsWith(head)
}

const logged = sources.flatMap(({ code, path }) =>
  linesOf(code).map((line) => ({ ...line, what: `${path}: ${line.levels}: ${line.text}` }))
)

const documented: ReadonlyArray<Line> = rowsOf("docs/logs.md").flatMap(([levels = "", cell = ""]) => {
  const [text] = spansOf(cell)
  return text !== undefined && /^(Error|Warning|Info|Debug)\b/.test(levels)
    ? [{ levels: sorted(levels.split(", ")), text }]
    : []
})

/** The strings among the arguments of the calls of a function, one list for each call. */
const stringsOfCalls = (name: string) =>
  sources.flatMap(({ code, path }) =>
    callsOf(code, name).map((opening) => ({
      path,
      strings: insideOf(code, opening).flatMap((lexeme) =>
        lexeme.kind === "string" && lexeme.depth === 0 ? [valueOf(lexeme)] : []
      )
    }))
  )

describe("docs/logs.md", () => {
  it("has every line that the library logs, with its level", () => {
    assert.isAbove(logged.length, 60)
    const isDocumented = ({ levels, text }: Line) =>
      documented.some((line) => line.levels === levels && covers(line.text, text))
    assert.deepStrictEqual(
      logged.filter((line) => !isDocumented(line)).map(({ what }) => what),
      []
    )
  })

  it("has no line that the library does not log", () => {
    assert.deepStrictEqual(
      documented.filter(({ text }) => !logged.some((line) => covers(text, line.text))),
      []
    )
  })

  it("has every duty whose failures are logged", () => {
    // the function, and two that pass on what their callers name
    const wrappers = new Set(["driver/Outages", "driver/measureEvery", "worker/maintenance"])
    const named = ["background", "makeReport"].flatMap(stringsOfCalls)
    assert.deepStrictEqual(
      named.filter(
        ({ path, strings }) => strings.length !== 1 && !wrappers.has(path.slice("src/internal/".length, -3))
      ),
      []
    )
    const measured = sources.flatMap(({ code }) =>
      callsOf(code, "measureEvery").flatMap((opening) =>
        insideOf(code, opening).flatMap((_, index, inside) =>
          isAt(inside, index, "what", ":") ? [`measure ${valueOf(inside[index + 2]!)}`] : []
        )
      )
    )
    const duties = [...named.flatMap(({ strings }) => strings), ...measured]
    assert.isAbove(duties.length, 8)
    const spans = new Set(spansOf(readPage("docs/logs.md")))
    assert.deepStrictEqual(
      duties.filter((duty) => !spans.has(duty)),
      []
    )
  })

  it("would miss a new line", () => {
    const source = (text: string) => linesOf(codeOf(text))
    assert.deepStrictEqual(
      source('const TEXT = \'It is \' + `${a ? "on" : "off"}, ${b}`\nEffect.logWarning(TEXT, cause)'),
      [
        { levels: "Warning", text: "It is on, …" },
        { levels: "Warning", text: "It is off, …" }
      ]
    )
    assert.deepStrictEqual(source('(isAway ? Effect.logDebug : Effect.logError)(`Failed "${queue}"`)'), [
      { levels: "Debug, Error", text: 'Failed "…"' }
    ])
    assert.isEmpty(source("/** Effect.log(1) */ // Effect.log(2)\nconst a = /'/.test(b) ? `${'`'}` : 1 / 2"))
    for (const unreadable of [
      "Effect.tap(Effect.logInfo)",
      "Effect.logInfo(text(a))",
      "Effect.logInfo(cause)",
      'Effect.logInfo("a" as const)'
    ]) {
      assert.throws(() => source(unreadable))
    }
    assert.isFalse(covers("Failed to run …", "Failed to run a task"))
    assert.isFalse(
      covers("Failed to call the store …; trying again", "Failed to call the store …; it is over")
    )
  })

  it("misses nothing that is logged otherwise", () => {
    const others = ["console", "logWithLevel", "consoleWith"]
    assert.deepStrictEqual(
      sources.filter(({ code }) => code.some(({ kind, text }) => kind === "word" && others.includes(text))),
      []
    )
  })
})

describe("docs/observability.md", () => {
  const page = "docs/observability.md"
  const spans = new Set(spansOf(readPage(page)))

  it("has every metric, with its type, and no others", () => {
    const made = ["counter", "gauge", "histogram"].flatMap((type) =>
      stringsOfCalls(type).flatMap(({ strings: [name] }) => (name === undefined ? [] : [`${name}: ${type}`]))
    )
    assert.isAbove(made.length, 10)
    const rows = rowsOf(page).flatMap(([names = "", type = ""]) =>
      ["counter", "gauge", "histogram"].includes(type) ? spansOf(names).map((name) => `${name}: ${type}`) : []
    )
    assert.deepStrictEqual(rows.toSorted(), made.toSorted())
  })

  it("knows where metrics are made", () => {
    const makers = sources.filter(({ code }) =>
      code.some((_, index) =>
        ["counter", "gauge", "histogram", "frequency", "summary", "timer"].some((kind) =>
          isAt(code, index, "Metric", ".", kind, "(")
        )
      )
    )
    assert.deepStrictEqual(
      makers.map(({ path }) => path),
      ["src/internal/metrics.ts"]
    )
  })

  it("has every span", () => {
    const fixed = ["fn", "withSpan", "withSpanScoped", "makeSpan", "makeSpanScoped", "useSpan"].flatMap(
      (name) => stringsOfCalls(name).flatMap(({ strings }) => strings)
    )
    const byQueue = sources.flatMap(({ code }) =>
      callsOf(code, "messagingSpan").flatMap((opening) =>
        insideOf(code, opening).flatMap((_, index, inside) =>
          isAt(inside, index, "operation", ":") ? [`${valueOf(inside[index + 2]!)} <queue>`] : []
        )
      )
    )
    assert.lengthOf(byQueue, 2)
    assert.isAbove(fixed.length, 3)
    assert.deepStrictEqual(
      [...byQueue, ...fixed].filter((name) => !spans.has(name)),
      []
    )
  })

  it("has every attribute of spans and metrics", () => {
    const named = sources.flatMap(({ code }) =>
      code.flatMap((lexeme) =>
        lexeme.kind === "string" && /^(messaging|chicory|error|otel)\.[a-z_.]+$/.test(valueOf(lexeme))
          ? [valueOf(lexeme)]
          : []
      )
    )
    assert.isAbove(new Set(named).size, 20)
    const code = codeOfPage(page)
    assert.deepStrictEqual(
      [...new Set(named)].filter((name) => !code.includes(name)),
      []
    )
  })
})
