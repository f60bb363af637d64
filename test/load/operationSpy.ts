/** Drivers that count their calls. */
import type { Fusion } from "chicory/driver"
import { Effect, Exit } from "effect"
import type { Drivers } from "../support/storeLocations.ts"

/** Counts the calls of one operation. */
export class Counted {
  calls = 0
  items = 0
  /** The largest size of one call. */
  largest = 0
  /** The peak of items in flight. */
  mostInFlight = 0
  /** Items of calls that succeeded. */
  confirmed = 0
  private inFlight = 0

  /** Counts a call. */
  around<A, E, R>(items: number, size: number, call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      this.calls++
      this.items += items
      this.largest = Math.max(this.largest, size)
      this.inFlight += items
      this.mostInFlight = Math.max(this.mostInFlight, this.inFlight)
      return Effect.onExit(call, (exit) =>
        Effect.sync(() => {
          this.inFlight -= items
          if (Exit.isSuccess(exit)) this.confirmed += items
        })
      )
    })
  }

  /** Resets the counters. */
  reset(): void {
    this.calls = this.items = this.largest = this.mostInFlight = 0
  }
}

/** Drivers and the counters of their calls. */
export interface Spied extends Drivers {
  /** Enqueued messages. */
  readonly sent: Counted
  /** Reads of records, subscriptions included. */
  readonly read: Counted
  /** Ids that the store has subscriptions for. */
  readonly watched: ReadonlySet<string>
}

/** Counts the calls of drivers; `before` runs before each call that enqueues. */
export const spyOn = (
  { backend, broker }: Drivers,
  before: Effect.Effect<void, Error> = Effect.void
): Spied => {
  const sent = new Counted()
  const read = new Counted()
  const watched = new Set<string>()
  const sizeOf = (messages: ReadonlyArray<{ readonly body: string }>) =>
    messages.reduce((sum, { body }) => sum + body.length, 0)
  const fusion: Fusion | undefined = backend.fusion && {
    ...backend.fusion,
    enqueue: (items) =>
      sent.around(
        items.length,
        sizeOf(items.map(({ message }) => message)),
        Effect.andThen(before, backend.fusion!.enqueue(items))
      )
  }
  return {
    sent,
    read,
    watched,
    backend: {
      ...backend,
      fusion,
      read: (ids) => read.around(ids.length, 0, backend.read(ids)),
      subscribe: (ids, until) => {
        for (const id of ids) watched.add(id)
        return read.around(ids.length, 0, backend.subscribe(ids, until))
      },
      unsubscribe: (ids) =>
        Effect.tap(backend.unsubscribe(ids), () =>
          Effect.sync(() => {
            for (const id of ids) watched.delete(id)
          })
        )
    },
    broker: {
      ...broker,
      publish: (messages) =>
        sent.around(messages.length, sizeOf(messages), Effect.andThen(before, broker.publish(messages)))
    }
  }
}

/** Returns the drivers without hints. */
export const withoutHints = (drivers: Drivers): Drivers => ({
  ...drivers,
  backend: {
    ...drivers.backend,
    capabilities: { ...drivers.backend.capabilities, hints: false },
    hints: undefined
  }
})
