/**
 * Measures chicory beside other systems: `npm run bench -- sqlite --rounds 5 --json results.json`. The systems take
 * turns, round by round, so that drift of the machine affects all of them.
 *
 * Compares chicory with itself at another commit: `npm run bench -- postgres compare HEAD~5 W1b W2 --pairs 9`. See
 * `compare.ts`.
 */
import { writeFileSync } from "node:fs"
import { availableParallelism, loadavg } from "node:os"
import { parseArgs } from "node:util"
import { describeWorkingTree, findCommit } from "./checkout.ts"
import { compare, comparedRows } from "./compare.ts"
import { withProcesses } from "./processes.ts"
import type { Cell, Results, Row, Table } from "./results.ts"
import { growth } from "./scale/growth.ts"
import { memory } from "./scale/memory.ts"
import type { Part } from "./scale/scale.ts"
import { workers } from "./scale/workers.ts"
import { type Store, stores } from "./stores.ts"
import type { System } from "./system.ts"
import { format, number } from "./table.ts"
import { type Extent, type Workload, workloads } from "./workloads.ts"

const usage = `npm run bench -- <${Object.keys(stores).join("|")}> [options]
  --rounds N         rounds of each workload, medians are shown (3)
  --only W1b,W2      these workloads; or scale: growth, workers, memory, all three or one of them
  --systems a,b      these systems
  --scale 0.1        a tenth of the tasks
  --quick            a look of a few minutes: one round, a fifth of the tasks (a fiftieth for scale), a quarter of the
                     time for warm-ups
  --markdown         print Markdown
  --json FILE        write the results as JSON

npm run bench -- <store> compare <commit> [W1b W2 …] [options]
  Compares chicory in this working tree with chicory at another commit, which is checked out for it: on these
  workloads (W1b, W2 and W3a), in turns, each side by processes that run the code of its commit.
  --pairs N          pairs of measurements, one of each side (7)
  --max-pairs N      more pairs, up to this number, until the 95 % interval is narrower than ±8 % (three times --pairs)
  --scale 0.1, --quick
                     as above; --quick leaves the pairs as they are
  --json FILE        write rows { workload, unit, ratio, low, high, verdict, pairs }`

const quit = (message: string): never => {
  console.error(`${message}\n\n${usage}`)
  process.exit(2)
}

const readArguments = () => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        rounds: { type: "string" },
        only: { type: "string" },
        systems: { type: "string" },
        scale: { type: "string" },
        quick: { type: "boolean", default: false },
        markdown: { type: "boolean", default: false },
        json: { type: "string" },
        pairs: { type: "string" },
        "max-pairs": { type: "string" }
      }
    })
  } catch (error) {
    return quit((error as Error).message)
  }
}

const positive = (name: string, text: string) => {
  const value = Number(text)
  return value > 0 && Number.isFinite(value) ? value : quit(`--${name} is a number above 0, not "${text}"`)
}

const wholeNumber = (name: string, text: string, least: number) => {
  const value = Number(text)
  return Number.isInteger(value) && value >= least
    ? value
    : quit(`--${name} is a whole number of at least ${least}, not "${text}"`)
}

const choose = <A>(
  wanted: ReadonlyArray<string> | undefined,
  what: string,
  all: ReadonlyArray<A>,
  name: (item: A) => string
) => {
  if (wanted === undefined) return all
  const unknown = wanted.find((item) => !all.some((one) => name(one) === item))
  if (unknown !== undefined) return quit(`no ${what} "${unknown}": there are ${all.map(name).join(", ")}`)
  return all.filter((item) => wanted.includes(name(item)))
}

/** Loads the systems. Those whose package is not installed are listed in `missing`. */
const loadSystems = async (store: Store, names: ReadonlyArray<string>) => {
  const systems = new Map<string, System>()
  const missing: Array<string> = []
  for (const name of names) {
    try {
      const system = await store.systems[name]?.()
      if (system) systems.set(name, system)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error
      missing.push(`${name} is left out: ${(error as Error).message}`)
    }
  }
  return { systems, missing }
}

const { values: options, positionals } = readArguments()
const [storeName = quit("Which store?"), command, ...operands] = positionals
const store = stores[storeName] ?? quit(`no store "${storeName}"`)
const scale = positive("scale", options.scale ?? (options.quick ? "0.2" : "1"))
/** The measurements of scale have up to 5,000,000 tasks, and are for a quick look much smaller. */
const scaleOfParts = options.quick && options.scale === undefined ? 0.02 : scale
const extent: Extent = {
  size: (count) => Math.ceil(count * scale),
  warmUpMillis: options.quick ? 1000 : 4000
}

const sizeOfParts = (count: number) => Math.ceil(count * scaleOfParts)

const nameOf = (workload: Workload) => workload.metrics[0]?.name ?? ""

const machine = () =>
  `node ${process.versions.node}, ${availableParallelism()} processors, load ${loadavg()[0]?.toFixed(1)}`

const refuse = (names: ReadonlyArray<keyof typeof options>, why: string) => {
  for (const name of names) if (options[name] !== undefined) quit(`--${name} is ${why}`)
}

const writeJson = (value: unknown) => {
  if (options.json) writeFileSync(options.json, `${JSON.stringify(value, undefined, 2)}\n`)
}

const failures: Array<string> = []

/** Runs a measurement. Reports a failure, and lets the next one run. */
const attempt = async <A>(title: string, measure: () => Promise<A>): Promise<A | undefined> => {
  try {
    return await measure()
  } catch (error) {
    failures.push(`${title} ${(error as Error).message}`)
    console.error(failures.at(-1))
    return undefined
  }
}

/** Returns the rows of a workload. */
const measureWorkload = async (
  workload: Workload,
  systems: ReadonlyArray<string>,
  rounds: number
): Promise<ReadonlyArray<Row>> => {
  const { counted, metrics, producerOnly } = workload
  const rows = metrics.map((metric) => ({ ...metric, cells: {} as Record<string, Cell> }))
  for (let round = 1; round <= rounds; round++) {
    for (const system of systems) {
      const title = `${nameOf(workload)} round ${round} ${system}:`
      const subject = { storeName, store, system, counted, producerOnly }
      const found = await attempt(title, () =>
        withProcesses(subject, (processes) => workload.measure(processes, extent))
      )
      if (found === undefined) continue
      const shown = rows.map(({ cells, unit }, index) => {
        const value = found.values[index]
        if (value === undefined) return "-"
        const before = cells[system]
        const fewer = found.fewer ?? before?.fewer
        cells[system] = { values: [...(before?.values ?? []), value], ...(fewer && { fewer }) }
        return `${number(value)} ${unit}`
      })
      console.error(title, shown.join(", "))
    }
  }
  return rows
}

/** Returns the table of the workloads, with a column for each system. */
const measureWorkloads = async (
  chosen: ReadonlyArray<Workload>,
  systems: ReadonlyMap<string, System>,
  rounds: number
): Promise<Table> => {
  const columns = [...systems.keys()]
  const rows: Array<Row> = []
  for (const workload of chosen) rows.push(...(await measureWorkload(workload, columns, rounds)))
  const medians = rounds === 1 ? "One round" : `Medians of ${rounds} rounds ± the furthest`
  return {
    name: "workloads",
    title: `${medians}${scale === 1 ? "" : `, scale ${scale}`}; x: ${columns[0]} / it.`,
    columns,
    compared: "first / it",
    rows,
    notes: [
      "tasks/s: more is better; s, ms and requests/s: less is better.",
      ...[...systems].flatMap(([name, { note }]) => (note ? [`${name}: ${note}`] : []))
    ]
  }
}

const parts: Readonly<Record<string, Part>> = { growth, workers, memory }
const allParts = "scale"

const measureSystems = async () => {
  refuse(["pairs", "max-pairs"], "for compare only")
  const rounds = wholeNumber("rounds", options.rounds ?? (options.quick ? "1" : "3"), 1)
  const wanted = choose(options.systems?.split(","), "system", Object.keys(store.systems), (name) => name)
  const usual = workloads.map(nameOf)
  const only = options.only?.split(",") ?? usual
  const names = choose(only, "workload", [...usual, allParts, ...Object.keys(parts)], (name) => name)
  const begun = performance.now()
  const environment = machine()
  const { systems, missing } = await loadSystems(store, wanted)
  if (systems.size === 0) process.exitCode = 1

  const tables: Array<Table> = []
  const chosen = workloads.filter((workload) => names.includes(nameOf(workload)))
  if (chosen.length > 0) tables.push(await measureWorkloads(chosen, systems, rounds))
  for (const [name, part] of Object.entries(parts)) {
    if (!names.includes(name) && !names.includes(allParts)) continue
    tables.push(await part({ storeName, store, systems: [...systems.keys()], size: sizeOfParts, attempt }))
  }
  const results: Results = {
    store: storeName,
    date: new Date().toISOString().slice(0, 10),
    commit: describeWorkingTree(),
    machine: environment,
    tables
  }
  console.log(`\n${format(results, options.markdown)}`)
  for (const line of [...missing, ...failures]) console.log(line)
  const minutes = (performance.now() - begun) / 60_000
  console.error(`\nIt took ${minutes.toFixed(1)} minutes.`)
  writeJson(results)
  if (failures.length > 0) process.exitCode = 1
}

const compareCommits = async () => {
  refuse(["rounds", "only", "systems"], "not for compare")
  const [name = quit("Compare with which commit?"), ...chosen] = operands
  const commit = findCommit(name) ?? quit(`no commit "${name}"`)
  const pairs = wholeNumber("pairs", options.pairs ?? "7", 2)
  const { compared, failed } = await compare({
    storeName,
    store,
    commit,
    workloads: choose(chosen.length > 0 ? chosen : ["W1b", "W2", "W3a"], "workload", workloads, nameOf),
    pairs,
    maxPairs: wholeNumber("max-pairs", options["max-pairs"] ?? `${3 * pairs}`, pairs),
    extent
  })
  writeJson(comparedRows(compared))
  if (failed) process.exitCode = 1
}

console.error(`${storeName}: ${machine()}`)
if (command === "compare") await compareCommits()
else if (command === undefined) await measureSystems()
else quit(`no command "${command}"`)
