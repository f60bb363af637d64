/**
 * Record and message, outcome and acknowledgement, each pair in one transaction.
 */
import { Array as Arr, Effect } from "effect"
import type { Fusion, Settled, Settlement } from "../BackendDriver.ts"
import type { Release } from "../BrokerDriver.ts"
import { putBackMillis } from "../internal/putBack.ts"
import type { StoreError } from "./Database.ts"
import type { Released } from "./Messages.ts"
import * as SqlBackendDriver from "./SqlBackendDriver.ts"
import * as SqlBrokerDriver from "./SqlBrokerDriver.ts"

interface Fused {
  readonly settlement: Settlement
  readonly handle: string
}

/** Over a backend and a broker in the same tables. */
export const make = (
  backend: SqlBackendDriver.Parts,
  broker: SqlBrokerDriver.Parts,
  store: object
): Fusion<StoreError> => {
  const { changes, db, enqueuing, running } = backend
  const { messages, readiness } = broker
  const tellCreated = SqlBackendDriver.created(backend)
  const tellPublished = SqlBrokerDriver.published(broker)

  const followUp = Effect.fnUntraced(function* (
    items: ReadonlyArray<Fused>,
    answers: ReadonlyArray<Settled>
  ) {
    const done: Array<string> = []
    const releases: Array<Release> = []
    for (const [index, { handle, settlement }] of items.entries()) {
      const settled = answers[index]!
      if (settled === "Lost") continue
      const afterMillis = putBackMillis(settlement, settled)
      if (afterMillis === undefined) done.push(handle)
      else releases.push({ handle, afterMillis })
    }
    if (Arr.isReadonlyArrayNonEmpty(done)) yield* messages.ack(done)
    if (Arr.isReadonlyArrayNonEmpty(releases)) return yield* messages.release(releases)
    return undefined
  })

  return {
    store,
    enqueue: (items) => {
      const publish = Effect.map(
        enqueuing.create(Arr.map(items, ({ record }) => record)),
        (answers) => [answers, items.filter((_, index) => answers[index]!._tag === "Created")] as const
      ).pipe(
        Effect.tap(([, made]) => {
          const envelopes = made.map(({ message }) => message)
          return Arr.isReadonlyArrayNonEmpty(envelopes) ? messages.publish(envelopes) : Effect.void
        })
      )
      return Effect.flatMap(db.transaction(publish), ([answers, made]) =>
        made.length === 0
          ? Effect.succeed(answers)
          : tellCreated(made.map(({ record }) => record)).pipe(
              Effect.andThen(tellPublished(made.map(({ message }) => message))),
              Effect.as(answers)
            )
      )
    },
    settle: (items) => {
      const settle = Effect.gen(function* () {
        const { answers, changed } = yield* running.settle(Arr.map(items, ({ settlement }) => settlement))
        yield* changes.record(changed)
        const released: Released | undefined = yield* followUp(items, answers)
        return { answers, changed, released }
      })
      return Effect.map(db.transaction(settle), ({ answers, changed, released }) => {
        changes.tell(changed)
        if (released !== undefined) readiness.came(released.queues, released.firstMillis)
        return answers
      })
    }
  }
}
