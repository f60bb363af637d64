/** What the Markdown files point to is there. */
import { existsSync, globSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"

const root = join(import.meta.dirname, "..")

interface Page {
  readonly path: string
  /** Without its blocks of code. */
  readonly text: string
}

const pages: ReadonlyArray<Page> = globSync(["*.md", "{docs,examples,test}/**/*.md"], { cwd: root })
  .sort()
  .map((path) => ({ path, text: readFileSync(join(root, path), "utf8").replaceAll(/^```.*?^```/gms, "") }))

/** The anchor that GitHub gives to a heading. */
const toAnchor = (heading: string) =>
  heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
    .replaceAll(/\s/g, "-")

const anchorsOf = (path: string): ReadonlyArray<string> =>
  Array.from(readFileSync(join(root, path), "utf8").matchAll(/^#+ (.*)$/gm), ([, heading]) =>
    toAnchor(heading!)
  )

/** The targets of `[text](target)` and of `[name]: target`, except addresses on the web. */
const linksOf = ({ text }: Page): ReadonlyArray<string> =>
  Array.from(
    text.matchAll(/\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]: (\S+)/gm),
    ([, inline, named]) => (inline ?? named)!
  ).filter((target) => !/^[a-z]+:/.test(target))

const isBroken = (page: Page, target: string): boolean => {
  const [file = "", anchor] = target.split("#")
  const path = file === "" ? page.path : join(dirname(page.path), file)
  if (!existsSync(join(root, path))) return true
  return anchor !== undefined && path.endsWith(".md") && !anchorsOf(path).includes(anchor)
}

const where = (
  isWrong: (page: Page, target: string) => boolean,
  targets: (page: Page) => ReadonlyArray<string>
) =>
  pages.flatMap((page) =>
    targets(page)
      .filter((target) => isWrong(page, target))
      .map((target) => `${page.path}: ${target}`)
  )

describe("the Markdown files", () => {
  it("link to files and headings that exist", () => {
    assert.isNotEmpty(pages.flatMap(linksOf))
    assert.deepStrictEqual(where(isBroken, linksOf), [])
  })

  it("name modules that exist", () => {
    const named = ({ text }: Page) =>
      Array.from(
        text.matchAll(/`((?:src|test|bench|docs|examples|demo)\/[\w./-]+\.\w+)`/g),
        ([, path]) => path!
      )
    assert.deepStrictEqual(
      where((_, path) => !existsSync(join(root, path)), named),
      []
    )
  })
})
