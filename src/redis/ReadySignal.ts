/**
 * Wakes workers when a claim is worth while: at once when a message is published, and when a delay or a lease is over.
 *
 * A claim that finds less than it asked for registers its process as idle, in the same step, and the next publish wakes
 * it. The claim also returns how long until something becomes due; an idle process is notified of a message that becomes
 * due sooner.
 */
import { type Clock, Duration, Effect, Latch, Stream } from "effect"
import type { Batch } from "../BrokerDriver.ts"
import type { ProcessChannel } from "./ProcessChannel.ts"
import type { WaitingClaims } from "./WaitingClaims.ts"

/** The wake-ups of the workers of a process. */
export interface ReadySignal {
  /** Returns whether a worker of this process is subscribed to one of the queues. */
  readonly hasSubscribers: (queues: ReadonlyArray<string>) => boolean
  /** Wakes the workers of the queues after a time, unless they wake sooner. */
  readonly wakeAfter: (queues: ReadonlyArray<string>, afterMillis: number) => void
  /** Emits when a claim from the queues is worth while. */
  readonly ready: (queues: Batch<string>) => Stream.Stream<void>
}

/** A worker that is subscribed. */
interface Subscription {
  readonly queues: ReadonlySet<string>
  /** A wake-up was not emitted yet. */
  isWoken: boolean
  /** When the next wake-up is due, in monotonic nanoseconds. */
  wakeAt: bigint | undefined
  /** Open when `isWoken` or `wakeAt` has changed. */
  readonly changed: Latch.Latch
}

/** The longest sleep: the server's clock may be set forward. */
const MAX_SLEEP_MILLIS = 60_000

const wake = (subscription: Subscription): void => {
  subscription.isWoken = true
  subscription.changed.openUnsafe()
}

const wakeAfter = (clock: Clock.Clock, subscriptions: Iterable<Subscription>, afterMillis: number): void => {
  const now = clock.monotonicTimeNanosUnsafe()
  const at = now + BigInt(Math.min(Math.ceil(afterMillis), MAX_SLEEP_MILLIS)) * 1_000_000n
  for (const subscription of subscriptions) {
    const { wakeAt } = subscription
    if (wakeAt !== undefined && wakeAt > now && wakeAt <= at) continue
    subscription.wakeAt = at
    subscription.changed.openUnsafe()
  }
}

const awaitWake = (clock: Clock.Clock, subscription: Subscription): Effect.Effect<void> =>
  Effect.suspend(() => {
    // The latch is closed before the check, so that no wake-up is lost between the two.
    subscription.changed.closeUnsafe()
    const { wakeAt } = subscription
    const left = wakeAt === undefined ? undefined : Number(wakeAt - clock.monotonicTimeNanosUnsafe()) / 1e6
    if (subscription.isWoken || (left !== undefined && left <= 0)) {
      subscription.isWoken = false
      if (left !== undefined && left <= 0) subscription.wakeAt = undefined
      return Effect.void
    }
    const changed =
      left === undefined
        ? subscription.changed.await
        : Effect.raceFirst(subscription.changed.await, clock.sleep(Duration.millis(Math.ceil(left))))
    return Effect.andThen(changed, awaitWake(clock, subscription))
  })

/** Makes the signal of a process. */
export const make = (
  channel: ProcessChannel,
  clock: Clock.Clock,
  waitingClaims: WaitingClaims
): ReadySignal => {
  const subscriptions = new Set<Subscription>()
  const subscriptionsOf = (queues: ReadonlyArray<string>): Array<Subscription> =>
    [...subscriptions].filter((subscription) => queues.some((queue) => subscription.queues.has(queue)))

  const subscribe = Effect.fnUntraced(function* (queues: Batch<string>) {
    // A new subscription is woken once, to claim messages that are already ready.
    const subscription: Subscription = {
      queues: new Set(queues),
      isWoken: true,
      wakeAt: undefined,
      changed: Latch.makeUnsafe(false)
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => subscriptions.add(subscription)),
      () => Effect.sync(() => subscriptions.delete(subscription))
    )
    yield* channel.subscribe({
      onHandedOver: (message) => {
        // of several workers, the first passes it on
        const queue = waitingClaims.onMessage(message)
        if (queue !== undefined) subscriptionsOf([queue]).forEach(wake)
      },
      onWake: (queue, afterMillis) => {
        if (!subscription.queues.has(queue)) return
        if (afterMillis <= 0) wake(subscription)
        else wakeAfter(clock, [subscription], afterMillis)
      },
      onResync: () => wake(subscription)
    })
    return Stream.fromEffectRepeat(awaitWake(clock, subscription))
  })

  return {
    hasSubscribers: (queues) => subscriptionsOf(queues).length > 0,
    wakeAfter: (queues, afterMillis) => wakeAfter(clock, subscriptionsOf(queues), afterMillis),
    ready: (queues) => Stream.unwrap(subscribe(queues))
  }
}
