/**
 * Tells workers when a claim is worth while: at once when a message comes, in this process or another one, and when
 * a delay or a lease runs out.
 */
import { Effect, Latch, Stream } from "effect"
import type { Batch } from "../../BrokerDriver.ts"
import type { Messages } from "../broker/Messages.ts"
import type { StoreError } from "../Database.ts"
import type { WorkerNotifier } from "./WorkerNotifier.ts"

/** What a driver needs of it. */
export interface ReadySignal {
  /** Messages came to these queues, the first of them due after that time. */
  readonly notify: (queues: ReadonlySet<string>, firstMillis: number) => void
  /** Reasons to claim from the queues. */
  readonly ready: (queues: Batch<string>) => Stream.Stream<void, StoreError>
}

interface Listener {
  readonly queues: ReadonlySet<string>
  readonly come: (firstMillis: number) => void
}

/** Shortest pause between two looks for the sake of a time; what became due and is not claimed is looked at each second. */
const SOONEST_MILLIS = 1
const LEFT_MILLIS = 1000
/** Longest pause: the store's clock may be set forward. */
const LATEST_MILLIS = 60_000

/** Over the messages of one database. */
export const make = (messages: Messages, wake: WorkerNotifier): ReadySignal => {
  const listeners = new Set<Listener>()

  const follow = (queues: Batch<string>): Stream.Stream<void, StoreError> =>
    Stream.unwrap(
      Effect.gen(function* () {
        const look = Latch.makeUnsafe(true)
        let came = true
        let timer: NodeJS.Timeout | undefined
        let timerAt = Infinity
        /** Looks after that time, unless it does so sooner anyway. */
        const lookAfter = (millis: number): void => {
          const at = performance.now() + millis
          if (timer !== undefined && timerAt <= at) return
          clearTimeout(timer)
          timerAt = at
          timer = setTimeout(() => {
            timer = undefined
            look.openUnsafe()
          }, millis)
        }
        const listener: Listener = {
          queues: new Set(queues),
          come: (firstMillis) => {
            if (firstMillis > 0) return lookAfter(Math.min(firstMillis, LATEST_MILLIS))
            came = true
            look.openUnsafe()
          }
        }
        yield* Effect.acquireRelease(
          Effect.sync(() => listeners.add(listener)),
          () =>
            Effect.sync(() => {
              listeners.delete(listener)
              clearTimeout(timer)
            })
        )
        yield* wake.subscribe(queues, (certain) => {
          if (certain) came = true
          look.openUnsafe()
        })

        const isReady: Effect.Effect<boolean, StoreError> = Effect.suspend(() => {
          look.closeUnsafe()
          if (came) {
            came = false
            lookAfter(LEFT_MILLIS)
            return Effect.succeed(true)
          }
          return Effect.map(messages.status(queues), ({ due, nextMillis, ready }) => {
            if (nextMillis !== undefined) {
              lookAfter(Math.min(Math.max(nextMillis, SOONEST_MILLIS), LATEST_MILLIS))
            }
            if (ready || due) lookAfter(LEFT_MILLIS)
            return ready || due
          })
        })
        const next: Effect.Effect<void, StoreError> = Effect.repeat(Effect.andThen(look.await, isReady), {
          until: (ready) => ready
        })
        return Stream.fromEffectRepeat(Effect.asVoid(next))
      })
    )

  return {
    notify: (queues, firstMillis) => {
      wake.notify(queues)
      for (const listener of listeners) {
        for (const queue of queues) {
          if (!listener.queues.has(queue)) continue
          listener.come(firstMillis)
          break
        }
      }
    },
    ready: follow
  }
}
