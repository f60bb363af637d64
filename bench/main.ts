/**
 * Measures chicory beside its neighbours: `npm run bench -- sqlite --rounds 5 --json rows.json`.
 *
 * The systems take turns, round by round, so that a machine that drifts drifts for all of them.
 */
import { writeFileSync } from "node:fs"
import { availableParallelism, loadavg } from "node:os"
import { parseArgs } from "node:util"
import { withProcesses } from "./processes.ts"
import { type Store, stores } from "./stores.ts"
import type { System } from "./system.ts"
import { format, type Measured, number, rows } from "./table.ts"
import { type Workload, workloads } from "./workloads.ts"

const usage = `npm run bench -- <${Object.keys(stores).join("|")}> [options]
  --rounds N         rounds of each workload, medians are shown (3)
  --only W1b,W2      these workloads; W2-long is run only if it is named
  --systems a,b      these systems
  --scale 0.1        a tenth of the tasks, for a quick look
  --json FILE        write the medians as rows { system, workload, value, unit }`

const quit = (message: string): never => {
  console.error(`${message}\n\n${usage}`)
  process.exit(2)
}

const readArguments = () => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        rounds: { type: "string", default: "3" },
        only: { type: "string" },
        systems: { type: "string" },
        scale: { type: "string", default: "1" },
        json: { type: "string" }
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

const choose = <A>(
  text: string | undefined,
  what: string,
  all: ReadonlyArray<A>,
  name: (item: A) => string
) => {
  if (text === undefined) return all
  const wanted = text.split(",")
  const unknown = wanted.find((item) => !all.some((one) => name(one) === item))
  if (unknown !== undefined) return quit(`no ${what} "${unknown}": there are ${all.map(name).join(", ")}`)
  return all.filter((item) => wanted.includes(name(item)))
}

/** The systems that can be loaded here; one whose package is not installed is left out with a word. */
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
const storeName = positionals[0] ?? quit("Which store?")
const store = stores[storeName] ?? quit(`no store "${storeName}"`)
const rounds = Math.ceil(positive("rounds", options.rounds))
const scale = positive("scale", options.scale)
const size = (count: number) => Math.ceil(count * scale)
const wanted = choose(options.systems, "system", Object.keys(store.systems), (name) => name)
const chosen = choose(
  options.only,
  "workload",
  workloads,
  (workload) => workload.metrics[0]?.name ?? ""
).filter(({ chosenOnly }) => options.only !== undefined || chosenOnly !== true)
const { systems, missing } = await loadSystems(store, wanted)
const names = [...systems.keys()]
const failures: Array<string> = []

const run = async (workload: Workload): Promise<Array<Measured>> => {
  const measured = workload.metrics.map((metric) => ({
    metric,
    rounds: new Map(names.map((name) => [name, new Array<number>()]))
  }))
  for (let round = 1; round <= rounds; round++) {
    for (const system of names) {
      const title = `${workload.metrics[0]?.name} round ${round} ${system}:`
      try {
        const subject = { storeName, store, system, counted: workload.counted === true }
        const values = await withProcesses(subject, (processes) => workload.measure(processes, size))
        const shown = measured.map(({ metric, rounds }, index) => {
          const value = values[index]
          if (value === undefined) return "-"
          rounds.get(system)?.push(value)
          return `${number(value)} ${metric.unit}`
        })
        console.error(title, shown.join(", "))
      } catch (error) {
        failures.push(`${title} ${(error as Error).message}`)
        console.error(title, (error as Error).message)
      }
    }
  }
  return measured
}

const machine = () =>
  `node ${process.versions.node}, ${availableParallelism()} processors, load ${loadavg()[0]?.toFixed(1)}`

console.error(`${storeName}: ${machine()}`)
const measured: Array<Measured> = []
for (const workload of chosen) measured.push(...(await run(workload)))

console.log(
  `\n${storeName}, ${scale === 1 ? "" : `scale ${scale}, `}medians of ${rounds} rounds ± the furthest, ${machine()}`
)
console.log(`\n${format(names, measured)}\n`)
console.log("tasks/s: more is better; s, ms and requests/s: less is better.")
for (const [name, { note }] of systems) if (note) console.log(`${name}: ${note}`)
for (const line of [...missing, ...failures]) console.log(line)
if (options.json) writeFileSync(options.json, `${JSON.stringify(rows(measured), undefined, 2)}\n`)
if (failures.length > 0 || names.length === 0) process.exitCode = 1
