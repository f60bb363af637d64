/**
 * The broker's port over SQL: the operations, each in its transaction, and who is told of new messages.
 */
import { Effect } from "effect"
import type { Driver as BrokerDriver, Envelope } from "../BrokerDriver.ts"
import type { Database, StoreError } from "./Database.ts"
import { isPermanent } from "./isPermanent.ts"
import type { Messages } from "./Messages.ts"
import type { Readiness } from "./Readiness.ts"

/** What the driver shares with others of the same store. */
export interface Parts {
  readonly db: Database
  readonly messages: Messages
  readonly readiness: Readiness
}

const PRIORITIES = 256
/** A hundred years. */
const MAX_DELAY_MILLIS = 100 * 365 * 24 * 60 * 60 * 1000

/** Tells this process of messages that came. */
export const published =
  ({ readiness }: Parts) =>
  (batch: ReadonlyArray<Envelope>): Effect.Effect<void> =>
    Effect.sync(() => {
      const queues = new Set<string>()
      let firstMillis = Infinity
      for (const { delayMillis, queue } of batch) {
        queues.add(queue)
        firstMillis = Math.min(firstMillis, delayMillis)
      }
      readiness.came(queues, firstMillis)
    })

/** The driver. */
export const make = (
  parts: Parts,
  options: { readonly name: string; readonly durable: boolean; readonly store: object }
): BrokerDriver<StoreError> => {
  const { db, messages, readiness } = parts
  const tellPublished = published(parts)

  return {
    name: options.name,
    capabilities: {
      priorities: PRIORITIES,
      lease: "store",
      maxDelayMillis: MAX_DELAY_MILLIS,
      durable: options.durable,
      transactional: false
    },
    store: options.store,
    isPermanent,
    publish: (batch) => Effect.andThen(messages.publish(batch), tellPublished(batch)),
    // a look first: a claim that finds nothing keeps no writer waiting
    claim: (asked) =>
      Effect.flatMap(messages.outlook(asked.queues), ({ due, ready }) => {
        if (due) {
          return db.transaction(
            Effect.andThen(messages.promote(asked.queues, asked.max), messages.claim(asked))
          )
        }
        return ready ? db.transaction(messages.claim(asked)) : Effect.succeed([])
      }),
    ready: readiness.ready,
    renew: (handles, leaseMillis) => db.transaction(messages.renew(handles, leaseMillis)),
    ack: messages.ack,
    release: (releases) =>
      Effect.map(db.transaction(messages.release(releases)), ({ firstMillis, queues }) =>
        readiness.came(queues, firstMillis)
      ),
    reject: (rejections) => db.transaction(messages.reject(rejections)),
    counts: messages.counts,
    purge: messages.purge
  }
}
