/**
 * A producer whose store becomes unavailable and comes back: `storeDown.ts <location> <options as JSON>`. SIGUSR2
 * announces each.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Backend, Broker } from "chicory"
import { Effect, Exit, Logger, Option, Queue } from "effect"
import { eventually } from "../support/storeFixture.ts"
import * as StoreLocations from "../support/storeLocations.ts"
import { peakOf, memory, report } from "./figures.ts"
import { Mark } from "./loadTasks.ts"

/** What the producer sends. */
export interface Options {
  /** Concurrent calls. */
  readonly concurrency: number
  /** Rounds of calls while the store is unavailable. */
  readonly rounds: number
}

const location = StoreLocations.decode(process.argv[2])
const { concurrency, rounds } = JSON.parse(process.argv[3]!) as Options
const numbers = Array.from({ length: concurrency }, (_, n) => n)

Effect.gen(function* () {
  const signals = yield* Queue.unbounded<void>()
  process.on("SIGUSR2", () => Queue.offerUnsafe(signals, undefined))
  let sent = 0
  /** Calls that failed with a retryable typed error. */
  let typed = 0
  /** The longest call in milliseconds. */
  let longest = 0
  const send = (n: number) =>
    Effect.suspend(() => {
      const begin = performance.now()
      return Effect.map(Effect.exit(Mark.delay(n)), (exit) => {
        longest = Math.max(longest, Math.round(performance.now() - begin))
        if (Exit.isSuccess(exit)) return sent++
        const error = Option.getOrUndefined(Exit.findErrorOption(exit))
        const isTyped = error instanceof Backend.BackendError || error instanceof Broker.BrokerError
        return isTyped && error.retryable ? typed++ : undefined
      })
    })
  const sendAll = Effect.forEach(numbers, send, { concurrency: "unbounded", discard: true })
  const takeFigures = () => {
    const figures = { sent, typed, longest, ...memory() }
    sent = typed = longest = 0
    return figures
  }

  yield* sendAll
  report("there", takeFigures())
  yield* Queue.take(signals)
  for (let round = 1; round <= rounds; round++) {
    const [most] = yield* peakOf(sendAll)
    report(`away ${round}`, { most, ...takeFigures() })
  }
  yield* Queue.take(signals)
  yield* eventually(Effect.isSuccess(Mark.delay(0)))
  yield* sendAll
  report("back", takeFigures())
}).pipe(
  Effect.provide(StoreLocations.layer(location)),
  // the warnings of lost connections are expected
  Effect.provide(Logger.layer([])),
  Effect.scoped,
  NodeRuntime.runMain
)
