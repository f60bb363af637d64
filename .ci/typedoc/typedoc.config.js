// The reference of every subpath of package.json's "exports", from the doc comments of src.
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = new URL("../../", import.meta.url)
const path = (name) => fileURLToPath(new URL(name, root))
const { exports } = JSON.parse(readFileSync(path("package.json"), "utf8"))

/** @type {import("typedoc").TypeDocOptions} */
export default {
  name: "chicory",
  entryPoints: Object.values(exports).flatMap((to) => (to["chicory-src"] ? [path(to["chicory-src"])] : [])),
  basePath: path("src"),
  tsconfig: path("tsconfig.build.json"),
  readme: path("README.md"),
  projectDocuments: [path("docs/*.md")],
  out: path("reference"),
  // members that a class inherits from one of Effect's
  excludeExternals: true,
  externalSymbolLinkMappings: { effect: { "*": "#" } },
  disableSources: true,
  ignoredHighlightLanguages: ["mermaid"],
  treatWarningsAsErrors: true,
  treatValidationWarningsAsErrors: true,
  // test/links.test.ts checks the paths: TypeDoc knows none of directories
  validation: { invalidLink: true, invalidPath: false, notExported: false }
}
