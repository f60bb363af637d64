/** A producer that sends as fast as it can to a slow store: `flood.ts <location> <options as JSON>`. */
import { NodeRuntime } from "@effect/platform-node"
import { Array as Arr, Effect } from "effect"
import * as StoreLocations from "../support/storeLocations.ts"
import { alive, memory, report } from "./figures.ts"
import { Mark } from "./loadTasks.ts"
import { spyOn } from "./operationSpy.ts"

/** What the producer sends. */
export interface Options {
  readonly count: number
  /** Concurrent calls. */
  readonly concurrency: number
  /** Milliseconds that are added to every call of the store. */
  readonly latency: number
}

const location = StoreLocations.decode(process.argv[2])
const { concurrency, count, latency } = JSON.parse(process.argv[3]!) as Options

let asked = 0
let returned = 0
/** The peak of concurrent calls. */
let mostOpen = 0
/** Calls that returned before the store confirmed them. */
let early = 0
/** Live MiB after a third of the tasks, and their peak from then on. */
let warm = 0
let later = 0

Effect.gen(function* () {
  const { sent, ...drivers } = spyOn(yield* StoreLocations.drivers(location), Effect.sleep(latency))
  const store = yield* StoreLocations.services(drivers)
  const send = (n: number) =>
    Effect.suspend(() => {
      asked++
      mostOpen = Math.max(mostOpen, asked - returned)
      return Effect.map(Mark.delay(n), () => {
        returned++
        if (returned > sent.confirmed) early++
        if (returned === Math.ceil(count / 3)) warm = alive()
        else if (returned > count / 3 && returned % Math.ceil(count / 10) === 0) {
          later = Math.max(later, alive())
        }
      })
    })
  yield* Effect.forEach(Arr.range(0, count - 1), send, { concurrency, discard: true }).pipe(
    Effect.provideContext(store)
  )
  const { calls, confirmed, mostInFlight } = sent
  report("done", { returned, confirmed, calls, mostInFlight, mostOpen, early, warm, later, ...memory() })
}).pipe(Effect.scoped, NodeRuntime.runMain)
