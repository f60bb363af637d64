/** The pages of the documentation, and the code in them. */
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"

export const root = join(import.meta.dirname, "../..")

export const readPage = (path: string): string => readFileSync(join(root, path), "utf8")

/** The pages that describe the library to its users. */
export const pages: ReadonlyArray<string> = [
  "README.md",
  ...globSync("docs/*.md", { cwd: root }).filter((path) => path !== "docs/benchmarks.md")
].sort()

const BLOCK = /^ *```\w*\n(.*?)^ *```$/gms

/** Returns the spans of code in a text. */
export const spansOf = (text: string): ReadonlyArray<string> =>
  Array.from(text.replaceAll(BLOCK, "").matchAll(/`([^`\n]+)`/g), ([, span]) => span!)

/** Returns the code of a page: its blocks and its spans. */
export const codeOfPage = (path: string): string => {
  const text = readPage(path)
  return [...Array.from(text.matchAll(BLOCK), ([, block]) => block!), ...spansOf(text)].join("\n")
}

/** Returns the cells of the rows of all tables of a page. */
export const rowsOf = (path: string): ReadonlyArray<ReadonlyArray<string>> =>
  Array.from(readPage(path).matchAll(/^\|(.*)\|$/gm), ([, row]) => row!.split("|").map((cell) => cell.trim()))
