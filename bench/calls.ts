/** The loops of the workloads, for systems whose calls return promises. */
import type { Payload, RoundTrips } from "./system.ts"

/** Runs `call` for each item, `width` calls at a time, and returns the results in the order of the items. */
export const forEach = async <A, B>(
  items: ReadonlyArray<A>,
  width: number,
  call: (item: A) => Promise<B>
) => {
  const results: Array<B> = []
  let next = 0
  const caller = async () => {
    while (next < items.length) {
      const index = next++
      results[index] = await call(items[index] as A)
    }
  }
  await Promise.all(Array.from({ length: width }, caller))
  return results
}

/** Measures round trips. `call` enqueues a task, awaits its result and returns the result's value. */
export const roundTrips = async (options: RoundTrips, call: (payload: Payload) => Promise<number>) => {
  const begun = performance.now()
  const latencies: Array<number> = []
  await forEach(options.payloads, options.callers, async (payload) => {
    const start = performance.now()
    if (start - begun > options.maxMillis) return
    const value = await call(payload)
    if (value !== payload.value) throw new Error(`the result of ${payload.value} came back as ${value}`)
    latencies.push(performance.now() - start)
  })
  return latencies
}

/** Counts the tasks that a worker has finished. `reached(n)` resolves when there are `n`. */
export const makeCounter = () => {
  let count = 0
  let goal = Infinity
  let resolve = () => {}
  return {
    add: (n: number) => {
      count += n
      if (count >= goal) resolve()
    },
    reached: (n: number) =>
      new Promise<void>((done) => {
        goal = n
        resolve = done
        if (count >= n) done()
      })
  }
}
