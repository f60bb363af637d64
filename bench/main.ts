/**
 * Measures chicory beside other systems: `npm run bench -- sqlite --rounds 5 --json rows.json`. The systems take turns,
 * round by round, so that drift of the machine affects all of them.
 *
 * Compares chicory with itself at another commit: `npm run bench -- postgres compare HEAD~5 W1b W2 --pairs 9`. See
 * `compare.ts`.
 */
import { writeFileSync } from "node:fs"
import { availableParallelism, loadavg } from "node:os"
import { parseArgs } from "node:util"
import { findCommit } from "./checkout.ts"
import { compare, comparedRows } from "./compare.ts"
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
  --json FILE        write the medians as rows { system, workload, value, unit }

npm run bench -- <store> compare <commit> [W1b W2 …] [options]
  Compares chicory in this working tree with chicory at another commit, which is checked out for it: on these
  workloads (W1b, W2 and W3a), in turns, each side by processes that run the code of its commit.
  --pairs N          pairs of measurements, one of each side (7)
  --max-pairs N      more pairs, up to this number, until the 95 % interval is narrower than ±8 % (three times --pairs)
  --scale 0.1        as above
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
        scale: { type: "string", default: "1" },
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
const scale = positive("scale", options.scale)
const size = (count: number) => Math.ceil(count * scale)

const nameOf = (workload: Workload) => workload.metrics[0]?.name ?? ""

const machine = () =>
  `node ${process.versions.node}, ${availableParallelism()} processors, load ${loadavg()[0]?.toFixed(1)}`

const refuse = (names: ReadonlyArray<keyof typeof options>, why: string) => {
  for (const name of names) if (options[name] !== undefined) quit(`--${name} is ${why}`)
}

const writeRows = (rows: ReadonlyArray<unknown>) => {
  if (options.json) writeFileSync(options.json, `${JSON.stringify(rows, undefined, 2)}\n`)
}

const measureSystems = async () => {
  refuse(["pairs", "max-pairs"], "for compare only")
  const rounds = wholeNumber("rounds", options.rounds ?? "3", 1)
  const wanted = choose(options.systems?.split(","), "system", Object.keys(store.systems), (name) => name)
  const chosen = choose(options.only?.split(","), "workload", workloads, nameOf).filter(
    ({ chosenOnly }) => options.only !== undefined || chosenOnly !== true
  )
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
        const title = `${nameOf(workload)} round ${round} ${system}:`
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

  const measured: Array<Measured> = []
  for (const workload of chosen) measured.push(...(await run(workload)))
  console.log(
    `\n${storeName}, ${scale === 1 ? "" : `scale ${scale}, `}medians of ${rounds} rounds ± the furthest, ${machine()}`
  )
  console.log(`\n${format(names, measured)}\n`)
  console.log("tasks/s: more is better; s, ms and requests/s: less is better.")
  for (const [name, { note }] of systems) if (note) console.log(`${name}: ${note}`)
  for (const line of [...missing, ...failures]) console.log(line)
  writeRows(rows(measured))
  if (failures.length > 0 || names.length === 0) process.exitCode = 1
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
    size
  })
  writeRows(comparedRows(compared))
  if (failed) process.exitCode = 1
}

console.error(`${storeName}: ${machine()}`)
if (command === "compare") await compareCommits()
else if (command === undefined) await measureSystems()
else quit(`no command "${command}"`)
