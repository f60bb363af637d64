/**
 * The broker's port over SQL: the operations, each in its transaction, and who is told of new messages.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import type { BrokerDriver } from "../BrokerDriver.ts"
import * as Database from "./Database.ts"
import { isPermanent } from "./isPermanent.ts"
import * as Messages from "./Messages.ts"
import * as Readiness from "./Readiness.ts"
import type { Options } from "./SqlBackendDriver.ts"

const PRIORITIES = 256
/** A hundred years. */
const MAX_DELAY_MILLIS = 100 * 365 * 24 * 60 * 60 * 1000

/** Over tables that `Migrations.run` brought up to date. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<BrokerDriver<Database.StoreError>, never, SqlClient.SqlClient> {
  const db = yield* Database.make(options)
  const messages = Messages.make(db)
  const readiness = Readiness.make(messages, options.wake)

  return {
    name: options.name,
    capabilities: {
      priorities: PRIORITIES,
      lease: "store",
      maxDelayMillis: MAX_DELAY_MILLIS,
      durable: options.durable,
      transactional: false
    },
    isPermanent,
    publish: (batch) =>
      Effect.map(messages.publish(batch), () => {
        const queues = new Set<string>()
        let firstMillis = Infinity
        for (const { delayMillis, queue } of batch) {
          queues.add(queue)
          firstMillis = Math.min(firstMillis, delayMillis)
        }
        readiness.came(queues, firstMillis)
      }),
    // a look first: a claim that finds nothing keeps no writer waiting
    claim: (asked) =>
      Effect.flatMap(messages.outlook(asked.queues), ({ nextMillis, ready }) => {
        if (nextMillis !== undefined && nextMillis <= 0) {
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
})
