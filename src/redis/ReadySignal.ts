/**
 * Tells workers when a claim is worth while: at once when a message comes, and when a delay or a lease runs out.
 *
 * A claim that finds less than it asked for leaves word that its process is idle, in the same step; whoever publishes
 * then wakes it. It also learns how long until something becomes due, and so does an idle process when a message is
 * published that becomes due sooner.
 */
import { type Clock, Duration, Effect, Latch, Stream } from "effect"
import type { Batch } from "../BrokerDriver.ts"
import type { ProcessChannel } from "./ProcessChannel.ts"

/** What a driver needs of it. */
export interface ReadySignal {
  /** Whether somebody would claim from one of the queues, if he was told. */
  readonly hasSubscribers: (queues: ReadonlyArray<string>) => boolean
  /** Something becomes due in one of the queues after that time. */
  readonly wakeAfter: (queues: ReadonlyArray<string>, afterMillis: number) => void
  /** Reasons to claim from the queues. */
  readonly ready: (queues: Batch<string>) => Stream.Stream<void>
}

/** A worker's ear. */
interface Listener {
  readonly queues: ReadonlySet<string>
  /** There is a reason that was not emitted yet. */
  reason: boolean
  /** When there will be one: monotonic nanoseconds. */
  at: bigint | undefined
  /** Open where it should look again. */
  readonly latch: Latch.Latch
}

/** Longest sleep: the server's clock may be set forward. */
const LONGEST_MILLIS = 60_000

/** Over a process's channel. */
export const make = (channel: ProcessChannel, clock: Clock.Clock): ReadySignal => {
  const listeners = new Set<Listener>()

  const give = (listener: Listener): void => {
    listener.reason = true
    listener.latch.openUnsafe()
  }
  const concerned = (queues: ReadonlyArray<string>): Array<Listener> =>
    [...listeners].filter((listener) => queues.some((queue) => listener.queues.has(queue)))

  const expect = (some: ReadonlyArray<Listener>, afterMillis: number): void => {
    const now = clock.monotonicTimeNanosUnsafe()
    const at = now + BigInt(Math.min(Math.ceil(afterMillis), LONGEST_MILLIS)) * 1_000_000n
    for (const listener of some) {
      if (listener.at !== undefined && listener.at > now && listener.at <= at) continue
      listener.at = at
      listener.latch.openUnsafe()
    }
  }

  /** Waits for the next reason. */
  const awaitReason = (listener: Listener): Effect.Effect<void> =>
    Effect.suspend(() => {
      // closed before the look, so that nothing that comes meanwhile is slept through
      listener.latch.closeUnsafe()
      const { at } = listener
      const left = at === undefined ? undefined : Number(at - clock.monotonicTimeNanosUnsafe()) / 1e6
      if (listener.reason || (left !== undefined && left <= 0)) {
        listener.reason = false
        if (left !== undefined && left <= 0) listener.at = undefined
        return Effect.void
      }
      const woken =
        left === undefined
          ? listener.latch.await
          : Effect.raceFirst(listener.latch.await, clock.sleep(Duration.millis(Math.ceil(left))))
      return Effect.andThen(woken, awaitReason(listener))
    })

  return {
    hasSubscribers: (queues) => concerned(queues).length > 0,
    wakeAfter: (queues, afterMillis) => expect(concerned(queues), afterMillis),
    ready: (queues) =>
      Stream.unwrap(
        Effect.gen(function* () {
          // whoever comes looks once at what is there already
          const listener: Listener = {
            queues: new Set(queues),
            reason: true,
            at: undefined,
            latch: Latch.makeUnsafe(false)
          }
          yield* Effect.acquireRelease(
            Effect.sync(() => listeners.add(listener)),
            () => Effect.sync(() => listeners.delete(listener))
          )
          yield* channel.subscribe({
            onWake: (queue, afterMillis) => {
              if (!listener.queues.has(queue)) return
              if (afterMillis <= 0) give(listener)
              else expect([listener], afterMillis)
            },
            onResync: () => give(listener)
          })
          return Stream.fromEffectRepeat(awaitReason(listener))
        })
      )
  }
}
