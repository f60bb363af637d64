/**
 * Fills the tables of `docs/benchmarks.md` from the results that `--json` wrote:
 * `node bench/tables.ts bench/results/*.json`. The tables of a store are between `<!-- store -->` and `<!-- /store -->`.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { readResults } from "./picture.ts"
import type { Results } from "./results.ts"
import { format } from "./table.ts"

/** Replaces the tables of the stores. Fails for a store that the page has no place for. */
export const fillTables = (page: string, all: ReadonlyArray<Results>): string =>
  all.reduce((filled, results) => {
    const [begin, end] = [`<!-- ${results.store} -->`, `<!-- /${results.store} -->`]
    const [from, to] = [filled.indexOf(begin), filled.indexOf(end)]
    if (from < 0 || to < from) throw new Error(`the page has no place for ${results.store}`)
    return `${filled.slice(0, from)}${begin}\n\n${format(results, true)}\n\n${filled.slice(to)}`
  }, page)

if (import.meta.main) {
  const page = new URL("../docs/benchmarks.md", import.meta.url)
  writeFileSync(page, fillTables(readFileSync(page, "utf8"), readResults(process.argv.slice(2))))
}
