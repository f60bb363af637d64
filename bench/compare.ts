/**
 * Compares chicory in this working tree with chicory at another commit.
 *
 * A pair is one measurement of each side, with fresh processes on a fresh location in the store. The sides alternate
 * in going first (A B, B A, A B, …), so that drift of the machine affects both. The processes of a side run the
 * `bench/child.ts` of their own commit. The workloads, and the locations in the store, are those of this working tree;
 * both sides must therefore know the calls of `child.ts` that a workload makes.
 *
 * A workload runs more pairs while the interval of its first metric is wide. Whether the interval contains 1 does not
 * decide that: a comparison that stops at the first difference finds one too often.
 */
import { type Checkout, describeWorkingTree, makeCheckout } from "./checkout.ts"
import { containsOne, isNarrow, type Pair, type PairedRatio, pairedRatio } from "./pairedRatio.ts"
import { removeAtEnd, type Subject, withProcesses } from "./processes.ts"
import { median } from "./results.ts"
import type { Store } from "./stores.ts"
import { alignColumns, number } from "./table.ts"
import type { Extent, Measurement, Metric, Workload } from "./workloads.ts"

/** With fewer pairs the verdict is never "within noise". */
const MIN_PAIRS = 7

export interface Comparison {
  readonly storeName: string
  readonly store: Store
  readonly commit: string
  readonly workloads: ReadonlyArray<Workload>
  readonly pairs: number
  /** More pairs are run, up to this number, while the interval of a workload's first metric is not narrow. */
  readonly maxPairs: number
  readonly extent: Extent
}

/** One metric's pairs. */
export interface Compared {
  readonly metric: Metric
  readonly pairs: ReadonlyArray<Pair>
}

/** The values of one measurement of each side. */
type MeasuredPair = readonly [mine: Measurement["values"], theirs: Measurement["values"]]

const pairsOf = (measured: ReadonlyArray<MeasuredPair>, index: number): ReadonlyArray<Pair> =>
  measured.flatMap(([mine, theirs]) => {
    const [a, b] = [mine[index], theirs[index]]
    return a === undefined || b === undefined ? [] : [[a, b] as const]
  })

const signed = (fraction: number) => `${fraction < 0 ? "-" : "+"}${Math.abs(fraction * 100).toFixed(1)} %`

const compareWorkload = async (
  { extent, maxPairs, pairs, store, storeName }: Comparison,
  { child, commit }: Checkout,
  workload: Workload
): Promise<ReadonlyArray<Compared>> => {
  const { counted, producerOnly } = workload
  const subject = { storeName, store, system: "chicory", counted, producerOnly }
  const measure = async (side: Subject) =>
    (await withProcesses(side, (processes) => workload.measure(processes, extent))).values
  const mine = () => measure(subject)
  const theirs = () => measure({ ...subject, child })
  const measured: Array<MeasuredPair> = []
  const [metric] = workload.metrics
  const isSettled = () => {
    if (measured.length < pairs) return false
    const found = pairedRatio(pairsOf(measured, 0))
    return found === undefined || isNarrow(found)
  }
  while (measured.length < maxPairs && !isSettled()) {
    if (measured.length % 2 === 0) {
      const first = await mine()
      measured.push([first, await theirs()])
    } else {
      const first = await theirs()
      measured.push([await mine(), first])
    }
    const [a, b] = (measured.at(-1) as MeasuredPair).map(([value]) => value)
    const shown = a === undefined || b === undefined ? "-" : `${number(a)} and ${number(b)} ${metric?.unit}`
    const change = a === undefined || b === undefined ? "" : `, ${signed(a / b - 1)}`
    console.error(`${metric?.name} pair ${measured.length}, this and ${commit}: ${shown}${change}`)
  }
  return workload.metrics.map((metric, index) => ({ metric, pairs: pairsOf(measured, index) }))
}

/** Says what the interval shows about a difference between the sides. */
export const verdict = ({ unit }: Metric, pairs: number, found: PairedRatio | undefined): string => {
  if (found === undefined) return "-"
  if (!containsOne(found)) return found.ratio > 1 === (unit === "tasks/s") ? "better" : "worse"
  if (!isNarrow(found)) return "undecided, wider than ±8 %"
  return pairs < MIN_PAIRS ? `undecided, fewer than ${MIN_PAIRS} pairs` : "within noise"
}

const formatCompared = (commit: string, compared: ReadonlyArray<Compared>): string => {
  const lines = [["", "", "unit", "this", commit, "this / it", "95 % interval", "pairs", ""]]
  for (const { metric, pairs } of compared) {
    const found = pairedRatio(pairs)
    const middle = (side: 0 | 1) => {
      const value = median(pairs.map((pair) => pair[side]))
      return value === undefined ? "-" : number(value)
    }
    lines.push([
      metric.name,
      metric.what,
      metric.unit,
      middle(0),
      middle(1),
      found ? found.ratio.toFixed(3) : "-",
      found ? `${found.low.toFixed(3)} to ${found.high.toFixed(3)}` : "-",
      `${pairs.length}`,
      verdict(metric, pairs.length, found)
    ])
  }
  return alignColumns(lines, (column) => column < 3 || column === 8)
}

/** Returns the rows of `--json`. */
export const comparedRows = (compared: ReadonlyArray<Compared>) =>
  compared.map(({ metric, pairs }) => {
    const found = pairedRatio(pairs)
    return {
      workload: metric.name,
      unit: metric.unit,
      ...found,
      verdict: verdict(metric, pairs.length, found),
      pairs
    }
  })

/** Runs the comparison and prints it. Reports a workload that fails on either side, and runs the next one. */
export const compare = async (
  comparison: Comparison
): Promise<{ readonly compared: ReadonlyArray<Compared>; readonly failed: boolean }> => {
  let remove = async () => {}
  const compared: Array<Compared> = []
  const failures: Array<string> = []
  try {
    const checkout = makeCheckout(comparison.commit, (run) => (remove = removeAtEnd(run)))
    for (const workload of comparison.workloads) {
      try {
        compared.push(...(await compareWorkload(comparison, checkout, workload)))
      } catch (error) {
        failures.push(`${workload.metrics[0]?.name}: ${(error as Error).message}`)
        console.error(failures.at(-1))
      }
    }
    const { commit, differing } = checkout
    console.log(
      `\n${comparison.storeName}, this is ${describeWorkingTree()}; medians of each side, and the paired ratio:`
    )
    console.log(`\n${formatCompared(commit, compared)}\n`)
    console.log(
      "The ratio is the geometric mean of the pairs' ratios, its interval by Student's t over their logarithms."
    )
    console.log(
      `"Within noise": the interval contains 1 and is narrower than ±8 %, of at least ${MIN_PAIRS} pairs.`
    )
    console.log("tasks/s: above 1 is better; s, ms and requests/s: below 1 is better.")
    if (differing.length > 0) {
      console.log(`The bench itself differs, which may be a part of the difference: ${differing.join(", ")}`)
    }
    for (const line of failures) console.log(line)
    return { compared, failed: failures.length > 0 }
  } finally {
    await remove()
  }
}
