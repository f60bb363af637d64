/** Every export of the public entry points is named in the pages. */
import { dirname, join } from "node:path"
import { pathToFileURL } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { codeOfPage, pages, readPage, root } from "./support/pages.ts"
import { insideOf, isAt, type Lexeme, lexemesOf, valueOf } from "./support/sourceText.ts"

/** Exports that no page names, each with the reason. */
const unnamed: Readonly<Record<string, string>> = {
  "AsyncResult.TypeId": "the key that marks handles, which `AsyncResult.isAsyncResult` looks for",
  "Task.TypeId": "the key that marks tasks, which no program looks for"
}

/** Entry points whose names are looked for in some pages alone, since their types have names that are words of any page. */
const pagesOf: Readonly<Record<string, ReadonlyArray<string>>> = {
  "./driver": ["docs/ports.md", "docs/writing-a-store.md"]
}

interface Export {
  readonly name: string
  readonly isType: boolean
  /** Marked as `@internal`, and so left out of the published types. */
  readonly isInternal: boolean
  /** The module that the name stands for, if it is one. */
  readonly namespace?: string
}

const DECLARATIONS = new Set(["const", "let", "function", "class", "interface", "type"])

/** Returns the names of a list in braces: `a, type B, c as D`. */
const namesOf = (lexemes: ReadonlyArray<Lexeme>): ReadonlyArray<{ name: string; isType: boolean }> => {
  const names: Array<{ name: string; isType: boolean }> = []
  let item: Array<string> = []
  for (const { text } of [...lexemes, { text: "," }]) {
    if (text !== ",") item.push(text)
    else if (item.length > 0) {
      names.push({ name: item.at(-1)!, isType: item[0] === "type" && item.length > 1 })
      item = []
    }
  }
  return names
}

/** Returns the exports of a module. Throws for a form that it does not know. */
const exportsOf = (path: string): ReadonlyArray<Export> => {
  const lexemes = lexemesOf(readPage(path))
  const code = lexemes.filter(({ kind }) => kind !== "comment")
  const isInternal = new Map(
    lexemes.map((lexeme, index) => {
      const before = lexemes[index - 1]
      return [lexeme, before?.kind === "comment" && before.text.includes("@internal")]
    })
  )
  const resolve = (target: Lexeme) => join(dirname(path), valueOf(target))
  let depth = 0
  return code.flatMap((lexeme, index): ReadonlyArray<Export> => {
    if (lexeme.kind === "sign" && "([{".includes(lexeme.text)) depth++
    if (lexeme.kind === "sign" && ")]}".includes(lexeme.text)) depth--
    if (depth > 0 || lexeme.kind !== "word" || lexeme.text !== "export") return []
    const marks = { isInternal: isInternal.get(lexeme) === true }
    const isTypeOnly = isAt(code, index + 1, "type", "*") || isAt(code, index + 1, "type", "{")
    const at = index + (isTypeOnly ? 2 : 1)
    if (isAt(code, at, "*", "as")) {
      return [{ ...marks, name: code[at + 2]!.text, isType: isTypeOnly, namespace: resolve(code[at + 4]!) }]
    }
    if (isAt(code, at, "*", "from")) {
      return exportsOf(resolve(code[at + 2]!)).map((one) => ({ ...one, isType: one.isType || isTypeOnly }))
    }
    if (isAt(code, at, "{")) {
      const list = insideOf(code, at)
      const isReexport = isAt(code, at + list.length + 2, "from")
      const from = isReexport ? exportsOf(resolve(code[at + list.length + 3]!)) : []
      return namesOf(list).map(({ isType, name }) => ({
        name,
        isType: isTypeOnly || isType || from.every((one) => one.name !== name || one.isType),
        isInternal: marks.isInternal || from.some((one) => one.name === name && one.isInternal)
      }))
    }
    const keyword = code[at]!.text
    if (!DECLARATIONS.has(keyword))
      throw new Error(`${path}: an export that this test does not read: ${keyword}`)
    return [{ ...marks, name: code[at + 1]!.text, isType: keyword === "interface" || keyword === "type" }]
  })
}

const entries = Object.entries(
  (JSON.parse(readPage("package.json")) as { exports: Record<string, string | { "chicory-src": string }> })
    .exports
).flatMap(([subpath, to]) => (typeof to === "string" ? [] : [{ subpath, path: to["chicory-src"] }]))

/** The public names of an entry point, as a program writes them: `AsyncResult.get`. */
const publicNames = (path: string): ReadonlyArray<string> => {
  const names = exportsOf(path).flatMap((one) =>
    one.namespace === undefined
      ? [one]
      : exportsOf(one.namespace).map((member) => ({ ...member, name: `${one.name}.${member.name}` }))
  )
  return [...new Set(names.filter(({ isInternal }) => !isInternal).map(({ name }) => name))]
}

const isNamedIn = (code: string, name: string): boolean =>
  new RegExp(`(?<![\\w.])${name.replaceAll(".", "\\.")}(?!\\w)`).test(code)

describe("the exports", () => {
  it("are those that the modules have when they run", async () => {
    const valuesOf = (module: object) => Object.keys(module).toSorted()
    const readValuesOf = (path: string) =>
      [...new Set(exportsOf(path).flatMap(({ isType, name }) => (isType ? [] : [name])))].toSorted()
    assert.isAbove(entries.length, 7)
    for (const { path } of entries) {
      const module = (await import(pathToFileURL(join(root, path)).href)) as Record<string, object>
      assert.deepStrictEqual(readValuesOf(path), valuesOf(module), path)
      for (const { name, namespace } of exportsOf(path)) {
        if (namespace !== undefined)
          assert.deepStrictEqual(readValuesOf(namespace), valuesOf(module[name]!), namespace)
      }
    }
  })

  it.each(entries)("of $subpath are named in the pages", ({ path, subpath }) => {
    const code = (pagesOf[subpath] ?? pages).map(codeOfPage).join("\n")
    const names = publicNames(path)
    assert.isNotEmpty(names)
    assert.deepStrictEqual(
      names.filter((name) => !isNamedIn(code, name) && unnamed[name] === undefined),
      []
    )
  })

  it("that the pages leave out are exports", () => {
    const names = new Set(entries.flatMap(({ path }) => publicNames(path)))
    assert.deepStrictEqual(
      Object.keys(unnamed).filter((name) => !names.has(name)),
      []
    )
  })

  it("would be missed if no page named them", () => {
    assert.isTrue(isNamedIn("yield* AsyncResult.get(result)", "AsyncResult.get"))
    assert.isFalse(
      isNamedIn("AsyncResult.getAll(result) MyAsyncResult.get chicory.AsyncResult.get", "AsyncResult.get")
    )
  })
})
