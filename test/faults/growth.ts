/** Detects growth of a process's memory and handles. */

/** The resources of a process at one moment. */
export interface Sample {
  /** Bytes of reachable objects. */
  readonly heap: number
  /** Bytes of resident memory. */
  readonly rss: number
  /** Open sockets, timers and files. */
  readonly handles: number
}

/** Allowed growth: a ratio of the warm value plus an absolute amount. */
const ALLOWED = {
  heap: { ratio: 0.15, absolute: 8 * 2 ** 20 },
  rss: { ratio: 0.25, absolute: 40 * 2 ** 20 },
  handles: { ratio: 0, absolute: 8 }
} as const satisfies Record<keyof Sample, unknown>

const keys = ["heap", "rss", "handles"] as const

const median = (numbers: ReadonlyArray<number>): number =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0

/** Medians of the second quarter of the samples (warm) and of the last quarter. */
const compare = (samples: ReadonlyArray<Sample>) => {
  const quarter = Math.max(1, Math.floor(samples.length / 4))
  const medians = (some: ReadonlyArray<Sample>): Sample => ({
    heap: median(some.map(({ heap }) => heap)),
    rss: median(some.map(({ rss }) => rss)),
    handles: median(some.map(({ handles }) => handles))
  })
  return { warm: medians(samples.slice(quarter, 2 * quarter)), end: medians(samples.slice(-quarter)) }
}

/** Lists what has grown. Needs at least four samples of each process. */
export const findingsOf = (samples: ReadonlyMap<string, ReadonlyArray<Sample>>): ReadonlyArray<string> =>
  [...samples].flatMap(([name, ofProcess]) => {
    if (ofProcess.length < 4)
      return [`${ofProcess.length} samples of the ${name} are too few to tell whether it grows`]
    const { end, warm } = compare(ofProcess)
    return keys
      .filter((key) => end[key] > warm[key] * (1 + ALLOWED[key].ratio) + ALLOWED[key].absolute)
      .map((key) => `the ${key} of the ${name} grew from ${warm[key]} to ${end[key]}`)
  })

const show = ({ handles, heap, rss }: Sample): string =>
  `heap ${(heap / 2 ** 20).toFixed(1)} MiB, rss ${(rss / 2 ** 20).toFixed(1)} MiB, ${handles} handles`

/** Formats a line for each process. */
export const table = (samples: ReadonlyMap<string, ReadonlyArray<Sample>>): string =>
  [...samples]
    .map(([name, ofProcess]) => {
      const { end, warm } = compare(ofProcess)
      return `${name}: warm ${show(warm)}; in the end ${show(end)}`
    })
    .join("\n")
